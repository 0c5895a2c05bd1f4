//! Builds kernels and dumps that no emulator makes: any page tables, any place in memory, any damage.
//!
//! The kernel has one unit, two counters of it, a variable, a counter, and as many CPUs and LWPs as asked for. Everything lies
//! where the constants say, so that a test can damage any field.

#![expect(dead_code, reason = "each test uses a part")]

mod elf;
mod memory;
pub(crate) mod questions;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pcu9_kpcpu::{Error, Kpcpu};

pub(crate) use elf::{KERNEL_BASE, core_header, kernel_file};
pub(crate) use memory::{Memory, Page, map};

/// The header, and what it points to: addresses as linked.
pub(crate) const HEADER: u64 = KERNEL_BASE + 0x1000;
pub(crate) const GROUPS: u64 = KERNEL_BASE + 0x2000;
pub(crate) const DESCRIPTORS: u64 = KERNEL_BASE + 0x4000;
pub(crate) const TEXTS: u64 = KERNEL_BASE + 0x4800;
pub(crate) const LIST: u64 = KERNEL_BASE + 0x5000;
pub(crate) const LWPS: u64 = KERNEL_BASE + 0x5100;
pub(crate) const AREA: u64 = KERNEL_BASE + 0x6000;
pub(crate) const HANDLE: u64 = KERNEL_BASE + 0x6800;
pub(crate) const TEMPLATE: u64 = KERNEL_BASE + 0x7000;
pub(crate) const IMAGE_BYTES: u64 = 0x8000;
/// In each CPU's area, and in the template.
pub(crate) const COLOUR: u64 = TEMPLATE + 64;
pub(crate) const PACKETS: u64 = TEMPLATE + 72;
pub(crate) const CPU_PCU: u64 = TEMPLATE + 128;
pub(crate) const ZPCPU: u64 = TEMPLATE + 256;
pub(crate) const STRIDE: u64 = 0x400;
/// An LWP's fields.
pub(crate) const LWP_BYTES: u64 = 64;
pub(crate) const LWP_WORD: u64 = 48;

/// What the kernel and its machine are like.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// 4 or 5.
    pub(crate) levels: u32,
    /// The pages by which the CPUs' areas are mapped.
    pub(crate) page: Page,
    /// Where in physical memory the areas are.
    pub(crate) areas: u64,
    /// The CPUs that are present; all are started.
    pub(crate) cpus: Vec<u32>,
    /// The bound of ids.
    pub(crate) max_cpus: u32,
    /// How many LWPs.
    pub(crate) n_lwps: u64,
    /// The physical memory that the dump has: where it begins, and how much.
    pub(crate) ram: Vec<(u64, u64)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            levels: 4,
            page: Page::Small,
            areas: 0x20_000,
            cpus: vec![0, 2, 3],
            max_cpus: 64,
            n_lwps: 3,
            ram: vec![(0, 0x30_000)],
        }
    }
}

/// A kernel and its memory.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) options: Options,
    pub(crate) memory: Memory,
    pub(crate) kernel: Vec<u8>,
    /// The control registers that the notes tell of the only CPU.
    pub(crate) cr3: u64,
}

impl Image {
    pub(crate) fn new(options: Options) -> Self {
        let mut image = Self {
            memory: Memory::default(),
            kernel: kernel_file(
                &[0xab; 20],
                &[("pcu9_header", HEADER, 384), ("plain", LIST, 8)],
            ),
            cr3: 0x10_000,
            options,
        };
        image.map();
        image.fill();
        image
    }

    /// The address at which physical memory appears.
    pub(crate) fn direct_map(&self) -> u64 {
        match self.options.levels {
            5 => 0xff00_0000_0000_0000,
            _ => 0xffff_8000_0000_0000,
        }
    }

    fn map(&mut self) {
        let (levels, root) = (self.options.levels, self.cr3);
        let mut free = root + 0x1000;
        let memory = &mut self.memory;
        for at in (0..IMAGE_BYTES).step_by(0x1000) {
            map(
                memory,
                (root, levels),
                &mut free,
                (KERNEL_BASE + at, at),
                Page::Small,
            );
        }
        let page = self.options.page;
        let (first, bytes) = (self.options.areas, STRIDE * self.options.cpus.len() as u64);
        let mut at = first & !(page.bytes() - 1);
        let direct_map = self.direct_map();
        while at < first + bytes {
            map(
                &mut self.memory,
                (root, levels),
                &mut free,
                (direct_map + at, at),
                page,
            );
            at += page.bytes();
        }
    }

