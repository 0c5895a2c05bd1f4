//! Which states are equal: the key that the search merges by.

use pcu9::pcu::Residue;
use xxhash_rust::xxh3::xxh3_128;

use super::facts::{Facts, Place, colour};
use super::flight::{Answer, At, Callback, Job, Note, Op, What, Who};
use super::unit::INITIAL;
use super::world::{CPUS, LWPS, RequestState, UNITS, World};

/// The orders in which LWPs and CPUs can be written down; names make no difference to the crate.
const LWP_ORDERS: [[usize; LWPS]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];
const CPU_ORDERS: [[usize; CPUS]; 2] = [[0, 1], [1, 0]];

/// More than any state needs.
const LIMIT: usize = 400;

/// A state written down, with the new names of LWPs and CPUs.
struct Pen {
    bytes: [u8; LIMIT],
    len: usize,
    lwp_names: [u8; LWPS],
    cpu_names: [u8; CPUS],
}

impl Pen {
    fn put(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn lwp(&mut self, lwp: usize) {
        self.put(self.lwp_names[lwp]);
    }

    fn cpu(&mut self, cpu: usize) {
        self.put(self.cpu_names[cpu]);
    }

    fn maybe_cpu(&mut self, cpu: Option<usize>) {
        self.put(cpu.map_or(9, |cpu| self.cpu_names[cpu]));
    }

    fn flight(&mut self, world: &World, who: Who) {
        let Some(flight) = world.flight(who) else {
            return self.put(0);
        };
        self.what(flight.what);
        self.put(u8::from(flight.is_entangled));
        let stored = (0..LWPS)
            .filter(|lwp| flight.stored & 1 << lwp != 0)
            .fold(0, |mask, lwp| mask | 1 << self.lwp_names[lwp]);
        self.put(stored);
        match flight.at {
            At::Raise => self.put(0),
            At::Wait => self.put(1),
            At::Look => self.put(2),
            // Which LWP, the last note says.
            At::Store(_) => self.put(3),
        }
        for note in world.notes[who.slot()].borrow().iter() {
            self.note(note);
        }
        self.put(255);
    }

    fn what(&mut self, what: What) {
        match what {
            // The two differ in what they count, and in nothing else.
            What::Op(Op::Trap(unit) | Op::Load(unit)) => self.two(1, unit),
            What::Op(Op::Save(unit)) => self.two(3, unit),
            What::Op(Op::SaveAll(dump)) => self.two(4, dump as usize),
            What::Op(Op::Discard(unit)) => self.two(5, unit),
            What::Op(Op::DiscardAll) => self.put(6),
            What::Op(Op::Replace(unit)) => self.two(7, unit),
            What::Op(Op::BeforeUser) => self.put(8),
            What::Op(Op::Exec) => self.put(9),
            What::Op(Op::Exit) => self.put(10),
            What::Op(Op::Fork(child)) => {
                self.put(11);
                self.lwp(child);
            }
            What::Job(Job::Leave(lwp)) => {
                self.put(12);
                self.lwp(lwp);
            }
            What::Job(Job::Arrive(lwp)) => {
                self.put(13);
                self.lwp(lwp);
            }
            What::Job(Job::Serve(lwp)) => {
                self.put(14);
                self.lwp(lwp);
            }
            What::Job(Job::SaveAllOnCpu) => self.put(15),
            What::Job(Job::Idle) => self.put(16),
        }
    }

    fn two(&mut self, code: u8, unit: usize) {
        self.put(code);
        self.put(u8::try_from(unit).expect("small"));
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Section => self.put(1),
            Note::Asked(cpu) => {
                self.put(2);
                self.cpu(cpu.into());
            }
            Note::Answered(answer) => self.two(3, answer as usize),
            Note::Looks(lwp) => {
                self.put(4);
                self.lwp(lwp.into());
            }
            Note::Saw(seen) | Note::AskedOf(seen) => {
                self.put(5);
                for cpu in seen {
                    self.maybe_cpu(cpu.map(usize::from));
                }
            }
            Note::Called(callback, unit, lwp) => {
                self.two(6 + callback as u8, unit.into());
                self.lwp(lwp.into());
            }
        }
    }
}

