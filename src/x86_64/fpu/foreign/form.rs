//! The forms that an image has outside, and what Linux puts into the bytes that are software's.

use super::super::detect::{SSE, X87};
use super::super::{Format, FpuFeatures};
use super::error::ImageError;
use crate::x86_64::machine::{Machine, Native};

/// Where software's bytes begin. Intel SDM, volume 2A, "FXSAVE": bytes 464 to 511 are available to software.
pub(super) const SOFTWARE: usize = 464;
/// `FP_XSTATE_MAGIC1`, `FP_XSTATE_MAGIC2`: `arch/x86/include/uapi/asm/sigcontext.h`.
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
const MAGIC2_BYTES: usize = 4;
/// Of `struct _fpx_sw_bytes`, same source.
const AT_MAGIC1: usize = SOFTWARE;
const AT_EXTENDED_SIZE: usize = SOFTWARE + 4;
const AT_XFEATURES: usize = SOFTWARE + 8;
const AT_XSTATE_SIZE: usize = SOFTWARE + 16;

/// The least of an XSAVE area.
const XSAVE_MIN: usize = 576;
const FXSAVE_BYTES: usize = 512;

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A debugger's register set and the note of a core dump: `PTRACE_GETREGSET`, `NT_X86_XSTATE`. Without XSAVE `NT_PRFPREG`.
    /// Software's bytes begin with `XCR0`, by which debuggers know the layout.
    Regset,
    /// What a signal handler finds, and may change: `uc_mcontext.fpstate`. Software's bytes tell the size, between two magics; a
    /// program that puts zeros there has a legacy frame, whose x87 and SSE count, and the rest is initial.
    SignalFrame,
}

/// What a frame says of itself, once it was found true.
pub(super) struct Extent {
    /// The length of the image.
    pub(super) bytes: usize,
    /// The components that count; the others are initial.
    pub(super) components: u64,
    /// Is there a header?
    pub(super) format: Format,
}

impl Form {
    /// The length of such an image on this machine. A frame from user memory may be shorter, not longer.
    pub fn bytes(self) -> usize {
        self.bytes_on::<Native>()
    }

    /// [`bytes`](Self::bytes) on machine `M`.
    pub fn bytes_on<M: Machine>(self) -> usize {
        let features = FpuFeatures::of::<M>();
        let magic2 = match self {
            Self::SignalFrame if features.xcr0() != 0 => MAGIC2_BYTES,
            Self::SignalFrame | Self::Regset => 0,
        };
        features.standard_bytes() + magic2
    }

    /// How far does the image in `bytes` go?
    pub(super) fn extent(self, bytes: &[u8], features: &FpuFeatures) -> Result<Extent, ImageError> {
        let whole = Extent {
            bytes: features.standard_bytes(),
            components: features.components(),
            format: match features.xcr0() {
                0 => Format::Legacy,
                _ => Format::Standard,
            },
        };
        match self {
            Self::Regset if bytes.len() == whole.bytes => Ok(whole),
            Self::Regset => Err(ImageError::Length {
                needed: whole.bytes,
                got: bytes.len(),
            }),
            Self::SignalFrame => frame_extent(bytes, &whole),
        }
    }

    /// Writes what is software's into an image that is zero there.
    pub(super) fn write_software_bytes(self, to: &mut [u8], features: &FpuFeatures) {
        let size = features.standard_bytes();
        match self {
            _ if features.xcr0() == 0 => {}
            Self::Regset => put(to, SOFTWARE, &features.xcr0().to_le_bytes()),
            Self::SignalFrame => {
                put(to, AT_MAGIC1, &MAGIC1.to_le_bytes());
                put(to, AT_EXTENDED_SIZE, &word(size + MAGIC2_BYTES));
                put(to, AT_XFEATURES, &features.xcr0().to_le_bytes());
                put(to, AT_XSTATE_SIZE, &word(size));
                put(to, size, &MAGIC2.to_le_bytes());
            }
        }
    }
}

/// The size that a frame claims is believed only within this machine's, and only if the second magic stands behind it.
fn frame_extent(bytes: &[u8], whole: &Extent) -> Result<Extent, ImageError> {
    let length = |needed| ImageError::Length {
        needed,
        got: bytes.len(),
    };
    let magic1 = u32_at(bytes, AT_MAGIC1).ok_or(length(FXSAVE_BYTES))?;
    let software = bytes.get(..FXSAVE_BYTES).ok_or(length(FXSAVE_BYTES))?;
    if whole.format == Format::Legacy || magic1 == 0 {
        return Ok(Extent {
            bytes: FXSAVE_BYTES,
            components: X87 | SSE,
            format: Format::Legacy,
        });
    }
    if magic1 != MAGIC1 {
        return Err(ImageError::Magic1(magic1));
    }
    let size_at = |at| u32_at(software, at).map_or(0, |size| size as usize);
    let (size, extended_size) = (size_at(AT_XSTATE_SIZE), size_at(AT_EXTENDED_SIZE));
    if size < XSAVE_MIN || size > whole.bytes {
        return Err(ImageError::XstateSize {
            max: whole.bytes,
            claimed: size,
        });
    }
    if extended_size < size + MAGIC2_BYTES {
        return Err(ImageError::ExtendedSize {
            min: size + MAGIC2_BYTES,
            claimed: extended_size,
        });
    }
    match u32_at(bytes, size) {
        Some(MAGIC2) => Ok(Extent {
            bytes: size,
            components: u64_at(software, AT_XFEATURES) & whole.components,
            format: Format::Standard,
        }),
        Some(magic2) => Err(ImageError::Magic2 {
            at: size,
            found: magic2,
        }),
        None => Err(length(size + MAGIC2_BYTES)),
    }
}

/// Four bytes at `at`, if there are so many.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

/// Eight bytes at `at`; what is not there reads as 0.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let chunk = bytes.get(at..).and_then(<[u8]>::first_chunk);
    chunk.map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Writes `from` at `at`.
pub(super) fn put(to: &mut [u8], at: usize, from: &[u8]) {
    let place = to.get_mut(at..at + from.len());
    debug_assert!(place.is_some(), "{} bytes at {at}: too many", from.len());
    if let Some(place) = place {
        place.copy_from_slice(from);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an image is some kilobytes at the most"
)]
fn word(size: usize) -> [u8; 4] {
    (size as u32).to_le_bytes()
}
