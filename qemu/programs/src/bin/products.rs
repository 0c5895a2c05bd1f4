//! A chain of processes that each multiply the primes up to 23, yielding between any two operations, beside one that computes sines
//! and cosines all the while: every product is exactly 223092870.
//!
//! What NetBSD's `tests/lib/libpthread/t_fpu.c` asserts of ten threads, of ten processes. Each prints when the next one has ended, so
//! that the order of the lines is always the same.

#![no_std]
#![no_main]

use pcu9_programs::numbers::Digest;
use pcu9_programs::syscalls::{exit, fork, sched_yield, wait};
use pcu9_programs::{fail, program, say};

program!(main);

const LINKS: u32 = 10;
const TURNS: u32 = 20;
const CHURNS: u32 = 600;
const PRIMES: [f64; 9] = [2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0];
const PRODUCT: f64 = 223_092_870.0;

fn wait_for(child: usize, what: &str) {
    let ended = wait(child, 0);
    if ended != Ok(Some(0)) {
        fail!("products: expected {what} to end with status 0, saw {ended:?}");
    }
}

/// Multiplies in three parts, each in three parts, and lets others run in the middle of each product.
fn product(factors: &[f64]) -> f64 {
    let part = factors.len() / 3;
    let value = |place: usize| match part {
        0 | 1 => factors[place],
        _ => product(&factors[place * part..][..part]),
    };
    let first = value(0);
    sched_yield();
    let second = first * value(1);
    sched_yield();
    let third = second * value(2);
    sched_yield();
    third
}

/// One link of the chain, and those behind it.
fn link(number: u32) {
    let next = (number < LINKS).then(fork);
    if next == Some(0) {
        link(number + 1);
        exit(0);
    }
    for turn in 0..TURNS {
        let seen = product(&PRIMES);
        if seen.to_bits() != PRODUCT.to_bits() {
            fail!("products: link {number}, turn {turn}: expected {PRODUCT}, saw {seen}");
        }
    }
    if let Some(next) = next {
        wait_for(next, "the next link");
    }
    say!("link {number:>2}: {TURNS} times {PRODUCT}");
}

/// Sines and cosines of many numbers, with a yield after each.
fn churn() -> u64 {
    let mut digest = Digest::default();
    let mut x = 0.5_f64;
    for _ in 0..CHURNS {
        let (sine, cosine) = (libm::sin(x), libm::cos(x));
        sched_yield();
        digest.add(sine.to_bits());
        digest.add(cosine.to_bits());
        x += sine * sine + cosine * cosine;
    }
    digest.0
}

fn main() {
    say!("products: the primes up to 23, by {LINKS} processes beside one that churns");
    let churning = fork();
    if churning == 0 {
        let (first, second) = (churn(), churn());
        if first != second {
            fail!("products: expected the digest {first:016x} again, saw {second:016x}");
        }
        exit(0);
    }
    link(1);
    wait_for(churning, "the churn");
    say!("churn: {CHURNS} numbers twice, digest {:016x}", churn());
}
