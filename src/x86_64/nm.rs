//! Whose `#NM` it is.

use super::amx::{AMX, IA32_XFD_ERR};
use super::calibrate;
use super::fpu::{FPU, FpuFeatures};
use super::machine::{Machine, Native};
use crate::pcu::UnitId;

/// Who executed the instruction that raised `#NM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedBy {
    /// An LWP's own code: user mode, or a kernel thread that was given FPU state ([Kernel threads](crate::pcu#kernel-threads)), and
    /// no code of the kernel that runs over it: with interrupts off, for instance.
    Lwp,
    /// Any other code of the kernel.
    Kernel,
}

/// What `#NM`, "device not available", is about. Intel SDM, volume 3A, "Interrupt 7".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum DeviceNotAvailable {
    /// The LWP used this unit: [`Pcu::trap`](crate::pcu::Pcu::trap) serves it.
    Unit(UnitId),
    /// [`calibrate`](super::calibrate) measures what a trap takes: the gate is open, and the handler returns at once.
    Calibration,
    /// The kernel itself used a register that it must not touch, by the instruction at this address. It is not served: that
    /// would load the state of whoever is current, and hide the bug.
    KernelBug {
        /// The address.
        rip: u64,
    },
}

impl DeviceNotAvailable {
    /// Finds out what the `#NM` at `rip` is about: `IA32_XFD_ERR` first, which is cleared, then `CR0.TS`.
    ///
    /// Context: the entry of `#NM`, at the level that it came with; before anything else that may raise `#NM`.
    ///
    /// # Safety
    ///
    /// In ring 0.
    pub unsafe fn classify(by: UsedBy, rip: u64) -> Self {
        // SAFETY: the caller promises ring 0.
        unsafe { Self::classify_on::<Native>(by, rip) }
    }

    /// [`classify`](Self::classify), on this machine.
    ///
    /// # Safety
    ///
    /// As there.
    pub unsafe fn classify_on<M: Machine>(by: UsedBy, rip: u64) -> Self {
        let mut unit = FPU;
        if FpuFeatures::of::<M>().has_xfd() {
            // SAFETY: ring 0; CPUID shows XFD, and so the register.
            if unsafe { M::rdmsr(IA32_XFD_ERR) } != 0 {
                // SAFETY: as above. The processor never clears it (Intel SDM, volume 1, "Extended Feature Disable").
                unsafe { M::wrmsr(IA32_XFD_ERR, 0) };
                unit = AMX;
            }
        }
        match by {
            UsedBy::Lwp => Self::Unit(unit),
            UsedBy::Kernel if calibrate::is_use(rip) => {
                // SAFETY: ring 0, at the level that the trap came with: that of `calibrate`.
                unsafe { M::clts() };
                Self::Calibration
            }
            UsedBy::Kernel => Self::KernelBug { rip },
        }
    }
}
