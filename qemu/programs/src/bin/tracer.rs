//! A debugger and what it debugs: the registers of a child that stands still are read and changed by `ptrace`, all of x87 and SSE and
//! the general ones, and what is no image of registers is refused and changes nothing.
//!
//! The child holds its registers in the CPU when it stops, so the newest are those, wherever it ran.

#![no_std]
#![no_main]

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU32, Ordering};

use pcu9_programs::held::MXCSR_INITIAL;
use pcu9_programs::image::{self, Image};
use pcu9_programs::numbers::{Digest, Random};
use pcu9_programs::signals::{Context, Info, SIGSTOP, SIGUSR1, handle};
use pcu9_programs::syscalls::{PTRACE, TGKILL, call, exit, fork, getpid, sched_yield, wait};
use pcu9_programs::{fail, program, say};

program!(main);

const TRACEME: usize = 0;
const CONT: usize = 7;
const ATTACH: usize = 16;
const DETACH: usize = 17;
const GETREGSET: usize = 0x4204;
const SETREGSET: usize = 0x4205;

/// Register sets.
const PRSTATUS: usize = 1;
const PRFPREG: usize = 2;
const XSTATE: usize = 0x202;
/// More than any processor's image has.
const MOST: usize = 16 << 10;
/// In the general set.
const RAX: usize = 10;
const CS: usize = 17;
const FS_BASE: usize = 21;
const N_GENERAL: usize = 27;

const ESRCH: isize = -3;
const EIO: isize = -5;
const EFAULT: isize = -14;
const ENODEV: isize = -19;
const EINVAL: isize = -22;

const ROUNDS: u64 = 12;

fn expect<T: Copy + PartialEq + core::fmt::Debug>(what: &str, expected: T, seen: T) {
    if expected != seen {
        fail!("tracer: {what}: expected {expected:?}, saw {seen:?}");
    }
}

/// What the child holds when it stops, and what it finds afterwards.
#[repr(C)]
struct Child {
    holds: Image,
    finds: Image,
}

/// Holds registers, sends itself the signal, and stores what it has when it goes on; the call's result.
#[unsafe(naked)]
extern "C" fn stop(child: &Child, pid: usize, signal: usize) -> isize {
    naked_asm!(
        "mov r8, rdi",
        "mov rdi, rsi",
        "fxrstor64 [r8]",
        "mov eax, {tgkill}",
        "syscall",
        "fxsave64 [r8 + {bytes}]",
        "fninit",
        "ldmxcsr [rip + {mxcsr}]",
        "ret",
        tgkill = const TGKILL,
        bytes = const image::BYTES,
        mxcsr = sym INITIAL,
    )
}

/// Holds registers until somebody puts a number into RAX, and stores what it has then.
#[unsafe(naked)]
extern "C" fn spin(child: &Child) {
    naked_asm!(
        "fxrstor64 [rdi]",
        "xor eax, eax",
        "2: test rax, rax",
        "jz 2b",
        "fxsave64 [rdi + {bytes}]",
        "fninit",
        "ldmxcsr [rip + {mxcsr}]",
        "ret",
        bytes = const image::BYTES,
        mxcsr = sym INITIAL,
    )
}

static INITIAL: u32 = MXCSR_INITIAL;

fn ptrace(request: usize, pid: usize, address: usize, data: usize) -> isize {
    // SAFETY: what is written is named by `get`, which owns it; a child's registers are the child's.
    unsafe { call(PTRACE, [request, pid, address, data]) }
}

/// Reads a register set: how long it is.
fn get(pid: usize, kind: usize, to: &mut [u8]) -> Result<usize, isize> {
    let mut vector = [to.as_mut_ptr().expose_provenance(), to.len()];
    let result = ptrace(
        GETREGSET,
        pid,
        kind,
        vector.as_mut_ptr().expose_provenance(),
    );
    if result < 0 {
        Err(result)
    } else {
        Ok(vector[1])
    }
}

fn set(pid: usize, kind: usize, from: &[u8]) -> isize {
    let vector = [from.as_ptr().expose_provenance(), from.len()];
    ptrace(SETREGSET, pid, kind, vector.as_ptr().expose_provenance())
}

