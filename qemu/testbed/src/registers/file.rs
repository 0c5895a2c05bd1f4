//! All registers of the machine at once.

use super::{Component, Pattern, YmmPattern, ZmmPattern};
use crate::report::{has_avx, has_avx512};

/// The contents of every register that the machine has; those that it lacks are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterFile {
    pub(super) low: Pattern,
    pub(super) ymm: YmmPattern,
    pub(super) zmm: ZmmPattern,
}

impl RegisterFile {
    /// The initial state.
    pub const INITIAL: Self = Self {
        low: Pattern::INITIAL,
        ymm: YmmPattern::zeros(),
        zmm: ZmmPattern::zeros(),
    };

    /// Random contents everywhere; exceptions stay masked.
    pub fn random(seed: u64) -> Self {
        let mut file = Self {
            low: Pattern::random(seed),
            ..Self::INITIAL
        };
        // A longer register's lower part is the shorter register.
        if has_avx512() {
            file.zmm = ZmmPattern::random(seed);
            for (ymm, zmm) in file.ymm.0.iter_mut().zip(file.zmm.zmm) {
                ymm.copy_from_slice(&zmm[..2]);
            }
        } else if has_avx() {
            file.ymm = YmmPattern::random(seed);
        }
        if has_avx() {
            file.low.xmm = file.ymm.0.map(|ymm| ymm[0]);
        }
        file
    }

    /// Loads all registers; may trap.
    pub fn load(&self) {
        self.low.load();
        if has_avx() {
            self.ymm.load();
        }
        if has_avx512() {
            self.zmm.load();
        }
    }

    /// Reads all registers; may trap.
    pub fn store() -> Self {
        let mut file = Self {
            low: Pattern::store(),
            ..Self::INITIAL
        };
        if has_avx() {
            file.ymm = YmmPattern::store();
        }
        if has_avx512() {
            file.zmm = ZmmPattern::store();
        }
        file
    }

    /// Loads what [`random`](Self::random) gives; may trap. It and the two below leave no file on the caller's stack, which an
    /// interrupt's handler may not have to spare.
    #[inline(never)]
    pub fn load_random(seed: u64) {
        Self::random(seed).load();
    }

    /// Are the registers what [`random`](Self::random) gives? May trap.
    #[inline(never)]
    pub fn is_random(seed: u64) -> bool {
        Self::store().is(Self::random, seed)
    }

    /// Are the registers in their initial state, control words too? May trap.
    #[inline(never)]
    pub fn is_initial() -> bool {
        Self::store() == Self::INITIAL
    }

    #[inline(never)]
    fn is(&self, expected: fn(u64) -> Self, seed: u64) -> bool {
        *self == expected(seed)
    }

    /// Has any register of `component` another value than the initial one?
    pub fn has(&self, component: Component) -> bool {
        let Self { low, ymm, zmm } = self;
        match component {
            Component::X87 => low.n_st != 0 || low.fcw != Pattern::INITIAL.fcw,
            Component::Sse => low.xmm != Pattern::INITIAL.xmm,
            Component::Avx => ymm.0.iter().any(|ymm| ymm[1] != 0),
            Component::Opmask => zmm.k != [0; 8],
            Component::UpperZmm => zmm.zmm[..16].iter().any(|zmm| zmm[2..] != [0; 2]),
            Component::HighZmm => zmm.zmm[16..] != [[0; 4]; 16],
        }
    }
}
