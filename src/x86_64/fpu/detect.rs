//! What CPUID says of the FPU. Asked once: under a hypervisor each CPUID is an exit, so it is on no hot path.

use core::arch::x86_64::CpuidResult;
use core::fmt;

use spin::Once;

use super::image::INITIAL_BYTES;
use crate::x86_64::machine::Machine;

/// CPUID.01H:ECX, Intel SDM, volume 2A, "CPUID", table of feature information.
const ECX_XSAVE: u32 = 1 << 26;
const ECX_AVX: u32 = 1 << 28;
/// CPUID.(0DH,1):EAX, same source, "Processor Extended State Enumeration".
const EAX_XSAVEOPT: u32 = 1 << 0;
const EAX_XGETBV1: u32 = 1 << 2;

/// Components of `XCR0`, Intel SDM, volume 1, "XSAVE-Supported Features and State-Component Bitmaps".
pub(super) const X87: u64 = 1 << 0;
pub(super) const SSE: u64 = 1 << 1;
pub(super) const AVX: u64 = 1 << 2;

/// FXSAVE's area. Intel SDM, volume 2A, "FXSAVE".
const FXSAVE_BYTES: usize = 512;

/// The instruction that saves the registers; the restore goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveInstruction {
    /// x87 and SSE only; every 64-bit processor has it.
    Fxsave,
    /// All components, written whole.
    Xsave,
    /// All components; those in their initial state, or unchanged since the restore, are not written.
    Xsaveopt,
}

/// What the machine's FPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FpuFeatures {
    save_instruction: SaveInstruction,
    xcr0: u64,
    area_bytes: usize,
    has_xgetbv1: bool,
}

/// The FPU of this CPU cannot be used as that of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// CPUID shows other features than on the first CPU.
    Differs,
    /// CPUID's two statements on the size of an area disagree.
    AreaBytes {
        /// What the components' offsets and sizes add up to.
        computed: usize,
        /// What CPUID says for the `XCR0` in force.
        reported: usize,
    },
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs => f.write_str("the FPU of this cpu differs from that of the first one"),
            Self::AreaBytes { computed, reported } => {
                write!(
                    f,
                    "an XSAVE area takes {computed} bytes by its components, {reported} by XCR0"
                )
            }
        }
    }
}

impl core::error::Error for InitError {}

/// Where a machine keeps what was found of its FPU.
#[derive(Debug, Default)]
pub struct Detected {
    pub(super) features: Once<FpuFeatures>,
}

impl Detected {
    /// Nothing is found yet.
    pub const fn new() -> Self {
        Self {
            features: Once::new(),
        }
    }
}

