//! YMM registers that stay alive across a system call, for programs that need AVX and say so.

use core::arch::asm;

use crate::held::Call;
use crate::numbers::Random;

/// An ELF note: lengths of name and descriptor, type, name, descriptor (System V ABI, "Note Section").
#[derive(Debug)]
#[repr(C, align(4))]
pub struct Note {
    name_bytes: u32,
    descriptor_bytes: u32,
    kind: u32,
    name: [u8; 8],
    descriptor: [u8; 4],
}

impl Note {
    /// Type 1 of owner `pcu9`: the CPU features that the program needs.
    pub const AVX: Self = Self {
        name_bytes: 5,
        descriptor_bytes: 4,
        kind: 1,
        name: *b"pcu9\0\0\0\0",
        descriptor: *b"avx\0",
    };
}

/// Defines the note by which a program says that it needs AVX. The program refers to it, lest a linker drop it.
#[macro_export]
macro_rules! needs_avx {
    ($name:ident) => {
        #[used]
        #[unsafe(link_section = ".note.pcu9")]
        static $name: $crate::wide::Note = $crate::wide::Note::AVX;
    };
}

const _: () = assert!(size_of::<Note>() == 24 && core::mem::offset_of!(Note, name) == 12);

/// All YMM registers, the lowest 64 bits of each first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Ymm(pub [[u64; 4]; 16]);

impl Ymm {
    /// Random bits everywhere.
    pub fn random(random: &mut Random) -> Self {
        Self(core::array::from_fn(|_| {
            core::array::from_fn(|_| random.bits())
        }))
    }

    /// Loads all registers, counts down from `delay`, makes the system call, and gives the registers as they are then.
    ///
    /// # Safety
    ///
    /// As for [`Registers::across`](crate::held::Registers::across), on a machine with AVX.
    #[must_use]
    pub unsafe fn across(&self, delay: u64, call: &Call) -> Ymm {
        let mut seen = Ymm([[0; 4]; 16]);
        // SAFETY: both areas are 32-byte aligned and 512 bytes long; `clobber_abi` names every vector register; the upper
        // halves are zero at the end, as the ABI asks; the call is the caller's promise.
        unsafe {
            asm!(
                "vmovaps ymm0, [r12 + 0x000]",
                "vmovaps ymm1, [r12 + 0x020]",
                "vmovaps ymm2, [r12 + 0x040]",
                "vmovaps ymm3, [r12 + 0x060]",
                "vmovaps ymm4, [r12 + 0x080]",
                "vmovaps ymm5, [r12 + 0x0A0]",
                "vmovaps ymm6, [r12 + 0x0C0]",
                "vmovaps ymm7, [r12 + 0x0E0]",
                "vmovaps ymm8, [r12 + 0x100]",
                "vmovaps ymm9, [r12 + 0x120]",
                "vmovaps ymm10, [r12 + 0x140]",
                "vmovaps ymm11, [r12 + 0x160]",
                "vmovaps ymm12, [r12 + 0x180]",
                "vmovaps ymm13, [r12 + 0x1A0]",
                "vmovaps ymm14, [r12 + 0x1C0]",
                "vmovaps ymm15, [r12 + 0x1E0]",
                "2: sub r14, 1",
                "jns 2b",
                "syscall",
                "vmovaps [r13 + 0x000], ymm0",
                "vmovaps [r13 + 0x020], ymm1",
                "vmovaps [r13 + 0x040], ymm2",
                "vmovaps [r13 + 0x060], ymm3",
                "vmovaps [r13 + 0x080], ymm4",
                "vmovaps [r13 + 0x0A0], ymm5",
                "vmovaps [r13 + 0x0C0], ymm6",
                "vmovaps [r13 + 0x0E0], ymm7",
                "vmovaps [r13 + 0x100], ymm8",
                "vmovaps [r13 + 0x120], ymm9",
                "vmovaps [r13 + 0x140], ymm10",
                "vmovaps [r13 + 0x160], ymm11",
                "vmovaps [r13 + 0x180], ymm12",
                "vmovaps [r13 + 0x1A0], ymm13",
                "vmovaps [r13 + 0x1C0], ymm14",
                "vmovaps [r13 + 0x1E0], ymm15",
                "vzeroupper",
                in("r12") self,
                in("r13") &raw mut seen,
                inout("r14") delay => _,
                inlateout("rax") call[0] => _,
                in("rdi") call[1],
                in("rsi") call[2],
                in("rdx") call[3],
                in("r10") call[4],
                clobber_abi("sysv64"),
                options(nostack),
            );
        }
        seen
    }
}