impl World {
    /// The key of this state: the smallest of its texts under all namings.
    pub(crate) fn key(&self) -> u128 {
        let facts = Facts::of(self);
        let mut smallest: Option<Pen> = None;
        // LWPs that never run have no part in it.
        let n_lwps = self.config.lwps;
        for lwps in LWP_ORDERS.iter().filter_map(|order| order.get(..n_lwps)) {
            if lwps.iter().any(|lwp| *lwp >= n_lwps) {
                continue;
            }
            for cpus in CPU_ORDERS {
                let pen = self.write(&facts, lwps, cpus);
                if smallest
                    .as_ref()
                    .is_none_or(|least| pen.text() < least.text())
                {
                    smallest = Some(pen);
                }
            }
        }
        smallest.map_or(0, |pen| xxh3_128(pen.text()))
    }

    fn write(&self, facts: &Facts, lwps: &[usize], cpus: [usize; CPUS]) -> Pen {
        let mut pen = Pen {
            bytes: [0; LIMIT],
            len: 0,
            lwp_names: [0; LWPS],
            cpu_names: [0; CPUS],
        };
        for (name, lwp) in (0..).zip(lwps) {
            pen.lwp_names[*lwp] = name;
        }
        for (name, cpu) in (0..).zip(cpus) {
            pen.cpu_names[cpu] = name;
        }
        // A domain's name is that of its first LWP; all domains without an LWP are one.
        let class = |domain: u64| {
            let position = lwps
                .iter()
                .position(|lwp| self.lwps[*lwp].own.domain.get() == domain);
            position.map_or(7, |position| u8::try_from(position).expect("small") + 1)
        };
        for lwp in lwps {
            self.write_lwp(facts, &mut pen, *lwp, class);
        }
        for cpu in cpus {
            self.write_cpu(facts, &mut pen, cpu, class);
        }
        pen
    }

    fn write_lwp(&self, facts: &Facts, pen: &mut Pen, lwp: usize, class: impl Fn(u64) -> u8) {
        pen.put(class(self.lwps[lwp].own.domain.get()));
        pen.maybe_cpu(self.cpu_of(lwp));
        for unit in 0..UNITS {
            let entry = facts.lwps[lwp][unit];
            match entry.place {
                Place::Nothing => pen.put(0),
                Place::Memory => pen.put(1),
                Place::Live(cpu) => {
                    pen.put(2);
                    pen.cpu(cpu);
                }
                Place::Linked(cpu) => {
                    pen.put(3);
                    pen.cpu(cpu);
                }
            }
            let is_initial = self.lwps[lwp].own.newest[unit].get() == INITIAL;
            pen.put(
                u8::from(entry.is_used)
                    | u8::from(entry.is_known_initial) << 1
                    | u8::from(is_initial) << 2,
            );
        }
        pen.flight(self, Who::Lwp(lwp));
        if let Some(request) = self.requests[lwp].get() {
            pen.cpu(request.to);
            pen.put(match request.state {
                RequestState::Published => 0,
                RequestState::Begun => 1,
                RequestState::Answered(Answer::Served) => 2,
                RequestState::Answered(Answer::Raced) => {
                    let is_load = self
                        .flight(Who::Lwp(lwp))
                        .is_some_and(|flight| flight.is_load());
                    if is_load { 2 } else { 3 }
                }
                RequestState::Answered(Answer::Withdrawn) => 4,
            });
        }
    }

    fn write_cpu(&self, facts: &Facts, pen: &mut Pen, cpu: usize, class: impl Fn(u64) -> u8) {
        let own = &self.cpus[cpu].own;
        pen.put(u8::from(own.raised.get()));
        // Its units are those that it owns.
        pen.put(facts.settled[cpu].map_or(9, |(lwp, _)| pen.lwp_names[lwp]));
        for unit in 0..UNITS {
            let entry = facts.cpus[cpu][unit];
            pen.put(entry.owner.map_or(9, |owner| pen.lwp_names[owner]));
            pen.put(u8::from(entry.is_enabled));
            pen.put(match entry.residue {
                Residue::None => 0,
                Residue::Of(domain) => class(domain.get()),
                _ => 7,
            });
            pen.put(colour(own.registers[unit].get(), &class));
        }
        pen.flight(self, Who::Cpu(cpu));
    }
}

const _: () = assert!(Callback::Copy as u8 + 6 < 255);
