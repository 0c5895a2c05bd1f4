//! Where LWPs may run, where they do, and keeping one off every CPU.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{QUEUE, request_reschedule, wake_a_cpu, with_current, yield_now};
use crate::cpu::hotplug;
use crate::lwp::{Lwp, NO_CPU};

/// Allows `lwp` to run on the CPUs of `pin` only; it moves at its next switch, which is asked for at once.
///
/// # Panics
///
/// When the mask names no CPU that runs.
pub fn set_pin(lwp: &Lwp, pin: u64) {
    assert!(pin & hotplug::online() != 0, "pinned to no CPU that runs");
    let cpu = {
        let _queue = QUEUE.lock();
        lwp.pin.store(pin, Ordering::Relaxed);
        lwp.on_cpu
            .load(Ordering::Relaxed)
            .then(|| lwp.last_cpu.load(Ordering::Relaxed))
    };
    match cpu {
        Some(cpu) if cpu != NO_CPU && !lwp.may_run_on(cpu as usize) => {
            request_reschedule(cpu as usize);
        }
        Some(_) => {}
        None => wake_a_cpu(lwp.allowed()),
    }
}

/// Asks the CPU on which another LWP runs, if it does, to come into the kernel, whose way out looks for signals.
pub(crate) fn kick(lwp: &Lwp) {
    let cpu = {
        let _queue = QUEUE.lock();
        lwp.on_cpu
            .load(Ordering::Relaxed)
            .then(|| lwp.last_cpu.load(Ordering::Relaxed))
    };
    match cpu {
        Some(cpu) if cpu != NO_CPU && !with_current(|own| core::ptr::eq(own, lwp)) => {
            request_reschedule(cpu as usize);
        }
        _ => {}
    }
}

/// An LWP that is on no CPU, and comes on none while this lives.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a Arc<Lwp>);

/// Waits until another LWP, which is about to sleep, is off its CPU and nobody else holds it, and holds it.
pub(crate) fn hold(lwp: &Arc<Lwp>) -> Held<'_> {
    loop {
        {
            let _queue = QUEUE.lock();
            if !lwp.on_cpu.load(Ordering::Relaxed) && !lwp.is_held.swap(true, Ordering::Relaxed) {
                return Held(lwp);
            }
        }
        yield_now();
    }
}

impl Held<'_> {
    pub(crate) fn lwp(&self) -> &Lwp {
        self.0
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        {
            let _queue = QUEUE.lock();
            self.0.is_held.store(false, Ordering::Relaxed);
        }
        // It may have been woken meanwhile.
        wake_a_cpu(self.0.allowed());
    }
}
