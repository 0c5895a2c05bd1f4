//! What every LWP must see: it always reads back what it last wrote, or the initial state after a discard.

use pcu9::pcu::UnitId;
use pcu9_fake::{INITIAL, UNITS};

/// For each LWP and unit the states of which it has one. It is a single one, but in the middle of an operation that throws a
/// state away: then others, who are let in there, may find either.
#[derive(Debug)]
pub(crate) struct Oracle(Vec<[Vec<u64>; UNITS]>);

impl Oracle {
    pub(crate) fn new(n_lwps: usize) -> Self {
        Self(
            (0..n_lwps)
                .map(|_| [INITIAL; UNITS].map(|state| vec![state]))
                .collect(),
        )
    }

    /// From now on the LWP has this state and no other.
    pub(crate) fn has(&mut self, lwp: usize, unit: UnitId, state: u64) {
        self.0[lwp][unit.index()] = vec![state];
    }

    /// An operation has begun that gives the LWP this state.
    pub(crate) fn may_have(&mut self, lwp: usize, unit: UnitId, state: u64) {
        self.0[lwp][unit.index()].push(state);
    }

    /// May somebody find this to be the LWP's state now?
    pub(crate) fn allows(&self, lwp: usize, unit: UnitId, seen: u64) -> bool {
        self.0[lwp][unit.index()].contains(&seen)
    }

    /// The LWP, in the middle of nothing, reads its state.
    pub(crate) fn reads(&mut self, lwp: usize, unit: UnitId, seen: u64) {
        let states = &self.0[lwp][unit.index()];
        let index = unit.index();
        assert!(
            states.contains(&seen),
            "lwp {lwp} reads {seen:#x} in unit {index}, not {states:x?}"
        );
        self.has(lwp, unit, seen);
    }

    /// The state of an LWP that is in the middle of nothing.
    pub(crate) fn state(&self, lwp: usize, unit: UnitId) -> u64 {
        match self.0[lwp][unit.index()][..] {
            [state] => state,
            ref states => panic!("lwp {lwp} is in the middle of something: {states:x?}"),
        }
    }
}
