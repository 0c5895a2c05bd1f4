//! What CPUID says of the FPU. Asked once: under a hypervisor each CPUID is an exit, so it is on no hot path.

use core::arch::x86_64::CpuidResult;
use core::fmt;
use core::ops::Range;

use spin::Once;

use super::components::{Extended, N_EXTENDED, compacted_bytes, numbers, standard_bytes};
use super::errata;
use crate::x86_64::machine::Machine;
use crate::x86_64::model::CpuModel;

/// CPUID.01H:ECX, Intel SDM, volume 2A, "CPUID", table of feature information.
const ECX_XSAVE: u32 = 1 << 26;
const ECX_AVX: u32 = 1 << 28;
/// CPUID.(07H,0):EBX, same source.
const EBX_AVX512F: u32 = 1 << 16;
/// CPUID.(07H,0):EDX, same source.
const EDX_AMX_TILE: u32 = 1 << 24;
/// CPUID.(0DH,1):EAX, same source, "Processor Extended State Enumeration".
const EAX_XSAVEOPT: u32 = 1 << 0;
const EAX_XSAVEC: u32 = 1 << 1;
const EAX_XGETBV1: u32 = 1 << 2;
const EAX_XSAVES: u32 = 1 << 3;
const EAX_XFD: u32 = 1 << 4;
/// CPUID.(0DH,component):ECX: XFD gates the component.
const ECX_XFD: u32 = 1 << 2;
/// CPUID.80000008H:EBX, AMD APM, volume 3: `RstrFpErrPtrs`, "FXSAVE, XSAVE, XSAVEOPT, FXRSTOR, XRSTOR always save/restore error
/// pointers".
const EBX_RSTR_FP_ERR_PTRS: u32 = 1 << 2;

/// Components of `XCR0`, Intel SDM, volume 1, "XSAVE-Supported Features and State-Component Bitmaps".
pub(super) const X87: u64 = 1 << 0;
pub(super) const SSE: u64 = 1 << 1;
pub(super) const AVX: u64 = 1 << 2;
/// The opmasks, the upper halves of ZMM0 to 15, and ZMM16 to 31: all or none.
pub(super) const AVX512: u64 = 0b111 << 5;
/// The configuration and the data of AMX's tiles: the unit of [`x86_64::amx`](crate::x86_64::amx).
pub(in crate::x86_64) const TILES: u64 = TILE_CONFIG | TILE_DATA;
const TILE_CONFIG: u64 = 1 << 17;
pub(in crate::x86_64) const TILE_DATA: u64 = 1 << 18;

/// FXSAVE's area. Intel SDM, volume 2A, "FXSAVE".
const FXSAVE_BYTES: usize = 512;

/// The instruction that saves the registers; the restore goes with it.
///
/// The last that CPUID shows, and that no erratum forbids, is taken. XSAVES and XSAVEC leave out what is in its initial state,
/// as XSAVEOPT does, and take the shorter area; XSAVES, as XSAVEOPT, leaves out what was not changed. That is Linux's order, too
/// (`arch/x86/kernel/fpu/xstate.h`). Supervisor states are not saved: `IA32_XSS` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SaveInstruction {
    /// x87 and SSE only; every 64-bit processor has it.
    Fxsave,
    /// All components, written whole.
    Xsave,
    /// All components; those in their initial state, or unchanged since the restore, are not written.
    Xsaveopt,
    /// All components, compacted; those in their initial state are not written.
    Xsavec,
    /// All components, compacted; those in their initial state, or unchanged since the restore, are not written. Restored by
    /// XRSTORS.
    Xsaves,
}

/// How the components of an image lie in memory. A machine has one: that of its save instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// FXSAVE's 512 bytes. Intel SDM, volume 2A, "FXSAVE".
    Legacy,
    /// Each component at its own offset. Intel SDM, volume 1, "Standard Format of the Extended Region".
    Standard,
    /// The image's components one behind the other. Intel SDM, volume 1, "Compacted Format of the Extended Region".
    Compacted,
}

impl SaveInstruction {
    /// The format of what it writes.
    pub const fn format(self) -> Format {
        match self {
            Self::Fxsave => Format::Legacy,
            Self::Xsave | Self::Xsaveopt => Format::Standard,
            Self::Xsavec | Self::Xsaves => Format::Compacted,
        }
    }
}

