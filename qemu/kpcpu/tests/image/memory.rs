//! Physical memory with holes, and page tables in it.

use std::collections::BTreeMap;

const PAGE: u64 = 0x1000;

/// Pages that were written to; the others hold zeros.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(BTreeMap<u64, Box<[u8]>>);

/// A page of x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
    /// 1 GiB.
    Huge,
}

impl Page {
    pub(crate) fn bytes(self) -> u64 {
        1 << (12 + 9 * (self.level() - 1))
    }

    /// The level whose entry it is.
    fn level(self) -> u32 {
        match self {
            Self::Small => 1,
            Self::Large => 2,
            Self::Huge => 3,
        }
    }
}

impl Memory {
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        for (at, &byte) in (address..).zip(bytes) {
            let page = self.0.entry(at / PAGE);
            let page = page.or_insert_with(|| vec![0; 0x1000].into());
            page[usize::try_from(at % PAGE).expect("small")] = byte;
        }
    }

    pub(crate) fn u64(&self, address: u64) -> u64 {
        let Some(page) = self.0.get(&(address / PAGE)) else {
            return 0;
        };
        let at = usize::try_from(address % PAGE).expect("small");
        u64::from_le_bytes(page[at..at + 8].try_into().expect("aligned"))
    }

    /// The pages in a stretch, each with its address.
    pub(crate) fn pages(&self, from: u64, bytes: u64) -> impl Iterator<Item = (u64, &[u8])> {
        let range = from / PAGE..(from + bytes) / PAGE;
        self.0
            .range(range)
            .map(|(page, bytes)| (page * PAGE, &**bytes))
    }
}

/// Maps a page in the tables of `root` with `levels`; new tables are taken from `free`.
pub(crate) fn map(
    memory: &mut Memory,
    (root, levels): (u64, u32),
    free: &mut u64,
    (address, physical): (u64, u64),
    page: Page,
) {
    let mut table = root;
    for level in (page.level()..=levels).rev() {
        let index = address >> (12 + 9 * (level - 1)) & 0x1ff;
        let entry = table + 8 * index;
        if level == page.level() {
            let large = if level > 1 { 1 << 7 } else { 0 };
            // The upper bits are the no-execute bit and what software keeps there.
            let value = physical | large | 1 | 1 << 63 | 1 << 52;
            memory.write(entry, &value.to_le_bytes());
            return;
        }
        if memory.u64(entry) & 1 == 0 {
            memory.write(entry, &(*free | 1).to_le_bytes());
            *free += PAGE;
        }
        table = memory.u64(entry) & 0x000f_ffff_ffff_f000;
    }
}
