//! Signals while all 16 YMM registers are in use. Needs AVX.
//!
//! The upper halves lie behind the header of the image in a handler's frame, at a place that CPUID tells, and count there if
//! `XSTATE_BV` says so (Intel SDM, volume 1, "XSAVE-Managed State", "Operation of XRSTOR"): a handler destroys them, edits them, takes
//! them away, and gives them to a program that had none.

#![no_std]
#![no_main]

use core::arch::naked_asm;
use core::arch::x86_64::__cpuid_count;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use pcu9_programs::numbers::{Digest, Random};
use pcu9_programs::signals::{AT_XMM, AT_XSTATE_BV, Context, Info, SIGUSR1, handle_with};
use pcu9_programs::syscalls::{RT_SIGRETURN, TGKILL, getpid, sched_yield};
use pcu9_programs::wide::Ymm;
use pcu9_programs::{fail, needs_avx, program, say};

// The note is an operand, lest a linker drop what nothing refers to.
program!(main, "lea rax, [rip + {note}]", note = sym NOTE);

needs_avx!(NOTE);

const ROUNDS: u64 = 120;
const LONG_EVERY: u64 = 20;
const LONG: u64 = 300_000;
/// AVX's component, and its bit in `XSTATE_BV`.
const AVX: u32 = 2;
const AVX_BIT: u32 = 1 << AVX;

/// The upper halves of YMM0 and YMM15 at the first instruction of a handler.
static FIRST: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static N_HANDLED: AtomicU32 = AtomicU32::new(0);
/// What the next handler puts into its frame.
static EDIT: AtomicPtr<Ymm> = AtomicPtr::new(null_mut());
/// What it does with the upper halves.
static KIND: AtomicU32 = AtomicU32::new(0);

/// What a handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    /// Nothing but destroy.
    Destroy,
    /// All registers are edited.
    Edit,
    /// The upper halves are taken away: initial, which is zero.
    TakeAway,
    /// As `Edit`, of a program whose upper halves were zero.
    Give,
}

#[unsafe(naked)]
extern "C" fn handler(_: usize, _: &Info, _: &mut Context) {
    naked_asm!(
        "lea rax, [rip + {first}]",
        "vextractf128 [rax], ymm0, 1",
        "vextractf128 [rax + 16], ymm15, 1",
        "jmp {body}",
        first = sym FIRST,
        body = sym on_signal,
    )
}

/// Destroys all YMM registers and ends the handler.
#[unsafe(naked)]
unsafe extern "C" fn destroy_and_return() -> ! {
    naked_asm!(
        "vcmptrueps ymm0, ymm0, ymm0",
        "vmovaps ymm1, ymm0",
        "vmovaps ymm2, ymm0",
        "vmovaps ymm3, ymm0",
        "vmovaps ymm4, ymm0",
        "vmovaps ymm5, ymm0",
        "vmovaps ymm6, ymm0",
        "vmovaps ymm7, ymm0",
        "vmovaps ymm8, ymm0",
        "vmovaps ymm9, ymm0",
        "vmovaps ymm10, ymm0",
        "vmovaps ymm11, ymm0",
        "vmovaps ymm12, ymm0",
        "vmovaps ymm13, ymm0",
        "vmovaps ymm14, ymm0",
        "vmovaps ymm15, ymm0",
        "mov eax, {number}",
        "syscall",
        "ud2",
        number = const RT_SIGRETURN,
    )
}

extern "C" fn on_signal(_: usize, _: &Info, context: &mut Context) {
    N_HANDLED.fetch_add(1, Ordering::Relaxed);
    for part in &FIRST {
        let seen = part.load(Ordering::Relaxed);
        if seen != 0 {
            fail!("sigymm: expected a handler to begin with zeros, saw {seen:016x}");
        }
    }
    sched_yield();
    let kind = KIND.load(Ordering::Relaxed);
    if kind == Kind::Destroy as u32 {
        return;
    }
    if !context.has_xsave() {
        fail!("sigymm: expected an image with a header, saw none");
    }
    let at_upper = __cpuid_count(0xD, AVX).ebx as usize;
    let mut image = context.image();
    if kind == Kind::TakeAway as u32 {
        image.change(AT_XSTATE_BV, 0, AVX_BIT);
        return;
    }
    let edit = EDIT.load(Ordering::Relaxed);
    // SAFETY: it names registers of the program's that stay while it waits for the signal.
    let edit = unsafe { &*edit };
    for (number, [a, b, c, d]) in edit.0.iter().enumerate() {
        for (at, half) in [(AT_XMM, [a, b]), (at_upper, [c, d])] {
            image.put(at + 16 * number, &half[0].to_le_bytes());
            image.put(at + 16 * number + 8, &half[1].to_le_bytes());
        }
    }
    image.change(AT_XSTATE_BV, AVX_BIT | 2, 0);
}

fn main() {
    say!("sigymm: {ROUNDS} handlers over all YMM registers");
    // SAFETY: the restorer changes registers that a handler may.
    unsafe { handle_with(SIGUSR1, handler, destroy_and_return) };
    let own = getpid();
    let call = [TGKILL, own, own, SIGUSR1, 0];
    let (mut random, mut digest) = (Random(512), Digest::default());
    let kinds = [Kind::Destroy, Kind::Edit, Kind::TakeAway, Kind::Give];
    for (round, kind) in (0..ROUNDS).zip(kinds.into_iter().cycle()) {
        let mut loaded = Ymm::random(&mut random);
        let edit = Ymm::random(&mut random);
        if kind == Kind::Give {
            loaded.0.iter_mut().for_each(|ymm| ymm[2..].fill(0));
        }
        let mut expected = loaded;
        match kind {
            Kind::Destroy => {}
            Kind::Edit | Kind::Give => expected = edit,
            Kind::TakeAway => expected.0.iter_mut().for_each(|ymm| ymm[2..].fill(0)),
        }
        EDIT.store((&raw const edit).cast_mut(), Ordering::Relaxed);
        KIND.store(kind as u32, Ordering::Relaxed);
        let delay = if round % LONG_EVERY == 1 { LONG } else { 0 };
        // SAFETY: the handler changes memory of its own, its frame, and no register that it may not. The note asks for AVX.
        let seen = unsafe { loaded.across(delay, &call) };
        for (number, (expected, seen)) in expected.0.iter().zip(&seen.0).enumerate() {
            if expected != seen {
                fail!(
                    "sigymm: round {round} ({kind:?}): YMM{number}: expected {expected:016x?}, saw {seen:016x?}"
                );
            }
            for &part in seen {
                digest.add(part);
            }
        }
        if (round + 1) % 40 == 0 {
            say!("round {:>3} digest {:016x}", round + 1, digest.0);
        }
    }
    let seen = N_HANDLED.load(Ordering::Relaxed);
    if u64::from(seen) != ROUNDS {
        fail!("sigymm: expected {ROUNDS} handlers, saw {seen}");
    }
}
