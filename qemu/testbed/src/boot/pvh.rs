//! The start info of a PVH boot.
//!
//! Layout: Xen, `xen/include/public/arch-x86/hvm/start_info.h`. QEMU fills version 1, with the memory map.

use super::acpi::RootTable;
use super::info::{BootInfo, PhysRange};
use crate::memory::read_phys;

/// `XEN_HVM_MEMMAP_TYPE_RAM`.
const TYPE_RAM: u32 = 1;

/// Reads the start info at physical address `at`.
pub(super) fn read(at: u64) -> BootInfo {
    let mut info = BootInfo::new();
    let version = read_phys::<u32>(at + 4);
    let n_modules = read_phys::<u32>(at + 12);
    let modules = read_phys::<u64>(at + 16);
    let command_line = read_phys::<u64>(at + 24);
    let rsdp = read_phys::<u64>(at + 32);
    assert!(
        version >= 1,
        "the PVH start info has no memory map (version {version})"
    );
    let map = read_phys::<u64>(at + 40);
    let n_entries = read_phys::<u32>(at + 48);

    if command_line != 0 {
        info.set_command_line(command_line);
    }
    if n_modules > 0 {
        let start = read_phys::<u64>(modules);
        let size = read_phys::<u64>(modules + 8);
        info.module = Some(PhysRange {
            start,
            end: start + size,
        });
    }
    info.acpi = (rsdp != 0).then(|| RootTable::named_by(rsdp));
    for entry in (0..u64::from(n_entries)).map(|n| map + n * 24) {
        let start = read_phys::<u64>(entry);
        let size = read_phys::<u64>(entry + 8);
        if read_phys::<u32>(entry + 16) == TYPE_RAM {
            info.add_usable(PhysRange {
                start,
                end: start + size,
            });
        }
    }
    info
}