/// The general registers.
fn general(pid: usize) -> [u64; N_GENERAL] {
    let mut bytes = [[0; 8]; N_GENERAL];
    let length = get(pid, PRSTATUS, bytes.as_flattened_mut());
    expect("the general registers' length", Ok(8 * N_GENERAL), length);
    bytes.map(u64::from_le_bytes)
}

fn set_general(pid: usize, words: [u64; N_GENERAL]) -> isize {
    set(pid, PRSTATUS, words.map(u64::to_le_bytes).as_flattened())
}

/// Waits until the child stands for this signal.
fn wait_for_stop(pid: usize, signal: usize) {
    let status = wait(pid, 0);
    let expected = u32::try_from(signal << 8 | 0x7F);
    expect("a child that stands", Ok(expected.ok()), status);
}

fn go_on(pid: usize, signal: usize) {
    expect("a child that goes on", 0, ptrace(CONT, pid, 0, signal));
}

fn expect_success(pid: usize) {
    expect("a child's status", Ok(Some(0)), wait(pid, 0));
}

/// Forks a child that is traced from its beginning.
fn traced(f: impl FnOnce()) -> usize {
    let pid = fork();
    if pid == 0 {
        expect("to be traced", 0, ptrace(TRACEME, 0, 0, 0));
        f();
        exit(0);
    }
    pid
}

/// The register sets that the machine has, with the FPU's registers.
fn kinds(pid: usize, buffer: &mut [u8]) -> &'static [usize] {
    match get(pid, XSTATE, buffer) {
        Ok(_) => &[PRFPREG, XSTATE],
        Err(error) => {
            expect("a machine without XSAVE", ENODEV, error);
            &[PRFPREG]
        }
    }
}

/// What is in a round before and after the edit: both sides compute it.
fn images(round: u64) -> [Image; 2] {
    let mut random = Random(round);
    [Image::random(&mut random), Image::random(&mut random)]
}

fn edited(buffer: &mut [u8]) {
    let pid = traced(|| {
        for round in 0..ROUNDS {
            let [holds, edited] = images(round);
            let child = Child {
                holds,
                finds: Image::zero(),
            };
            let result = stop(&child, getpid(), SIGSTOP);
            expect(
                "RAX that the tracer set",
                1000 + round.cast_signed(),
                result as i64,
            );
            if let Some(at) = child.finds.difference(&edited) {
                fail!("tracer: the child, round {round}: byte {at} is not what the tracer wrote");
            }
        }
    });
    let mut digest = Digest::default();
    for round in 0..ROUNDS {
        wait_for_stop(pid, SIGSTOP);
        let [holds, edited] = images(round);
        // One set is read, the other one written, and so on.
        let kinds = kinds(pid, buffer);
        let kind = |round: u64| kinds[usize::from(round % 2 == 1) % kinds.len()];
        let n = get(pid, kind(round), buffer).unwrap_or(0);
        let seen = Image::of(&buffer[..n]);
        if let Some(at) = seen.difference(&holds) {
            fail!("tracer: round {round}: byte {at} is not what the child holds");
        }
        seen.digest(&mut digest);
        let n = get(pid, kind(round + 1), buffer).unwrap_or(0);
        refused(pid, kind(round + 1), &mut buffer[..n]);
        edited.put(buffer);
        if let Some(in_use) = buffer[..n].get_mut(512) {
            *in_use |= 3;
        }
        expect("an edit", 0, set(pid, kind(round + 1), &buffer[..n]));
        let mut words = general(pid);
        words[RAX] = 1000 + round;
        expect("an edit of RAX", 0, set_general(pid, words));
        go_on(pid, 0);
    }
    expect_success(pid);
    say!(
        "{ROUNDS} times a child's registers were read and changed: {:016x}",
        digest.0
    );
}

