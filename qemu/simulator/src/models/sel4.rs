//! seL4 since 14 (`lazyFPURestore`): a thread with the flag finds its registers in place whenever it runs, the last owner's are saved
//! only then; for every other thread the FPU is off. Who sets the flag is up to user space; here the first use does, for good.

use super::{NOBODY, NOWHERE};
use crate::replay::Switching;
use crate::{Counts, Workload};

pub(crate) struct Sel4 {
    /// `ksCurFPUOwner` of each CPU.
    owner: Vec<u32>,
    cpu_of: Vec<u16>,
    has_flag: Vec<bool>,
    is_gate_open: Vec<bool>,
    counts: Counts,
}

impl Sel4 {
    pub(crate) fn new(workload: &Workload) -> Self {
        Self {
            owner: vec![NOBODY; workload.n_cpus],
            cpu_of: vec![NOWHERE; workload.domains.len()],
            has_flag: vec![false; workload.domains.len()],
            is_gate_open: vec![false; workload.n_cpus],
            counts: Counts::default(),
        }
    }

    fn set_gate(&mut self, cpu: u16, open: bool) {
        let is_open = &mut self.is_gate_open[usize::from(cpu)];
        self.counts.toggles += u64::from(*is_open != open);
        *is_open = open;
    }

    fn release(&mut self, cpu: u16) {
        let owner = &mut self.owner[usize::from(cpu)];
        if *owner != NOBODY {
            self.counts.saves += 1;
            self.cpu_of[*owner as usize] = NOWHERE;
            *owner = NOBODY;
        }
    }

    fn restore(&mut self, cpu: u16, lwp: u32) {
        if self.owner[usize::from(cpu)] == lwp {
            return;
        }
        let holder = self.cpu_of[lwp as usize];
        if holder != NOWHERE {
            self.counts.cross_calls += 1;
            self.release(holder);
        }
        self.release(cpu);
        self.counts.restores += 1;
        self.owner[usize::from(cpu)] = lwp;
        self.cpu_of[lwp as usize] = cpu;
    }
}

impl Switching for Sel4 {
    fn leaves(&mut self, _: u16, _: u32) {}

    fn idles(&mut self, cpu: u16) {
        self.set_gate(cpu, false);
    }

    fn arrives(&mut self, cpu: u16, lwp: u32, _: bool) {
        let has_flag = self.has_flag[lwp as usize];
        self.set_gate(cpu, has_flag);
        if has_flag {
            self.restore(cpu, lwp);
        }
    }

    fn uses(&mut self, cpu: u16, lwp: u32) {
        let has_flag = &mut self.has_flag[lwp as usize];
        if !*has_flag {
            *has_flag = true;
            self.counts.traps += 1;
            self.is_gate_open[usize::from(cpu)] = true;
            self.restore(cpu, lwp);
        }
    }

    fn end(self) -> Counts {
        self.counts
    }
}
