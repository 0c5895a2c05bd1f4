//! The stress' LWPs in the kernel: threads with FPU state, as user LWPs have it.

use alloc::format;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use pcu9::pcu::{Policy, Validity};
use pcu9_marks::{Choices, N_LWPS, child_of};
use spin::Once;

use super::tally::{Done, note};
use super::{is_over, lost, seed};
use crate::cpu::{self, time};
use crate::glue::{self, FPU, PCU, with_token};
use crate::lock::IrqLock;
use crate::lwp::{ANYWHERE, Lwp};
use crate::registers::RegisterFile;
use crate::testing::{new_domain, prepare, start, use_all_registers};
use crate::{sched, watch};

/// How many there are.
pub(super) const N_WORKERS: usize = 32;
/// Most children at a time; more would be a test of the memory.
const MOST_CHILDREN: u64 = 32;
/// How many generations a child lives.
const CHILD_ROUNDS: u32 = 12;

/// The LWPs that play the workers now.
static LWPS: [IrqLock<Option<Arc<Lwp>>>; N_WORKERS] = [const { IrqLock::new(None) }; N_WORKERS];
static ROUNDS: [AtomicU64; N_WORKERS] = [const { AtomicU64::new(0) }; N_WORKERS];
static N_LIVE: AtomicU64 = AtomicU64::new(0);
static N_CHILDREN: AtomicU64 = AtomicU64::new(0);

/// How many generations worker `number` has had.
pub(super) fn rounds(number: usize) -> u64 {
    ROUNDS[number].load(Ordering::Relaxed)
}

/// The LWP that plays worker `number` now.
pub(super) fn lwp_of(number: usize) -> Option<Arc<Lwp>> {
    LWPS[number].lock().clone()
}

/// Starts all of them.
pub(super) fn start_all() {
    for number in 0..N_WORKERS {
        Worker::new(number as u16, 0).begin();
    }
}

/// Whether all have come to their end, and their children too.
pub(super) fn have_all_ended() -> bool {
    N_LIVE.load(Ordering::Acquire) + N_CHILDREN.load(Ordering::Acquire) == 0
}

/// The protection domain of every fourth worker: LWPs of one domain may see each other's registers.
fn shared_domain() -> u64 {
    static SHARED: Once<u64> = Once::new();
    *SHARED.call_once(new_domain)
}

/// One LWP, in one of its lives.
struct Worker {
    number: u16,
    life: u32,
    choices: Choices,
    /// What the registers hold: the initial state, or this LWP's of this generation.
    held: Option<u32>,
    generation: u32,
    n_children: u32,
    last: Event,
}

/// What it may do between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Begin,
    Nothing,
    Yield,
    Compute,
    Move,
    Fork,
    Exec,
    Section,
    Policy,
    Load,
    Inspect,
    Save,
    Discard,
    End,
}

/// How often each is chosen, of 64.
const CHANCES: [(Event, u64); 13] = [
    (Event::Nothing, 3),
    (Event::Yield, 15),
    (Event::Compute, 10),
    (Event::Move, 12),
    (Event::Fork, 3),
    (Event::Exec, 3),
    (Event::Section, 5),
    (Event::Policy, 3),
    (Event::Load, 2),
    (Event::Inspect, 2),
    (Event::Save, 3),
    (Event::Discard, 2),
    (Event::End, 1),
];

impl Worker {
    fn new(number: u16, life: u32) -> Self {
        Self {
            number,
            life,
            choices: Choices::new(seed(), number, life),
            held: None,
            generation: life << 16,
            n_children: 0,
            last: Event::Begin,
        }
    }

    /// Makes an LWP that lives as this worker.
    fn begin(self) {
        let number = self.number as usize;
        let domain = if number.is_multiple_of(4) {
            shared_domain()
        } else {
            new_domain()
        };
        N_LIVE.fetch_add(1, Ordering::AcqRel);
        let lwp = prepare("stress", number % cpu::n_cpus(), domain, move || {
            self.live();
            N_LIVE.fetch_sub(1, Ordering::AcqRel);
        });
        *LWPS[number].lock() = Some(Arc::clone(&lwp));
        start(&lwp);
    }

    fn live(mut self) {
        while !is_over() {
            self.look();
            self.next_generation();
            ROUNDS[self.number as usize].fetch_add(1, Ordering::Relaxed);
            let event = self.choose();
            self.last = event;
            if event == Event::End {
                break;
            }
            self.does(event);
        }
        self.look();
        let next = Self::new(self.number, self.life + 1);
        if is_over() {
            LWPS[self.number as usize].lock().take();
        } else {
            next.begin();
        }
    }

    fn choose(&mut self) -> Event {
        let mut chance = self.choices.below(64);
        for (event, n) in CHANCES {
            if chance < n {
                return event;
            }
            chance -= n;
        }
        Event::Nothing
    }

