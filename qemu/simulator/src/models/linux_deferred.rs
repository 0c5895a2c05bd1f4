//! Linux since 5.2 (`switch_fpu_prepare`, `switch_fpu_return`): a user task's registers are saved when it leaves, and restored when
//! it goes to user mode, unless the CPU's owner and the task's last CPU still name each other. The gate is never closed.

use super::{NOBODY, NOWHERE};
use crate::replay::Switching;
use crate::{Counts, Workload};

pub(crate) struct LinuxDeferred<'a> {
    domains: &'a [u64],
    /// `fpu_fpregs_owner_ctx` of each CPU.
    owner: Vec<u32>,
    /// `last_cpu` of each task.
    last_cpu: Vec<u16>,
    /// `TIF_NEED_FPU_LOAD` of each task: its registers are in memory.
    needs_load: Vec<bool>,
    counts: Counts,
}

impl<'a> LinuxDeferred<'a> {
    pub(crate) fn new(workload: &'a Workload) -> Self {
        Self {
            domains: &workload.domains,
            owner: vec![NOBODY; workload.n_cpus],
            last_cpu: vec![NOWHERE; workload.domains.len()],
            needs_load: vec![true; workload.domains.len()],
            counts: Counts::default(),
        }
    }
}

impl Switching for LinuxDeferred<'_> {
    fn leaves(&mut self, cpu: u16, lwp: u32) {
        let lwp = lwp as usize;
        if self.domains[lwp] != 0 && !self.needs_load[lwp] {
            self.counts.saves += 1;
            self.last_cpu[lwp] = cpu;
            self.needs_load[lwp] = true;
        }
    }

    fn idles(&mut self, _: u16) {}

    fn arrives(&mut self, cpu: u16, lwp: u32, enters_user: bool) {
        if !enters_user {
            return;
        }
        let owner = &mut self.owner[usize::from(cpu)];
        if *owner != lwp || self.last_cpu[lwp as usize] != cpu {
            self.counts.restores += 1;
            *owner = lwp;
        }
        self.needs_load[lwp as usize] = false;
    }

    fn uses(&mut self, _: u16, _: u32) {}

    fn end(self) -> Counts {
        self.counts
    }
}
