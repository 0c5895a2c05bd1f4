//! Signals while every FPU register is in use: what a handler does with them is not the program's, unless it says so in its frame.
//!
//! Every handler here begins with the initial state, which it checks by its first instruction, and ends by destroying all registers
//! of x87 and SSE. Handlers run over the program's registers, over each other's, and in another process; they edit the image in
//! their frame, and repair what an exception was about.
//!
//! With the argument `ten` it takes ten signals, and does nothing else. With `frames` it looks at each byte of a frame instead: none is
//! the kernel's. With `simd` it raises an exception of SSE, and exits with status 2 where the machine has none.

#![no_std]
#![no_main]

mod exceptions;
mod frames;
mod processes;

use core::arch::naked_asm;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use pcu9_programs::held::{Call, Registers};
use pcu9_programs::initial::First;
use pcu9_programs::numbers::{Digest, Random};
use pcu9_programs::signals::{
    AT_MAGIC1, AT_XSTATE_BV, Context, Info, SA_NODEFER, SA_RESETHAND, SIGUSR1, SIGUSR2, handle,
    kill,
};
use pcu9_programs::start::argument;
use pcu9_programs::syscalls::{SCHED_YIELD, TGKILL, getpid, sched_yield};
use pcu9_programs::{fail, program, say};

program!(main);

const ROUNDS: u64 = 100;
/// Every so many rounds the registers are held for `LONG` turns of a loop before the signal.
const LONG_EVERY: u64 = 20;
const LONG: u64 = 300_000;
const DEPTH: u32 = 6;

/// The FPU at the first instruction of a handler.
static FIRST: First = First::new();
/// How often a handler ran.
static N_HANDLED: AtomicU32 = AtomicU32::new(0);
/// How many handlers of the nested kind are at work.
static N_NESTED: AtomicU32 = AtomicU32::new(0);
/// What the next handler puts into its frame.
static EDIT: AtomicPtr<Registers> = AtomicPtr::new(null_mut());

/// Makes a handler that stores the FPU before anything else.
#[macro_export]
macro_rules! checked_handler {
    ($name:ident, $body:path) => {
        #[unsafe(naked)]
        extern "C" fn $name(_: usize, _: &Info, _: &mut Context) {
            naked_asm!(
                "fxsave64 [rip + {first}]",
                "jmp {body}",
                first = sym $crate::FIRST,
                body = sym $body,
            )
        }
    };
}

/// What every handler does first: is its FPU in the initial state?
fn begin(who: &str) {
    if let Err(lost) = FIRST.check() {
        fail!("signals: {who}: at its start: {lost}");
    }
    N_HANDLED.fetch_add(1, Ordering::Relaxed);
}

fn n_handled() -> u32 {
    N_HANDLED.load(Ordering::Relaxed)
}

/// Fails where a number is not what it should be.
fn expect<T: Copy + PartialEq + core::fmt::Debug>(what: &str, expected: T, seen: T) {
    if expected != seen {
        fail!("signals: {what}: expected {expected:?}, saw {seen:?}");
    }
}

/// The call by which the program sends itself a signal.
fn raise(signal: usize) -> Call {
    let own = getpid();
    [TGKILL, own, own, signal, 0]
}

/// Holds registers over a call, and gives them as they are then, and the call's result.
fn hold(loaded: &Registers, delay: u64, call: &Call) -> (isize, Registers) {
    // SAFETY: signals, yields and waits touch no memory but what the handlers of this program do.
    unsafe { loaded.across(delay, call) }
}

/// Holds registers over a call that succeeds, and wants `expected` then.
fn hold_for(what: &str, loaded: &Registers, delay: u64, call: &Call, expected: &Registers) {
    let (result, seen) = hold(loaded, delay, call);
    if result < 0 {
        fail!("signals: {what}: expected a call to succeed, saw error {result}");
    }
    if let Err(lost) = expected.check(&seen) {
        fail!("signals: {what}: {lost}");
    }
}

checked_handler!(destroys, on_destroy);
extern "C" fn on_destroy(_: usize, _: &Info, _: &mut Context) {
    begin("a handler that destroys");
    sched_yield();
}

/// The handler changes every register, and the program notices nothing.
fn destroyed(n_rounds: u64) {
    handle(SIGUSR1, destroys, 0, 0);
    let (mut random, mut digest) = (Random(1), Digest::default());
    for round in 0..n_rounds {
        let loaded = Registers::random(&mut random);
        let delay = if round % LONG_EVERY == 1 { LONG } else { 0 };
        hold_for(
            "destroyed by a handler",
            &loaded,
            delay,
            &raise(SIGUSR1),
            &loaded,
        );
        loaded.digest(&mut digest);
    }
    expect("handlers", n_rounds, n_handled().into());
    say!(
        "{n_rounds} handlers destroyed all registers: {:016x}",
        digest.0
    );
}

