//! Which CPUs there are, and where each one's data lie: apart from each other, so that no offset has to mean "absent".

use core::sync::atomic::{AtomicU64, Ordering};

use super::pcpu::CpuState;

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

/// Ids in a group.
pub(super) const GROUP: usize = 64;

impl CpuGroup {
    /// 64 absent CPUs.
    pub const fn new() -> Self {
        Self {
            present: AtomicU64::new(0),
            started: AtomicU64::new(0),
            offline: AtomicU64::new(0),
            offsets: [const { AtomicU64::new(0) }; GROUP],
        }
    }

    pub(super) fn offset(&self, place: usize) -> Option<usize> {
        let is_present = self.present.load(Ordering::Acquire) >> place & 1 != 0;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the module is for 64-bit machines"
        )]
        is_present.then(|| self.offsets[place].load(Ordering::Relaxed) as usize)
    }

    pub(super) fn state(&self, place: usize) -> CpuState {
        let has = |set: &AtomicU64| set.load(Ordering::Acquire) >> place & 1 != 0;
        if !has(&self.present) {
            CpuState::Absent
        } else if has(&self.started) {
            CpuState::Started
        } else if has(&self.offline) {
            CpuState::Offline
        } else {
            CpuState::Present
        }
    }

    /// Notes the state; who changes the table holds its lock.
    pub(super) fn set_state(&self, place: usize, state: CpuState) {
        let put = |set: &AtomicU64, on: bool| {
            let mask = 1 << place;
            if on {
                set.fetch_or(mask, Ordering::Release);
            } else {
                set.fetch_and(!mask, Ordering::Release);
            }
        };
        put(&self.started, state == CpuState::Started);
        put(&self.offline, state == CpuState::Offline);
        put(&self.present, state != CpuState::Absent);
    }
}

impl Default for CpuGroup {
    fn default() -> Self {
        Self::new()
    }
}