/// What is no image is refused, and nothing changes. `image` is the set as it was read, and is so again.
fn refused(pid: usize, kind: usize, image: &mut [u8]) {
    let before = Image::of(image);
    let mut tampered = |at: usize, bit: u8| {
        let Some(byte) = image.get_mut(at) else {
            return;
        };
        *byte ^= bit;
        let result = set(pid, kind, image);
        image[at] ^= bit;
        if result != EINVAL {
            fail!("tracer: a bad byte {at}: expected error {EINVAL}, saw {result}");
        }
    };
    tampered(26, 1); // MXCSR, bit 16
    tampered(27, 0x80); // bit 31
    tampered(519, 0x40); // XSTATE_BV, bit 62
    tampered(520, 1); // XCOMP_BV
    tampered(527, 0x80);
    tampered(528, 1); // reserved
    tampered(575, 1);
    let short = if kind == PRFPREG { EINVAL } else { EFAULT };
    expect("half an image", short, set(pid, kind, &image[..256]));
    expect("no set", Err(EINVAL), get(pid, 77, image));
    let mut words = general(pid);
    words[CS] = 0x10;
    expect("a selector of the kernel's", EIO, set_general(pid, words));
    let mut words = general(pid);
    words[FS_BASE] = 1 << 63;
    expect("a base in the kernel", EIO, set_general(pid, words));
    let n = get(pid, kind, image).unwrap_or(0);
    if let Some(at) = Image::of(&image[..n]).difference(&before) {
        fail!("tracer: byte {at} has changed though everything was refused");
    }
}

/// A child that runs is stopped from outside.
fn attached(buffer: &mut [u8]) {
    let pid = fork();
    if pid == 0 {
        let [holds, edited] = images(100);
        let child = Child {
            holds,
            finds: Image::zero(),
        };
        spin(&child);
        match child.finds.difference(&edited) {
            Some(at) => fail!("tracer: an attached child: byte {at} is not what the tracer wrote"),
            None => exit(0),
        }
    }
    let [holds, edited] = images(100);
    expect("a child that is not traced", ESRCH, ptrace(CONT, pid, 0, 0));
    let mut patience = 1;
    loop {
        expect("attaching", 0, ptrace(ATTACH, pid, 0, 0));
        wait_for_stop(pid, SIGSTOP);
        let n = get(pid, PRFPREG, buffer).unwrap_or(0);
        if Image::of(&buffer[..n]).difference(&holds).is_none() {
            break;
        }
        // It has not come so far. On a CPU of its own the next stop may come before its next instruction: so it gets more time each
        // time.
        expect("detaching", 0, ptrace(DETACH, pid, 0, 0));
        (0..patience).for_each(|_| sched_yield());
        patience *= 2;
    }
    edited.put(buffer);
    expect("an edit", 0, set(pid, PRFPREG, &buffer[..image::BYTES]));
    let mut words = general(pid);
    words[RAX] = 1;
    expect("an edit of RAX", 0, set_general(pid, words));
    expect("detaching", 0, ptrace(DETACH, pid, 0, 0));
    expect("a child that runs", Err(ESRCH), get(pid, PRFPREG, buffer));
    expect_success(pid);
    say!("a child that ran was stopped, changed and let go");
}

static N_HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_signal(_: usize, _: &Info, _: &mut Context) {
    N_HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// The tracer decides which signals come.
fn signals() {
    let pid = traced(|| {
        handle(SIGUSR1, on_signal, 0, 0);
        let child = Child {
            holds: Image::random(&mut Random(7)),
            finds: Image::zero(),
        };
        for round in 0..6 {
            expect("a signal", 0, stop(&child, getpid(), SIGUSR1));
            expect(
                "signals that came",
                round / 2 + 1,
                N_HANDLED.load(Ordering::Relaxed),
            );
            if child.finds.difference(&child.holds).is_some() {
                fail!("tracer: the child's registers are not what they were before a signal");
            }
        }
    });
    for round in 0..6 {
        wait_for_stop(pid, SIGUSR1);
        go_on(pid, if round % 2 == 0 { SIGUSR1 } else { 0 });
    }
    expect_success(pid);
    say!("of six signals three were let through");
}

fn main() {
    let mut buffer = [0; MOST];
    edited(&mut buffer);
    attached(&mut buffer);
    signals();
    expect("tracing nobody", ESRCH, ptrace(CONT, 1 << 30, 0, 0));
}