checked_handler!(edits, on_edit);
extern "C" fn on_edit(_: usize, _: &Info, context: &mut Context) {
    begin("a handler that edits");
    let edit = EDIT.load(Ordering::Relaxed);
    // SAFETY: it names registers of the program's that stay while it waits for the signal.
    let edit = unsafe { edit.as_ref() };
    match edit {
        // No image: the initial state.
        None => context.fpstate = 0,
        Some(registers) => {
            let has_xsave = context.has_xsave();
            let mut image = context.image();
            registers.put_into(&mut image);
            if has_xsave {
                image.change(AT_XSTATE_BV, 3, 0);
            }
        }
    }
}

checked_handler!(edits_legacy, on_edit_legacy);
extern "C" fn on_edit_legacy(signal: usize, info: &Info, context: &mut Context) {
    on_edit(signal, info, context);
    // As a program does that knows of x87 and SSE alone: XSTATE_BV does not count.
    if context.has_xsave() {
        context.image().put(AT_MAGIC1, &[0; 4]);
        context.image().put(AT_XSTATE_BV, &[0; 8]);
    }
}

/// The program goes on with what the handler wrote into its frame.
fn edited() {
    let mut random = Random(2);
    let mut digest = Digest::default();
    for round in 0..ROUNDS {
        let handler = if round % 4 == 3 { edits_legacy } else { edits };
        handle(SIGUSR1, handler, SA_RESETHAND, 0);
        let loaded = Registers::random(&mut random);
        let mut edit = Registers::random(&mut random);
        // What is loaded is what is taken out again.
        edit.depth = loaded.depth;
        EDIT.store((&raw const edit).cast_mut(), Ordering::Relaxed);
        hold_for("edited by a handler", &loaded, 0, &raise(SIGUSR1), &edit);
        edit.digest(&mut digest);
    }
    say!("{ROUNDS} handlers edited all registers: {:016x}", digest.0);

    EDIT.store(null_mut(), Ordering::Relaxed);
    handle(SIGUSR1, edits, SA_RESETHAND, 0);
    let mut loaded = Registers::random(&mut random);
    loaded.depth = 0;
    let mut initial = Registers::zero();
    initial.depth = 0;
    hold_for(
        "a frame without an image",
        &loaded,
        0,
        &raise(SIGUSR1),
        &initial,
    );
    say!("a frame without an image is the initial state");
}

checked_handler!(nests, on_nest);
extern "C" fn on_nest(_: usize, _: &Info, _: &mut Context) {
    begin("a nested handler");
    let depth = N_NESTED.fetch_add(1, Ordering::Relaxed) + 1;
    let mut random = Random(100 + u64::from(depth));
    let own = Registers::random(&mut random);
    let call = if depth < DEPTH {
        raise(SIGUSR1)
    } else {
        [SCHED_YIELD, 0, 0, 0, 0]
    };
    hold_for("a handler over a handler", &own, 0, &call, &own);
    N_NESTED.fetch_sub(1, Ordering::Relaxed);
}

checked_handler!(waits, on_wait);
extern "C" fn on_wait(_: usize, _: &Info, _: &mut Context) {
    begin("a handler that another signal waits for");
    let before = n_handled();
    let own = Registers::random(&mut Random(7));
    hold_for(
        "a handler over a blocked signal",
        &own,
        0,
        &raise(SIGUSR2),
        &own,
    );
    expect("handlers of a blocked signal", before, n_handled());
}

/// Handlers interrupt handlers, each with registers of its own.
fn nested() {
    let before = n_handled();
    handle(SIGUSR1, nests, SA_NODEFER, 0);
    let loaded = Registers::random(&mut Random(3));
    hold_for(
        "under nested handlers",
        &loaded,
        0,
        &raise(SIGUSR1),
        &loaded,
    );
    expect("nested handlers", DEPTH, n_handled() - before);
    say!("{DEPTH} handlers, one over the other");

    let before = n_handled();
    handle(SIGUSR2, destroys, 0, 0);
    handle(SIGUSR1, waits, 0, 1 << (SIGUSR2 - 1));
    hold_for(
        "under a blocked signal",
        &loaded,
        0,
        &raise(SIGUSR1),
        &loaded,
    );
    expect("handlers, one after the other", 2, n_handled() - before);
    say!("a blocked signal comes when the handler is over");
}

fn main() {
    match argument().map(core::ffi::CStr::to_bytes) {
        None => {
            say!("signals: handlers that destroy, edit, nest and repair");
            destroyed(ROUNDS);
            edited();
            nested();
            processes::run();
            exceptions::run();
        }
        Some(b"ten") => destroyed(10),
        Some(b"frames") => frames::run(),
        Some(b"simd") => exceptions::run_simd(),
        Some(other) => fail!("signals: {other:?}: the argument is ten, frames, simd, or none"),
    }
    if kill(getpid(), 0) != 0 {
        fail!("signals: expected the program itself to exist");
    }
}
