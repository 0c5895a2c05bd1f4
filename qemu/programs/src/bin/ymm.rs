//! Keeps patterns in all 16 YMM registers while others run, and computes with them. Needs AVX.
//!
//! It says so itself: the ELF note in section `.note.pcu9` lists `avx`, so that a kernel or a test runner without AVX leaves
//! it out. The upper halves are a state component of their own (Intel SDM, volume 1, "XSAVE-Supported Features"), and one
//! that is often in its initial state while the lower halves are not; both cases occur here.

#![no_std]
#![no_main]

use core::arch::x86_64::{_mm256_add_pd, _mm256_div_pd, _mm256_set_pd, _mm256_storeu_pd};
use core::sync::atomic::{AtomicU64, Ordering};

use pcu9_programs::held::Call;
use pcu9_programs::numbers::{Digest, Random};
use pcu9_programs::syscalls::{SCHED_YIELD, sched_yield};
use pcu9_programs::wide::Ymm;
use pcu9_programs::{fail, program, say};

// The note is an operand too, lest a linker drop what nothing refers to.
program!(
    main,
    "lea rax, [rip + {note}]",
    "lea rax, [rip + {first}]",
    "vmovups [rax + 0x000], ymm0",
    "vmovups [rax + 0x020], ymm1",
    "vmovups [rax + 0x040], ymm2",
    "vmovups [rax + 0x060], ymm3",
    "vmovups [rax + 0x080], ymm4",
    "vmovups [rax + 0x0A0], ymm5",
    "vmovups [rax + 0x0C0], ymm6",
    "vmovups [rax + 0x0E0], ymm7",
    "vmovups [rax + 0x100], ymm8",
    "vmovups [rax + 0x120], ymm9",
    "vmovups [rax + 0x140], ymm10",
    "vmovups [rax + 0x160], ymm11",
    "vmovups [rax + 0x180], ymm12",
    "vmovups [rax + 0x1A0], ymm13",
    "vmovups [rax + 0x1C0], ymm14",
    "vmovups [rax + 0x1E0], ymm15",
    note = sym NOTE,
    first = sym FIRST,
);

const ROUNDS: u32 = 2_000;
const LONG_EVERY: u32 = 100;
const LONG: u64 = 500_000;
const TERMS: u32 = 40_000;

pcu9_programs::needs_avx!(NOTE);

/// The YMM registers at the first instruction of the program.
static FIRST: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// Compares the registers at the first instruction with the initial state: zero.
fn check_initial_state() {
    for (i, part) in FIRST.iter().enumerate() {
        let seen = part.load(Ordering::Relaxed);
        if seen != 0 {
            fail!(
                "ymm: at the start: YMM{}: expected zero, saw {seen:016x} in part {}",
                i / 4,
                i % 4
            );
        }
    }
    say!("initial state at the start: YMM0 to YMM15");
}

/// The registers for one round: random, upper halves zero, lower halves zero, all zero, upper halves changed alone.
fn pattern(round: u32, last: &Ymm, random: &mut Random) -> Ymm {
    let mut ymm = *last;
    for register in &mut ymm.0 {
        let [a, b, c, d] = core::array::from_fn(|_| random.bits());
        *register = match round % 5 {
            0 => [a, b, c, d],
            1 => [a, b, 0, 0],
            2 => [0, 0, c, d],
            3 => [0; 4],
            _ => [register[0], register[1], c, d],
        };
    }
    ymm
}

/// Sums 1/1 + 1/5 + 1/9 .., 1/2 + 1/6 .., and so on, four sums at once.
///
/// # Safety
///
/// The CPU must have AVX, and the kernel must have enabled it.
#[target_feature(enable = "avx")]
unsafe fn harmonic_avx() -> [f64; 4] {
    let one = _mm256_set_pd(1.0, 1.0, 1.0, 1.0);
    let mut sum = _mm256_set_pd(0.0, 0.0, 0.0, 0.0);
    for i in 0..TERMS {
        let n = f64::from(4 * i);
        let divisor = _mm256_set_pd(n + 4.0, n + 3.0, n + 2.0, n + 1.0);
        sum = _mm256_add_pd(sum, _mm256_div_pd(one, divisor));
        if i % 1000 == 0 {
            sched_yield();
        }
    }
    let mut parts = [0.0; 4];
    // SAFETY: there is room for four numbers, and this store needs no alignment.
    unsafe { _mm256_storeu_pd(parts.as_mut_ptr(), sum) };
    parts
}

/// One of the same sums, one number at a time, by SSE2.
fn harmonic(lane: u32) -> f64 {
    let mut sum = 0.0;
    for i in 0..TERMS {
        sum += 1.0 / f64::from(4 * i + lane);
    }
    sum
}

fn main() {
    say!("ymm: all YMM registers across {ROUNDS} yields, then four sums at once");
    check_initial_state();
    let mut random = Random(256);
    let mut digest = Digest::default();
    let mut last = Ymm([[0; 4]; 16]);
    for round in 0..ROUNDS {
        let loaded = pattern(round, &last, &mut random);
        let delay = if round % LONG_EVERY == 1 { LONG } else { 0 };
        let call: Call = [SCHED_YIELD, 0, 0, 0, 0];
        // SAFETY: sched_yield(2) touches no memory.
        let seen = unsafe { loaded.across(delay, &call) };
        for (number, (expected, seen)) in loaded.0.iter().zip(&seen.0).enumerate() {
            if expected != seen {
                fail!(
                    "ymm: round {round}: YMM{number}: expected {expected:016x?}, saw {seen:016x?}"
                );
            }
            for &part in seen {
                digest.add(part);
            }
        }
        last = loaded;
        if (round + 1) % 500 == 0 {
            say!("round {:>4} digest {:016x}", round + 1, digest.0);
        }
    }

    // SAFETY: the program's note asks for AVX, and the first instructions of the program used it.
    let sums = unsafe { harmonic_avx() };
    for (lane, seen) in (1..).zip(sums) {
        let expected = harmonic(lane);
        say!("sum {lane}: {seen:.9} {:016x}", seen.to_bits());
        if seen.to_bits() != expected.to_bits() {
            fail!("ymm: sum {lane}: expected {expected:e} as by SSE2, saw {seen:e}");
        }
    }
}
