//! Copies to and from user memory that sleep, as where a page has to be brought in first, and wake up on another CPU.
//!
//! All memory of this kernel's processes is there, so a test asks for the pauses.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::move_to;
use crate::lwp::ANYWHERE;
use crate::{cpu, sched};

static IS_ON: AtomicBool = AtomicBool::new(false);
static N_MOVES: AtomicU64 = AtomicU64::new(0);

/// Lets the copies of signal frames sleep from now on.
pub fn let_copies_sleep() {
    N_MOVES.store(0, Ordering::Relaxed);
    IS_ON.store(true, Ordering::Relaxed);
}

/// No longer; how often an LWP moved to another CPU.
pub fn let_copies_run() -> u64 {
    IS_ON.store(false, Ordering::Relaxed);
    N_MOVES.load(Ordering::Relaxed)
}

/// Before and after a copy: others run, if it is to sleep, and the LWP goes on on the next CPU, if there is one. Interrupts are on.
pub(crate) fn pause() {
    if !IS_ON.load(Ordering::Relaxed) {
        return;
    }
    sched::yield_now();
    if cpu::n_cpus() > 1 {
        move_to((cpu::index() + 1) % cpu::n_cpus());
        sched::set_pin(&sched::current(), ANYWHERE);
        N_MOVES.fetch_add(1, Ordering::Relaxed);
    }
}
