//! What can be wrong with an image from outside, and with its way into an area.

use core::fmt;

use crate::kernel::{CpuId, NoAnswer};
use crate::pcu::UnitId;

/// An image from outside that is not one of this machine's, or not one for this LWP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// It has not the length that its form has, or that it claims.
    Length {
        /// The length that it should have, or reach.
        needed: usize,
        /// The length of what was given.
        got: usize,
    },
    /// A frame whose first magic, at byte 464, is neither `FP_XSTATE_MAGIC1` nor 0.
    Magic1(u32),
    /// A frame whose `xstate_size`, at byte 480, is no size of an image here.
    XstateSize {
        /// The size of a whole image on this machine.
        max: usize,
        /// What the frame says.
        claimed: usize,
    },
    /// A frame whose `extended_size`, at byte 468, leaves no room for the second magic.
    ExtendedSize {
        /// The least that `xstate_size` asks for.
        min: usize,
        /// What the frame says.
        claimed: usize,
    },
    /// A frame that does not end with `FP_XSTATE_MAGIC2`.
    Magic2 {
        /// Where it should stand.
        at: usize,
        /// What stands there.
        found: u32,
    },
    /// `XSTATE_BV`, at byte 512, names components that the LWP may not use.
    Forbidden(u64),
    /// `XSTATE_BV` names components that lie behind the end of a frame.
    CutOff(u64),
    /// `XCOMP_BV`, at byte 520, is not 0: a compacted image is taken from nobody.
    Compacted(u64),
    /// A reserved byte of the header, from byte 528 to 575, is not 0.
    Reserved {
        /// The first such byte.
        at: usize,
    },
    /// `MXCSR`, at byte 24, has bits that the processor does not have.
    Mxcsr(u32),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { needed, got } => {
                write!(f, "the image has {got} bytes where {needed} are needed")
            }
            Self::Magic1(found) => write!(f, "the frame's first magic, at byte 464, is {found:#x}"),
            Self::XstateSize { max, claimed } => write!(
                f,
                "the frame's xstate_size, at byte 480, is {claimed}, not from 576 to {max}"
            ),
            Self::ExtendedSize { min, claimed } => write!(
                f,
                "the frame's extended_size, at byte 468, is {claimed}, less than {min}"
            ),
            Self::Magic2 { at, found } => {
                write!(f, "the frame's second magic, at byte {at}, is {found:#x}")
            }
            Self::Forbidden(components) => write!(
                f,
                "XSTATE_BV, at byte 512, names components {components:#x}, which the lwp may not use"
            ),
            Self::CutOff(components) => write!(
                f,
                "XSTATE_BV, at byte 512, names components {components:#x} behind the frame's end"
            ),
            Self::Compacted(xcomp_bv) => {
                write!(f, "XCOMP_BV, at byte 520, is {xcomp_bv:#x}, not 0")
            }
            Self::Reserved { at } => write!(f, "byte {at} of the header, reserved, is not 0"),
            Self::Mxcsr(bits) => write!(
                f,
                "MXCSR, at byte 24, has the bits {bits:#x}, which the processor does not have"
            ),
        }
    }
}

impl core::error::Error for ImageError {}

/// A good image did not get into the LWP's area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// The kernel has no area for the LWP; the LWP's state is the initial one now.
    Refused,
    /// What is being replaced is the state of another unit than the FPU; it is initial now.
    OtherUnit(UnitId),
    /// The CPU that holds the registers does not answer; the LWP's state is what it was.
    NoAnswer(CpuId),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("the lwp has no area for the FPU's registers"),
            Self::OtherUnit(unit) => {
                write!(f, "an image of the FPU for unit {}", unit.index())
            }
            Self::NoAnswer(cpu) => write!(
                f,
                "the state is on cpu {}, which does not answer",
                cpu.index()
            ),
        }
    }
}

impl core::error::Error for StoreError {}

impl From<NoAnswer> for StoreError {
    fn from(NoAnswer(cpu): NoAnswer) -> Self {
        Self::NoAnswer(cpu)
    }
}

/// The buffer for an export is too short; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort {
    /// The length of the image.
    pub needed: usize,
}

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the image takes {} bytes", self.needed)
    }
}

impl core::error::Error for TooShort {}
