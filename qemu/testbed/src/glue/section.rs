//! Kernel sections: the kernel's own use of the FPU, refused where none may be entered.
//!
//! The scheduler does its part (P7 of [`Kernel`](pcu9::kernel::Kernel)): it does not preempt [`in_section`].

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use pcu9::kernel::Stopped;
use pcu9::pcu::SectionError;

use super::{CPU_PCU, FPU, HERE, KERNEL, PCU, current};
use crate::cpu;
use crate::lock::InterruptsOff;
use crate::lwp::Lwp;
use crate::watch;

/// The kernel does not get the FPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSection {
    /// An NMI came into who knows what: between any two steps of a load, a save or another section.
    Nmi,
    /// As `pcu9` says.
    Refused(SectionError),
}

impl fmt::Display for NoSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nmi => f.write_str("no kernel section is entered from an NMI"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl From<SectionError> for NoSection {
    fn from(error: SectionError) -> Self {
        Self::Refused(error)
    }
}

/// Lets the LWP that calls this use the FPU in the kernel for the time of `f`, which neither sleeps nor yields; it is not
/// preempted meanwhile.
///
/// # Errors
///
/// [`NoSection`].
pub fn section<R>(f: impl FnOnce() -> R) -> Result<R, NoSection> {
    not_in_nmi()?;
    watch::enters_section();
    Ok(PCU.section(&mut current(), FPU, |_| f())?)
}

/// The same in an interrupt. `slot` is an LWP of this CPU that never runs, for the registers of a section that was interrupted;
/// without one this section is refused then.
///
/// # Errors
///
/// [`NoSection`].
pub fn section_in_interrupt<R>(slot: Option<&Lwp>, f: impl FnOnce() -> R) -> Result<R, NoSection> {
    not_in_nmi()?;
    watch::enters_section();
    // SAFETY: it never runs, and each CPU uses its own, one interrupt at a time: they do not nest.
    let mut slot = slot.map(|lwp| unsafe { Stopped::new(&KERNEL, NonNull::from(lwp)) });
    Ok(PCU.section_in_interrupt(&KERNEL, FPU, slot.as_mut(), |_| f())?)
}

fn not_in_nmi() -> Result<(), NoSection> {
    let _off = InterruptsOff::new();
    if cpu::this().in_nmi.load(Ordering::Relaxed) {
        return Err(NoSection::Nmi);
    }
    Ok(())
}

/// Is this CPU in a kernel section? Interrupts are off, or it is.
pub fn in_section() -> bool {
    // SAFETY: nobody moves the caller, so this is its CPU's copy.
    unsafe { &*CPU_PCU.this_copy(HERE) }.in_section()
}
