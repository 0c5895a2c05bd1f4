//! The FPU's state of the current LWP, for a signal's frame and from one.

use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

use pcu9::kernel::NoAnswer;
use pcu9::pcu::Validity;
use pcu9::x86_64::fpu;
use pcu9::x86_64::fpu::foreign::{Form, ImageError, Snapshot, StoreError, UserImage};

use super::{FPU, PCU, current};
use crate::sched::{with_current, without_preemption};
use crate::testing::poison;
use crate::watch;

/// The state did not get out or in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    Unreadable,
    Image(ImageError),
    Store(StoreError),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("nothing can be read there"),
            Self::Image(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl From<NoAnswer> for Unfit {
    fn from(error: NoAnswer) -> Self {
        Self::Store(error.into())
    }
}

/// Have images a header?
pub(crate) fn has_xsave() -> bool {
    fpu::features().xcr0() != 0
}

/// The current LWP's state, for outside. Interrupts are on.
pub(crate) fn export(form: Form) -> Result<Vec<u8>, Unfit> {
    let mut image = alloc::vec![0; form.bytes()];
    poison::spoil(&mut image);
    let snapshot = match PCU.inspect(&mut current(), FPU)? {
        Validity::Invalid => <Snapshot>::initial(),
        Validity::Valid => {
            let area = with_current(super::Lwp::fpu_area);
            let area = NonNull::new(area).ok_or(Unfit::Store(StoreError::Refused))?;
            // SAFETY: the LWP's area, and the LWP does not return to user mode before the end of this function.
            unsafe { Snapshot::of_area(area) }
        }
    };
    let exported = snapshot.export(form, &mut image);
    debug_assert_eq!(
        exported,
        Ok(image.len()),
        "the buffer is as long as it says"
    );
    Ok(image)
}

/// Makes the image in `copy`, which is the kernel's own, the current LWP's state, if it is a good one. Interrupts are on.
pub(crate) fn import(copy: &[u8]) -> Result<(), Unfit> {
    let permitted = fpu::features().xcr0();
    let image = <UserImage>::check(Form::SignalFrame, copy, permitted).map_err(Unfit::Image)?;
    // What the watch notes and what happens are one for the scheduler.
    without_preemption(|| {
        with_current(|lwp| watch::takes(lwp, copy));
        PCU.replace(&mut current(), FPU, |replacing| image.store(replacing))
    })
    .map_err(Unfit::Store)
}

/// The current LWP's state is the initial one from now on. Interrupts are on.
pub(crate) fn start_over() -> Result<(), Unfit> {
    without_preemption(|| {
        with_current(watch::gives_up);
        PCU.discard(&mut current(), FPU, Validity::Invalid)
    })
    .map_err(Unfit::from)
}
