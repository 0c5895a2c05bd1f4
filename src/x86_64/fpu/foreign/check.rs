//! An image from outside, checked.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::slice;

use super::super::detect::{AVX, SSE, X87};
use super::super::image::MXCSR_INITIAL;
use super::super::{FPU, Format, Fpu, FpuArea, FpuFeatures, Refused, XCOMP_BV};
use super::error::{ImageError, StoreError};
use super::form::{Form, u32_at, u64_at};
use super::transfer::{AT_MXCSR, State, XSTATE_BV};
use crate::pcu::Replacing;
use crate::x86_64::machine::{Machine, Native};

/// The header's reserved bytes behind `XCOMP_BV`. All are checked: processors look at 528 to 535 alone, emulators at fewer.
const RESERVED: core::ops::Range<usize> = 528..576;

/// An image from outside that this machine can load, and that this LWP may have. Its bytes are borrowed, so they stay what was
/// checked.
#[derive(Clone, Copy, Debug)]
pub struct UserImage<'a, M = Native> {
    state: State<'a>,
    machine: PhantomData<M>,
}

impl<'a, M: Machine> UserImage<'a, M> {
    /// Checks an image that the kernel has copied. `permitted` are the components that the LWP may use; the kernel that makes no
    /// difference between LWPs gives [`FpuFeatures::xcr0`]. What the machine lacks is never permitted; x87 and SSE always are.
    ///
    /// # Errors
    ///
    /// [`ImageError`], the first that is found.
    pub fn check(form: Form, copy: &'a [u8], permitted: u64) -> Result<Self, ImageError> {
        let features = FpuFeatures::of::<M>();
        let extent = form.extent(copy, features)?;
        let (mut xstate_bv, mut takes_mxcsr) = (extent.components, true);
        if extent.format == Format::Standard {
            xstate_bv = check_header(copy, (permitted | X87 | SSE) & features.xcr0())?;
            let behind_the_end = features
                .extended()
                .filter(|place| place.range(Format::Standard).end > extent.bytes)
                .fold(0, |bits, place| bits | place.bit);
            if xstate_bv & behind_the_end != 0 {
                return Err(ImageError::CutOff(xstate_bv & behind_the_end));
            }
            xstate_bv &= extent.components;
            takes_mxcsr = extent.components & (SSE | AVX) != 0;
        }
        let mxcsr = u32_at(copy, AT_MXCSR).unwrap_or(MXCSR_INITIAL);
        match mxcsr & !Fpu::<M>::mxcsr_mask() {
            0 => {}
            reserved => return Err(ImageError::Mxcsr(reserved)),
        }
        Ok(Self {
            state: State {
                bytes: copy,
                format: extent.format,
                xstate_bv,
                mxcsr: if takes_mxcsr { mxcsr } else { MXCSR_INITIAL },
            },
            machine: PhantomData,
        })
    }

    /// Writes the state to the area of the LWP whose state is replaced, in the format that its registers are restored from.
    ///
    /// Context: in the `write` of [`Pcu::replace`](crate::pcu::Pcu::replace), which alone has the token.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`], [`StoreError::OtherUnit`].
    pub fn store<L: FpuArea>(&self, replacing: &mut Replacing<'_, L>) -> Result<(), StoreError> {
        if replacing.unit() != FPU {
            return Err(StoreError::OtherUnit(replacing.unit()));
        }
        // SAFETY: `replace` keeps the LWP valid, and its token is the only one that is in use.
        let area = unsafe { L::area(replacing.lwp()) }.map_err(|Refused| StoreError::Refused)?;
        let features = FpuFeatures::of::<M>();
        let area = NonNull::slice_from_raw_parts(area, features.area_bytes());
        // SAFETY: the area is so long, by the promise of `FpuArea`; no registers are saved to it and none loaded from it while the
        // LWP has no state (I4), and it belongs to nobody else.
        let area = unsafe { slice::from_raw_parts_mut(area.cast().as_ptr(), area.len()) };
        let format = features.save_instruction().format();
        self.state.write::<M>(area, format);
        Ok(())
    }
}

/// The header of an image in the standard format. Intel SDM, volume 1, "XSAVE Header", "Standard Form of XRSTOR".
fn check_header(image: &[u8], permitted: u64) -> Result<u64, ImageError> {
    let xstate_bv = u64_at(image, XSTATE_BV);
    if xstate_bv & !permitted != 0 {
        return Err(ImageError::Forbidden(xstate_bv & !permitted));
    }
    match u64_at(image, XCOMP_BV) {
        0 => {}
        xcomp_bv => return Err(ImageError::Compacted(xcomp_bv)),
    }
    let reserved = image.get(RESERVED).unwrap_or_default();
    match reserved.iter().position(|byte| *byte != 0) {
        None => Ok(xstate_bv),
        Some(at) => Err(ImageError::Reserved {
            at: RESERVED.start + at,
        }),
    }
}
