//! What one CPU keeps of its own timeline; written by itself alone, with interrupts off.

use core::sync::atomic::Ordering;
use core::{array, fmt};

use pcu9::pcu::{Registers, UnitStats};

use super::Asked;
use crate::cpu::time;
use crate::glue::{self, FPU};
use crate::lwp::Lwp;
use crate::memory;
use crate::sched;

/// A counter's name, the letter of its events, and how it is read.
type Counted = (&'static str, u8, fn(&UnitStats) -> u64);

/// What is counted of the unit, in the order in which it happens; each with the letter of its events.
const COUNTED: [Counted; 20] = [
    ("traps", b't', |unit| unit.traps),
    ("loads", b'l', |unit| unit.loads),
    ("preloads", b'p', |unit| unit.preloads),
    ("probes", b'P', |unit| unit.probes),
    ("xcalls", XCALL, |unit| unit.xcalls),
    ("xcalls_raced", b'Z', |unit| unit.xcalls_raced),
    ("discards", b'd', |unit| unit.discards),
    ("saves", b'v', |unit| unit.saves),
    ("elided_saves", b'V', |unit| unit.elided_saves),
    ("releases", b'g', |unit| unit.releases),
    ("wipes", b'w', |unit| unit.wipes),
    ("inits", b'i', |unit| unit.inits),
    ("restores", b'r', |unit| unit.restores),
    ("elided_restores", b'e', |unit| unit.elided_restores),
    ("reenables_trap", b'T', |unit| unit.reenables_trap),
    ("reenables_load", b'L', |unit| unit.reenables_load),
    ("reenables_switch", b'S', |unit| unit.reenables_switch),
    ("spurious", b'x', |unit| unit.spurious),
    ("failed", b'f', |unit| unit.failed),
    ("sections", b'K', |unit| unit.sections),
];

/// What is compared at each look: the above, and the switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    unit: [u64; COUNTED.len()],
    switches: u64,
}

/// The detail says to which LWP.
const SWITCH: u8 = b's';
/// The detail says whom it asked, and which of its cross-calls this is.
const XCALL: u8 = b'X';
/// The detail says who asked, and which of its cross-calls this is.
const SERVED: u8 = b'Y';
/// The detail says which LWP runs when the window begins.
const RUNS: u8 = b'b';
/// The detail says whose state is in the registers from now on, and newer than memory.
const OWNER: u8 = b'o';
/// The same, and memory equals it.
const CLEAN: u8 = b'c';
const NOBODY: u8 = b'n';
const KERNELS: u8 = b'k';

/// Whose LWP: its number, and the job's plus 2, 1 for the kernel or 0 for idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Whose(u32, u32);

impl Whose {
    pub(super) fn of(lwp: &Lwp) -> Self {
        Self(lwp.number() as u32, lwp.whose() as u32)
    }
}

/// Whose state is in the registers; a serial names one stay there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Live(Whose, u64),
    Clean(Whose, u64),
    Kernel,
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// When, since the timeline began.
    pub(super) ticks: u64,
    pub(super) detail: (u32, u32),
    pub(super) kind: u8,
}

impl Event {
    pub(super) fn has_detail(&self) -> bool {
        matches!(self.kind, SWITCH | XCALL | SERVED | RUNS | OWNER | CLEAN)
    }
}

/// Why a CPU looks.
#[derive(Clone, Copy)]
pub(super) enum Occasion {
    Step,
    Switch(Whose),
    Asks(usize),
    Serves(Asked),
    End,
}

/// How far a CPU has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Before,
    /// What was counted when the window began.
    Inside(Snapshot),
    /// The same, what was counted at its end, and when that was.
    After(Snapshot, Snapshot, u64),
}

/// One CPU's timeline.
#[derive(Debug)]
pub(super) struct Lane {
    zero: u64,
    from: u64,
    to: u64,
    events: &'static mut [Event],
    n: usize,
    lost: u64,
    stage: Stage,
    /// The end of the window is behind.
    is_past: bool,
    last: Snapshot,
    runs: Whose,
    owner: Owner,
}

impl Lane {
    /// The lane of CPU `cpu`, for events between two moments after `zero`.
    ///
    /// # Panics
    ///
    /// Without memory.
    pub(super) fn new(cpu: usize, zero: u64, [from, to]: [u64; 2], room: usize) -> Self {
        let none = Event {
            ticks: 0,
            detail: (0, 0),
            kind: NOBODY,
        };
        Self {
            zero,
            from,
            to,
            events: memory::forever(room, none).expect("no memory for the timeline"),
            n: 0,
            lost: 0,
            stage: Stage::Before,
            is_past: false,
            last: Snapshot::of(cpu),
            runs: Whose(0, 0),
            owner: Owner::Nobody,
        }
    }

    pub(super) fn from(&self) -> u64 {
        self.from
    }

    pub(super) fn events(&self) -> &[Event] {
        &self.events[..self.n]
    }

    /// How many cross-calls this CPU has asked for.
    pub(super) fn n_asked(&self) -> u32 {
        let place = COUNTED.iter().position(|&(_, kind, _)| kind == XCALL);
        place.map_or(0, |place| self.last.unit[place]) as u32
    }

    /// Until when events were kept, what was counted meanwhile, and how many events of the window there was no room for.
    pub(super) fn account(&self) -> (u64, Snapshot, u64) {
        match self.stage {
            Stage::After(begin, end, until) => (until, end.since(&begin), self.lost),
            Stage::Before | Stage::Inside(_) => (0, self.last.since(&self.last), self.lost),
        }
    }