    /// The offset of the CPU that is number `place` among the present ones.
    pub(crate) fn offset(&self, place: usize) -> u64 {
        let area = self.direct_map() + self.options.areas + STRIDE * place as u64;
        area.wrapping_sub(TEMPLATE)
    }

    fn fill(&mut self) {
        let options = self.options.clone();
        let n_groups = options.max_cpus.div_ceil(64);
        self.fill_header(n_groups);
        self.fill_texts();
        for (place, &cpu) in options.cpus.iter().enumerate() {
            let group = GROUPS + u64::from(cpu / 64) * 536;
            for set in [0, 8] {
                let old = self.memory.u64(group + set - KERNEL_BASE);
                self.put(group + set, &(old | 1 << (cpu % 64)).to_le_bytes());
            }
            let offset = self.offset(place);
            self.put(group + 24 + 8 * u64::from(cpu % 64), &offset.to_le_bytes());
            self.fill_cpu(cpu, offset);
        }
        for n in 0..options.n_lwps {
            let at = LWPS + n * LWP_BYTES;
            let next = if n + 1 < options.n_lwps {
                at + LWP_BYTES
            } else {
                0
            };
            self.put_u64s(at, &[next, n + 1]);
            self.put(at + 16, format!("lwp {n}").as_bytes());
            self.put(at + LWP_WORD, &2u64.to_le_bytes());
            self.put(at + 56, &AREA.to_le_bytes());
        }
        let first = if options.n_lwps > 0 { LWPS } else { 0 };
        self.put(LIST, &first.to_le_bytes());
        self.fill_area();
        self.put(HANDLE, &ZPCPU.to_le_bytes());
    }

    fn fill_header(&mut self, n_groups: u32) {
        let at = HEADER;
        self.put(at, b"\x7fpcu9 percpu hdr");
        self.put_u32s(at + 16, &[1, 384, 0x0102_0304, 62]);
        self.put_u64s(at + 32, &[HEADER, 2]);
        self.put_u32s(at + 48, &[20]);
        self.put(at + 52, &[0xab; 20]);
        self.put_u32s(at + 84, &[self.options.max_cpus]);
        self.put_u64s(at + 88, &[GROUPS]);
        self.put_u32s(at + 96, &[n_groups, 536]);
        self.put_u64s(at + 104, &[TEMPLATE, ZPCPU, STRIDE, ZPCPU, TEMPLATE]);
        self.put_u32s(at + 144, &[64, 48, 16, 64]);
        self.put_u64s(at + 160, &[DESCRIPTORS, DESCRIPTORS + 4 * 64]);
        let pcu = [
            1, 2, 72, 0, 8, 16, 24, 32, 40, 0, 8, 16, 24, 24, 0, 4, 8, 16,
        ];
        self.put_u32s(at + 176, &pcu);
        self.put_u64s(at + 248, &[TEXTS, 12, TEXTS + 16, 4]);
        self.put_u64s(at + 280, &[LIST]);
        self.put_u32s(at + 288, &[0, 32, 8, 64, 16, 16]);
        // The FPU is unit 0, the area behind a pointer, in the standard format.
        self.put_u32s(at + 312, &[0, 1, 56, 2, 832, 0]);
        self.put_u64s(at + 336, &[7, self.cr3]);
        self.put_u32s(at + 352, &[self.options.levels, 0]);
    }

    fn fill_texts(&mut self) {
        self.put(TEXTS, b"traps\nsaves\n\0\0\0\0fpu\n");
        let table = [
            ("kernel::COLOUR", "u64", COLOUR, 1),
            ("kernel::PACKETS", "u64", PACKETS, 2),
            ("kernel::LATE", "u64", HANDLE, 3),
            ("other::COLOUR", "u64", COLOUR, 1),
        ];
        for (n, (name, type_name, at, kind)) in (0..).zip(table) {
            let (text, entry) = (TEXTS + 0x100 + 32 * n, DESCRIPTORS + 64 * n);
            self.put(text, name.as_bytes());
            self.put(text + 24, type_name.as_bytes());
            let (name, type_bytes) = (name.len() as u64, type_name.len() as u64);
            self.put_u64s(entry, &[text, name, text + 24, type_bytes, at, 8]);
            self.put_u32s(entry + 48, &[kind, 8]);
        }
    }

