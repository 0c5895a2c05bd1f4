//! Which CPUs the machine has: the local APIC entries of ACPI's MADT.
//!
//! ACPI Specification, sections "Root System Description Pointer (RSDP)", "System Description Table Header" and
//! "Multiple APIC Description Table (MADT)".

use alloc::vec::Vec;

use super::info::{self, BootInfo};
use crate::memory::read_phys;

/// Size of the header that every table begins with.
const HEADER_BYTES: u64 = 36;

/// The table that names all others.
#[derive(Clone, Copy, Debug)]
pub(super) struct RootTable {
    address: u64,
    /// Size of an entry: 4 in the RSDT, 8 in the XSDT.
    entry_bytes: u64,
}

impl RootTable {
    /// The root table that the root pointer at physical address `rsdp` names.
    pub(super) fn named_by(rsdp: u64) -> Self {
        let extended = read_phys::<u8>(rsdp + 15) >= 2 && read_phys::<u64>(rsdp + 24) != 0;
        if extended {
            Self {
                address: read_phys(rsdp + 24),
                entry_bytes: 8,
            }
        } else {
            Self {
                address: u64::from(read_phys::<u32>(rsdp + 16)),
                entry_bytes: 4,
            }
        }
    }
}

/// The APIC ids of the CPUs to use, in the firmware's order: all that are enabled, or as many as `cpus=N` asks for.
///
/// # Panics
///
/// When the command line asks for more CPUs than there are.
pub(super) fn apic_ids(info: &BootInfo) -> Vec<u8> {
    let mut ids = info
        .acpi
        .or_else(|| find_rsdp().map(RootTable::named_by))
        .map(enabled_apic_ids)
        .unwrap_or_default();
    if ids.is_empty() {
        ids.push(crate::cpu::apic::own_id());
    }
    let present = ids.len();
    let wanted = info::option_number("cpus").map_or(present.min(crate::cpu::MAX_CPUS), |n| {
        usize::try_from(n).unwrap_or(0)
    });
    assert!(
        (1..=crate::cpu::MAX_CPUS).contains(&wanted),
        "cpus={wanted}: not between 1 and {}",
        crate::cpu::MAX_CPUS
    );
    assert!(
        wanted <= present,
        "cpus={wanted}, but the machine has {present}"
    );
    // The boot CPU counts as the first, wherever the firmware lists it.
    let own = crate::cpu::apic::own_id();
    ids.retain(|&apic_id| apic_id != own);
    ids.insert(0, own);
    ids.truncate(wanted);
    ids
}

/// Looks for the root pointer where a BIOS leaves it: on a 16-byte boundary below 1 MiB.
fn find_rsdp() -> Option<u64> {
    (0xe_0000..0x10_0000)
        .step_by(16)
        .find(|&at| read_phys::<u64>(at) == u64::from_le_bytes(*b"RSD PTR "))
}

fn enabled_apic_ids(root: RootTable) -> Vec<u8> {
    let root_end = root.address + u64::from(read_phys::<u32>(root.address + 4));
    let mut ids = Vec::new();
    let mut entry = root.address + HEADER_BYTES;
    while entry + root.entry_bytes <= root_end {
        let table = if root.entry_bytes == 8 {
            read_phys::<u64>(entry)
        } else {
            u64::from(read_phys::<u32>(entry))
        };
        if read_phys::<u32>(table) == u32::from_le_bytes(*b"APIC") {
            collect(table, &mut ids);
        }
        entry += root.entry_bytes;
    }
    ids
}

/// Takes the "Processor Local APIC" structures (type 0) whose flag "enabled" is set.
fn collect(madt: u64, ids: &mut Vec<u8>) {
    let end = madt + u64::from(read_phys::<u32>(madt + 4));
    let mut entry = madt + HEADER_BYTES + 8;
    while entry + 2 <= end {
        let size = u64::from(read_phys::<u8>(entry + 1));
        if size < 2 {
            return;
        }
        if read_phys::<u8>(entry) == 0 && read_phys::<u32>(entry + 4) & 1 != 0 {
            ids.push(read_phys::<u8>(entry + 3));
        }
        entry += size;
    }
}
