//! Where a state is saved.

use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::{Fpu, FpuFeatures};
use crate::x86_64::machine::{Machine, Native};

/// The alignment of an area. Intel SDM, volume 1, "XSAVE Area"; FXSAVE is content with 16.
pub const AREA_ALIGN: usize = 64;

/// The kernel has no area for the LWP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// An LWP that has a place to save the FPU's registers in.
///
/// # Safety
///
/// The area is [`FpuFeatures::area_bytes`] long, at a multiple of [`AREA_ALIGN`], was made ready by [`prepare`](super::prepare) or
/// is an [`Area`], belongs to this LWP alone, and stays the same from the first `Ok` until the LWP has no valid state any more.
pub unsafe trait FpuArea {
    /// Gives the area; the first call may allocate it, and may refuse.
    ///
    /// Context: at `IPL_PCU`, from the trap too, and at whatever level [`UserImage::store`](super::foreign::UserImage::store) is
    /// called; takes no lock that the scheduler holds, does not wait.
    ///
    /// # Errors
    ///
    /// [`Refused`]: [`Pcu::load`](crate::pcu::Pcu::load) then fails, and the kernel tells the LWP.
    ///
    /// # Safety
    ///
    /// `lwp` is valid, and nobody else asks for its area at the same time.
    unsafe fn area(lwp: NonNull<Self>) -> Result<NonNull<u8>, Refused>;
}

/// Memory that is long and aligned enough for an image of this machine's, and was made ready for one.
#[derive(Debug)]
pub struct Area<M = Native> {
    pointer: NonNull<u8>,
    machine: PhantomData<M>,
}

/// The memory cannot be an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AreaError {
    /// It does not begin at a multiple of [`AREA_ALIGN`].
    Misaligned,
    /// It is too short.
    TooShort {
        /// The length of an area on this machine.
        needed: usize,
    },
}

impl fmt::Display for AreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misaligned => write!(f, "an area must begin at a multiple of {AREA_ALIGN}"),
            Self::TooShort { needed } => write!(f, "an area takes {needed} bytes on this machine"),
        }
    }
}

impl core::error::Error for AreaError {}

impl<M: Machine> Area<M> {
    /// What to ask the kernel's allocator for.
    pub fn layout() -> Layout {
        let bytes = FpuFeatures::of::<M>().area_bytes();
        // An area is some kilobytes at the most; the other arm is never taken.
        Layout::from_size_align(bytes, AREA_ALIGN).unwrap_or(Layout::new::<()>())
    }

    /// Checks the memory, and writes the initial state to it.
    ///
    /// # Errors
    ///
    /// [`AreaError`]; nothing is written then.
    ///
    /// # Safety
    ///
    /// The memory is writable, and nobody else uses it for as long as the area is used.
    pub unsafe fn new(memory: NonNull<[u8]>) -> Result<Self, AreaError> {
        let needed = FpuFeatures::of::<M>().area_bytes();
        let pointer = memory.cast::<u8>();
        if !pointer.addr().get().is_multiple_of(AREA_ALIGN) {
            return Err(AreaError::Misaligned);
        }
        if memory.len() < needed {
            return Err(AreaError::TooShort { needed });
        }
        // SAFETY: long and aligned enough, and the caller's alone.
        unsafe { Fpu::<M>::prepare(pointer) };
        Ok(Self {
            pointer,
            machine: PhantomData,
        })
    }

    /// What [`FpuArea::area`] gives.
    pub const fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }
}
