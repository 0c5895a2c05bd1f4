//! Moments at which a test holds the kernel still: an LWP in the middle of its switch-in, callers that have asked and not waited yet.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::LIMIT_MS;
use crate::cpu::time;
use crate::lwp::Lwp;

/// The number of the LWP that is held at its next switch-in; 0: nobody.
static WHOM: AtomicU64 = AtomicU64::new(0);
static IS_HELD: AtomicBool = AtomicBool::new(false);

/// Holds `lwp` at its next switch-in, current on its CPU with interrupts off, before `pcu9` is told; until [`let_go`].
pub fn hold_at_switch_in(lwp: &Lwp) {
    IS_HELD.store(false, Ordering::Relaxed);
    WHOM.store(lwp.number, Ordering::Release);
}

/// Does the LWP stand in its switch-in?
pub fn is_held() -> bool {
    IS_HELD.load(Ordering::Acquire)
}

/// Lets it go on.
pub fn let_go() {
    WHOM.store(0, Ordering::Release);
}

/// The scheduler: `lwp` arrives. Interrupts are off.
pub(crate) fn at_switch_in(lwp: &Lwp) {
    if WHOM.load(Ordering::Acquire) == lwp.number {
        IS_HELD.store(true, Ordering::Release);
        spin_until(|| WHOM.load(Ordering::Acquire) != lwp.number);
    }
}

/// How many callers of other CPUs are still to come before those that have come go on.
static N_MISSING: AtomicUsize = AtomicUsize::new(0);

/// Has each of the next `n` callers of another CPU publish its request, and stay with interrupts off until all have; 0: as ever.
pub fn ask_together(n: usize) {
    N_MISSING.store(n, Ordering::Release);
}

/// A request to another CPU was published; interrupts are off.
pub(crate) fn has_asked() {
    let is_missing = |n: usize| n.checked_sub(1);
    let was_missing = N_MISSING.fetch_update(Ordering::AcqRel, Ordering::Acquire, is_missing);
    if was_missing.is_ok() {
        spin_until(|| N_MISSING.load(Ordering::Acquire) == 0);
    }
}

/// Waits, without leaving the CPU, until `condition` holds.
///
/// # Panics
///
/// After a minute.
#[track_caller]
pub fn spin_until(condition: impl Fn() -> bool) {
    let end = time::ticks() + LIMIT_MS * time::ticks_per_ms();
    while !condition() {
        assert!(time::ticks() < end, "held for more than a minute");
    }
}
