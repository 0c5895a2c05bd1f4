//! The FPU's state for outside and from there: the current LWP's, for a signal's frame and from one; and that of an LWP which stands
//! still, for debuggers and core files, wherever its newest registers are.

use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

use pcu9::kernel::{Held, NoAnswer, Stopped};
use pcu9::pcu::{CoreDump, Validity};
use pcu9::x86_64::fpu;
use pcu9::x86_64::fpu::foreign::{Form, ImageError, Snapshot, StoreError, UserImage};

use super::{FPU, KERNEL, N_UNITS, PCU, Testbed, current};
use crate::lwp::Lwp;
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
    let area = with_current(Lwp::fpu_area);
    // SAFETY: the LWP's own area; it does not return to user mode before the end of this function.
    unsafe { export_held(&mut current(), area, form) }
}

/// The current LWP's state, for a core file: its registers are given up, since it will not use them again. Interrupts are on.
pub(crate) fn dump(form: Form) -> Result<Vec<u8>, Unfit> {
    without_preemption(|| {
        with_current(watch::saves);
        PCU.save_all(&mut current(), CoreDump::Yes)
    })?;
    export(form)
}

/// The state of a held LWP.
///
/// # Safety
///
/// `area` is its area, and it does not run in user mode meanwhile.
unsafe fn export_held(
    held: &mut impl Held<Testbed, N_UNITS>,
    area: *mut u8,
    form: Form,
) -> Result<Vec<u8>, Unfit> {
    let validity = PCU.inspect(held, FPU)?;
    // SAFETY: passed on to the caller.
    unsafe { export_memory(validity, area, form) }
}

/// What an LWP has in memory.
///
/// # Safety
///
/// `area` is its area, nobody writes to it meanwhile, and `validity` says whether it has a state.
unsafe fn export_memory(validity: Validity, area: *mut u8, form: Form) -> Result<Vec<u8>, Unfit> {
    let mut image = alloc::vec![0; form.bytes()];
    poison::spoil(&mut image);
    let snapshot = match validity {
        Validity::Invalid => <Snapshot>::initial(),
        Validity::Valid => {
            let area = NonNull::new(area).ok_or(Unfit::Store(StoreError::Refused))?;
            // SAFETY: passed on to the caller.
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
    let image = check(Form::SignalFrame, copy)?;
    // What the watch notes and what happens are one for the scheduler.
    without_preemption(|| {
        with_current(watch::saves);
        PCU.replace(&mut current(), FPU, |replacing| image.store(replacing))?;
        with_current(|lwp| watch::takes(lwp, copy));
        Ok(())
    })
    .map_err(Unfit::Store)
}

/// The current LWP's state is the initial one from now on. Interrupts are on.
pub(crate) fn start_over() -> Result<(), Unfit> {
    without_preemption(|| {
        with_current(watch::saves);
        PCU.discard(&mut current(), FPU, Validity::Invalid)?;
        with_current(watch::starts_over);
        Ok(())
    })
}

/// An LWP that stands still, off every CPU; its registers may be live on any.
pub(crate) struct Stood<'a> {
    lwp: &'a Lwp,
    token: Stopped<'static, Testbed, N_UNITS>,
}

impl<'a> Stood<'a> {
    /// Makes it.
    ///
    /// # Safety
    ///
    /// The promises of [`Stopped::new`], for as long as it lives.
    pub(crate) unsafe fn new(lwp: &'a Lwp) -> Self {
        // SAFETY: passed on to the caller.
        let token = unsafe { Stopped::new(&KERNEL, NonNull::from(lwp)) };
        Self { lwp, token }
    }

    /// Its state. Its registers stay where they are.
    pub(crate) fn export(&mut self, form: Form) -> Result<Vec<u8>, Unfit> {
        // SAFETY: its own area, and it runs nowhere.
        unsafe { export_held(&mut self.token, self.lwp.fpu_area(), form) }
    }

    /// Its state for a core file: its registers are given up, so that everything of it is in memory.
    pub(crate) fn dump(&mut self, form: Form) -> Result<Vec<u8>, Unfit> {
        PCU.save_all(&mut self.token, CoreDump::Yes)?;
        self.export(form)
    }

    /// Makes the image in `copy`, which is the kernel's own, its state; with an error nothing has changed.
    pub(crate) fn import(&mut self, form: Form, copy: &[u8]) -> Result<(), Unfit> {
        let image = check(form, copy)?;
        PCU.replace(&mut self.token, FPU, |replacing| image.store(replacing))
            .map_err(Unfit::Store)?;
        watch::replaced(self.lwp, copy);
        Ok(())
    }

    /// Changes x87 and SSE to what FXSAVE's image in `copy`, which is the kernel's own, has; the other components stay.
    pub(crate) fn edit_legacy(&mut self, copy: &[u8]) -> Result<(), Unfit> {
        // Before anything is thrown away.
        let mut alone = alloc::vec![0; Form::Regset.bytes()];
        put_legacy(&mut alone, copy);
        check(Form::Regset, &alone)?;
        let area = self.lwp.fpu_area();
        let mut all = Vec::new();
        PCU.edit(&mut self.token, FPU, |replacing, validity| {
            // SAFETY: its own area, which `edit` leaves to this function.
            all = unsafe { export_memory(validity, area, Form::Regset) }?;
            put_legacy(&mut all, copy);
            check(Form::Regset, &all)?
                .store(replacing)
                .map_err(Unfit::Store)
        })?;
        watch::replaced(self.lwp, &all);
        Ok(())
    }
}

fn check(form: Form, copy: &[u8]) -> Result<UserImage<'_>, Unfit> {
    UserImage::check(form, copy, fpu::features().xcr0()).map_err(Unfit::Image)
}

/// Puts FXSAVE's image into a register set, which has x87 and SSE from then on. Intel SDM, volume 1, "XSAVE Header".
fn put_legacy(image: &mut [u8], legacy: &[u8]) {
    const XSTATE_BV: usize = 512;
    const X87_AND_SSE: u8 = 3;
    image[..legacy.len()].copy_from_slice(legacy);
    if let Some(in_use) = image.get_mut(XSTATE_BV) {
        *in_use |= X87_AND_SSE;
    }
}
