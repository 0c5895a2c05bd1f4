//! What the scheduler counts.

use core::sync::atomic::AtomicU64;

use crate::cpu;

/// What a CPU's scheduler counts; each CPU counts its own.
#[derive(Debug)]
pub struct Counters {
    /// Switches to a different LWP, idle included.
    pub switches: AtomicU64,
    /// LWPs that arrived from another CPU.
    pub migrations: AtomicU64,
    /// Switches because the timer said so.
    pub preemptions: AtomicU64,
    /// Switches whose outgoing LWP was a user LWP: what an eager kernel would have saved.
    pub eager_saves: AtomicU64,
    /// Switches whose incoming LWP was a user LWP: what an eager kernel would have restored.
    pub eager_restores: AtomicU64,
    /// Cross-call interrupts that came.
    pub cross_calls_served: AtomicU64,
}

impl Counters {
    pub(crate) const fn new() -> Self {
        Self {
            switches: AtomicU64::new(0),
            migrations: AtomicU64::new(0),
            preemptions: AtomicU64::new(0),
            eager_saves: AtomicU64::new(0),
            eager_restores: AtomicU64::new(0),
            cross_calls_served: AtomicU64::new(0),
        }
    }
}

/// The scheduler's counters of CPU `cpu`.
pub fn counters(cpu: usize) -> &'static Counters {
    &cpu::block(cpu).counters
}
