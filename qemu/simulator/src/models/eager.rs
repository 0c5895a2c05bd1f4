//! Registers are saved and restored at each switch of a user LWP; the gate is never closed.

use crate::replay::Switching;
use crate::{Counts, Workload};

pub(crate) struct Eager<'a> {
    domains: &'a [u64],
    counts: Counts,
}

impl<'a> Eager<'a> {
    pub(crate) fn new(workload: &'a Workload) -> Self {
        Self {
            domains: &workload.domains,
            counts: Counts::default(),
        }
    }

    fn is_user(&self, lwp: u32) -> bool {
        self.domains[lwp as usize] != 0
    }
}

impl Switching for Eager<'_> {
    fn leaves(&mut self, _: u16, lwp: u32) {
        self.counts.saves += u64::from(self.is_user(lwp));
    }

    fn idles(&mut self, _: u16) {}

    fn arrives(&mut self, _: u16, lwp: u32, _: bool) {
        self.counts.restores += u64::from(self.is_user(lwp));
    }

    fn uses(&mut self, _: u16, _: u32) {}

    fn end(self) -> Counts {
        self.counts
    }
}
