//! Forks while every FPU register is in use: the child must find what the parent had, and from then on neither may see
//! what the other does.
//!
//! One `asm!` block holds a pattern across `fork`, so the newest registers are those in the CPU, not those in memory, at the
//! moment when the kernel copies them. Then the parent holds a second pattern while it waits, the child a third while it
//! yields, and the child forks in turn: several generations, several times.

#![no_std]
#![no_main]

use pcu9_programs::held::{Call, Registers};
use pcu9_programs::numbers::{Digest, Random};
use pcu9_programs::syscalls::{FORK, SCHED_YIELD, WAIT4, exit};
use pcu9_programs::{fail, program, say};

program!(main);

const ROUNDS: u64 = 4;
const GENERATIONS: u64 = 3;
const YIELDS: u64 = 20;

/// Holds a pattern across a call, checks it, and gives the call's result.
fn hold(who: &str, generation: u64, during: &str, loaded: &Registers, call: Call) -> isize {
    // SAFETY: fork(2) gives the child memory of its own; wait4(2) writes one word, to the address that `wait` passes;
    // sched_yield(2) touches no memory.
    let (result, seen) = unsafe { loaded.across(0, &call) };
    if let Err(lost) = loaded.check(&seen) {
        fail!("forkfp: generation {generation}: {who}, across {during}: {lost}");
    }
    result
}

fn digest(registers: &Registers) -> u64 {
    let mut digest = Digest::default();
    registers.digest(&mut digest);
    digest.0
}

/// Waits for the child with the registers in use, and fails as it failed.
fn wait(generation: u64, child: isize, loaded: &Registers) {
    let mut status = 0_u32;
    let status_address = (&raw mut status).expose_provenance();
    let call = [WAIT4, child.cast_unsigned(), status_address, 0, 0];
    let ended = hold("parent", generation, "wait4", loaded, call);
    if ended != child || status != 0 {
        // The number of a process differs from run to run, so it is not printed.
        let same = if ended == child {
            "the child"
        } else {
            "an error"
        };
        fail!(
            "forkfp: generation {generation}: expected the child with status 0, saw {same} with status {status:#x}"
        );
    }
}

/// Forks, and lets the child be the next generation; returns in the parent alone.
fn family(round: u64, generation: u64) {
    // Drawn before the fork, so that parent and child agree on all three.
    let mut random = Random(1000 * round + generation);
    let [common, parents, childs] = core::array::from_fn(|_| Registers::random(&mut random));
    let result = hold(
        "parent or child",
        generation,
        "fork",
        &common,
        [FORK, 0, 0, 0, 0],
    );
    if result < 0 {
        fail!("forkfp: generation {generation}: expected fork to succeed, saw error {result}");
    }
    if result > 0 {
        wait(generation, result, &parents);
        say!(
            "  generation {generation}: the parent kept {:016x}, then {:016x}",
            digest(&common),
            digest(&parents)
        );
        return;
    }
    say!(
        "  generation {generation}: the child has {:016x}",
        digest(&common)
    );
    for _ in 0..YIELDS {
        hold(
            "child",
            generation,
            "sched_yield",
            &childs,
            [SCHED_YIELD, 0, 0, 0, 0],
        );
    }
    say!(
        "  generation {generation}: the child kept {:016x}",
        digest(&childs)
    );
    if generation < GENERATIONS {
        family(round, generation + 1);
    }
    exit(0);
}

fn main() {
    say!("forkfp: {ROUNDS} times {GENERATIONS} generations, forked with all registers in use");
    for round in 1..=ROUNDS {
        say!("round {round}");
        family(round, 1);
    }
}
