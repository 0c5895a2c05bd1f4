//! FPU registers that stay alive across a system call.
//!
//! Rust code between "load" and "check" would use these registers itself. So one `asm!` block loads them all, waits a while,
//! makes the system call, and stores them all; Rust only compares. Between load and store other programs run, in the call
//! or whenever the timer interrupts, and a kernel that shares the FPU has every occasion to lose something.

use core::arch::asm;
use core::mem::offset_of;

use pcu9_marks::{Mark, Register};

use crate::numbers::{Digest, Random};
use crate::signals::{AT_FCW, AT_FSW, AT_FTW, AT_MXCSR, AT_ST, AT_XMM, Image};

/// MXCSR at program start: every exception masked, round to nearest (Intel SDM, volume 1, "MXCSR Control and Status
/// Register").
pub const MXCSR_INITIAL: u32 = 0x1F80;
/// The x87 control word at program start: every exception masked, 64-bit precision, round to nearest.
pub const CONTROL_INITIAL: u32 = 0x037F;

/// What [`Registers::across`] loads and stores: the 16 XMM registers, MXCSR, and the x87 FPU.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub struct Registers {
    /// XMM0 to XMM15, low half first.
    pub xmm: [[u64; 2]; 16],
    /// The x87 stack, ST(0) first: 10 bytes each, the rest zero.
    pub st: [[u64; 2]; 8],
    /// How many registers of the x87 stack are in use.
    pub depth: u32,
    /// SSE's control and status register.
    pub mxcsr: u32,
    /// FNSTENV's image of the x87 FPU in 64-bit mode: control word, status word, tag word, then four words of pointers.
    environment: [u32; 7],
}

/// A difference between what was loaded and what was there afterwards.
#[derive(Debug)]
pub struct Lost {
    /// The register's name without its number.
    pub register: &'static str,
    /// The register's number, if there are several.
    pub number: Option<usize>,
    /// What was loaded.
    pub expected: [u64; 2],
    /// What was stored.
    pub seen: [u64; 2],
}

impl core::fmt::Display for Lost {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let ([low, high], [seen_low, seen_high]) = (self.expected, self.seen);
        f.write_str(self.register)?;
        if let Some(number) = self.number {
            write!(f, "{number}")?;
        }
        write!(
            f,
            ": expected {high:016x}{low:016x}, saw {seen_high:016x}{seen_low:016x}"
        )?;
        match Mark::of_word(seen_low) {
            Some(mark) => write!(f, ", which is {mark}"),
            None => Ok(()),
        }
    }
}

/// A system call: its number, then four arguments.
pub type Call = [usize; 5];

impl Registers {
    /// All registers zero, the x87 stack full of zeros, the control registers as at program start.
    pub const fn zero() -> Self {
        let mut environment = [0; 7];
        environment[0] = CONTROL_INITIAL;
        Registers {
            xmm: [[0; 2]; 16],
            st: [[0; 2]; 8],
            depth: 8,
            mxcsr: MXCSR_INITIAL,
            environment,
        }
    }

    /// Random bits everywhere they are legal, not-a-numbers and denormals included.
    pub fn random(random: &mut Random) -> Self {
        let mut registers = Self::zero();
        registers.xmm = core::array::from_fn(|_| [random.bits(), random.bits()]);
        // Loading and storing 80 bits converts nothing, so any pattern comes back as it was.
        registers.st = core::array::from_fn(|_| [random.bits(), random.bits() & 0xFFFF]);
        registers.depth = random.word() % 9;
        registers.randomize_mxcsr(random);
        registers.randomize_control(random);
        registers
    }

    /// What LWP `lwp` of the stress holds in this generation: marks everywhere, and some of the x87 stack empty.
    pub fn marked(lwp: u16, generation: u32) -> Self {
        let mut registers = Self::zero();
        let mark = |register| Mark {
            lwp,
            register,
            generation,
        };
        for (xmm, number) in registers.xmm.iter_mut().zip(0..) {
            *xmm = mark(Register::Vector(number, 0)).words();
        }
        for (st, number) in registers.st.iter_mut().zip(0..) {
            let [significand, more] = mark(Register::St(number)).words();
            *st = [significand, more & 0xFFFF];
        }
        let mut random = Random(u64::from(lwp) << 32 | u64::from(generation));
        registers.depth = random.word() % 9;
        registers.randomize_mxcsr(&mut random);
        registers.randomize_control(&mut random);
        registers
    }

