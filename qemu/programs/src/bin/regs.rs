//! Keeps patterns in every register of the x87 and SSE units while others run, and looks whether they are still there.
//!
//! A round loads all 16 XMM registers, MXCSR with its rounding modes, the x87 stack and its control word, then yields, or
//! first counts long enough for a timer interrupt, and compares. Rounds differ as a lazily switching kernel could go wrong:
//! random bits, all zero (is a state mistaken for "initial"?), all ones, and the last state with only MXCSR or only the
//! control word changed (is an unchanged part left out?). Before all that it looks at the registers that the kernel gave it
//! at its start: they must be in their initial state, and hold nothing of another program.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use pcu9_programs::held::{CONTROL_INITIAL, Call, MXCSR_INITIAL, Registers};
use pcu9_programs::numbers::{Digest, Random};
use pcu9_programs::syscalls::SCHED_YIELD;
use pcu9_programs::{fail, program, say};

program!(main, "fxsave64 [rip + {first}]", first = sym FIRST);

const ROUNDS: u32 = 2_000;
/// Every so many rounds the registers are also held for `LONG` turns of a loop without any system call.
const LONG_EVERY: u32 = 100;
const LONG: u64 = 500_000;

/// The FPU at the first instruction of the program, stored by FXSAVE before Rust code ran.
static FIRST: Image = Image([const { AtomicU32::new(0) }; 128]);

/// FXSAVE's image (Intel SDM, volume 1, "FXSAVE Area"), as 32-bit words.
#[repr(C, align(16))]
struct Image([AtomicU32; 128]);

impl Image {
    fn word(&self, offset: usize) -> u32 {
        self.0[offset / 4].load(Ordering::Relaxed)
    }
}

/// Compares the state at the first instruction with the one that a new program must find.
fn check_initial_state() {
    let control_and_status = FIRST.word(0);
    let tags_in_use = FIRST.word(4) & 0xFF;
    for (name, expected, seen) in [
        (
            "x87 control and status",
            CONTROL_INITIAL,
            control_and_status,
        ),
        ("x87 registers in use", 0, tags_in_use),
        ("MXCSR", MXCSR_INITIAL, FIRST.word(24)),
    ] {
        if expected != seen {
            fail!("regs: at the start: {name}: expected {expected:#x}, saw {seen:#x}");
        }
    }
    for number in 0..16 {
        let word = |part: usize| FIRST.word(160 + 16 * number + 4 * part);
        let seen = [word(3), word(2), word(1), word(0)];
        if seen != [0; 4] {
            fail!("regs: at the start: XMM{number}: expected zero, saw {seen:08x?}");
        }
    }
    say!("initial state at the start: x87, MXCSR, XMM0 to XMM15");
}

/// The registers for one round; some kinds change little in those of the round before.
fn pattern(round: u32, last: &Registers, random: &mut Random) -> (&'static str, Registers) {
    let mut registers = *last;
    match round % 8 {
        0 => {
            registers = Registers::zero();
            // With an empty x87 stack this is the initial state, which XSAVEOPT does not even write.
            registers.depth = if round.is_multiple_of(16) { 0 } else { 8 };
            ("all zero", registers)
        }
        2 => {
            registers.randomize_mxcsr(random);
            ("only MXCSR changed", registers)
        }
        4 => {
            registers.randomize_control(random);
            ("only the control word changed", registers)
        }
        6 => {
            registers.xmm = [[u64::MAX; 2]; 16];
            registers.st = [[u64::MAX, 0xFFFF]; 8];
            registers.depth = 8;
            ("all ones", registers)
        }
        _ => ("random", Registers::random(random)),
    }
}

fn main() {
    say!("regs: all XMM registers, MXCSR, the x87 stack and control word, across {ROUNDS} yields");
    check_initial_state();
    let mut random = Random(9);
    let mut digest = Digest::default();
    let mut last = Registers::zero();
    for round in 0..ROUNDS {
        let (kind, loaded) = pattern(round, &last, &mut random);
        let delay = if round % LONG_EVERY == 1 { LONG } else { 0 };
        let call: Call = [SCHED_YIELD, 0, 0, 0, 0];
        // SAFETY: sched_yield(2) touches no memory.
        let (_, seen) = unsafe { loaded.across(delay, &call) };
        if let Err(lost) = loaded.check(&seen) {
            fail!("regs: round {round} ({kind}): {lost}");
        }
        seen.digest(&mut digest);
        last = loaded;
        if (round + 1) % 500 == 0 {
            say!("round {:>4} digest {:016x}", round + 1, digest.0);
        }
    }
}
