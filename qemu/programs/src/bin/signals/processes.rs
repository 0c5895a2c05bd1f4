//! Signals from one process to another, both with all registers in use.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicUsize, Ordering};

use pcu9_programs::held::{Call, Registers};
use pcu9_programs::numbers::Random;
use pcu9_programs::signals::{Context, Info, SA_RESTART, SIGTERM, SIGUSR1, SIGUSR2, handle, kill};
use pcu9_programs::syscalls::{SCHED_YIELD, WAIT4, exit, fork, getpid, wait};
use pcu9_programs::{fail, say};

use super::{begin, checked_handler, expect, hold, hold_for, n_handled};

const ROUNDS: u32 = 20;
const WNOHANG: usize = 1;
const EINTR: isize = -4;
const ESRCH: isize = -3;
/// How long a sender waits between two signals, longer each time where there is no end: a handler must have been through by then, or
/// it would be followed by the next for ever.
const PAUSE: u64 = 100_000;
const YIELD: Call = [SCHED_YIELD, 0, 0, 0, 0];

/// Whom a handler answers.
static OTHER: AtomicUsize = AtomicUsize::new(0);

fn send(process: usize, signal: usize) {
    let result = kill(process, signal);
    if result != 0 {
        fail!("signals: expected signal {signal} to be sent, saw error {result}");
    }
}

checked_handler!(answers, on_answer);
extern "C" fn on_answer(_: usize, info: &Info, _: &mut Context) {
    begin("a handler in another process");
    let other = OTHER.load(Ordering::Relaxed);
    expect("who sent a signal", other as u64, info.value);
    send(other, SIGUSR2);
}

checked_handler!(counts, on_count);
extern "C" fn on_count(_: usize, _: &Info, _: &mut Context) {
    begin("a handler of an answer");
}

/// Forks a child that runs `f` in a loop, whose handlers answer the parent.
fn child(f: fn(u64)) -> usize {
    OTHER.store(getpid(), Ordering::Relaxed);
    let child = fork();
    if child == 0 {
        for round in 0.. {
            f(round);
        }
    }
    child
}

/// Ends a child, which must have run until now.
fn end(child: usize) {
    send(child, SIGTERM);
    let mut status = wait(child, 0);
    while status == Err(EINTR) {
        // The child's last signal came first.
        status = wait(child, 0);
    }
    // Whether a core was dumped, bit 7 says, depends on the machine.
    let signal = status.map(|status| status.map(|bits| bits as usize & 0x7F));
    expect("what ended a child", Ok(Some(SIGTERM)), signal);
    expect("a signal to nobody", ESRCH, kill(child, SIGUSR1));
}

/// Question and answer, while both hold registers.
fn ping_pong() {
    handle(SIGUSR1, answers, 0, 0);
    handle(SIGUSR2, counts, 0, 0);
    let child = child(|round| {
        let own = Registers::random(&mut Random(1000 + round));
        hold_for("a child, under signals", &own, 0, &YIELD, &own);
    });
    let before = n_handled();
    let mut random = Random(4);
    for round in 1..=ROUNDS {
        send(child, SIGUSR1);
        while n_handled() - before < round {
            let own = Registers::random(&mut random);
            hold_for("a parent, under answers", &own, 0, &YIELD, &own);
            if let Ok(Some(status)) = wait(child, WNOHANG) {
                fail!("signals: expected a child that answers, saw it end with {status:#x}");
            }
        }
    }
    end(child);
    expect("answers", ROUNDS, n_handled() - before);
    say!("{ROUNDS} signals to another process, and as many back");
}

/// A signal ends a wait, or does not, as the handler was installed.
fn interrupted_wait() {
    let own = Registers::random(&mut Random(5));
    let mut status = 0_u32;
    let wait_for = |child: usize, status: &mut u32| {
        [WAIT4, child, (&raw mut *status).expose_provenance(), 0, 0]
    };
    handle(SIGUSR2, counts, 0, 0);
    let sender = child(|round| {
        send(OTHER.load(Ordering::Relaxed), SIGUSR2);
        hold(&Registers::zero(), PAUSE << round.min(10), &YIELD);
    });
    let (result, seen) = hold(&own, 0, &wait_for(sender, &mut status));
    expect("a wait that is interrupted", EINTR, result);
    if let Err(lost) = own.check(&seen) {
        fail!("signals: an interrupted wait: {lost}");
    }
    end(sender);

    handle(SIGUSR2, counts, SA_RESTART, 0);
    let sender = child(|round| {
        send(OTHER.load(Ordering::Relaxed), SIGUSR2);
        if round == 10 {
            exit(7);
        }
        hold(&Registers::zero(), PAUSE, &YIELD);
    });
    let (result, seen) = hold(&own, 0, &wait_for(sender, &mut status));
    let child_exited = (sender.cast_signed(), 7 << 8);
    expect("a wait that goes on", child_exited, (result, status));
    if let Err(lost) = own.check(&seen) {
        fail!("signals: a wait that went on: {lost}");
    }
    say!("a wait is interrupted, or goes on");
}

pub(crate) fn run() {
    ping_pong();
    interrupted_wait();
}
