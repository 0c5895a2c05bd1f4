//! A bug that a test puts into the unit: the gate is opened after the restore, not before it.
//!
//! With `CR0.TS` set an XRSTOR raises `#NM` (Intel SDM, volume 2D, "XRSTOR", exceptions). QEMU 7.2 lets it, XSAVE and XSAVEOPT
//! pass (`target/i386/tcg/fpu_helper.c`, `do_xrstor`, looks at `CR4.OSXSAVE` alone), so that a kernel without CLTS works there
//! and on no machine. Bochs raises the fault, and so do both for FXRSTOR.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use x86_64::registers::control::{Cr0, Cr0Flags};

use super::is_task_switched;
use crate::step;

static IS_SEEDED: AtomicBool = AtomicBool::new(false);
/// Faults of a restore since the bug was put in.
static N_FAULTS: AtomicU64 = AtomicU64::new(0);

/// Runs `f` with the bug in the unit; how often a restore raised `#NM` meanwhile, where it should never. For one CPU, with the timer
/// off; in `f` the LWP loads a state by its first use, and does nothing else that concerns the gate.
///
/// # Panics
///
/// In a kernel without debug assertions, whose instructions are counted: the bug is not in it.
pub fn without_clts_before_restore(f: impl FnOnce()) -> u64 {
    assert!(step::is_instrumented(), "the bug is not in this kernel");
    N_FAULTS.store(0, Ordering::Relaxed);
    IS_SEEDED.store(true, Ordering::Relaxed);
    f();
    IS_SEEDED.store(false, Ordering::Relaxed);
    N_FAULTS.load(Ordering::Relaxed)
}

/// Is the unit to leave the gate closed when it is asked to open it?
pub(crate) fn leaves_the_gate_closed() -> bool {
    step::is_instrumented() && IS_SEEDED.load(Ordering::Relaxed)
}

/// After a load: opens the gate at last.
pub(crate) fn open_late() {
    if leaves_the_gate_closed() {
        clear_task_switched();
    }
}

/// `#NM` in kernel mode, with these flags: whether it is what the bug leads to, at the restore or, on AMD's processors, at the
/// wipe of x87 pointers before it. Both are at `IPL_PCU`, an LWP's use is not. It is counted then, and the instruction can be repeated.
pub(crate) fn is_behind(rflags: u64) -> bool {
    /// Interrupts are on.
    const IF: u64 = 1 << 9;
    let is_it = IS_SEEDED.load(Ordering::Relaxed) && is_task_switched() && rflags & IF == 0;
    if is_it {
        N_FAULTS.fetch_add(1, Ordering::Relaxed);
        clear_task_switched();
    }
    is_it
}

fn clear_task_switched() {
    // SAFETY: the core asked for an open gate in the section that runs, and soft-float code does not notice it.
    unsafe { Cr0::write(Cr0::read() - Cr0Flags::TASK_SWITCHED) };
}