    /// Compares this CPU with the last look, and keeps what has changed if it is in the window.
    pub(super) fn look(&mut self, cpu: usize, why: Occasion) {
        let now = time::ticks().saturating_sub(self.zero);
        let seen = Snapshot::of(cpu);
        let owner = self.owner_on(cpu);
        if matches!(self.stage, Stage::Before) && now >= self.from {
            // Nothing has happened since the last look, which was before the window.
            self.stage = Stage::Inside(self.last);
            self.push(self.from, RUNS, self.runs);
            self.push_owner(self.from, self.owner);
        }
        if let Stage::Inside(begin) = self.stage {
            let served = matches!(why, Occasion::Serves(_));
            let n_counted = seen.since(&self.last).sum() as usize;
            let n = n_counted + usize::from(served) + usize::from(owner != self.owner);
            if now >= self.to {
                self.is_past = true;
                self.stage = Stage::After(begin, self.last, self.to);
            } else if self.n + n > self.events.len() {
                self.stage = Stage::After(begin, self.last, now);
            } else {
                self.keep(now, &seen, owner, why);
            }
        }
        if matches!(self.stage, Stage::After(..)) && !self.is_past && self.to != u64::MAX {
            self.is_past = now >= self.to;
            if !self.is_past {
                self.lost += seen.since(&self.last).sum();
            }
        }
        if let Occasion::Switch(next) = why {
            self.runs = next;
        }
        self.last = seen;
        self.owner = owner;
        if matches!(why, Occasion::End) {
            match self.stage {
                Stage::Before => self.stage = Stage::After(seen, seen, now),
                Stage::Inside(begin) => self.stage = Stage::After(begin, seen, now),
                // Without an end of the window all that came since belongs to it.
                Stage::After(_, end, _) if self.to == u64::MAX => {
                    self.lost = seen.since(&end).sum();
                }
                Stage::After(..) => {}
            }
        }
    }

    /// Is there nothing more to look for?
    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::After(..)) && (self.to == u64::MAX || self.is_past)
    }

    /// Takes the last look.
    pub(super) fn close(&mut self, cpu: usize) {
        self.look(cpu, Occasion::End);
    }

    fn keep(&mut self, now: u64, seen: &Snapshot, owner: Owner, why: Occasion) {
        if let Occasion::Serves((asker, number)) = why {
            self.push(now, SERVED, Whose(asker, number));
        }
        let before = self.last;
        for ((&(_, kind, _), &old), &new) in COUNTED.iter().zip(&before.unit).zip(&seen.unit) {
            for number in old..new {
                let detail = match why {
                    Occasion::Asks(target) if kind == XCALL => Whose(target as u32, number as u32),
                    _ => Whose::default(),
                };
                self.push(now, kind, detail);
            }
        }
        if owner != self.owner {
            self.push_owner(now, owner);
        }
        if let Occasion::Switch(next) = why {
            self.push(now, SWITCH, next);
        }
    }

    fn push_owner(&mut self, now: u64, owner: Owner) {
        let (kind, whose) = match owner {
            Owner::Nobody => (NOBODY, Whose::default()),
            Owner::Live(whose, _) => (OWNER, whose),
            Owner::Clean(whose, _) => (CLEAN, whose),
            Owner::Kernel => (KERNELS, Whose::default()),
        };
        self.push(now, kind, whose);
    }

    fn push(&mut self, ticks: u64, kind: u8, Whose(number, whose): Whose) {
        self.events[self.n] = Event {
            ticks,
            detail: (number, whose),
            kind,
        };
        self.n += 1;
    }

    /// Whose state is in the registers of CPU `cpu`, the executing one.
    fn owner_on(&self, cpu: usize) -> Owner {
        let registers = glue::cpu_pcu(cpu).view(FPU).map(|view| view.registers);
        match (registers, self.owner) {
            (Some(Registers::Live(_, serial)), Owner::Live(whose, same)) if serial == same => {
                Owner::Live(whose, serial)
            }
            (Some(Registers::Live(lwp, serial)), _) => {
                // SAFETY: interrupts are off and this CPU holds the LWP's live registers, so its word says so (I3), and nobody
                // frees it before this CPU has given them up (I7).
                Owner::Live(Whose::of(unsafe { lwp.as_ref() }), serial)
            }
            // It was live here before, and each look saw that.
            (Some(Registers::Clean(serial)), Owner::Live(whose, _) | Owner::Clean(whose, _)) => {
                Owner::Clean(whose, serial)
            }
            (Some(Registers::Section), _) => Owner::Kernel,
            _ => Owner::Nobody,
        }
    }
}

impl Snapshot {
    /// What CPU `cpu` has counted.
    fn of(cpu: usize) -> Self {
        let unit = glue::cpu_pcu(cpu).stats(FPU);
        Self {
            unit: COUNTED.map(|(_, _, read)| read(&unit)),
            switches: sched::counters(cpu).switches.load(Ordering::Relaxed),
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            unit: array::from_fn(|place| self.unit[place] - before.unit[place]),
            switches: self.switches - before.switches,
        }
    }

    fn sum(&self) -> u64 {
        self.unit.iter().sum::<u64>() + self.switches
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((name, ..), number) in COUNTED.iter().zip(&self.unit) {
            write!(f, " {name}={number}")?;
        }
        write!(f, " switches={}", self.switches)
    }
}