    fn fill_cpu(&mut self, cpu: u32, offset: u64) {
        let at = |name: u64| name.wrapping_add(offset);
        let (block, pcu) = (at(TEMPLATE), at(CPU_PCU));
        self.put_u32s(block, &[cpu, 2]);
        self.put_u64s(block + 8, &[LWPS, 0, offset, block, pcu]);
        self.put(block + 48, &[0xee; 16]);
        self.put_u64s(at(COLOUR), &[colour(cpu), packets(cpu)]);
        // The gate is open, the owner live with serial 5.
        self.put_u64s(pcu, &[1, 0, 0, 5, LWPS, 5 << 16 | 1, 7, 30, 20]);
        self.put_u64s(at(ZPCPU), &[u64::from(cpu) + 1]);
    }

    fn fill_area(&mut self) {
        self.put(AREA, &[0x7f, 0x02]);
        self.put(AREA + 24, &0x1fa0u32.to_le_bytes());
        self.put(AREA + 32, &[0x11; 10]);
        self.put(AREA + 160, &[0x22; 16]);
        self.put(AREA + 512, &7u64.to_le_bytes());
        self.put(AREA + 576, &[0x33; 16]);
    }

    /// Writes to the kernel's image or through the direct map.
    pub(crate) fn put(&mut self, address: u64, bytes: &[u8]) {
        let base = if address >= KERNEL_BASE {
            KERNEL_BASE
        } else {
            self.direct_map()
        };
        self.memory.write(address - base, bytes);
    }

    pub(crate) fn put_u32s(&mut self, address: u64, values: &[u32]) {
        for (n, value) in (0..).zip(values) {
            self.put(address + 4 * n, &value.to_le_bytes());
        }
    }

    pub(crate) fn put_u64s(&mut self, address: u64, values: &[u64]) {
        for (n, value) in (0..).zip(values) {
            self.put(address + 8 * n, &value.to_le_bytes());
        }
    }

    /// Writes kernel and dump to files and opens them.
    pub(crate) fn open(&self) -> Result<Kpcpu, Error> {
        let dir = tempfile::tempdir().expect("a directory");
        let (kernel, dump) = (dir.path().join("kernel"), dir.path().join("dump"));
        std::fs::write(&kernel, &self.kernel).expect("written");
        self.write(&dump);
        Kpcpu::open(&kernel, &dump)
    }

    /// Writes the dump; what holds only zeros takes no room.
    pub(crate) fn write(&self, path: &Path) {
        let head = core_header(&self.options.ram, self.cr3, self.options.levels);
        let file = File::create(path).expect("created");
        file.write_all_at(&head, 0).expect("written");
        let mut offset = head.len() as u64;
        for &(from, bytes) in &self.options.ram {
            for (at, page) in self.memory.pages(from, bytes) {
                file.write_all_at(page, offset + (at - from))
                    .expect("written");
            }
            offset += bytes;
        }
        file.set_len(offset)
            .expect("the file is as long as it says");
    }

    /// The dump's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut all = core_header(&self.options.ram, self.cr3, self.options.levels);
        for &(from, bytes) in &self.options.ram {
            let begin = all.len();
            all.resize(begin + usize::try_from(bytes).expect("small"), 0);
            for (at, page) in self.memory.pages(from, bytes) {
                let at = begin + usize::try_from(at - from).expect("small");
                all[at..at + page.len()].copy_from_slice(page);
            }
        }
        all
    }
}

/// What the variable is on a CPU.
pub(crate) fn colour(cpu: u32) -> u64 {
    0x00c0_0000 + u64::from(cpu)
}

/// What a CPU has added to the counter.
pub(crate) fn packets(cpu: u32) -> u64 {
    1000 + u64::from(cpu)
}
