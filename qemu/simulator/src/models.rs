//! Models of what other kernels do at a switch, counted as the crate's machine counts.
//!
//! Each follows the kernel's code; what is left out (signals, debuggers, kernel sections) happens in no slice.

mod eager;
mod linux_deferred;
mod linux_lazy;
mod netbsd;
mod sel4;

pub(crate) use eager::Eager;
pub(crate) use linux_deferred::LinuxDeferred;
pub(crate) use linux_lazy::LinuxLazy;
pub(crate) use netbsd::Netbsd;
pub(crate) use sel4::Sel4;

/// No LWP, where the number of one could be.
const NOBODY: u32 = u32::MAX;
/// No CPU, where the number of one could be.
const NOWHERE: u16 = u16::MAX;
