//! Begins other programs in its own place, by `execve`, with all registers in use: what stays, what goes, and what an error leaves.
//!
//! Without arguments it runs through a fixed list of that, itself being the other program each time. With four it is one of the stress'
//! LWPs: see [`worker`].

#![no_std]
#![no_main]

mod worker;

use core::ffi::CStr;
use core::str::FromStr;
use core::sync::atomic::{AtomicU32, Ordering};

use pcu9_programs::exec::{self, Digits, Strings};
use pcu9_programs::held::{Call, Registers};
use pcu9_programs::initial::First;
use pcu9_programs::numbers::Random;
use pcu9_programs::signals::{Context, Info, SIGTERM, SIGUSR1, SIGUSR2, handle, kill};
use pcu9_programs::start::{arguments, environment, path};
use pcu9_programs::syscalls::{
    EXECVE, PIPE, PTRACE, READ, RT_SIGACTION, RT_SIGPROCMASK, WRITE, call, exit, fork, getpid,
    sched_yield, wait,
};
use pcu9_programs::threads::{self, Thread, gettid};
use pcu9_programs::{fail, program, say};

program!(main, "fxsave64 [rip + {first}]", first = sym FIRST);

/// The FPU at the first instruction of the program, stored by FXSAVE before Rust code ran.
static FIRST: First = First::new();

const SIG_IGN: usize = 1;
const SIG_BLOCK: usize = 0;
const SIG_UNBLOCK: usize = 1;
/// `close(2)`.
const CLOSE: usize = 3;
/// `pipe2(2)`.
const PIPE2: usize = 293;
const O_CLOEXEC: usize = 0o2_000_000;

fn main() {
    if let Err(lost) = FIRST.check() {
        fail!("lives: at a program's start: {lost}");
    }
    let mut words = arguments().skip(1);
    match (words.next(), words.next(), words.next(), words.next()) {
        (None, ..) => first(),
        (Some(number), Some(seed), Some(end), Some(life)) => worker::run(worker::Worker::new(
            number_of(number),
            number_of(seed),
            number_of(end),
            number_of(life),
        )),
        (Some(stage), Some(pid), ..) => {
            expect("the process's number", number_of(pid), getpid());
            match stage.to_bytes() {
                b"second" => second(),
                b"third" => third(),
                b"fourth" => exit(7),
                _ => fail!("lives: no such part"),
            }
        }
        _ => fail!("lives: no arguments, or four numbers: LWP, seed, end, life"),
    }
}

fn number_of<N: FromStr>(text: &CStr) -> N {
    let number = text.to_str().ok().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| fail!("lives: an argument is no number"))
}

fn expect(what: &str, seen: usize, expected: usize) {
    if seen != expected {
        fail!("lives: {what}: expected {expected}, saw {seen}");
    }
}

/// Where this program is.
fn own_path() -> &'static CStr {
    path().unwrap_or_else(|| fail!("lives: the auxiliary vector has no path"))
}

/// Makes a call with all registers in use, which are as they were if it comes back: what it answers.
fn hold(seed: u64, call: &Call) -> isize {
    let loaded = Registers::random(&mut Random(seed));
    // SAFETY: a call that begins another program takes this one's memory away, and does not come back.
    let (answer, after) = unsafe { loaded.across(0, call) };
    if let Err(lost) = loaded.check(&after) {
        fail!("lives: across a call that failed: {lost}");
    }
    answer
}

/// Begins the part of this program that is named so.
fn begin(part: &CStr) -> ! {
    let pid = Digits::new(getpid() as u64);
    let arguments = Strings::new(&[c"lives", part, pid.text()]);
    let environment = Strings::new(&[c"PART=next", c"EMPTY="]);
    let answer = hold(7, &exec::call(own_path(), &arguments, &environment));
    fail!("lives: expected another program, saw {answer}")
}

fn first() {
    say!("lives: other programs in the place of this one, with all registers in use");
    errors();
    signals();
    // Whoever began this program may have left descriptors open in it.
    for descriptor in 3..64 {
        // SAFETY: close(2) touches no memory.
        unsafe { call(CLOSE, [descriptor, 0, 0, 0]) };
    }
    pipe(0, 3);
    pipe(O_CLOEXEC, 5);
    let byte = [42_u8];
    // SAFETY: write(2) reads a byte.
    let written = unsafe { call(WRITE, [4, byte.as_ptr().expose_provenance(), 1, 0]) };
    expect("bytes written", written.cast_unsigned(), 1);
    begin(c"second")
}

/// What cannot be begun is said, and nothing has changed.
fn errors() {
    static LONG_PATH: [u8; 5000] = {
        let mut bytes = [b'x'; 5000];
        bytes[4999] = 0;
        bytes
    };
    static LONG_ARGUMENT: [u8; 140_000] = {
        let mut bytes = [b'x'; 140_000];
        bytes[139_999] = 0;
        bytes
    };
    let text = |bytes: &'static [u8]| CStr::from_bytes_until_nul(bytes).unwrap_or_default();
    let (none, long) = (Strings::new(&[]), Strings::new(&[text(&LONG_ARGUMENT)]));
    let own = own_path().as_ptr().expose_provenance();
    let unreadable = 8;
    let calls = [
        (
            "no such file",
            exec::call(c"/no/such/program", &none, &none),
        ),
        (
            "no such file in the directory",
            exec::call(c"no-such-program", &none, &none),
        ),
        ("an empty path", exec::call(c"", &none, &none)),
        (
            "a path that is too long",
            exec::call(text(&LONG_PATH), &none, &none),
        ),
        ("a path that cannot be read", [EXECVE, unreadable, 0, 0, 0]),
        (
            "arguments that cannot be read",
            [EXECVE, own, unreadable, 0, 0],
        ),
        (
            "an environment that cannot be read",
            [EXECVE, own, 0, unreadable, 0],
        ),
        (
            "an argument that is too long",
            exec::call(own_path(), &long, &none),
        ),
    ];
    for ((what, call), seed) in calls.into_iter().zip(100..) {
        say!("  {what}: {}", hold(seed, &call));
    }
}

