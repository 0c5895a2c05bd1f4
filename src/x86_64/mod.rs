//! The reference machine: `x86_64`, and its FPU as a unit.
//!
//! - [`fpu`]: the unit, `CR0.TS` and the XSAVE family.
//! - [`amx`]: AMX's tiles as a unit of their own.
//! - [`scratch`]: a register file behind a page, the model of a unit of one's own.
//! - [`debug`]: the debug registers, the model of a unit that cannot be lazy.
//! - [`machine`]: the instructions and registers behind a trait, so that the unit also runs on a model of a processor.
//! - [`Gs`]: per-CPU data by the segment register `gs`.
//! - [`LazyFp`]: whether registers behind a closed gate can be read.
//! - [`calibrate`]: what moving a state costs on this machine, for `Policy::Adaptive`.
//! - [`DeviceNotAvailable`]: what the kernel's `#NM` handler asks first.
//! - [`fixup`]: what the kernel's `#GP` and `#PF` handlers ask first.
//!
//! The instructions themselves stand in one private module; nothing else here is assembly. The crate compiles to soft-float
//! code for a kernel target, and uses no FPU register outside those instructions.

pub mod amx;
mod calibrate;
pub mod debug;
pub mod fpu;
#[cfg(not(loom))]
mod gs;
mod instructions;
mod lazy_fp;
pub mod machine;
mod model;
mod nm;
pub mod scratch;

pub use self::calibrate::{calibrate, calibrate_cross_call};
#[cfg(not(loom))]
pub use self::gs::Gs;
pub use self::lazy_fp::LazyFp;
pub use self::nm::{DeviceNotAvailable, UsedBy};

/// Gives the address to continue at when the instruction at `rip` faulted and was allowed to: the restore of a saved state
/// whose image is bad or not mapped. `None` for every other address.
///
/// The handlers of `#GP` and `#PF` ask this for faults from kernel mode, and continue at the answer with all other
/// registers unchanged; the restore then reports [`StateError::BadImage`](crate::pcu::StateError::BadImage).
///
/// Source: Intel SDM, volume 1, "Operation of XRSTOR" (`#GP` for a bad header), volume 2A, "FXRSTOR".
pub fn fixup(rip: u64) -> Option<u64> {
    instructions::fixup(rip)
}
