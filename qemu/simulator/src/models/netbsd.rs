//! NetBSD's pcu(9) (`sys/kern/subr_pcu.c` 1.28): registers stay with their owner until somebody else traps; a state that is live on
//! another CPU is fetched by a cross-call. Whether a use traps belongs to the LWP, so the gate follows each switch.

use super::{NOBODY, NOWHERE};
use crate::replay::Switching;
use crate::{Counts, Workload};

pub(crate) struct Netbsd<'a> {
    domains: &'a [u64],
    /// Does the gate follow a switch to a kernel thread, or to idle?
    closes_always: bool,
    /// `ci_pcu_curlwp` of each CPU.
    owner: Vec<u32>,
    /// `l_pcu_cpu` of each LWP.
    cpu_of: Vec<u16>,
    is_gate_open: Vec<bool>,
    counts: Counts,
}

impl<'a> Netbsd<'a> {
    pub(crate) fn new(workload: &'a Workload, closes_always: bool) -> Self {
        Self {
            domains: &workload.domains,
            closes_always,
            owner: vec![NOBODY; workload.n_cpus],
            cpu_of: vec![NOWHERE; workload.domains.len()],
            is_gate_open: vec![false; workload.n_cpus],
            counts: Counts::default(),
        }
    }

    fn set_gate(&mut self, cpu: u16, open: bool) {
        let is_open = &mut self.is_gate_open[usize::from(cpu)];
        self.counts.toggles += u64::from(*is_open != open);
        *is_open = open;
    }

    /// The owner's state goes to memory.
    fn release(&mut self, cpu: u16) {
        let owner = &mut self.owner[usize::from(cpu)];
        if *owner != NOBODY {
            self.counts.saves += 1;
            self.cpu_of[*owner as usize] = NOWHERE;
            *owner = NOBODY;
        }
    }
}

impl Switching for Netbsd<'_> {
    fn leaves(&mut self, _: u16, _: u32) {}

    fn idles(&mut self, cpu: u16) {
        if self.closes_always {
            self.set_gate(cpu, false);
        }
    }

    fn arrives(&mut self, cpu: u16, lwp: u32, _: bool) {
        if self.domains[lwp as usize] != 0 || self.closes_always {
            self.set_gate(cpu, self.owner[usize::from(cpu)] == lwp);
        }
    }

    fn uses(&mut self, cpu: u16, lwp: u32) {
        if self.owner[usize::from(cpu)] == lwp && self.is_gate_open[usize::from(cpu)] {
            return;
        }
        self.counts.traps += 1;
        self.is_gate_open[usize::from(cpu)] = true;
        if self.owner[usize::from(cpu)] == lwp {
            return; // enabled again, not loaded
        }
        let holder = self.cpu_of[lwp as usize];
        if holder != NOWHERE {
            self.counts.cross_calls += 1;
            self.release(holder);
            // The holder's port disables the unit; it is a part of the cross-call.
            self.is_gate_open[usize::from(holder)] = false;
        }
        self.release(cpu);
        self.counts.restores += 1;
        self.owner[usize::from(cpu)] = lwp;
        self.cpu_of[lwp as usize] = cpu;
    }

    fn end(self) -> Counts {
        self.counts
    }
}
