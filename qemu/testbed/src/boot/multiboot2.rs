//! The boot information of a multiboot2 loader.
//!
//! Layout: Multiboot2 Specification, section "Boot information format".
//!
//! Read by hand: five tags are a page of code, while the crate `multiboot2` brings fifteen others with it (`syn`, `uefi-raw`,
//! ...), and its types borrow the loader's memory, which the frame allocator takes over right after.

use super::acpi::RootTable;
use super::info::{BootInfo, PhysRange};
use crate::memory::read_phys;

const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_MODULE: u32 = 3;
const TAG_MEMORY_MAP: u32 = 6;
const TAG_ACPI_OLD: u32 = 14;
const TAG_ACPI_NEW: u32 = 15;

/// Reads the boot information at physical address `at`.
pub(super) fn read(at: u64) -> BootInfo {
    let mut info = BootInfo::new();
    let end = at + u64::from(read_phys::<u32>(at));
    let mut tag = at + 8;
    while tag + 8 <= end {
        let kind = read_phys::<u32>(tag);
        let size = u64::from(read_phys::<u32>(tag + 4));
        match kind {
            TAG_END => break,
            TAG_COMMAND_LINE => info.set_command_line(tag + 8),
            TAG_MODULE if info.module.is_none() => {
                info.module = Some(PhysRange {
                    start: u64::from(read_phys::<u32>(tag + 8)),
                    end: u64::from(read_phys::<u32>(tag + 12)),
                });
            }
            TAG_MEMORY_MAP => read_memory_map(&mut info, tag, size),
            TAG_ACPI_OLD | TAG_ACPI_NEW => info.acpi = Some(RootTable::named_by(tag + 8)),
            _ => {}
        }
        tag += size.max(8).next_multiple_of(8);
    }
    info
}

/// Takes the usable ranges (type 1) of the memory map tag.
fn read_memory_map(info: &mut BootInfo, tag: u64, size: u64) {
    let entry_size = u64::from(read_phys::<u32>(tag + 8)).max(24);
    let mut entry = tag + 16;
    while entry + entry_size <= tag + size {
        if read_phys::<u32>(entry + 16) == 1 {
            let start = read_phys::<u64>(entry);
            info.add_usable(PhysRange {
                start,
                end: start + read_phys::<u64>(entry + 8),
            });
        }
        entry += entry_size;
    }
}
