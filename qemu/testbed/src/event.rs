//! Events: what LWPs sleep for.
//!
//! A sleeper reads the event's count, checks its condition, and sleeps only if the count is still the same; who changes
//! the condition signals afterwards. So no signal is lost, and the condition needs no lock of the event's.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::sched;

/// Something that happens again and again.
#[derive(Debug, Default)]
pub struct Event {
    count: AtomicU64,
}

impl Event {
    /// Makes an event that has not happened.
    pub const fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
        }
    }

    /// How often it has happened.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Says that it happened, and wakes everybody who sleeps for it.
    pub fn signal(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        sched::wake(self);
    }

    /// Sleeps until `condition` gives a value; it is looked at again after each signal.
    pub fn wait_for<R>(&self, mut condition: impl FnMut() -> Option<R>) -> R {
        loop {
            let seen = self.count();
            if let Some(value) = condition() {
                return value;
            }
            sched::sleep(self, seen);
        }
    }
}
