//! A state for outside.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::slice;

use super::super::detect::{SSE, X87};
use super::super::{Format, FpuFeatures};
use super::error::TooShort;
use super::form::{Form, put, u64_at};
use super::transfer::{State, XSTATE_BV};
use crate::x86_64::machine::{Machine, Native};

/// An LWP's state in memory, to be exported.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a, M = Native> {
    state: State<'a>,
    machine: PhantomData<M>,
}

impl<M: Machine> Snapshot<'_, M> {
    /// The state of an LWP of which [`Pcu::inspect`](crate::pcu::Pcu::inspect) says
    /// [`Invalid`](crate::pcu::Validity::Invalid).
    pub const fn initial() -> Self {
        Self {
            state: State::INITIAL,
            machine: PhantomData,
        }
    }

    /// The state in the area of an LWP of which [`Pcu::inspect`](crate::pcu::Pcu::inspect) says
    /// [`Valid`](crate::pcu::Validity::Valid).
    ///
    /// # Safety
    ///
    /// `area` is what [`FpuArea::area`](super::super::FpuArea::area) gives for the LWP, and for the lifetime of the snapshot the LWP stays
    /// stopped, or does not return to user mode.
    pub unsafe fn of_area(area: NonNull<u8>) -> Self {
        let features = FpuFeatures::of::<M>();
        // SAFETY: an area is so long; no registers are saved to it, and nobody writes it, for so long.
        let bytes = unsafe { slice::from_raw_parts(area.as_ptr(), features.area_bytes()) };
        Self {
            state: State::of_area(bytes, features),
            machine: PhantomData,
        }
    }

    /// Writes the image to the beginning of `to`, every byte of it, and gives its length, which is [`Form::bytes`].
    ///
    /// # Errors
    ///
    /// [`TooShort`]; nothing is written then.
    pub fn export(&self, form: Form, to: &mut [u8]) -> Result<usize, TooShort> {
        let features = FpuFeatures::of::<M>();
        let needed = form.bytes_on::<M>();
        let image = to.get_mut(..needed).ok_or(TooShort { needed })?;
        if features.xcr0() == 0 {
            self.state.write::<M>(image, Format::Legacy);
            return Ok(needed);
        }
        self.state.write::<M>(image, Format::Standard);
        form.write_software_bytes(image, features);
        if form == Form::SignalFrame {
            // As Linux does: a handler that knows nothing of the header finds its changes to x87 and XMM restored.
            let xstate_bv = u64_at(image, XSTATE_BV) | X87 | SSE;
            put(image, XSTATE_BV, &xstate_bv.to_le_bytes());
        }
        Ok(needed)
    }
}
