//! The state components of the FPU, used one at a time.

use core::arch::naked_asm;

use super::RegisterFile;

/// A state component. Intel SDM, volume 1, "XSAVE-Supported Features and State-Component Bitmaps".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The x87 registers.
    X87 = 0,
    /// XMM0 to XMM15.
    Sse = 1,
    /// The upper halves of YMM0 to YMM15.
    Avx = 2,
    /// The opmasks.
    Opmask = 5,
    /// The upper halves of ZMM0 to ZMM15.
    UpperZmm = 6,
    /// ZMM16 to ZMM31.
    HighZmm = 7,
}

/// What is loaded: bytes of their own, in the upper part of the register where the lower belongs to another component.
const CONTENTS: u128 = 0x1011_1213_1415_1617_1819_1a1b_1c1d_1e1f;

impl Component {
    /// All of them, by their numbers.
    pub const ALL: [Self; 6] = [
        Self::X87,
        Self::Sse,
        Self::Avx,
        Self::Opmask,
        Self::UpperZmm,
        Self::HighZmm,
    ];

    /// Its bit in `XCR0` and `XSTATE_BV`.
    pub const fn bit(self) -> u64 {
        1 << self as u64
    }

    /// Changes one register of this component alone; the others stay initial if they were. May trap; on a machine without
    /// the component it is an invalid instruction.
    pub fn use_alone(self) {
        let mut vector = [0; 4];
        vector[match self {
            Self::X87 | Self::Sse | Self::Opmask | Self::HighZmm => 0,
            Self::Avx => 1,
            Self::UpperZmm => 3,
        }] = CONTENTS;
        let function = match self {
            Self::X87 => load_st,
            Self::Sse => load_xmm,
            Self::Avx => load_ymm,
            Self::Opmask => load_k,
            Self::UpperZmm => load_zmm,
            Self::HighZmm => load_high_zmm,
        };
        // SAFETY: the function reads the vector and changes one FPU register, which the compiled kernel never uses.
        unsafe { function(&vector) };
    }

    /// All registers after [`use_alone`](Self::use_alone) of initial ones.
    pub fn used_alone(self) -> RegisterFile {
        let mut file = RegisterFile::INITIAL;
        match self {
            Self::X87 => {
                file.low.n_st = 1;
                file.low.st[0] = 0x3fff << 64 | 1 << 63;
            }
            Self::Sse => {
                file.low.xmm[3] = CONTENTS;
                if crate::report::has_avx() {
                    file.ymm.0[3][0] = CONTENTS;
                }
                if crate::report::has_avx512() {
                    file.zmm.zmm[3][0] = CONTENTS;
                }
            }
            Self::Avx => {
                file.ymm.0[3][1] = CONTENTS;
                if crate::report::has_avx512() {
                    file.zmm.zmm[3][1] = CONTENTS;
                }
            }
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the instruction loads 64 bits"
            )]
            Self::Opmask => file.zmm.k[3] = CONTENTS as u64,
            Self::UpperZmm => file.zmm.zmm[3][3] = CONTENTS,
            Self::HighZmm => file.zmm.zmm[19][0] = CONTENTS,
        }
        file
    }
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn load_st(_: &[u128; 4]) {
    naked_asm!("fld1", "ret")
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn load_xmm(_: &[u128; 4]) {
    naked_asm!("movups xmm3, [rdi]", "ret")
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn load_ymm(_: &[u128; 4]) {
    naked_asm!("vmovups ymm3, [rdi]", "ret")
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn load_k(_: &[u128; 4]) {
    naked_asm!("kmovq k3, [rdi]", "ret")
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn load_zmm(_: &[u128; 4]) {
    naked_asm!("vmovups zmm3, [rdi]", "ret")
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn load_high_zmm(_: &[u128; 4]) {
    naked_asm!("vmovups zmm19, [rdi]", "ret")
}
