//! CPUs that leave, come back, or are lost, and what a panic finds on the others.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use pcu9::kernel::{IplPcu, Stopped};
use pcu9::pcu::Location;

use super::{FPU, KERNEL, PCU};
use crate::cpu::{self, hotplug};
use crate::lwp::{self, Lwp};
use crate::serial::write_line_forced;

/// This CPU goes offline, or the machine to sleep. Interrupts are off.
pub(crate) fn cpu_offline() {
    // SAFETY: the idle LWP, or a suspend, with interrupts off.
    let ipl = unsafe { IplPcu::assume(&KERNEL) };
    PCU.cpu_offline(&ipl);
}

/// This CPU has started its FPU, for the first time or again. Interrupts are off.
pub(crate) fn cpu_online() {
    // SAFETY: a CPU's start, with interrupts off.
    let ipl = unsafe { IplPcu::assume(&KERNEL) };
    PCU.cpu_online(&ipl, |lwp, _| {
        // SAFETY: valid until this returns.
        lost(unsafe { lwp.as_ref() });
    });
}

/// A CPU that stopped without leaving took the FPU state of `lwp` with it. Its area is refused from now on, so that its next use
/// is an error, which ends a process.
fn lost(lwp: &Lwp) {
    lwp.fpu.refuse.store(true, Ordering::Relaxed);
    hotplug::note_loss();
    crate::line!(
        "lost: CPU {} stopped with the FPU state of LWP {} ({})",
        cpu::index(),
        lwp.number,
        lwp.name
    );
}

/// From a panic: says of each LWP whose registers are newer than its memory where they are, and of which nobody will get them any
/// more, since the other CPUs answer no longer. Waits for nobody; how many are lost.
pub(crate) fn say_what_is_lost() -> usize {
    let mut n_lost = 0;
    lwp::for_each_from_panic(|lwp| {
        let Some(Location::Live(holder, _)) = lwp.pcu().view(FPU).map(|view| view.location) else {
            return;
        };
        let (number, name, index) = (lwp.number, lwp.name.as_str(), holder.index());
        if index == cpu::index() {
            write_line_forced(format_args!(
                "  LWP {number} ({name}): live on cpu {index}, this one"
            ));
            return;
        }
        // SAFETY: no CPU but this one runs any more, and this one runs nothing but the panic.
        let mut token = unsafe { Stopped::new(&KERNEL, NonNull::from(lwp)) };
        match PCU.inspect(&mut token, FPU) {
            Ok(_) => write_line_forced(format_args!(
                "  LWP {number} ({name}): saved by cpu {index}"
            )),
            Err(error) => {
                n_lost += 1;
                write_line_forced(format_args!(
                    "  LWP {number} ({name}): live on cpu {index}, lost: {error}"
                ));
            }
        }
    });
    n_lost
}
