//! The atomics that more than one CPU touches: core's, or those of loom, the model checker, where the crate is compiled for it.
//!
//! What one CPU writes for itself (`CpuPcu`), and the rules of a `Pcu`, which only advise the switch hooks, stay core's.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

/// Reads an atomic that nobody else can reach any more; loom makes sure that whatever others did to it happened before.
#[cfg(not(loom))]
pub(crate) fn read_exclusive(atomic: &mut AtomicU64) -> u64 {
    *atomic.get_mut()
}

/// As above.
#[cfg(loom)]
pub(crate) fn read_exclusive(atomic: &mut AtomicU64) -> u64 {
    atomic.with_mut(|value| *value)
}
