//! What the stress keeps in registers: contents that say whose they are, and the choices of a run that a seed repeats.
//!
//! A [`Mark`] is a function of LWP, register and generation, and can be read back: what is found in a wrong place names whose it is
//! and since when. The kernel's LWPs and those in user mode use the same ones, so that either finds the other's.

#![no_std]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the casts take fields out of words, and a child's number is made small before"
)]

use core::fmt;

/// A register, or a piece of 128 bits of a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Bits `128 * LANE` and up of vector register `N`: lane 0 is XMM, lane 1 the upper half of YMM, 2 and 3 that of ZMM.
    Vector(u8, u8),
    /// `ST(N)`.
    St(u8),
    /// The opmask `K(N)`.
    K(u8),
}

/// Who has put what where, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The LWP's number in the stress.
    pub lwp: u16,
    /// The register.
    pub register: Register,
    /// How often the LWP had filled its registers before.
    pub generation: u32,
}

/// The upper byte of every mark. Its first bit makes it the significand of a normal number for x87.
const MAGIC: u64 = 0xb5;

impl Register {
    fn code(self) -> u8 {
        match self {
            Self::Vector(number, lane) => ((lane % 4) << 5) | (number % 32),
            Self::St(number) => 0x80 | (number % 8),
            Self::K(number) => 0x88 | (number % 8),
        }
    }

    fn of_code(code: u8) -> Option<Self> {
        match code {
            0..0x80 => Some(Self::Vector(code % 32, code >> 5)),
            0x80..0x88 => Some(Self::St(code % 8)),
            0x88..0x90 => Some(Self::K(code % 8)),
            _ => None,
        }
    }
}

impl Mark {
    /// 64 bits that say it all.
    pub fn word(self) -> u64 {
        MAGIC << 56
            | u64::from(self.lwp) << 40
            | u64::from(self.register.code()) << 32
            | u64::from(self.generation)
    }

    /// 128 bits: the word, and behind it one that follows from it.
    pub fn words(self) -> [u64; 2] {
        [self.word(), mix(self.word())]
    }

    /// As [`words`](Self::words), the first in the lower half.
    pub fn wide(self) -> u128 {
        let [low, high] = self.words();
        u128::from(high) << 64 | u128::from(low)
    }

    /// What a word says, if it is a mark.
    pub fn of_word(word: u64) -> Option<Self> {
        let register = Register::of_code((word >> 32) as u8)?;
        (word >> 56 == MAGIC).then_some(Self {
            lwp: (word >> 40) as u16,
            register,
            generation: word as u32,
        })
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vector(number, 0) => write!(f, "XMM{number}"),
            Self::Vector(number, 1) => write!(f, "YMM{number}, upper half"),
            Self::Vector(number, lane) => write!(f, "ZMM{number}, lane {lane}"),
            Self::St(number) => write!(f, "ST({number})"),
            Self::K(number) => write!(f, "K{number}"),
        }
    }
}

/// A child is told by its parent's number: see [`child_of`].
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (worker, child) = (self.lwp % N_LWPS, self.lwp / N_LWPS);
        write!(f, "{} of LWP {worker}", self.register)?;
        if child != 0 {
            write!(f, "'s child {child}")?;
        }
        write!(f, ", generation {}", self.generation)
    }
}

/// How many LWPs the stress has that are no children of others.
pub const N_LWPS: u16 = 64;

/// The number of LWP `lwp`'s child, `n_before` children after its first one.
pub fn child_of(lwp: u16, n_before: u32) -> u16 {
    let last = u32::from(u16::MAX / N_LWPS);
    let child = 1 + n_before % last;
    lwp % N_LWPS + N_LWPS * child as u16
}

/// Mixes all bits: the last steps of `SplitMix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
pub fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The choices of one LWP: the same for the same seed, whatever the others do.
#[derive(Clone, Debug)]
pub struct Choices(u64);

impl Choices {
    /// Those of LWP `lwp` in its life number `life`.
    pub fn new(seed: u64, lwp: u16, life: u32) -> Self {
        Self(mix(mix(seed) ^ u64::from(lwp) << 32 ^ u64::from(life)))
    }

    /// The next number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let word = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        word % n
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{Choices, Mark, N_LWPS, Register, child_of};

    #[test]
    fn a_mark_is_read_back_from_its_word() {
        let vectors = (0..32).flat_map(|n| (0..4).map(move |lane| Register::Vector(n, lane)));
        let others = (0..8).flat_map(|n| [Register::St(n), Register::K(n)]);
        for register in vectors.chain(others) {
            let mark = Mark {
                lwp: 777,
                register,
                generation: 0xdead_beef,
            };
            assert_eq!(Mark::of_word(mark.word()), Some(mark));
            assert_eq!(mark.wide() as u64, mark.word());
        }
        assert_eq!(Mark::of_word(0), None);
        assert_eq!(Mark::of_word(u64::MAX), None);
    }

    #[test]
    fn a_child_is_told_by_its_parent() {
        assert_eq!(child_of(5, 0), 5 + N_LWPS);
        assert_eq!(child_of(63, 5000) % N_LWPS, 63);
        assert!((0..5000).all(|n| child_of(63, n) >= N_LWPS));
        let mark = Mark {
            lwp: child_of(5, 2),
            register: Register::Vector(3, 0),
            generation: 9,
        };
        assert_eq!(
            std::format!("{mark}"),
            "XMM3 of LWP 5's child 3, generation 9"
        );
    }

    #[test]
    fn choices_follow_from_seed_lwp_and_life() {
        let draw = |seed, lwp, life| {
            let mut choices = Choices::new(seed, lwp, life);
            [(); 8].map(|()| choices.below(1000))
        };
        assert_eq!(draw(1, 2, 3), draw(1, 2, 3));
        for other in [draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4)] {
            assert_ne!(draw(1, 2, 3), other);
        }
    }
}
