//! Does the processor lay a compacted image out as CPUID says? Looked at once, on each CPU's start.
//!
//! Bochs 2.7 does not: where XSAVEC and XSAVES should begin the extended region at 576, behind the header, it begins it at 416, so
//! that registers and header overwrite each other (seen by `boot_variants`; `cpu/xsave.cc` has it right since). Nothing
//! in CPUID tells on every one of its models.

use core::ptr::NonNull;

use super::image::{LEGACY_AND_HEADER, MXCSR_INITIAL};
use super::{FpuFeatures, SaveInstruction};
use crate::x86_64::machine::Machine;

/// As long as an image with all components of the unit, in either format, on any processor known.
const SCRATCH_BYTES: usize = 2688;

#[repr(C, align(64))]
pub(in crate::x86_64) struct Scratch([u8; SCRATCH_BYTES]);

impl Scratch {
    pub(in crate::x86_64) const ZERO: Self = Self([0; SCRATCH_BYTES]);
}

/// Fills every component behind the header with bytes of its own, saves, and looks where they are. Leaves the registers so.
///
/// # Safety
///
/// `XCR0` is the features'; the gate is open, and nobody's live state is in the registers.
pub(super) unsafe fn is_as_cpuid_says<M: Machine>(features: &FpuFeatures) -> bool {
    let Some(standard) = filled::<M>(features) else {
        return false;
    };
    // SAFETY: the same promises; the image is of the standard format and long enough.
    if unsafe { M::xrstor(NonNull::from(&standard).cast(), features.xcr0()) }.is_err() {
        return false;
    }
    let mut scratch = Scratch::ZERO;
    let area = NonNull::from(&mut scratch).cast();
    match features.save_instruction() {
        // SAFETY: the same promises; the area is longer than either format.
        SaveInstruction::Xsaves => unsafe { M::xsaves(area, features.xcr0()) },
        // SAFETY: as above, and CPUID shows the instruction.
        _ => unsafe { M::xsavec(area, features.xcr0()) },
    }
    let image = &scratch.0;
    let are_in_place = features.placed::<M>().all(|component| {
        let place = component.compacted.clone();
        image
            .get(place)
            .is_some_and(|bytes| bytes.iter().all(|byte| *byte == component.filling()))
    });
    let is_header_clean = image[528..LEGACY_AND_HEADER].iter().all(|byte| *byte == 0);
    let is_end_clean = image
        .get(features.area_bytes()..)
        .is_some_and(|end| end.iter().all(|byte| *byte == 0));
    are_in_place && is_header_clean && is_end_clean
}

/// An image in the standard format; `None` if it is longer than any that is known.
fn filled<M: Machine>(features: &FpuFeatures) -> Option<Scratch> {
    let mut image = Scratch::ZERO;
    image.0[24..28].copy_from_slice(&MXCSR_INITIAL.to_le_bytes());
    let mut xstate_bv = 0;
    for component in features.placed::<M>() {
        xstate_bv |= 1 << component.number;
        let filling = component.filling();
        image.0.get_mut(component.standard)?.fill(filling);
    }
    image.0[512..520].copy_from_slice(&u64::to_le_bytes(xstate_bv));
    Some(image)
}
