//! Which CPUs there are, and where each one's data lie: apart from each other, so that no offset has to mean "absent".

use core::sync::atomic::AtomicU64;

/// 64 CPU ids in a row. Bit and place are `id % 64`.
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 8 | `present`: the CPU has an area |
/// | 8 | 8 | `started`: it runs; present, too |
/// | 16 | 8 | `offline`: it ran and does not run now, but its data are there; present, and not started |
/// | 24 | 512 | `offsets`: what to add to a name to get the CPU's address; of present CPUs only |
#[derive(Debug)]
#[repr(C)]
pub struct CpuGroup {
    pub(super) present: AtomicU64,
    pub(super) started: AtomicU64,
    pub(super) offline: AtomicU64,
    pub(super) offsets: [AtomicU64; 64],
}
