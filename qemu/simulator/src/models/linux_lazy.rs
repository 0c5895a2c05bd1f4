//! Linux up to 4.5 without eager switching (`switch_fpu_prepare`, `fpu__restore`): whoever used the FPU is saved when it leaves; the
//! next task's registers are restored beforehand if it used them in more than 5 slices in a row, else at the trap. The counter has
//! 8 bits, so that it begins anew after 256.

use super::{NOBODY, NOWHERE};
use crate::replay::Switching;
use crate::{Counts, Workload};

pub(crate) struct LinuxLazy {
    /// `fpu_fpregs_owner_ctx` of each CPU.
    owner: Vec<u32>,
    is_gate_open: Vec<bool>,
    /// The task that left the CPU a moment ago had used the FPU, or had been preloaded.
    was_active: Vec<bool>,
    tasks: Vec<Task>,
    counts: Counts,
}

#[derive(Clone, Copy)]
struct Task {
    last_cpu: u16,
    counter: u8,
    /// It has a state.
    has_state: bool,
    /// Its registers are in place, and the gate is open for it.
    is_active: bool,
}

impl LinuxLazy {
    pub(crate) fn new(workload: &Workload) -> Self {
        let task = Task {
            last_cpu: NOWHERE,
            counter: 0,
            has_state: false,
            is_active: false,
        };
        Self {
            owner: vec![NOBODY; workload.n_cpus],
            is_gate_open: vec![false; workload.n_cpus],
            was_active: vec![false; workload.n_cpus],
            tasks: vec![task; workload.domains.len()],
            counts: Counts::default(),
        }
    }

    fn set_gate(&mut self, cpu: u16, open: bool) {
        let is_open = &mut self.is_gate_open[usize::from(cpu)];
        self.counts.toggles += u64::from(*is_open != open);
        *is_open = open;
    }
}

impl Switching for LinuxLazy {
    fn leaves(&mut self, cpu: u16, lwp: u32) {
        let task = &mut self.tasks[lwp as usize];
        self.was_active[usize::from(cpu)] = task.is_active;
        if task.is_active {
            self.counts.saves += 1;
            task.last_cpu = cpu;
            task.is_active = false;
        } else {
            task.counter = 0;
            task.last_cpu = NOWHERE;
        }
    }

    fn idles(&mut self, cpu: u16) {
        self.was_active[usize::from(cpu)] = false;
        self.set_gate(cpu, false);
    }

    fn arrives(&mut self, cpu: u16, lwp: u32, _: bool) {
        let task = &mut self.tasks[lwp as usize];
        let preload = task.has_state && task.counter > 5;
        if preload {
            task.counter = task.counter.wrapping_add(1);
            task.is_active = true;
            let owner = &mut self.owner[usize::from(cpu)];
            let is_there =
                *owner == lwp && task.last_cpu == cpu && !self.was_active[usize::from(cpu)];
            self.counts.restores += u64::from(!is_there);
            *owner = lwp;
        }
        self.set_gate(cpu, preload);
    }

    fn uses(&mut self, cpu: u16, lwp: u32) {
        let task = &mut self.tasks[lwp as usize];
        if task.is_active {
            return;
        }
        self.counts.traps += 1;
        self.counts.restores += 1;
        task.has_state = true;
        task.is_active = true;
        task.counter = task.counter.wrapping_add(1);
        self.owner[usize::from(cpu)] = lwp;
        self.is_gate_open[usize::from(cpu)] = true;
    }

    fn end(self) -> Counts {
        self.counts
    }
}
