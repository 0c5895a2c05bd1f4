//! From the loader's first jump to a machine on which kernel threads run.
//!
//! In the order in which things happen: [`entry`] (assembly), [`start`] below, the loader's report ([`pvh`],
//! [`multiboot2`], both giving an [`info::BootInfo`]), [`vmcoreinfo`] (who dumps the memory is told where
//! to look), [`acpi`] (which CPUs there are), and then the start of the other
//! parts, each in its own module.

pub(crate) mod acpi;
mod entry;
mod fw_cfg;
pub(crate) mod info;
mod multiboot2;
mod pvh;
mod vmcoreinfo;

use crate::{cpu, glue, memory, sched, serial};
use info::BootInfo;

unsafe extern "Rust" {
    /// What the kernel is for: defined once in every image by [`kernel_main!`](crate::kernel_main).
    safe fn pcu9_testbed_main();
}

/// The first Rust code, on the boot stack with the boot page tables; called once, by [`entry`].
extern "C" fn start(magic: u32, info_phys: u32) -> ! {
    serial::init();
    let info = match magic {
        entry::PVH_MAGIC => pvh::read(u64::from(info_phys)),
        entry::MULTIBOOT2_MAGIC => multiboot2::read(u64::from(info_phys)),
        _ => panic!("started by an unknown loader (magic number {magic:#x})"),
    };
    let info = BootInfo::keep(info);
    memory::init(info);
    cpu::init_boot_cpu();
    vmcoreinfo::announce();
    cpu::time::calibrate();
    let apic_ids = acpi::apic_ids(info);
    sched::init_cpu();
    cpu::smp::start_others(&apic_ids);
    glue::calibrate();
    sched::spawn("main", pcu9_testbed_main);
    sched::idle()
}
