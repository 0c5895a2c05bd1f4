//! Patterns for the FPU's registers, and the only assembly of this kernel that touches them.
//!
//! Boot tests load a pattern, let other LWPs run, and compare. All functions here are in the section `.text.fpu`; the rest of the
//! kernel has no such instruction, which is checked by disassembly. The first one may raise #NM: they are for kernel threads that
//! were given FPU state ([`testing::spawn`](crate::testing::spawn)).
//!
//! Layout of the image that FXSAVE writes: Intel SDM, volume 1, "Legacy Region of an XSAVE Area".

mod component;
mod file;
mod harmonic;
mod marked;
mod zmm;

use core::arch::naked_asm;
use core::fmt;
use core::mem::offset_of;

pub use self::component::Component;
pub use self::file::RegisterFile;
pub use self::harmonic::{HARMONIC, harmonic};
pub use self::marked::Difference;
pub use self::zmm::ZmmPattern;

/// The contents of the x87 stack, its control word, MXCSR, and XMM0 to XMM15.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Pattern {
    /// How many x87 registers are in use, from ST(0) on.
    n_st: u64,
    mxcsr: u32,
    fcw: u16,
    /// ST(0) first; 80 bits each.
    st: [u128; 8],
    xmm: [u128; 16],
}

/// The contents of YMM0 to YMM15; a machine must have AVX for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct YmmPattern([[u128; 2]; 16]);

/// What FXSAVE writes.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Image([u8; 512]);

/// A generator of numbers that look random: `splitmix64` (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators").
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn next_wide(state: &mut u64) -> u128 {
    u128::from(next(state)) << 64 | u128::from(next(state))
}

impl Pattern {
    /// The initial state: empty stack, control word 0x037f, MXCSR 0x1f80, zeros.
    pub const INITIAL: Self = Self {
        n_st: 0,
        mxcsr: 0x1f80,
        fcw: 0x037f,
        st: [0; 8],
        xmm: [0; 16],
    };

    /// Random contents everywhere; exceptions stay masked.
    pub fn random(seed: u64) -> Self {
        let mut state = seed;
        let mut st = [0; 8];
        // Normal numbers: the explicit integer bit set, an exponent that is neither 0 nor all ones.
        st.fill_with(|| {
            let exponent = 0x3fff + u128::from(next(&mut state) & 0xff) - 0x80;
            let sign = u128::from(next(&mut state) & 1) << 79;
            sign | exponent << 64 | 1 << 63 | u128::from(next(&mut state) >> 1)
        });
        let mut xmm = [0; 16];
        xmm.fill_with(|| next_wide(&mut state));
        let mode = next(&mut state);
        Self {
            n_st: 8,
            // Rounding, flush to zero, flags.
            mxcsr: 0x1f80 | (mode as u32 & 0xe03f),
            // Rounding and precision: double or extended.
            fcw: 0x027f | ((mode >> 32) as u16 & 0x0d00),
            st,
            xmm,
        }
    }

    /// All registers zero, the x87 stack full of zeros.
    pub const fn zeros() -> Self {
        Self {
            n_st: 8,
            ..Self::INITIAL
        }
    }

    /// The initial state but for MXCSR, which holds `rounding` (0 to 3, of which 0 is initial).
    pub const fn with_rounding(rounding: u32) -> Self {
        Self {
            mxcsr: 0x1f80 | (rounding & 3) << 13,
            ..Self::INITIAL
        }
    }

    /// Loads the pattern into this LWP's registers. May trap.
    pub fn load(&self) {
        // SAFETY: the function reads the pattern and changes FPU registers only, which the compiled kernel never uses.
        unsafe { load_pattern(self) };
    }

    /// What a saved image holds: it begins alike in every format. (Intel SDM, volume 1, "Legacy Region of an XSAVE Area".)
    ///
    /// # Panics
    ///
    /// When it is shorter than that.
    pub fn of_image(image: &[u8]) -> Self {
        let mut legacy = Image([0; 512]);
        legacy.0.copy_from_slice(&image[..512]);
        legacy.pattern()
    }

    /// Reads this LWP's registers. May trap.
    pub fn store() -> Self {
        let mut image = Image([0; 512]);
        // SAFETY: the function writes the image and nothing else.
        unsafe { store_image(&mut image) };
        image.pattern()
    }
}

impl Image {
    fn wide(&self, at: usize) -> u128 {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[at..at + 16]);
        u128::from_le_bytes(bytes)
    }

    fn pattern(&self) -> Pattern {
        let low = self.wide(0);
        let tags = (low >> 32) as u8;
        let n_st = u64::from(tags.count_ones());
        let mut st = [0; 8];
        for (place, value) in st.iter_mut().enumerate().take(n_st as usize) {
            *value = self.wide(32 + 16 * place) & ((1 << 80) - 1);
        }
        let mut xmm = [0; 16];
        for (place, value) in xmm.iter_mut().enumerate() {
            *value = self.wide(160 + 16 * place);
        }
        Pattern {
            n_st,
            mxcsr: (self.wide(16) >> 64) as u32,
            fcw: low as u16,
            st,
            xmm,
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mxcsr {:#x} fcw {:#x} n_st {} ",
            self.mxcsr, self.fcw, self.n_st
        )?;
        write!(
            f,
            "st0 {:#x} st7 {:#x} xmm0 {:#x} xmm15 {:#x}",
            self.st[0], self.st[7], self.xmm[0], self.xmm[15]
        )
    }
}

