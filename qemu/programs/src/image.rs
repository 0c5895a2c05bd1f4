//! FXSAVE's image: all registers of x87 and SSE, as instructions, debuggers and signal frames have them.
//!
//! Intel SDM, volume 1, "FXSAVE Area". Its words are atomic, since instructions write it behind the compiler's back.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::held::MXCSR_INITIAL;
use crate::numbers::{Digest, Random};

/// Bytes of the image.
pub const BYTES: usize = 512;
const WORDS: usize = BYTES / 8;

/// The image, as 64-bit words.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Image([AtomicU64; WORDS]);

impl Image {
    /// An image of zeros, to be stored to.
    pub const fn zero() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// Registers of random bits; every exception masked, every x87 register in use.
    pub fn random(random: &mut Random) -> Self {
        let image = Self::zero();
        let set = |at: usize, word| image.0[at / 8].store(word, Ordering::Relaxed);
        set(0, 0xFF_0000_037F);
        set(24, MXCSR_INITIAL.into());
        for number in 0..8 {
            set(32 + 16 * number, random.bits());
            set(40 + 16 * number, random.bits() & 0xFFFF);
        }
        for at in (160..416).step_by(8) {
            set(at, random.bits());
        }
        image
    }

    /// The image in the beginning of `bytes`, which has that many at least.
    pub fn of(bytes: &[u8]) -> Self {
        let image = Self::zero();
        for (word, bytes) in image.0.iter().zip(bytes.as_chunks().0) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        image
    }

    /// Writes it to the beginning of `bytes`.
    pub fn put(&self, bytes: &mut [u8]) {
        for (word, bytes) in self.0.iter().zip(bytes.as_chunks_mut().0) {
            *bytes = word.load(Ordering::Relaxed).to_le_bytes();
        }
    }

    /// The bits of the word at `at` that are registers. Pointers of x87, `MXCSR_MASK` and unused bytes are not.
    fn mask(at: usize) -> u64 {
        match at {
            0 => 0xFF_FFFF_FFFF,
            24 => 0xFFFF_FFFF,
            32..160 if at % 16 == 8 => 0xFFFF,
            32..416 => u64::MAX,
            _ => 0,
        }
    }

    fn words(&self) -> impl Iterator<Item = (usize, u64)> {
        let words = self.0.iter().zip((0..).step_by(8));
        words.map(|(word, at)| (at, word.load(Ordering::Relaxed) & Self::mask(at)))
    }

    /// Where the first difference in a register is.
    pub fn difference(&self, other: &Self) -> Option<usize> {
        let mut both = self.words().zip(other.words());
        both.find(|(own, its)| own != its).map(|((at, _), _)| at)
    }

    /// Adds every register to a digest.
    pub fn digest(&self, digest: &mut Digest) {
        self.words().for_each(|(_, word)| digest.add(word));
    }
}