impl FpuFeatures {
    /// The features of `M`, found once.
    pub fn of<M: Machine>() -> &'static Self {
        M::detected().features.call_once(Self::detect::<M>)
    }

    /// How the registers are saved.
    pub const fn save_instruction(&self) -> SaveInstruction {
        self.save_instruction
    }

    /// The components that are saved and restored, and that `XCR0` enables; 0 where there is no XSAVE.
    pub const fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// The size of an area in bytes.
    pub const fn area_bytes(&self) -> usize {
        self.area_bytes
    }

    /// Can the processor say which components are in use, so that a wipe need not restore them all?
    pub const fn can_tell_use(&self) -> bool {
        self.has_xgetbv1
    }

    fn detect<M: Machine>() -> Self {
        Self::from_cpuid(M::cpuid, M::cpuid(0, 0).eax)
    }

    /// Reads the features off a CPUID, the processor's or a recorded one.
    fn from_cpuid(cpuid: impl Fn(u32, u32) -> CpuidResult, max_leaf: u32) -> Self {
        let basic = cpuid(1, 0);
        if basic.ecx & ECX_XSAVE == 0 || max_leaf < 0xd {
            return Self {
                save_instruction: SaveInstruction::Fxsave,
                xcr0: 0,
                area_bytes: FXSAVE_BYTES,
                has_xgetbv1: false,
            };
        }
        // Leaf 0DH alone is not believed: emulators enumerate components there that the feature leaves deny.
        let supported = u64::from(cpuid(0xd, 0).eax);
        let wanted = if basic.ecx & ECX_AVX == 0 {
            X87 | SSE
        } else {
            X87 | SSE | AVX
        };
        let xcr0 = supported & wanted;
        let end = (2..63)
            .filter(|component| xcr0 & (1 << component) != 0)
            .map(|component| cpuid(0xd, component))
            .map(|leaf| leaf.ebx as usize + leaf.eax as usize)
            .max();
        let extensions = cpuid(0xd, 1).eax;
        Self {
            save_instruction: if extensions & EAX_XSAVEOPT == 0 {
                SaveInstruction::Xsave
            } else {
                SaveInstruction::Xsaveopt
            },
            xcr0,
            area_bytes: end.unwrap_or(0).max(INITIAL_BYTES),
            has_xgetbv1: extensions & EAX_XGETBV1 != 0,
        }
    }

    /// Has this CPU what the first one had?
    pub(super) fn check_this_cpu<M: Machine>(&self) -> Result<(), InitError> {
        if Self::detect::<M>() == *self {
            Ok(())
        } else {
            Err(InitError::Differs)
        }
    }

    /// Does CPUID report the same size for the `XCR0` in force, which is this one?
    pub(super) fn check_area_bytes<M: Machine>(&self) -> Result<(), InitError> {
        let reported = M::cpuid(0xd, 0).ebx as usize;
        if reported == self.area_bytes {
            Ok(())
        } else {
            Err(InitError::AreaBytes {
                computed: self.area_bytes,
                reported,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CPUID of three leaves: basic ECX, (0DH,0).EAX, (0DH,1).EAX; AVX at offset 576, 256 bytes, as on every processor.
    fn recorded(ecx: u32, components: u32, extensions: u32) -> impl Fn(u32, u32) -> CpuidResult {
        move |leaf, subleaf| {
            let (eax, ebx, ecx) = match (leaf, subleaf) {
                (1, _) => (0, 0, ecx),
                (0xd, 0) => (components, 0, 0),
                (0xd, 1) => (extensions, 0, 0),
                (0xd, 2) => (256, 576, 0),
                _ => (0, 0, 0),
            };
            CpuidResult {
                eax,
                ebx,
                ecx,
                edx: 0,
            }
        }
    }

    #[test]
    fn no_xsave_is_fxsave() {
        let features = FpuFeatures::from_cpuid(recorded(0, 0, 0), 4);
        assert_eq!(features.save_instruction(), SaveInstruction::Fxsave);
        assert_eq!((features.xcr0(), features.area_bytes()), (0, 512));
    }

    #[test]
    fn xsave_without_avx_is_legacy_area_and_header() {
        let features = FpuFeatures::from_cpuid(recorded(ECX_XSAVE, 0x3, 0), 0xd);
        assert_eq!(features.save_instruction(), SaveInstruction::Xsave);
        assert_eq!((features.xcr0(), features.area_bytes()), (0x3, 576));
    }

    #[test]
    fn avx_adds_its_component() {
        let features = FpuFeatures::from_cpuid(recorded(ECX_XSAVE | ECX_AVX, 0x21f, 5), 0xd);
        assert_eq!(features.save_instruction(), SaveInstruction::Xsaveopt);
        assert_eq!((features.xcr0(), features.area_bytes()), (0x7, 832));
        assert!(features.can_tell_use());
    }

    #[test]
    fn a_component_without_its_feature_is_not_enabled() {
        let features = FpuFeatures::from_cpuid(recorded(ECX_XSAVE, 0x7, 1), 0xd);
        assert_eq!((features.xcr0(), features.area_bytes()), (0x3, 576));
    }
}