/// A handler, which the next program must not have; a signal that is ignored, and one that is blocked and waits.
fn signals() {
    handle(SIGUSR1, must_not_run, 0, 0);
    let action = [SIG_IGN, 0, 0, 0];
    // SAFETY: rt_sigaction(2) reads the action.
    unsafe {
        call(
            RT_SIGACTION,
            [SIGUSR2, action.as_ptr().expose_provenance(), 0, 8],
        )
    };
    mask(SIG_BLOCK, SIGTERM);
    kill(getpid(), SIGTERM);
}

extern "C" fn must_not_run(_: usize, _: &Info, _: &mut Context) {
    fail!("lives: the handler of a program that is gone runs");
}

static N_TERMS: AtomicU32 = AtomicU32::new(0);

extern "C" fn counts(_: usize, _: &Info, _: &mut Context) {
    N_TERMS.fetch_add(1, Ordering::Relaxed);
}

fn mask(how: usize, signal: usize) {
    let bit = 1_u64 << (signal - 1);
    // SAFETY: rt_sigprocmask(2) reads the mask.
    unsafe {
        call(
            RT_SIGPROCMASK,
            [how, (&raw const bit).expose_provenance(), 0, 8],
        )
    };
}

/// What is said of a signal.
fn handler_of(signal: usize) -> usize {
    let mut action = [0_usize; 4];
    // SAFETY: rt_sigaction(2) writes the action.
    unsafe {
        call(
            RT_SIGACTION,
            [signal, 0, action.as_mut_ptr().expose_provenance(), 8],
        )
    };
    action[0]
}

/// Makes a pipe whose ends have the numbers from `number` on.
fn pipe(flags: usize, number: usize) {
    let mut ends = [0_u32; 2];
    let at = ends.as_mut_ptr().expose_provenance();
    let which = if flags == 0 { PIPE } else { PIPE2 };
    // SAFETY: pipe(2) writes two numbers.
    unsafe { call(which, [at, flags, 0, 0]) };
    expect("a pipe's end", ends[0] as usize, number);
    expect("a pipe's other end", ends[1] as usize, number + 1);
}

/// What reading a byte from a descriptor gives.
fn read(descriptor: usize) -> (isize, u8) {
    let mut byte = 0;
    let at = (&raw mut byte).expose_provenance();
    // SAFETY: read(2) writes a byte.
    (unsafe { call(READ, [descriptor, at, 1, 0]) }, byte)
}

fn second() {
    say!("second: {} arguments", arguments().count());
    for string in environment() {
        say!("  {}", string.to_str().unwrap_or("?"));
    }
    say!("  the handler is gone: {}", handler_of(SIGUSR1));
    say!("  what was ignored is: {}", handler_of(SIGUSR2));
    kill(getpid(), SIGUSR2);
    handle(SIGTERM, counts, 0, 0);
    expect(
        "signals that were blocked",
        N_TERMS.load(Ordering::Relaxed) as usize,
        0,
    );
    mask(SIG_UNBLOCK, SIGTERM);
    say!("  signals that waited: {}", N_TERMS.load(Ordering::Relaxed));
    say!("  a pipe that stays: {:?}", read(3));
    say!("  one that was to be closed: {:?}", read(5));
    // Neither the first thread nor the one that sleeps comes into the next program.
    threads::spawn(1, |_| while threads::futex_wait(&N_TERMS, 1, None) != 1 {});
    threads::spawn(2, |_| {
        loop {
            hold(11, &[pcu9_programs::syscalls::SCHED_YIELD, 0, 0, 0, 0]);
        }
    });
    threads::spawn(3, |_: &'static Thread| begin(c"third"));
    loop {
        sched_yield();
    }
}

/// A program that begins in a traced process stops first.
fn traced() {
    const TRACEME: usize = 0;
    const CONT: usize = 7;
    let child = fork();
    if child == 0 {
        // SAFETY: ptrace(2) with this request touches no memory.
        unsafe { call(PTRACE, [TRACEME, 0, 0, 0]) };
        begin(c"fourth");
    }
    let stopped = wait(child, 0);
    // SAFETY: as above.
    unsafe { call(PTRACE, [CONT, child, 0, 0]) };
    match (stopped, wait(child, 0)) {
        (Ok(Some(stopped)), Ok(Some(ended))) => {
            say!("  a traced child stopped: {stopped:#x}, and ended: {ended:#x}");
        }
        other => fail!("lives: expected a stop and an end, saw {other:?}"),
    }
}

fn third() {
    expect("the only thread's number", gettid(), getpid());
    say!("third: begun by the last of four threads");
    for _ in 0..3 {
        let child = fork();
        if child == 0 {
            begin(c"fourth");
        }
        match wait(child, 0) {
            Ok(Some(status)) => say!("  a child began another program, and ended: {status:#x}"),
            other => fail!("lives: expected a child's end, saw {other:?}"),
        }
    }
    traced();
}
