//! One of the stress' LWPs, in user mode: it forks, starts over, sends itself signals, and looks at all its registers each time.
//!
//! Its choices follow from seed, number and life; a life ends with the next program in its place. Its children have short lives of their
//! own. A register that does not hold what it should is said, with whose the found contents are, and ends the process with status 1.

use core::ffi::CStr;

use pcu9_marks::{Choices, N_LWPS, child_of};
use pcu9_programs::exec::{self, Digits, Strings};
use pcu9_programs::fail;
use pcu9_programs::held::{Call, Registers};
use pcu9_programs::signals::{Context, Info, SA_RESTART, SIGUSR1, handle};
use pcu9_programs::syscalls::{
    CLOCK_GETTIME, FORK, GETPID, KILL, SCHED_YIELD, WAIT4, call, exit, getpid,
};

use super::{SIG_BLOCK, SIG_UNBLOCK, mask, own_path};

/// A child has so many generations.
const CHILD_ROUNDS: u32 = 6;
/// Turns of a loop, at most: some ticks of the timer.
const LONGEST: u64 = 400_000;
const ENOENT: isize = -2;

/// The LWP.
pub(super) struct Worker {
    number: u16,
    seed: u64,
    /// Milliseconds since the boot; 0 for a child, which has a few rounds.
    end: u64,
    life: u32,
    choices: Choices,
    generation: u32,
    n_children: u32,
}

/// What happens while it holds its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Yield,
    Compute,
    Signal,
    Fork,
    Wait,
    Exec,
    NoExec,
}

impl Worker {
    /// Made of its arguments.
    pub(super) fn new(number: u16, seed: u64, end: u64, life: u32) -> Self {
        Self {
            number,
            seed,
            end,
            life,
            choices: Choices::new(seed, number, life),
            generation: life << 16,
            n_children: 0,
        }
    }

    fn is_over(&self) -> bool {
        let mut time = [0_u64; 2];
        let at = time.as_mut_ptr().expose_provenance();
        // SAFETY: clock_gettime(2) writes two words.
        unsafe { call(CLOCK_GETTIME, [1, at, 0, 0]) };
        self.end <= time[0] * 1000 + time[1] / 1_000_000
    }

    fn round(&mut self) {
        match self.choices.below(32) {
            0..16 => drop(self.hold(Event::Yield, &[SCHED_YIELD, 0, 0, 0, 0])),
            16..21 => drop(self.hold(Event::Compute, &[GETPID, 0, 0, 0, 0])),
            21..26 => drop(self.hold(Event::Signal, &[KILL, getpid(), SIGUSR1, 0, 0])),
            26..29 => self.forks(),
            29..31 => self.begins_anew(self.end, self.life + 1),
            _ => {
                let none = Strings::new(&[]);
                let call = exec::call(c"no-such-program", &none, &none);
                let answer = self.hold(Event::NoExec, &call);
                if answer != ENOENT {
                    self.fails(Event::NoExec, &answer);
                }
            }
        }
    }

    /// Makes a call with the registers of the next generation, and looks at them afterwards: what it answers.
    fn hold(&mut self, event: Event, call: &Call) -> isize {
        self.generation += 1;
        let loaded = Registers::marked(self.number, self.generation);
        let delay = match event {
            Event::Compute => self.choices.below(LONGEST),
            _ => 0,
        };
        // SAFETY: wait4(2) writes a word that `forks` passes; fork(2) gives the child memory of its own; a program that begins takes this
        // one's away, and does not come back; the others touch no memory.
        let (answer, seen) = unsafe { loaded.across(delay, call) };
        if let Err(lost) = loaded.check(&seen) {
            self.fails(event, &lost);
        }
        answer
    }

    fn fails(&self, event: Event, what: &dyn core::fmt::Display) -> ! {
        let Self {
            number,
            seed,
            life,
            generation,
            ..
        } = self;
        let (worker, child) = (number % N_LWPS, number / N_LWPS);
        fail!(
            "seed {seed}: LWP {worker}, child {child}, life {life}, generation {generation}, after {event:?}: {what}"
        )
    }

    /// A child that finds what its parent holds; a third of them begins the program anew. The parent waits for it.
    fn forks(&mut self) {
        let child_number = child_of(self.number, self.n_children);
        self.n_children += 1;
        let begins_anew = self.choices.below(3) == 0;
        let child = self.hold(Event::Fork, &[FORK, 0, 0, 0, 0]);
        if child == 0 {
            let mut child = Self::new(child_number, self.seed, 0, 0);
            if begins_anew {
                child.begins_anew(0, 0);
            }
            child.lives_shortly();
        }
        if child < 0 {
            self.fails(Event::Fork, &child);
        }
        let mut status = 0_u32;
        let status_at = (&raw mut status).expose_provenance();
        let call = [WAIT4, child.cast_unsigned(), status_at, 0, 0];
        let ended = self.hold(Event::Wait, &call);
        if ended != child || status != 0 {
            self.fails(Event::Wait, &status);
        }
    }

    fn lives_shortly(mut self) -> ! {
        for _ in 0..CHILD_ROUNDS {
            match self.choices.below(4) {
                0 => drop(self.hold(Event::Signal, &[KILL, getpid(), SIGUSR1, 0, 0])),
                1 => drop(self.hold(Event::Compute, &[GETPID, 0, 0, 0, 0])),
                _ => drop(self.hold(Event::Yield, &[SCHED_YIELD, 0, 0, 0, 0])),
            }
        }
        exit(0)
    }

    /// Begins the program in its own place. Signals wait until it has its handler.
    fn begins_anew(&mut self, end: u64, life: u32) {
        let numbers = [u64::from(self.number), self.seed, end, u64::from(life)];
        let [number, seed, end, life] = numbers.map(Digits::new);
        let strings: [&CStr; 5] = [
            c"lives",
            number.text(),
            seed.text(),
            end.text(),
            life.text(),
        ];
        let (arguments, environment) = (Strings::new(&strings), Strings::new(&[]));
        mask(SIG_BLOCK, SIGUSR1);
        let call = exec::call(own_path(), &arguments, &environment);
        let answer = self.hold(Event::Exec, &call);
        self.fails(Event::Exec, &answer);
    }
}

/// The registers are destroyed when it returns: see [`handle`].
extern "C" fn disturb(_: usize, _: &Info, _: &mut Context) {}

/// Lives until the end.
pub(super) fn run(mut worker: Worker) -> ! {
    handle(SIGUSR1, disturb, SA_RESTART, 0);
    mask(SIG_UNBLOCK, SIGUSR1);
    if worker.end == 0 {
        worker.lives_shortly();
    }
    while !worker.is_over() {
        worker.round();
    }
    exit(0)
}
