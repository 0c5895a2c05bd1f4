//! A computation whose result is known to the last bit, with all of its state in registers.

use core::arch::naked_asm;

/// How many terms are added up.
const TERMS: u64 = 5_000;

/// What it gives, as the compiler computes it.
pub const HARMONIC: u64 = {
    let (mut sum, mut k) = (0.0_f64, 1_u32);
    while k as u64 <= TERMS {
        sum += 1.0 / k as f64;
        k += 1;
    }
    sum.to_bits()
};

/// The sum of 1/k for k from 1 to 5000, in double precision, from the first term on; its bits. May trap.
pub fn harmonic() -> u64 {
    // SAFETY: the function changes FPU registers only, which the compiled kernel never uses.
    unsafe { add_up(TERMS) }
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn add_up(terms: u64) -> u64 {
    naked_asm!(
        "xorps xmm0, xmm0",
        "movabs rcx, 0x3ff0000000000000",
        "movq xmm3, rcx",
        "mov ecx, 1",
        "2: cvtsi2sd xmm1, rcx",
        "movapd xmm2, xmm3",
        "divsd xmm2, xmm1",
        "addsd xmm0, xmm2",
        "inc rcx",
        "cmp rcx, rdi",
        "jbe 2b",
        "movq rax, xmm0",
        "ret",
    )
}
