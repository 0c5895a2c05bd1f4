//! How threads end: one by one, all by one of them, all by a signal; whatever the others are doing.

use core::sync::atomic::{AtomicU32, Ordering};

use pcu9_programs::held::Registers;
use pcu9_programs::numbers::Random;
use pcu9_programs::signals::{SIGTERM, SIGUSR2, kill};
use pcu9_programs::syscalls::{
    FUTEX, PIPE, READ, SCHED_YIELD, call, exit, fork, getpid, sched_yield, wait,
};
use pcu9_programs::threads::{Thread, exit_thread, spawn};
use pcu9_programs::{fail, say};

use super::expect;

const N_KINDS: u32 = 4;
/// Of the first thread and of the last: which counts, kernels of Linux have changed their mind about.
const STATUS: usize = 5;
static N_STARTED: AtomicU32 = AtomicU32::new(0);
static NEVER: AtomicU32 = AtomicU32::new(0);

fn started() {
    N_STARTED.fetch_add(1, Ordering::AcqRel);
}

/// It never leaves user mode by itself.
fn computes(thread: &'static Thread) {
    started();
    loop {
        let loaded = Registers::random(&mut Random(thread.own()));
        // SAFETY: a yield writes no memory.
        let (_, seen) = unsafe { loaded.across(1_000_000, &[SCHED_YIELD, 0, 0, 0, 0]) };
        if let Err(lost) = loaded.check(&seen) {
            fail!("threads: while others end: {lost}");
        }
    }
}

fn sleeps(_: &'static Thread) {
    started();
    loop {
        let word = NEVER.as_ptr().expose_provenance();
        // SAFETY: futex(2) reads the word.
        unsafe { call(FUTEX, [word, 128, 0, 0]) };
    }
}

fn reads(_: &'static Thread) {
    let (mut ends, mut byte) = ([0_u32; 2], 0_u8);
    // SAFETY: pipe(2) writes two numbers, which are ours.
    let result = unsafe { call(PIPE, [ends.as_mut_ptr().expose_provenance(), 0, 0, 0]) };
    expect("a pipe", 0, result);
    started();
    loop {
        let to = (&raw mut byte).expose_provenance();
        // SAFETY: read(2) writes a byte, which is ours.
        unsafe { call(READ, [ends[0] as usize, to, 1, 0]) };
    }
}

fn waits(_: &'static Thread) {
    let child = fork();
    if child == 0 {
        // It ends when its parent does, or soon after.
        for _ in 0..2000 {
            sched_yield();
        }
        exit(0);
    }
    started();
    let _ = wait(child, 0);
    sleeps_for_ever()
}

fn sleeps_for_ever() -> ! {
    loop {
        sched_yield();
    }
}

/// Starts one of each kind, and waits until all have started.
fn crowd() {
    spawn(1, computes);
    spawn(2, sleeps);
    spawn(3, reads);
    spawn(4, waits);
    while N_STARTED.load(Ordering::Acquire) < N_KINDS {
        sched_yield();
    }
}

fn ends_all(_: &'static Thread) {
    exit(23)
}

fn exits_late(_: &'static Thread) {
    for _ in 0..50 {
        sched_yield();
    }
    say!("a thread outlived the first one");
    exit_thread(STATUS)
}

fn kills_all(_: &'static Thread) {
    kill(getpid(), SIGTERM);
    sleeps_for_ever()
}

fn faults(_: &'static Thread) {
    // SAFETY: none; that is what it is for. The process ends here.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}

/// Runs `f` in a child, whose status is looked at. Whether a core was dumped, bit 7 says, depends on the machine.
fn ended(what: &str, expected: u32, f: fn()) {
    let child = fork();
    if child == 0 {
        f();
        exit_thread(STATUS);
    }
    let status = wait(child, 0).ok().flatten();
    expect(what, Some(expected), status.map(|status| status & !0x80));
}

pub(crate) fn run() {
    ended("all by one", 23 << 8, || {
        crowd();
        spawn(5, ends_all);
        sleeps_for_ever();
    });
    ended("one by one", 5 << 8, || {
        spawn(6, exits_late);
    });
    ended("all by a signal to the process", 15, || {
        crowd();
        spawn(7, kills_all);
        sleeps_for_ever();
    });
    ended("all by an exception of one", 4, || {
        crowd();
        spawn(8, faults);
        sleeps_for_ever();
    });
    ended("all by a signal to one", 12, || {
        crowd();
        let thread = spawn(9, computes);
        expect("a signal to a thread", 0, thread.signal(SIGUSR2));
        sleeps_for_ever();
    });
    say!("processes with threads ended in five ways");
}