    /// Checks every register.
    fn look(&self) {
        let found = match self.held {
            None => RegisterFile::check_initial(),
            Some(generation) => RegisterFile::check_marked(self.number, generation),
        };
        if let Err(difference) = found {
            lost(&format!("{self}"), &difference);
        }
    }

    fn next_generation(&mut self) {
        self.generation += 1;
        RegisterFile::load_marked(self.number, self.generation);
        self.held = Some(self.generation);
    }

    fn does(&mut self, event: Event) {
        match event {
            Event::Begin | Event::Nothing | Event::End => {}
            Event::Yield => sched::yield_now(),
            Event::Compute => self.compute(),
            Event::Move => Self::moves(),
            Event::Fork => self.forks(),
            Event::Exec => {
                self.expect(glue::exec(new_domain()));
                self.held = None;
            }
            Event::Section => self.has_section(),
            Event::Policy => self.changes_policy(),
            Event::Load => self.expect(with_token(|token| PCU.load(token, FPU))),
            Event::Inspect => {
                let validity = with_token(|token| PCU.inspect(token, FPU));
                self.expect(validity.map(|validity| assert_eq!(validity, Validity::Valid)));
            }
            Event::Save => {
                Self::saves();
                self.expect(with_token(|token| PCU.save(token, FPU)));
            }
            Event::Discard => self.discards(),
        }
    }

    /// Ends the run if `pcu9` could not do what was asked.
    fn expect(&self, result: Result<(), impl fmt::Display>) {
        if let Err(error) = result {
            lost(&format!("{self}"), &error);
        }
    }

    /// Lets time pass without the FPU: preemption may come.
    fn compute(&mut self) {
        let end = time::ticks() + self.choices.below(2000) * time::ticks_per_ms() / 1000;
        while time::ticks() < end {}
    }

    /// Leaves its CPU for one of the others; more CPUs than one stay online.
    fn moves() {
        let own = cpu::index();
        let mask = ANYWHERE & !(1 << own);
        sched::set_pin(&sched::current(), mask);
        sched::yield_now();
    }

    /// Its registers go to memory now.
    fn saves() {
        sched::with_current(watch::saves);
    }

    fn changes_policy(&mut self) {
        let n = Policy::ALL.len() as u64;
        let policy = match self.choices.below(n + 1) {
            place if place < n => Some(Policy::ALL[place as usize]),
            _ => None,
        };
        Self::saves();
        self.expect(with_token(|token| PCU.set_lwp_policy(token, policy)));
        note(Done::Policy);
    }

    fn discards(&mut self) {
        Self::saves();
        self.expect(with_token(|token| {
            PCU.discard(token, FPU, Validity::Invalid)
        }));
        self.held = None;
        sched::with_current(watch::starts_over);
    }

    fn has_section(&mut self) {
        let number = u64::from(self.number);
        let found = match glue::section(|| use_all_registers(number)) {
            Ok(found) => found,
            Err(error) => lost(&format!("{self}"), &error),
        };
        if !found.was_initial {
            lost(
                &format!("{self}"),
                &"its kernel section found registers in use",
            );
        }
        if !found.kept {
            lost(
                &format!("{self}"),
                &"its kernel section lost what it had written",
            );
        }
        note(Done::Section);
    }

    /// The child has the parent's registers of this moment, and then its own.
    fn forks(&mut self) {
        let number = child_of(self.number, self.n_children);
        let life = self.n_children;
        let (parent, inherited) = (self.number, self.held);
        self.n_children += 1;
        if N_CHILDREN.fetch_add(1, Ordering::AcqRel) >= MOST_CHILDREN {
            N_CHILDREN.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let child = prepare("child", 0, new_domain(), move || {
            child_lives(number, life, parent, inherited);
            N_CHILDREN.fetch_sub(1, Ordering::AcqRel);
        });
        child.pin.store(ANYWHERE, Ordering::Relaxed);
        self.expect(glue::fork(&child));
        start(&child);
    }
}

/// A child of `parent` begins with what that one held, and has a short life with no children.
fn child_lives(number: u16, life: u32, parent: u16, inherited: Option<u32>) {
    let mut child = Worker::new(number, life);
    let found = match inherited {
        None => RegisterFile::check_initial(),
        Some(generation) => RegisterFile::check_marked(parent, generation),
    };
    if let Err(difference) = found {
        let who = format!("{child}, which should begin as its parent");
        lost(&who, &difference);
    }
    for _ in 0..CHILD_ROUNDS {
        child.next_generation();
        let event = child.choose();
        child.last = event;
        match event {
            Event::End => return,
            Event::Fork => sched::yield_now(),
            other => child.does(other),
        }
        child.look();
    }
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (worker, child) = (self.number % N_LWPS, self.number / N_LWPS);
        write!(f, "LWP {worker}")?;
        if child != 0 {
            write!(f, "'s child {child}")?;
        }
        let held = self.held.unwrap_or(0);
        write!(
            f,
            " on CPU {}, life {}, generation {held}, after {:?}",
            cpu::index(),
            self.life,
            self.last
        )
    }
}