    /// Random rounding mode, flush-to-zero, denormals-are-zero and exception flags; every exception stays masked.
    pub fn randomize_mxcsr(&mut self, random: &mut Random) {
        self.mxcsr = MXCSR_INITIAL | (random.word() & 0xE07F);
    }

    /// Random rounding mode and precision (24, 53 or 64 bits); every exception stays masked.
    pub fn randomize_control(&mut self, random: &mut Random) {
        let precision = [0x000, 0x200, 0x300][random.word() as usize % 3];
        self.environment[0] = 0x007F | precision | (random.word() & 0xC00);
    }

    /// The x87 control word.
    fn control(&self) -> u32 {
        self.environment[0] & 0xFFFF
    }

    /// Loads all registers, counts down from `delay`, makes the system call, and gives its result and the registers as they
    /// are then. The FPU is left as at program start.
    ///
    /// # Safety
    ///
    /// The call must not write to memory that Rust believes to be constant, unless by a pointer in `call` that the caller
    /// may write through, and must not give any memory away.
    pub unsafe fn across(&self, delay: u64, call: &Call) -> (isize, Registers) {
        let mut seen = Registers::zero();
        seen.depth = self.depth;
        let result;
        // SAFETY: both areas are 16-byte aligned and of the layout that the offsets say; `clobber_abi` names every
        // register of the FPU, and the x87 stack is empty again at the end; the call is the caller's promise.
        unsafe {
            asm!(
                // Load: control registers first, the x87 stack from its bottom, ST(depth - 1), to its top.
                "ldmxcsr [r12 + {mxcsr}]",
                "fninit",
                "fldcw [r12 + {environment}]",
                "mov ecx, [r12 + {depth}]",
                "mov r8d, ecx",
                "shl r8d, 4",
                "lea r8, [r12 + r8 + {st}]",
                "2: sub ecx, 1",
                "js 3f",
                "sub r8, 16",
                "fld tbyte ptr [r8]",
                "jmp 2b",
                "3:",
                "movaps xmm0, [r12 + 0x00]",
                "movaps xmm1, [r12 + 0x10]",
                "movaps xmm2, [r12 + 0x20]",
                "movaps xmm3, [r12 + 0x30]",
                "movaps xmm4, [r12 + 0x40]",
                "movaps xmm5, [r12 + 0x50]",
                "movaps xmm6, [r12 + 0x60]",
                "movaps xmm7, [r12 + 0x70]",
                "movaps xmm8, [r12 + 0x80]",
                "movaps xmm9, [r12 + 0x90]",
                "movaps xmm10, [r12 + 0xA0]",
                "movaps xmm11, [r12 + 0xB0]",
                "movaps xmm12, [r12 + 0xC0]",
                "movaps xmm13, [r12 + 0xD0]",
                "movaps xmm14, [r12 + 0xE0]",
                "movaps xmm15, [r12 + 0xF0]",
                // Hold.
                "4: sub r14, 1",
                "jns 4b",
                "syscall",
                // Store. FNSTENV masks every exception, and they are masked already.
                "movaps [r13 + 0x00], xmm0",
                "movaps [r13 + 0x10], xmm1",
                "movaps [r13 + 0x20], xmm2",
                "movaps [r13 + 0x30], xmm3",
                "movaps [r13 + 0x40], xmm4",
                "movaps [r13 + 0x50], xmm5",
                "movaps [r13 + 0x60], xmm6",
                "movaps [r13 + 0x70], xmm7",
                "movaps [r13 + 0x80], xmm8",
                "movaps [r13 + 0x90], xmm9",
                "movaps [r13 + 0xA0], xmm10",
                "movaps [r13 + 0xB0], xmm11",
                "movaps [r13 + 0xC0], xmm12",
                "movaps [r13 + 0xD0], xmm13",
                "movaps [r13 + 0xE0], xmm14",
                "movaps [r13 + 0xF0], xmm15",
                "stmxcsr [r13 + {mxcsr}]",
                "fnstenv [r13 + {environment}]",
                "mov ecx, [r12 + {depth}]",
                "lea r8, [r13 + {st}]",
                "5: sub ecx, 1",
                "js 6f",
                "fstp tbyte ptr [r8]",
                "add r8, 16",
                "jmp 5b",
                "6:",
                // Leave the FPU as Rust expects it.
                "fninit",
                "ldmxcsr [r15]",
                mxcsr = const offset_of!(Registers, mxcsr),
                environment = const offset_of!(Registers, environment),
                depth = const offset_of!(Registers, depth),
                st = const offset_of!(Registers, st),
                in("r15") &MXCSR_INITIAL,
                in("r12") self,
                in("r13") &raw mut seen,
                inout("r14") delay => _,
                inlateout("rax") call[0] => result,
                in("rdi") call[1],
                in("rsi") call[2],
                in("rdx") call[3],
                in("r10") call[4],
                clobber_abi("sysv64"),
                options(nostack),
            );
        }
        (result, seen)
    }

