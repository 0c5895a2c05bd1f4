//! Register files whose contents say whose they are: see [`pcu9_marks`].

use core::fmt;

use pcu9_marks::{Mark, Register, mix};

use super::RegisterFile;
use crate::report::{has_avx, has_avx512};

/// The first register that does not hold what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    name: Name,
    expected: u128,
    seen: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Marked(Register),
    Mxcsr,
    Fcw,
    /// How many registers of the x87 stack are in use.
    Depth,
}

impl RegisterFile {
    /// LWP `lwp`'s registers of this generation. Some generations leave components in their initial state, one in eight leaves all.
    pub fn marked(lwp: u16, generation: u32) -> Self {
        let mut file = Self::INITIAL;
        let mode = mix(u64::from(lwp) << 32 | u64::from(generation));
        let kind = mode >> 61;
        if kind == 0 {
            return file;
        }
        let (has_x87, has_sse, is_wide) = (kind != 1, kind != 2, kind > 3);
        let wide = |register| {
            let mark = Mark {
                lwp,
                register,
                generation,
            };
            mark.wide()
        };
        if has_x87 {
            // A normal number: the mark as the significand, of any sign and exponent.
            let number = |n| {
                let exponent = 0x3fff + (mode >> 8 & 0xff) - 0x80;
                let significand = wide(Register::St(n)) & u128::from(u64::MAX);
                u128::from(exponent | mode >> 20 & 0x8000) << 64 | significand
            };
            file.low.n_st = 1 + (mode & 7);
            let in_use = file
                .low
                .st
                .iter_mut()
                .zip(0..)
                .take(1 + (mode as usize & 7));
            in_use.for_each(|(st, n)| *st = number(n));
            file.low.fcw = 0x027f | (mode >> 40) as u16 & 0x0d00;
        }
        if has_sse {
            file.low.mxcsr = 0x1f80 | mode as u32 & 0xe03f;
            for (xmm, n) in file.low.xmm.iter_mut().zip(0..) {
                *xmm = wide(Register::Vector(n, 0));
            }
        }
        if is_wide && has_avx512() {
            for (zmm, n) in file.zmm.zmm.iter_mut().zip(0..) {
                for (piece, lane) in zmm.iter_mut().zip(0..) {
                    *piece = wide(Register::Vector(n, lane));
                }
            }
            for (k, n) in file.zmm.k.iter_mut().zip(0..) {
                *k = wide(Register::K(n)) as u64;
            }
        } else if has_avx512() {
            for (zmm, &xmm) in file.zmm.zmm.iter_mut().zip(&file.low.xmm) {
                zmm[0] = xmm;
            }
        }
        if has_avx() {
            for ((ymm, n), &xmm) in file.ymm.0.iter_mut().zip(0..).zip(&file.low.xmm) {
                let upper = if is_wide {
                    wide(Register::Vector(n, 1))
                } else {
                    0
                };
                *ymm = [xmm, upper];
            }
        }
        file
    }

    /// Are the registers LWP `lwp`'s of this generation? May trap.
    ///
    /// # Errors
    ///
    /// The first that is not.
    #[inline(never)]
    pub fn check_marked(lwp: u16, generation: u32) -> Result<(), Difference> {
        Self::marked(lwp, generation).compare(&Self::store())
    }

    /// Are the registers in their initial state? May trap.
    ///
    /// # Errors
    ///
    /// The first that is not.
    #[inline(never)]
    pub fn check_initial() -> Result<(), Difference> {
        Self::INITIAL.compare(&Self::store())
    }

    /// Loads LWP `lwp`'s registers of this generation. May trap.
    #[inline(never)]
    pub fn load_marked(lwp: u16, generation: u32) {
        Self::marked(lwp, generation).load();
    }

    fn compare(&self, seen: &Self) -> Result<(), Difference> {
        let mut pairs = self.named().zip(seen.named());
        match pairs.find(|((_, expected), (_, seen))| expected != seen) {
            None => Ok(()),
            Some(((name, expected), (_, seen))) => Err(Difference {
                name,
                expected,
                seen,
            }),
        }
    }

    /// Every register with its name; first those that say whose they are.
    fn named(&self) -> impl Iterator<Item = (Name, u128)> {
        let Self { low, ymm, zmm } = self;
        let control = [
            (Name::Mxcsr, u128::from(low.mxcsr)),
            (Name::Fcw, u128::from(low.fcw)),
            (Name::Depth, u128::from(low.n_st)),
        ];
        let marked = |(register, value): (Register, &u128)| (Name::Marked(register), *value);
        let st = (0..).map(Register::St).zip(&low.st).map(marked);
        let lane_0 = |n| Register::Vector(n, 0);
        let xmm = (0..).map(lane_0).zip(&low.xmm).map(marked);
        let ymm = (0..).zip(&ymm.0).map(|(n, ymm)| {
            let upper = Register::Vector(n, 1);
            (Name::Marked(upper), ymm[1])
        });
        let zmm_all = (0..).zip(&zmm.zmm).flat_map(|(n, zmm)| {
            let lanes = (0..).zip(zmm);
            lanes.map(move |(lane, &value)| (Name::Marked(Register::Vector(n, lane)), value))
        });
        let k = (0..).map(Register::K).zip(&zmm.k);
        let k = k.map(|(register, &value)| (Name::Marked(register), u128::from(value)));
        xmm.chain(st)
            .chain(ymm)
            .chain(zmm_all)
            .chain(k)
            .chain(control)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Marked(register) => register.fmt(f),
            Self::Mxcsr => f.write_str("MXCSR"),
            Self::Fcw => f.write_str("FCW"),
            Self::Depth => f.write_str("the depth of the x87 stack"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            expected,
            seen,
        } = self;
        write!(f, "{name}: expected {expected:#x}, saw {seen:#x}")?;
        match Mark::of_word(*seen as u64) {
            Some(mark) => write!(f, ", which is {mark}"),
            None => Ok(()),
        }
    }
}
