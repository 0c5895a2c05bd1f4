//! x86-64's page tables, walked from outside. Intel SDM, volume 3A, "4-Level Paging and 5-Level Paging".

use std::io;

use thiserror::Error;

use crate::memory::{PhysicalMemory, read_u64};

const PRESENT: u64 = 1 << 0;
const PAGE_SIZE_BIT: u64 = 1 << 7;
/// Bits 51 to 12 of an entry. A processor that has fewer address bits keeps the others 0.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// How many levels the tables have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// `CR4.LA57` clear: 48-bit addresses.
    Four,
    /// `CR4.LA57` set: 57-bit addresses.
    Five,
}

impl Levels {
    fn count(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Five => 5,
        }
    }

    /// Do the bits above the highest one that is translated repeat it?
    fn is_canonical(self, address: u64) -> bool {
        let unused = 64 - (12 + 9 * self.count());
        let extended = address.cast_signed() << unused >> unused;
        extended.cast_unsigned() == address
    }
}

/// One address space: the root of its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpace {
    root: u64,
    levels: Levels,
}

/// Where a virtual address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The physical address.
    pub physical: u64,
    /// How many bytes from there on belong to the same page.
    pub bytes_left: u64,
}

/// A virtual address that is not mapped, or whose tables the source does not have.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TranslateError {
    /// Its upper bits are not the copies that they have to be.
    #[error("{0:#x} is not a canonical address")]
    NotCanonical(u64),
    /// An entry on the way says "not present".
    #[error(
        "{address:#x} is not mapped: the level-{level} entry at physical {entry:#x} is not present"
    )]
    NotPresent {
        /// What was looked for.
        address: u64,
        /// 1 is the page table, 4 or 5 the root.
        level: u32,
        /// Where the entry is.
        entry: u64,
    },
    /// A table lies outside the source.
    #[error(
        "{address:#x} cannot be looked up: its level-{level} entry at physical {entry:#x} is not in the image"
    )]
    TableAbsent {
        /// What was looked for.
        address: u64,
        /// 1 is the page table, 4 or 5 the root.
        level: u32,
        /// Where the entry would be.
        entry: u64,
    },
    /// The file behind the source failed.
    #[error("reading the page tables: {0}")]
    Io(#[from] io::Error),
}

impl AddressSpace {
    /// Takes the root as it stands in `CR3`, whose low bits are no part of the address.
    pub fn new(cr3: u64, levels: Levels) -> Self {
        Self {
            root: cr3 & ADDRESS,
            levels,
        }
    }

    /// Translates one address. The walk is as long as the tables are deep, whatever they say.
    ///
    /// # Errors
    ///
    /// [`TranslateError`], which names the entry that ended the walk.
    pub fn translate(
        &self,
        memory: &dyn PhysicalMemory,
        address: u64,
    ) -> Result<Mapping, TranslateError> {
        if !self.levels.is_canonical(address) {
            return Err(TranslateError::NotCanonical(address));
        }
        let mut table = self.root;
        for level in (1..=self.levels.count()).rev() {
            let shift = 12 + 9 * (level - 1);
            let entry = table + ((address >> shift) & 0x1ff) * 8;
            let value = read_u64(memory, entry)?.ok_or(TranslateError::TableAbsent {
                address,
                level,
                entry,
            })?;
            if value & PRESENT == 0 {
                return Err(TranslateError::NotPresent {
                    address,
                    level,
                    entry,
                });
            }
            // At levels 2 and 3 the bit makes the entry a page of 2 MiB or 1 GiB; at the others it means something else.
            let is_page = level == 1 || (matches!(level, 2 | 3) && value & PAGE_SIZE_BIT != 0);
            if is_page {
                let bytes = 1 << shift;
                let offset = address & (bytes - 1);
                return Ok(Mapping {
                    physical: (value & ADDRESS & !(bytes - 1)) + offset,
                    bytes_left: bytes - offset,
                });
            }
            table = value & ADDRESS;
        }
        unreachable!("level 1 ends the walk")
    }
}
