//! Threads of one process, each with all FPU registers in use: what one holds is never another's, though they share everything else.
//!
//! They begin with their creator's registers, hold their own over yields and futexes, are sent signals one by one, end one by one or
//! all at once; and what one of them takes away from the address space is gone for all when the call returns.

#![no_std]
#![no_main]

mod ends;
mod space;

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use pcu9_programs::held::{Call, Registers};
use pcu9_programs::numbers::{Digest, Random};
use pcu9_programs::signals::{Context, Info, SIGUSR1, handle};
use pcu9_programs::syscalls::{FUTEX, SCHED_YIELD, call, getpid, sched_yield};
use pcu9_programs::threads::{Thread, futex_wait, futex_wake, gettid, own, spawn};
use pcu9_programs::{fail, program, say};

program!(main);

const N_THREADS: usize = 4;
const ROUNDS: usize = 40;
const YIELD: Call = [SCHED_YIELD, 0, 0, 0, 0];
const EAGAIN: isize = -11;
const EINVAL: isize = -22;
const ETIMEDOUT: isize = -110;

/// Fails where a number is not what it should be.
fn expect<T: Copy + PartialEq + core::fmt::Debug>(what: &str, expected: T, seen: T) {
    if expected != seen {
        fail!("threads: {what}: expected {expected:?}, saw {seen:?}");
    }
}

/// Holds registers over a call; its result.
fn hold(what: &str, loaded: &Registers, delay: u64, call: &Call) -> isize {
    // SAFETY: yields and futexes write no memory; handlers of this program write their own variables.
    let (result, seen) = unsafe { loaded.across(delay, call) };
    if let Err(lost) = loaded.check(&seen) {
        fail!("threads: {what}: {lost}");
    }
    result
}

static DIGESTS: [AtomicU64; N_THREADS] = [const { AtomicU64::new(0) }; N_THREADS];
/// Threads that pass a turn on to each other.
static TURN: AtomicU32 = AtomicU32::new(0);

/// Which of the threads it is.
fn place(thread: &Thread) -> usize {
    usize::try_from(thread.own()).unwrap_or(0) % N_THREADS
}

fn holder(thread: &'static Thread) {
    let place = place(thread);
    let (mut random, mut digest) = (Random(thread.own()), Digest::default());
    for round in 0..ROUNDS {
        let loaded = Registers::random(&mut random);
        let delay = if round % 16 == 5 { 200_000 } else { 0 };
        hold("over a yield", &loaded, delay, &YIELD);
        loaded.digest(&mut digest);
        expect("the word at fs:[0]", thread.own(), own());
        // Each in its turn, the others asleep.
        let mine = u32::try_from(round * N_THREADS + place).unwrap_or(0);
        let mut turn = TURN.load(Ordering::Acquire);
        while turn != mine {
            let word = TURN.as_ptr().expose_provenance();
            let wait = [FUTEX, word, 128, turn as usize, 0];
            let result = hold("over a futex", &loaded, 0, &wait);
            if result != 0 && result != EAGAIN {
                fail!("threads: a futex: expected 0 or {EAGAIN}, saw {result}");
            }
            turn = TURN.load(Ordering::Acquire);
        }
        TURN.store(mine + 1, Ordering::Release);
        futex_wake(&TURN, usize::MAX >> 33);
    }
    DIGESTS[place].store(digest.0, Ordering::Release);
}

/// All hold registers at the same time.
fn holding() {
    let threads: [_; N_THREADS] = core::array::from_fn(|place| spawn(100 + place as u64, holder));
    let mut digest = Digest::default();
    for thread in threads {
        thread.join();
        let place = place(thread);
        digest.add(DIGESTS[place].load(Ordering::Acquire));
    }
    say!(
        "{N_THREADS} threads held registers over {ROUNDS} turns: {:016x}",
        digest.0
    );
}

/// It stays 0.
static GATE: AtomicU32 = AtomicU32::new(0);
static N_AWAKE: AtomicU32 = AtomicU32::new(0);

fn sleeper(_: &'static Thread) {
    let loaded = Registers::random(&mut Random(own()));
    let word = GATE.as_ptr().expose_provenance();
    let result = hold("asleep", &loaded, 0, &[FUTEX, word, 128, 0, 0]);
    expect("a futex that is woken", 0, result);
    N_AWAKE.fetch_add(1, Ordering::AcqRel);
}

/// Those who sleep are woken one by one, and what is wrong is told.
fn futexes() {
    let word = AtomicU32::new(7);
    expect("another value", EAGAIN, futex_wait(&word, 8, None));
    expect(
        "a timeout",
        ETIMEDOUT,
        futex_wait(&word, 7, Some(2_000_000)),
    );
    expect("no time", EINVAL, {
        let time = [0, 1_000_000_000_u64].as_ptr().expose_provenance();
        // SAFETY: futex(2) reads the word and the time.
        unsafe { call(FUTEX, [word.as_ptr().expose_provenance(), 128, 7, time]) }
    });
    // SAFETY: as above.
    let odd = unsafe { call(FUTEX, [word.as_ptr().expose_provenance() + 1, 128, 7, 0]) };
    expect("an odd address", EINVAL, odd);
    expect("nobody to wake", 0, futex_wake(&word, 9));
    let threads: [_; N_THREADS] = core::array::from_fn(|place| spawn(place as u64, sleeper));
    for n in (1..).take(N_THREADS) {
        while futex_wake(&GATE, 1) == 0 {
            sched_yield();
        }
        // One alone comes through.
        while N_AWAKE.load(Ordering::Acquire) < n {
            sched_yield();
        }
        expect("who was woken", n, N_AWAKE.load(Ordering::Acquire));
    }
    for thread in threads {
        thread.join();
    }
    say!("{N_THREADS} sleepers were woken one by one");
}

static HANDLED_BY: AtomicUsize = AtomicUsize::new(0);
static N_SIGNALLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_signal(_: usize, info: &Info, _: &mut Context) {
    expect("who sent a signal", getpid() as u64, info.value);
    HANDLED_BY.store(gettid(), Ordering::Release);
}

fn signalled(thread: &'static Thread) {
    let (mut random, tid) = (Random(thread.own()), gettid());
    while HANDLED_BY.load(Ordering::Acquire) != tid {
        let loaded = Registers::random(&mut random);
        hold("under a signal", &loaded, 1000, &YIELD);
    }
    N_SIGNALLED.fetch_add(1, Ordering::AcqRel);
}

/// A signal to one thread is handled by that one.
fn signals() {
    handle(SIGUSR1, on_signal, 0, 0);
    let threads: [_; N_THREADS] = core::array::from_fn(|place| spawn(40 + place as u64, signalled));
    for (n, thread) in (1..).zip(threads) {
        expect("a signal to a thread", 0, thread.signal(SIGUSR1));
        thread.join();
        let handled = N_SIGNALLED.load(Ordering::Acquire);
        expect("threads that handled their signal", n, handled);
    }
    say!("{N_THREADS} threads handled a signal each");
}

fn main() {
    holding();
    futexes();
    signals();
    space::run();
    ends::run();
}
