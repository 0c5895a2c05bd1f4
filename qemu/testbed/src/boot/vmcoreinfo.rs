//! The header of the per-CPU data as a note in every dump: QEMU's vmcoreinfo device, where the machine has it. QEMU,
//! `docs/specs/vmcoreinfo.rst`.

use alloc::boxed::Box;

use pcu9::percpu::header::HeaderNote;

use super::fw_cfg::FwCfg;
use crate::glue::PERCPU;
use crate::memory::heap_phys;

/// The file in which the guest says where its note is.
const FILE: &str = "etc/vmcoreinfo";
/// What the note is: an ELF note.
const FORMAT_ELF: u16 = 1;

/// Hands the note over, or does nothing on a machine without such a device. The boot CPU's, while it is the only one that runs.
pub(super) fn announce() {
    let Some(device) = FwCfg::detect() else {
        return;
    };
    let Some(file) = device.find(FILE) else {
        return;
    };
    // SAFETY: no other CPU runs yet, and this one changes nothing meanwhile.
    let note = Box::leak(Box::new(unsafe { HeaderNote::of(PERCPU.header()) }));
    // Format of the host (read only) and of the guest, size, physical address; little-endian.
    let mut record = alloc::vec![0; 2];
    record.extend(FORMAT_ELF.to_le_bytes());
    record.extend((size_of::<HeaderNote>() as u32).to_le_bytes());
    record.extend(heap_phys(&raw const *note).to_le_bytes());
    if file.bytes as usize != record.len() || !device.write(file, record.into()) {
        crate::line!("QEMU's vmcoreinfo device does not take the note");
    }
}
