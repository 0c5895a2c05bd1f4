//! Numbers that are the same everywhere: pseudo-random ones, a digest, the square root.

use core::arch::asm;

/// A generator of pseudo-random numbers: `SplitMix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number
/// Generators", 2014). The seed says it all.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// Gives the next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Gives the next 32 bits.
    pub fn word(&mut self) -> u32 {
        (self.bits() >> 32) as u32
    }

    /// Gives the next number from -1 up to, but not including, 1: a multiple of 2^-31, so no rounding is involved.
    pub fn signed_unit(&mut self) -> f64 {
        f64::from(self.word().cast_signed()) / 2_147_483_648.0
    }
}

/// A digest of 64-bit words: FNV-1a's two steps (Fowler, Noll, Vo), a word at a time instead of a byte.
#[derive(Debug)]
pub struct Digest(pub u64);

impl Default for Digest {
    fn default() -> Self {
        Digest(0xCBF2_9CE4_8422_2325)
    }
}

impl Digest {
    /// Adds a word.
    pub fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01B3);
        // The product's high bits reach the low ones only by this.
        self.0 ^= self.0 >> 29;
    }
}

/// Gives the square root, rounded once, as IEEE 754 demands: `SQRTSD`. (`f64::sqrt` is in `std` only.)
pub fn sqrt(number: f64) -> f64 {
    let root;
    // SAFETY: every x86-64 CPU has SSE2, and the instruction touches two registers and MXCSR's flags.
    unsafe {
        asm!("sqrtsd {root}, {number}", root = out(xmm_reg) root, number = in(xmm_reg) number,
             options(pure, nomem, nostack, preserves_flags));
    }
    root
}
