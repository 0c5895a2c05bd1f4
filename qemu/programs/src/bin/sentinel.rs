//! Holds a sentinel in the upper halves of all YMM registers over 20000 yields, in one `asm!` block, beside four processes that fill
//! them with noise. Needs AVX.
//!
//! A kernel that has turned AVX on and saves by FXSAVE passes every test of the lower halves, and fails this one (what `StarryOS`'
//! `test-x86-avx-ctxsw` asserts).

#![no_std]
#![no_main]

use core::arch::asm;

use pcu9_programs::numbers::{Digest, Random};
use pcu9_programs::syscalls::{SCHED_YIELD, exit, fork, wait};
use pcu9_programs::{fail, needs_avx, program, say};

// The note is an operand too, lest a linker drop what nothing refers to.
program!(main, "lea rax, [rip + {note}]", note = sym NOTE);

const YIELDS: u64 = 20_000;
const NOISE: usize = 4;
const NOISY_TURNS: u64 = 4_000;

needs_avx!(NOTE);

/// The upper halves of YMM0 to YMM15.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(32))]
struct Uppers([[u64; 2]; 16]);

impl Uppers {
    fn random(random: &mut Random) -> Self {
        Self(core::array::from_fn(|_| [random.bits(), random.bits()]))
    }

    /// Loads them, yields so often, and gives them as they are then; no other instruction uses the registers in between.
    fn across_yields(&self, n: u64) -> Self {
        let mut seen = Self([[0; 2]; 16]);
        // SAFETY: both areas are 256 bytes long; `clobber_abi` names every vector register; the upper halves are zero at the end,
        // as the ABI asks; sched_yield(2) touches no memory.
        unsafe {
            asm!(
                // The lower halves are zero.
                "vxorps xmm0, xmm0, xmm0",
                "vinsertf128 ymm0, ymm0, [r12 + 0x00], 1",
                "vxorps xmm1, xmm1, xmm1",
                "vinsertf128 ymm1, ymm1, [r12 + 0x10], 1",
                "vxorps xmm2, xmm2, xmm2",
                "vinsertf128 ymm2, ymm2, [r12 + 0x20], 1",
                "vxorps xmm3, xmm3, xmm3",
                "vinsertf128 ymm3, ymm3, [r12 + 0x30], 1",
                "vxorps xmm4, xmm4, xmm4",
                "vinsertf128 ymm4, ymm4, [r12 + 0x40], 1",
                "vxorps xmm5, xmm5, xmm5",
                "vinsertf128 ymm5, ymm5, [r12 + 0x50], 1",
                "vxorps xmm6, xmm6, xmm6",
                "vinsertf128 ymm6, ymm6, [r12 + 0x60], 1",
                "vxorps xmm7, xmm7, xmm7",
                "vinsertf128 ymm7, ymm7, [r12 + 0x70], 1",
                "vxorps xmm8, xmm8, xmm8",
                "vinsertf128 ymm8, ymm8, [r12 + 0x80], 1",
                "vxorps xmm9, xmm9, xmm9",
                "vinsertf128 ymm9, ymm9, [r12 + 0x90], 1",
                "vxorps xmm10, xmm10, xmm10",
                "vinsertf128 ymm10, ymm10, [r12 + 0xA0], 1",
                "vxorps xmm11, xmm11, xmm11",
                "vinsertf128 ymm11, ymm11, [r12 + 0xB0], 1",
                "vxorps xmm12, xmm12, xmm12",
                "vinsertf128 ymm12, ymm12, [r12 + 0xC0], 1",
                "vxorps xmm13, xmm13, xmm13",
                "vinsertf128 ymm13, ymm13, [r12 + 0xD0], 1",
                "vxorps xmm14, xmm14, xmm14",
                "vinsertf128 ymm14, ymm14, [r12 + 0xE0], 1",
                "vxorps xmm15, xmm15, xmm15",
                "vinsertf128 ymm15, ymm15, [r12 + 0xF0], 1",
                "2: mov eax, {yield_number}",
                "syscall",
                "dec r14",
                "jnz 2b",
                "vextractf128 [r13 + 0x00], ymm0, 1",
                "vextractf128 [r13 + 0x10], ymm1, 1",
                "vextractf128 [r13 + 0x20], ymm2, 1",
                "vextractf128 [r13 + 0x30], ymm3, 1",
                "vextractf128 [r13 + 0x40], ymm4, 1",
                "vextractf128 [r13 + 0x50], ymm5, 1",
                "vextractf128 [r13 + 0x60], ymm6, 1",
                "vextractf128 [r13 + 0x70], ymm7, 1",
                "vextractf128 [r13 + 0x80], ymm8, 1",
                "vextractf128 [r13 + 0x90], ymm9, 1",
                "vextractf128 [r13 + 0xA0], ymm10, 1",
                "vextractf128 [r13 + 0xB0], ymm11, 1",
                "vextractf128 [r13 + 0xC0], ymm12, 1",
                "vextractf128 [r13 + 0xD0], ymm13, 1",
                "vextractf128 [r13 + 0xE0], ymm14, 1",
                "vextractf128 [r13 + 0xF0], ymm15, 1",
                "vzeroupper",
                yield_number = const SCHED_YIELD,
                in("r12") self,
                in("r13") &raw mut seen,
                inout("r14") n => _,
                clobber_abi("sysv64"),
                options(nostack),
            );
        }
        seen
    }

    fn check(&self, seen: &Self, who: &str) {
        for (number, (expected, seen)) in self.0.iter().zip(&seen.0).enumerate() {
            if expected != seen {
                fail!(
                    "sentinel: {who}: upper half of YMM{number}: expected {expected:016x?}, saw {seen:016x?}"
                );
            }
        }
    }
}

/// Forks a process that fills the upper halves anew after each yield, and ends.
fn noise(number: usize) -> usize {
    let child = fork();
    if child != 0 {
        return child;
    }
    let mut random = Random(number as u64);
    for _ in 0..NOISY_TURNS {
        let loaded = Uppers::random(&mut random);
        loaded.check(&loaded.across_yields(1), "noise");
    }
    exit(0);
}

fn main() {
    say!(
        "sentinel: the upper halves of YMM0 to YMM15, over {YIELDS} yields beside {NOISE} noisy processes"
    );
    let children: [usize; NOISE] = core::array::from_fn(noise);
    let sentinel = Uppers::random(&mut Random(99));
    let seen = sentinel.across_yields(YIELDS);
    sentinel.check(&seen, "sentinel");
    for child in children {
        let ended = wait(child, 0);
        if ended != Ok(Some(0)) {
            fail!("sentinel: expected the noise to end with status 0, saw {ended:?}");
        }
    }
    let mut digest = Digest::default();
    seen.0
        .as_flattened()
        .iter()
        .for_each(|&word| digest.add(word));
    say!("kept {:016x}", digest.0);
}