    /// Writes the registers to a signal frame's image, which has all of them from then on.
    pub fn put_into(&self, image: &mut Image<'_>) {
        image.put(AT_FCW, &self.control().to_le_bytes()[..2]);
        image.put(AT_FSW, &(((8 - self.depth) % 8) << 11).to_le_bytes()[..2]);
        // One bit for each physical register, 1 for "in use".
        let in_use = (0xFF00_u32 >> self.depth).to_le_bytes();
        image.put(AT_FTW, &in_use[..1]);
        image.put(AT_MXCSR, &self.mxcsr.to_le_bytes());
        for (number, &[low, high]) in self.st.iter().enumerate() {
            image.put(AT_ST + 16 * number, &low.to_le_bytes());
            image.put(AT_ST + 16 * number + 8, &high.to_le_bytes());
        }
        for (number, &[low, high]) in self.xmm.iter().enumerate() {
            image.put(AT_XMM + 16 * number, &low.to_le_bytes());
            image.put(AT_XMM + 16 * number + 8, &high.to_le_bytes());
        }
    }

    /// Compares with what was loaded.
    ///
    /// # Errors
    ///
    /// The first register that differs.
    pub fn check(&self, seen: &Registers) -> Result<(), Lost> {
        let same = |register, number, expected, seen| {
            (expected == seen).then_some(()).ok_or(Lost {
                register,
                number,
                expected,
                seen,
            })
        };
        let word = |bits: u32| [u64::from(bits), 0];
        for (number, (&expected, &seen)) in self.xmm.iter().zip(&seen.xmm).enumerate() {
            same("XMM", Some(number), expected, seen)?;
        }
        same("MXCSR", None, word(self.mxcsr), word(seen.mxcsr))?;
        same("FCW", None, word(self.control()), word(seen.control()))?;
        // The status word's bits 11 to 13 are the number of the register on top; loading sets no other bit.
        let top = (8 - self.depth) % 8;
        same(
            "FSW",
            None,
            word(top << 11),
            word(seen.environment[1] & 0xFFFF),
        )?;
        // Two tag bits for each physical register, 11 for "empty". The stack grows from register 7 downwards.
        let both = seen.environment[2] & (seen.environment[2] >> 1) & 0x5555;
        let empty = 0x5555 & !(0xFFFF_u32 << (2 * (8 - self.depth)));
        same("empty x87 registers", None, word(empty), word(both))?;
        let in_use = self.depth as usize;
        let stack = self.st.iter().zip(&seen.st).take(in_use).enumerate();
        for (number, (&expected, &seen)) in stack {
            same("ST", Some(number), expected, seen)?;
        }
        Ok(())
    }

    /// Adds every register to a digest.
    pub fn digest(&self, digest: &mut Digest) {
        let in_use = self.st.iter().take(self.depth as usize);
        for &[low, high] in self.xmm.iter().chain(in_use) {
            digest.add(low);
            digest.add(high);
        }
        digest.add(u64::from(self.mxcsr));
        for word in &self.environment[..3] {
            digest.add(u64::from(word & 0xFFFF));
        }
    }
}