impl fmt::Display for SaveInstruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fxsave => "fxsave",
            Self::Xsave => "xsave",
            Self::Xsaveopt => "xsaveopt",
            Self::Xsavec => "xsavec",
            Self::Xsaves => "xsaves",
        })
    }
}

/// What the kernel lets the unit use of what the processor shows, as Linux's options `noxsave`, `noxsaveopt`, `noxsaves` and
/// `clearcpuid` do: for processors and emulators that show what does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// No later instruction than this one is used to save.
    pub save_instruction: SaveInstruction,
    /// Components that may be enabled in `XCR0`; x87 and SSE always are.
    pub components: u64,
}

impl Limits {
    /// Everything that works here is used.
    pub const NONE: Self = Self {
        save_instruction: SaveInstruction::Xsaves,
        components: u64::MAX,
    };
}

/// The features were asked for before they were limited, and areas may have been made by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLate;

impl fmt::Display for TooLate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fpu is limited after its features were asked for: do it first")
    }
}

impl core::error::Error for TooLate {}

/// A component behind the header, and where it lies in an image of each format.
#[derive(Clone, Debug)]
pub(super) struct Component {
    pub(super) number: u32,
    pub(super) standard: Range<usize>,
    pub(super) compacted: Range<usize>,
}

impl Component {
    /// A byte of its own, to fill it with.
    pub(super) const fn filling(&self) -> u8 {
        0xa0 | self.number.to_le_bytes()[0]
    }
}

/// What the machine's FPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a bit of CPUID's, and none goes with another"
)]
pub struct FpuFeatures {
    limits: Limits,
    save_instruction: SaveInstruction,
    xcr0: u64,
    /// The size of an area in either format; 0 without XSAVE.
    standard_bytes: usize,
    compacted_bytes: usize,
    extended: [Extended; N_EXTENDED],
    /// The size of an area for AMX alone; 0 if it cannot be a unit.
    tiles_bytes: usize,
    has_xgetbv1: bool,
    has_xss: bool,
    has_xfd: bool,
    forgets_x87_pointers: bool,
}

/// The FPU of this CPU cannot be used as that of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// CPUID, or `MXCSR_MASK`, shows other features than on the first CPU.
    Differs,
    /// CPUID's two statements on the size of an area disagree.
    AreaBytes {
        /// In which format.
        format: Format,
        /// What the components' offsets and sizes add up to.
        computed: usize,
        /// What CPUID says for the `XCR0` in force.
        reported: usize,
    },
    /// XSAVEC or XSAVES puts components elsewhere in an image than CPUID says. Bochs 2.7 does; the remedy is
    /// [`FpuFeatures::limit`] to [`SaveInstruction::Xsaveopt`].
    Layout,
    /// The processor has not what the unit stands for.
    Missing,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs => f.write_str("the FPU of this cpu differs from that of the first one"),
            Self::AreaBytes {
                format,
                computed,
                reported,
            } => write!(
                f,
                "an XSAVE area takes {computed} bytes by its components, {reported} by XCR0 ({format:?} format)"
            ),
            Self::Layout => f.write_str(
                "this cpu's compacted images are not laid out as cpuid says: limit the unit to xsaveopt",
            ),
            Self::Missing => f.write_str("this cpu does not have the unit"),
        }
    }
}

impl core::error::Error for InitError {}

/// Where a machine keeps what was found of its FPU.
#[derive(Debug, Default)]
pub struct Detected {
    pub(super) features: Once<FpuFeatures>,
    /// Found by an FXSAVE, so on the first CPU that is started, not on the first question.
    pub(super) mxcsr_mask: Once<u32>,
}

impl Detected {
    /// Nothing is found yet.
    pub const fn new() -> Self {
        Self {
            features: Once::new(),
            mxcsr_mask: Once::new(),
        }
    }
}

