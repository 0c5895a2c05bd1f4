//! Keeps patterns in every register of the x87 and SSE units while others run, and looks whether they are still there.
//!
//! A round loads all 16 XMM registers, MXCSR with its rounding modes, the x87 stack and its control word, then yields, or
//! first counts long enough for a timer interrupt, and compares. Rounds differ as a lazily switching kernel could go wrong:
//! random bits, all zero (is a state mistaken for "initial"?), all ones, and the last state with only MXCSR or only the
//! control word changed (is an unchanged part left out?). Before all that it looks at the registers that the kernel gave it
//! at its start: they must be in their initial state, and hold nothing of another program.

#![no_std]
#![no_main]

use pcu9_programs::held::{Call, Registers};
use pcu9_programs::initial::First;
use pcu9_programs::numbers::{Digest, Random};
use pcu9_programs::syscalls::SCHED_YIELD;
use pcu9_programs::{fail, program, say};

program!(main, "fxsave64 [rip + {first}]", first = sym FIRST);

const ROUNDS: u32 = 2_000;
/// Every so many rounds the registers are also held for `LONG` turns of a loop without any system call.
const LONG_EVERY: u32 = 100;
const LONG: u64 = 500_000;

/// The FPU at the first instruction of the program, stored by FXSAVE before Rust code ran.
static FIRST: First = First::new();

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
    if let Err(lost) = FIRST.check() {
        fail!("regs: at the start: {lost}");
    }
    say!("initial state at the start: x87, MXCSR, XMM0 to XMM15");
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
