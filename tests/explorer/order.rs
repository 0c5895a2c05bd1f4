//! Where it makes a difference who is first: which cuts inside a section are taken, and what may happen at them.

use super::choice::Choice;
use super::config::{Cuts, Kind};
use super::flight::{At, Flight, Job, Op, Who};
use super::world::{CPUS, LWPS, RequestState, UNITS, World};

impl World {
    /// All that is in a section, but for what executes now.
    fn others_in_sections(&self) -> impl Iterator<Item = (Who, Flight)> {
        let running = self.running.get();
        let flights = Who::all().filter_map(|who| Some((who, self.flight(who)?)));
        flights.filter(move |(who, flight)| Some(*who) != running && flight.is_in_section())
    }

    /// The section that executes is about to look at the word of its own LWP. Is another CPU about to store it?
    pub(crate) fn could_be_stored(&self, lwp: usize) -> bool {
        if self.config.cuts == Cuts::All {
            let here = self.here.get();
            let live_on = |unit| self.live_on(lwp, unit);
            return (0..UNITS).any(|unit| live_on(unit).is_some_and(|cpu| cpu != here));
        }
        self.others_in_sections()
            .any(|(_, flight)| flight.at == At::Store(lwp))
    }

    /// The section that executes is about to store the word of `lwp`, which is not its own. Could another CPU's section look at
    /// that word before, or has one looked at what this one stored?
    pub(crate) fn is_contested(&self, lwp: usize) -> bool {
        let running = self.running.get().expect("something runs");
        let flight = self.flight(running).expect("what runs is under way");
        if flight.is_entangled || self.config.cuts == Cuts::All {
            return true;
        }
        let words = flight.stored | 1 << lwp;
        if let Some((who, other)) = self.others_in_sections().next() {
            let stores_mine = matches!(other.at, At::Store(mine) if flight.holds(running, mine));
            return stores_mine || in_mask(words).any(|lwp| other.holds(who, lwp));
        }
        let mut others = (0..CPUS).filter(|cpu| *cpu != self.here.get());
        others.any(|cpu| in_mask(words).any(|lwp| self.can_look(cpu, lwp)))
    }

    /// The section that executes looks at its own LWP: it comes after those that stored the word and have not ended.
    pub(crate) fn entangle(&self, lwp: usize) {
        for (who, mut flight) in self.others_in_sections() {
            if flight.stored & 1 << lwp != 0 {
                flight.is_entangled = true;
                self.flights[who.slot()].set(Some(flight));
            }
        }
    }

    /// Could the next section on `cpu`, which is in none, look at `lwp` as its own?
    fn can_look(&self, cpu: usize, lwp: usize) -> bool {
        let is_free = self.cpu_of(lwp).is_none() && !self.lwps[lwp].own.is_held.get();
        let Some(current) = self.cpus[cpu].own.current.get() else {
            return is_free;
        };
        let flight = self.flight(Who::Lwp(current));
        let can_go_on = flight.is_none_or(|flight| flight.at != At::Wait)
            || self.requests[current]
                .get()
                .is_some_and(|request| matches!(request.state, RequestState::Answered(_)));
        let is_its_own = match flight {
            None => current == lwp || (is_free && self.config.ops.contains(&Kind::Fork)),
            Some(flight) => flight.holds(Who::Lwp(current), lwp),
        };
        is_its_own && can_go_on
    }

    /// One CPU is in a section, about to store, and the other in none: the LWPs whose words it has stored or is about to. While
    /// it is entangled everything may happen.
    pub(crate) fn words_of_lone_section(&self) -> Option<u8> {
        if self.config.cuts == Cuts::All {
            return None;
        }
        let mut sections = self.others_in_sections();
        let (_, flight) = sections.next()?;
        match flight.at {
            At::Store(lwp) if sections.next().is_none() && !flight.is_entangled => {
                Some(flight.stored | 1 << lwp)
            }
            _ => None,
        }
    }

    /// Does this choice go on with a section, or begin one that looks at one of these LWPs as its own?
    pub(crate) fn is_about(&self, choice: Choice, words: u8) -> bool {
        let mut words = in_mask(words);
        match choice {
            Choice::Advance(who) => self.flight(who).is_some_and(|flight| {
                flight.is_in_section() || words.any(|lwp| flight.holds(who, lwp))
            }),
            Choice::Begin(who, op) => words.any(|lwp| who == lwp || op == Op::Fork(lwp)),
            Choice::Start(_, job) => words.any(|lwp| job == Job::Arrive(lwp)),
            Choice::Use(..) | Choice::Withdraw(_) => false,
        }
    }
}

fn in_mask(mask: u8) -> impl Iterator<Item = usize> {
    (0..LWPS).filter(move |lwp| mask & 1 << lwp != 0)
}