impl FpuFeatures {
    /// The features of `M`, found once.
    pub fn of<M: Machine>() -> &'static Self {
        M::detected()
            .features
            .call_once(|| Self::from_cpuid(M::cpuid))
    }

    /// Keeps the unit from using all that the machine `M` shows. Before anything else asks for the features: an area is made
    /// by them.
    ///
    /// # Errors
    ///
    /// [`TooLate`]; nothing is limited then.
    pub fn limit<M: Machine>(limits: Limits) -> Result<(), TooLate> {
        let limited = Self::within(limits, M::cpuid);
        if *M::detected().features.call_once(|| limited) == limited {
            Ok(())
        } else {
            Err(TooLate)
        }
    }

    /// How the registers are saved.
    pub const fn save_instruction(&self) -> SaveInstruction {
        self.save_instruction
    }

    /// The components that are saved and restored, all of them at once always, and that `XCR0` enables; 0 where there is no
    /// XSAVE.
    ///
    /// So no register is enabled that is not saved, and no image has other components than another. `PKRU` and MPX are never
    /// among them.
    pub const fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// The size of an area in bytes, in the format of the save instruction.
    pub const fn area_bytes(&self) -> usize {
        match self.save_instruction.format() {
            Format::Legacy => FXSAVE_BYTES,
            Format::Standard => self.standard_bytes,
            Format::Compacted => self.compacted_bytes,
        }
    }

    /// Can the processor say which components are in use, so that a wipe need not restore them all?
    pub const fn can_tell_use(&self) -> bool {
        self.has_xgetbv1
    }

    /// Do FXRSTOR and XRSTOR leave the address, operand and opcode of the last x87 instruction as they are, unless an error is
    /// pending in the image, so that the next LWP reads those of the one before? CVE-2006-1056.
    ///
    /// AMD's and Hygon's processors without `RstrFpErrPtrs`. Sources: AMD APM, volume 2, "FXSAVE and FXRSTOR Instructions";
    /// FreeBSD-SA-06:14.fpu; Xen, XSA-52 and commit d2a95f1c.
    pub const fn forgets_x87_pointers(&self) -> bool {
        self.forgets_x87_pointers
    }

    /// The size of an area for AMX alone, compacted; `None` where AMX cannot be a unit: it needs XSAVEC, and XFD as its gate.
    pub const fn tiles_bytes(&self) -> Option<usize> {
        match self.tiles_bytes {
            0 => None,
            bytes => Some(bytes),
        }
    }

    /// Has the processor `IA32_XFD`, so that `#NM` has a second cause?
    pub const fn has_xfd(&self) -> bool {
        self.has_xfd
    }

    /// The components of an image: [`xcr0`](Self::xcr0), or those of FXSAVE.
    pub(super) const fn components(&self) -> u64 {
        match self.save_instruction.format() {
            Format::Legacy => X87 | SSE,
            Format::Standard | Format::Compacted => self.xcr0,
        }
    }

    /// The size of an image in the standard format, whatever the format of the areas is; FXSAVE's where there is no XSAVE.
    pub(super) const fn standard_bytes(&self) -> usize {
        match self.save_instruction.format() {
            Format::Legacy => FXSAVE_BYTES,
            Format::Standard | Format::Compacted => self.standard_bytes,
        }
    }

    /// Where the components behind the header lie.
    pub(super) fn extended(&self) -> impl Iterator<Item = &Extended> {
        self.extended.iter().filter(|place| place.bytes != 0)
    }

    pub(super) const fn has_xss(&self) -> bool {
        self.has_xss
    }

    /// Reads the features off a CPUID, the processor's or a recorded one.
    pub(super) fn from_cpuid(cpuid: impl Fn(u32, u32) -> CpuidResult + Copy) -> Self {
        Self::within(Limits::NONE, cpuid)
    }

    /// As [`from_cpuid`](Self::from_cpuid), as far as the kernel lets it.
    pub(super) fn within(limits: Limits, cpuid: impl Fn(u32, u32) -> CpuidResult + Copy) -> Self {
        let cpu = CpuModel::from_cpuid(cpuid);
        let basic = cpuid(1, 0);
        let max_leaf = cpuid(0, 0).eax;
        let is_amd = matches!(&cpu.vendor, b"AuthenticAMD" | b"HygonGenuine");
        let restores_pointers = cpuid(0x8000_0000, 0).eax >= 0x8000_0008
            && cpuid(0x8000_0008, 0).ebx & EBX_RSTR_FP_ERR_PTRS != 0;
        let mut features = Self {
            limits,
            save_instruction: SaveInstruction::Fxsave,
            xcr0: 0,
            standard_bytes: 0,
            compacted_bytes: 0,
            extended: [Extended::NONE; N_EXTENDED],
            tiles_bytes: 0,
            has_xgetbv1: false,
            has_xss: false,
            has_xfd: false,
            forgets_x87_pointers: is_amd && !restores_pointers,
        };
        let may_xsave = limits.save_instruction != SaveInstruction::Fxsave;
        if basic.ecx & ECX_XSAVE == 0 || max_leaf < 0xd || !may_xsave {
            return features;
        }
        // Leaf 0DH alone is not believed: emulators enumerate components there that the feature leaves deny.
        let supported = u64::from(cpuid(0xd, 0).eax) & (limits.components | X87 | SSE);
        let extended = cpuid(7, 0);
        features.xcr0 = supported & (X87 | SSE);
        if basic.ecx & ECX_AVX != 0 && supported & AVX != 0 {
            features.xcr0 |= AVX;
            if extended.ebx & EBX_AVX512F != 0 && supported & AVX512 == AVX512 {
                features.xcr0 |= AVX512;
            }
        }
        let extensions = cpuid(0xd, 1).eax;
        let has = |bits| extensions & bits == bits;
        let shown = [
            (true, SaveInstruction::Xsave),
            (has(EAX_XSAVEOPT), SaveInstruction::Xsaveopt),
            (has(EAX_XSAVEC), SaveInstruction::Xsavec),
            (has(EAX_XSAVEC | EAX_XSAVES), SaveInstruction::Xsaves),
        ];
        for (is_shown, instruction) in shown {
            let is_let = instruction <= limits.save_instruction;
            if is_shown && is_let && !errata::forbid(&cpu, instruction) {
                features.save_instruction = instruction;
            }
        }
        features.standard_bytes = standard_bytes(cpuid, features.xcr0);
        features.compacted_bytes = compacted_bytes(cpuid, features.xcr0);
        for (place, number) in features.extended.iter_mut().zip(numbers(features.xcr0)) {
            *place = Extended::find(cpuid, features.xcr0, number);
        }
        features.has_xgetbv1 = has(EAX_XGETBV1);
        features.has_xss = has(EAX_XSAVES);
        features.has_xfd = has(EAX_XFD);
        if extended.edx & EDX_AMX_TILE != 0
            && supported & TILES == TILES
            && has(EAX_XSAVEC)
            && has(EAX_XFD)
            && cpuid(0xd, TILE_DATA.trailing_zeros()).ecx & ECX_XFD != 0
        {
            features.tiles_bytes = compacted_bytes(cpuid, TILES);
        }
        features
    }

    /// Has this CPU what the first one had?
    pub(super) fn check_this_cpu<M: Machine>(&self) -> Result<(), InitError> {
        if Self::within(self.limits, M::cpuid) == *self {
            Ok(())
        } else {
            Err(InitError::Differs)
        }
    }

    /// The components behind the header, in both formats.
    pub(super) fn placed<M: Machine>(&self) -> impl Iterator<Item = Component> {
        let mask = self.xcr0;
        numbers(mask).map(move |number| {
            let leaf = M::cpuid(0xd, number);
            let standard = leaf.ebx as usize;
            // The end of those up to this one, and back by its length.
            let end = compacted_bytes(M::cpuid, mask & (u64::MAX >> (63 - number)));
            Component {
                number,
                standard: standard..standard + leaf.eax as usize,
                compacted: end - leaf.eax as usize..end,
            }
        })
    }

    /// Does CPUID report the same sizes for the `XCR0` in force, which is this one, and an `IA32_XSS` of 0?
    ///
    /// (0DH,1).EBX is asked only where the compacted format is used: QEMU's emulator has no XSAVEC, and a fixed number there.
    /// It may be 0 even so: Xen before 4.17 says nothing where it shows no XSAVES (its change "x86/CPUID: surface suitable
    /// value in EBX of XSTATE subleaf 1"), Bochs 2.7 where no more than x87 and SSE is enabled. `layout` looks then, too.
    pub(super) fn check_area_bytes<M: Machine>(&self) -> Result<(), InitError> {
        let check = |format, subleaf, computed| {
            let reported = M::cpuid(0xd, subleaf).ebx as usize;
            let is_stated = format == Format::Standard || reported != 0;
            if reported == computed || !is_stated {
                Ok(())
            } else {
                Err(InitError::AreaBytes {
                    format,
                    computed,
                    reported,
                })
            }
        };
        check(Format::Standard, 0, self.standard_bytes)?;
        match self.save_instruction.format() {
            Format::Compacted => check(Format::Compacted, 1, self.compacted_bytes),
            Format::Legacy | Format::Standard => Ok(()),
        }
    }
}
