//! Computes with the FPU in phases, and with integers between: what traces are recorded of, beside programs that always or never
//! compute. No part of the demo, which runs it when asked to: `cargo demo --program FILE`.
//!
//! `cargo build --package pcu9-programs --example phased --profile program`

#![no_std]
#![no_main]

use core::hint::black_box;

use pcu9_programs::syscalls::sched_yield;
use pcu9_programs::{program, say};

program!(main);

const PHASES: u32 = 6;
/// Time slices of a phase.
const SLICES: u32 = 40;
/// Steps in a slice.
const STEPS: u32 = 500;

fn main() {
    say!("phased: {PHASES} times {SLICES} slices with the FPU, and as many without");
    let (mut sum, mut noise) = (0.0_f64, 0x9e37_79b9_7f4a_7c15_u64);
    for phase in 0..PHASES {
        for _ in 0..SLICES {
            for _ in 0..STEPS {
                noise ^= black_box(noise) << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
            }
            sched_yield();
        }
        for slice in 0..SLICES {
            for step in 0..STEPS {
                sum += 1.0 / f64::from(black_box(phase + slice + step + 1));
            }
            sched_yield();
        }
    }
    say!("sum {:#018x}, noise {noise:#018x}", sum.to_bits());
}