impl YmmPattern {
    /// Random contents.
    pub fn random(seed: u64) -> Self {
        let mut state = seed;
        let mut ymm = [[0; 2]; 16];
        ymm.as_flattened_mut().fill_with(|| next_wide(&mut state));
        Self(ymm)
    }

    /// All zero.
    pub const fn zeros() -> Self {
        Self([[0; 2]; 16])
    }

    /// Loads the pattern; may trap. On a machine without AVX it is an invalid instruction.
    pub fn load(&self) {
        // SAFETY: the function reads the pattern and changes FPU registers only, which the compiled kernel never uses.
        unsafe { load_ymm(self) };
    }

    /// Reads the registers; may trap. On a machine without AVX it is an invalid instruction.
    pub fn store() -> Self {
        let mut pattern = Self::zeros();
        // SAFETY: the function writes the pattern and nothing else.
        unsafe { store_ymm(&mut pattern) };
        pattern
    }
}

/// One cheap use of the FPU (reads MXCSR); may trap.
pub fn touch() -> u32 {
    let mut mxcsr = 0;
    // SAFETY: the function writes four bytes and nothing else.
    unsafe { store_mxcsr(&mut mxcsr) };
    mxcsr
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn load_pattern(pattern: &Pattern) {
    naked_asm!(
        "fninit",
        "mov rcx, [rdi + {n_st}]",
        "mov rax, rcx",
        "shl rax, 4",
        "2:",
        "test rcx, rcx",
        "jz 3f",
        "sub rax, 16",
        "fld tbyte ptr [rdi + rax + {st}]",
        "dec rcx",
        "jmp 2b",
        "3:",
        "fldcw [rdi + {fcw}]",
        "ldmxcsr [rdi + {mxcsr}]",
        "movups xmm0, [rdi + {xmm}]",
        "movups xmm1, [rdi + {xmm} + 0x10]",
        "movups xmm2, [rdi + {xmm} + 0x20]",
        "movups xmm3, [rdi + {xmm} + 0x30]",
        "movups xmm4, [rdi + {xmm} + 0x40]",
        "movups xmm5, [rdi + {xmm} + 0x50]",
        "movups xmm6, [rdi + {xmm} + 0x60]",
        "movups xmm7, [rdi + {xmm} + 0x70]",
        "movups xmm8, [rdi + {xmm} + 0x80]",
        "movups xmm9, [rdi + {xmm} + 0x90]",
        "movups xmm10, [rdi + {xmm} + 0xa0]",
        "movups xmm11, [rdi + {xmm} + 0xb0]",
        "movups xmm12, [rdi + {xmm} + 0xc0]",
        "movups xmm13, [rdi + {xmm} + 0xd0]",
        "movups xmm14, [rdi + {xmm} + 0xe0]",
        "movups xmm15, [rdi + {xmm} + 0xf0]",
        "ret",
        n_st = const offset_of!(Pattern, n_st),
        st = const offset_of!(Pattern, st),
        fcw = const offset_of!(Pattern, fcw),
        mxcsr = const offset_of!(Pattern, mxcsr),
        xmm = const offset_of!(Pattern, xmm),
    )
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn store_image(image: &mut Image) {
    naked_asm!("fxsave64 [rdi]", "ret")
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn store_mxcsr(mxcsr: &mut u32) {
    naked_asm!("stmxcsr [rdi]", "ret")
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn load_ymm(pattern: &YmmPattern) {
    naked_asm!(
        "vmovups ymm0, [rdi]",
        "vmovups ymm1, [rdi + 0x20]",
        "vmovups ymm2, [rdi + 0x40]",
        "vmovups ymm3, [rdi + 0x60]",
        "vmovups ymm4, [rdi + 0x80]",
        "vmovups ymm5, [rdi + 0xa0]",
        "vmovups ymm6, [rdi + 0xc0]",
        "vmovups ymm7, [rdi + 0xe0]",
        "vmovups ymm8, [rdi + 0x100]",
        "vmovups ymm9, [rdi + 0x120]",
        "vmovups ymm10, [rdi + 0x140]",
        "vmovups ymm11, [rdi + 0x160]",
        "vmovups ymm12, [rdi + 0x180]",
        "vmovups ymm13, [rdi + 0x1a0]",
        "vmovups ymm14, [rdi + 0x1c0]",
        "vmovups ymm15, [rdi + 0x1e0]",
        "ret",
    )
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn store_ymm(pattern: &mut YmmPattern) {
    naked_asm!(
        "vmovups [rdi], ymm0",
        "vmovups [rdi + 0x20], ymm1",
        "vmovups [rdi + 0x40], ymm2",
        "vmovups [rdi + 0x60], ymm3",
        "vmovups [rdi + 0x80], ymm4",
        "vmovups [rdi + 0xa0], ymm5",
        "vmovups [rdi + 0xc0], ymm6",
        "vmovups [rdi + 0xe0], ymm7",
        "vmovups [rdi + 0x100], ymm8",
        "vmovups [rdi + 0x120], ymm9",
        "vmovups [rdi + 0x140], ymm10",
        "vmovups [rdi + 0x160], ymm11",
        "vmovups [rdi + 0x180], ymm12",
        "vmovups [rdi + 0x1a0], ymm13",
        "vmovups [rdi + 0x1c0], ymm14",
        "vmovups [rdi + 0x1e0], ymm15",
        "ret",
    )
}
