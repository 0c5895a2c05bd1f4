//! The steps of the unit: before and after each call of it. NMIs come there, and the timeline looks; one flag serves both, so
//! that a step where nobody wants anything costs a test. In a kernel without debug assertions, whose instructions are counted,
//! nothing of this is there.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::{testing, timeline};

/// An NMI comes at each step.
pub(crate) const NMIS: u8 = 1;
/// The timeline looks at each step.
pub(crate) const TIMELINE: u8 = 2;

static WATCHED_BY: AtomicU8 = AtomicU8::new(0);

/// Is this a kernel whose unit is not pcu9's own alone: one with debug assertions, where no instructions are counted?
#[inline]
pub(crate) fn is_instrumented() -> bool {
    cfg!(debug_assertions)
}

/// Lets each step of all CPUs be noticed by one of the above.
///
/// # Panics
///
/// In a kernel without debug assertions.
pub(crate) fn watch(by: u8) {
    assert!(
        is_instrumented(),
        "nothing notices the steps in this kernel"
    );
    WATCHED_BY.fetch_or(by, Ordering::AcqRel);
}

/// The opposite; says whether it was noticed until now.
pub(crate) fn unwatch(by: u8) -> bool {
    WATCHED_BY.fetch_and(!by, Ordering::AcqRel) & by != 0
}

/// Is each step noticed by it?
pub(crate) fn is_watched(by: u8) -> bool {
    is_instrumented() && WATCHED_BY.load(Ordering::Acquire) & by != 0
}

/// A step. Interrupts are off.
#[inline]
pub(crate) fn here() {
    if is_instrumented() {
        let by = WATCHED_BY.load(Ordering::Relaxed);
        if by != 0 {
            noticed(by);
        }
    }
}

#[cold]
fn noticed(by: u8) {
    if by & NMIS != 0 {
        testing::nmi_here();
    }
    if by & TIMELINE != 0 {
        timeline::look();
    }
}
