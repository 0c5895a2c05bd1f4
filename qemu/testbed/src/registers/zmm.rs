//! The registers of AVX-512.

use core::arch::naked_asm;
use core::fmt;
use core::mem::offset_of;

use super::{next, next_wide};

/// The contents of ZMM0 to ZMM31 and of the opmasks; a machine must have AVX-512 for it, with 64-bit opmasks (AVX512BW).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct ZmmPattern {
    pub(super) zmm: [[u128; 4]; 32],
    pub(super) k: [u64; 8],
}
const _: () = assert!(offset_of!(ZmmPattern, k) == 0x800);

impl ZmmPattern {
    /// Random contents.
    pub fn random(seed: u64) -> Self {
        let mut state = seed;
        let mut pattern = Self::zeros();
        let zmm = pattern.zmm.as_flattened_mut();
        zmm.fill_with(|| next_wide(&mut state));
        pattern.k.fill_with(|| next(&mut state));
        pattern
    }

    /// All zero.
    pub const fn zeros() -> Self {
        Self {
            zmm: [[0; 4]; 32],
            k: [0; 8],
        }
    }

    /// Loads the pattern; may trap. On a machine without AVX-512 it is an invalid instruction.
    pub fn load(&self) {
        // SAFETY: the function reads the pattern and changes FPU registers only, which the compiled kernel never uses.
        unsafe { load_zmm(self) };
    }

    /// Reads the registers; may trap. On a machine without AVX-512 it is an invalid instruction.
    pub fn store() -> Self {
        let mut pattern = Self::zeros();
        // SAFETY: the function writes the pattern and nothing else.
        unsafe { store_zmm(&mut pattern) };
        pattern
    }
}

impl fmt::Debug for ZmmPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { zmm, k } = self;
        write!(
            f,
            "zmm0 {:#x?} zmm15 {:#x?} zmm16 {:#x?} zmm31 {:#x?} k {k:#x?}",
            zmm[0], zmm[15], zmm[16], zmm[31]
        )
    }
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn load_zmm(pattern: &ZmmPattern) {
    naked_asm!(
        "vmovups zmm0, [rdi + 0x0]",
        "vmovups zmm1, [rdi + 0x40]",
        "vmovups zmm2, [rdi + 0x80]",
        "vmovups zmm3, [rdi + 0xc0]",
        "vmovups zmm4, [rdi + 0x100]",
        "vmovups zmm5, [rdi + 0x140]",
        "vmovups zmm6, [rdi + 0x180]",
        "vmovups zmm7, [rdi + 0x1c0]",
        "vmovups zmm8, [rdi + 0x200]",
        "vmovups zmm9, [rdi + 0x240]",
        "vmovups zmm10, [rdi + 0x280]",
        "vmovups zmm11, [rdi + 0x2c0]",
        "vmovups zmm12, [rdi + 0x300]",
        "vmovups zmm13, [rdi + 0x340]",
        "vmovups zmm14, [rdi + 0x380]",
        "vmovups zmm15, [rdi + 0x3c0]",
        "vmovups zmm16, [rdi + 0x400]",
        "vmovups zmm17, [rdi + 0x440]",
        "vmovups zmm18, [rdi + 0x480]",
        "vmovups zmm19, [rdi + 0x4c0]",
        "vmovups zmm20, [rdi + 0x500]",
        "vmovups zmm21, [rdi + 0x540]",
        "vmovups zmm22, [rdi + 0x580]",
        "vmovups zmm23, [rdi + 0x5c0]",
        "vmovups zmm24, [rdi + 0x600]",
        "vmovups zmm25, [rdi + 0x640]",
        "vmovups zmm26, [rdi + 0x680]",
        "vmovups zmm27, [rdi + 0x6c0]",
        "vmovups zmm28, [rdi + 0x700]",
        "vmovups zmm29, [rdi + 0x740]",
        "vmovups zmm30, [rdi + 0x780]",
        "vmovups zmm31, [rdi + 0x7c0]",
        "kmovq k0, [rdi + 0x800]",
        "kmovq k1, [rdi + 0x808]",
        "kmovq k2, [rdi + 0x810]",
        "kmovq k3, [rdi + 0x818]",
        "kmovq k4, [rdi + 0x820]",
        "kmovq k5, [rdi + 0x828]",
        "kmovq k6, [rdi + 0x830]",
        "kmovq k7, [rdi + 0x838]",
        "ret",
    )
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
unsafe extern "C" fn store_zmm(pattern: &mut ZmmPattern) {
    naked_asm!(
        "vmovups [rdi + 0x0], zmm0",
        "vmovups [rdi + 0x40], zmm1",
        "vmovups [rdi + 0x80], zmm2",
        "vmovups [rdi + 0xc0], zmm3",
        "vmovups [rdi + 0x100], zmm4",
        "vmovups [rdi + 0x140], zmm5",
        "vmovups [rdi + 0x180], zmm6",
        "vmovups [rdi + 0x1c0], zmm7",
        "vmovups [rdi + 0x200], zmm8",
        "vmovups [rdi + 0x240], zmm9",
        "vmovups [rdi + 0x280], zmm10",
        "vmovups [rdi + 0x2c0], zmm11",
        "vmovups [rdi + 0x300], zmm12",
        "vmovups [rdi + 0x340], zmm13",
        "vmovups [rdi + 0x380], zmm14",
        "vmovups [rdi + 0x3c0], zmm15",
        "vmovups [rdi + 0x400], zmm16",
        "vmovups [rdi + 0x440], zmm17",
        "vmovups [rdi + 0x480], zmm18",
        "vmovups [rdi + 0x4c0], zmm19",
        "vmovups [rdi + 0x500], zmm20",
        "vmovups [rdi + 0x540], zmm21",
        "vmovups [rdi + 0x580], zmm22",
        "vmovups [rdi + 0x5c0], zmm23",
        "vmovups [rdi + 0x600], zmm24",
        "vmovups [rdi + 0x640], zmm25",
        "vmovups [rdi + 0x680], zmm26",
        "vmovups [rdi + 0x6c0], zmm27",
        "vmovups [rdi + 0x700], zmm28",
        "vmovups [rdi + 0x740], zmm29",
        "vmovups [rdi + 0x780], zmm30",
        "vmovups [rdi + 0x7c0], zmm31",
        "kmovq [rdi + 0x800], k0",
        "kmovq [rdi + 0x808], k1",
        "kmovq [rdi + 0x810], k2",
        "kmovq [rdi + 0x818], k3",
        "kmovq [rdi + 0x820], k4",
        "kmovq [rdi + 0x828], k5",
        "kmovq [rdi + 0x830], k6",
        "kmovq [rdi + 0x838], k7",
        "ret",
    )
}
