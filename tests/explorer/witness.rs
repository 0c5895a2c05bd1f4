//! What the search came by: it proves nothing about situations that it never reached.

use std::cell::Cell;

use super::config::Kind;
use super::flight::{At, Callback, Job, Note, Op, What, Who};
use super::world::{CPUS, LWPS, RequestState, World};

/// How often it happened; replays count again.
#[derive(Default)]
pub(crate) struct Counter(Cell<u64>);

impl Counter {
    pub(crate) fn bump(&self) {
        self.0.set(self.0.get() + 1);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }
}

/// The situations that made history.
#[derive(Default)]
pub(crate) struct Witness {
    /// A cross-call came too late: the state had been stolen meanwhile.
    pub(crate) raced: Counter,
    /// Two CPUs wait for each other.
    pub(crate) mutual: Counter,
    /// The asker had come to the very CPU that it asked, when it was served there.
    pub(crate) migrated_to_holder: Counter,
    /// An LWP was switched in on one CPU while another was stealing its registers (`NetBSD` PR 52603).
    pub(crate) arrived_while_stolen: Counter,
    /// A bit for each kind of operation that came to a good end.
    completed: Cell<u32>,
}

impl Witness {
    pub(crate) fn completed(&self, kind: Kind) {
        self.completed.set(self.completed.get() | 1 << kind as u32);
    }

    pub(crate) fn has_completed(&self, kind: Kind) -> bool {
        self.completed.get() & 1 << kind as u32 != 0
    }

    /// Looks at a state.
    pub(crate) fn look(&self, world: &World) {
        let waits_for = |cpu: usize| {
            let lwp = world.cpus[cpu].own.current.get()?;
            let request = world.requests[lwp].get()?;
            (request.state == RequestState::Published).then_some(request.to)
        };
        if (0..CPUS).all(|cpu| waits_for(cpu).is_some_and(|other| other != cpu)) {
            self.mutual.bump();
        }
        for lwp in 0..LWPS {
            let Some(cpu) = world.cpu_of(lwp) else {
                continue;
            };
            let is_arriving = world
                .flight(Who::Cpu(cpu))
                .is_some_and(|flight| flight.what == What::Job(Job::Arrive(lwp)));
            let is_stolen = Who::all().filter_map(|who| Some((who, world.flight(who)?))).any(|(who, flight)| {
                let is_thief = matches!(flight.what, What::Op(Op::Trap(_) | Op::Load(_)) | What::Job(Job::Arrive(_)));
                let saves = || world.notes[who.slot()].borrow().iter().any(|note| matches!(note, Note::Called(Callback::Save, _, who) if usize::from(who) == lwp));
                is_thief && flight.at == At::Store(lwp) && saves()
            });
            if is_arriving && is_stolen {
                self.arrived_while_stolen.bump();
            }
        }
    }
}
