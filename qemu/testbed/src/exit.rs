//! How a run ends: QEMU's `isa-debug-exit` device, Bochs' shutdown port, and the panic handler.
//!
//! A value V written to the device's port ends QEMU with exit status 2 V + 1 (QEMU, `hw/misc/debugexit.c`), so success
//! can never be mistaken for QEMU's own statuses 0 and 1. Bochs ends when it reads `Shutdown` at its port, always with status 1
//! (Bochs, `iodev/unmapped.cc`), so a last line says how it went.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};

use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

use crate::boot::info::option;
use crate::{cpu, glue, serial};

/// What the run says to the outside by its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// QEMU ends with status 33, Bochs after the line `@e9 success`.
    Success,
    /// QEMU ends with status 35, Bochs after the line `@e9 failure`.
    Failure,
}

/// Ends the run. Where there is no such device, the CPU stops; with `hold=1` on the command line it stops too, so that the memory
/// can be looked at from outside.
pub fn exit(outcome: Outcome) -> ! {
    interrupts::disable();
    if option("hold") == Some("1") {
        serial::write_line_forced(format_args!(
            "@hold {}",
            match outcome {
                Outcome::Success => "success",
                Outcome::Failure => "failure",
            }
        ));
        stop()
    }
    let (value, words): (u32, _) = match outcome {
        Outcome::Success => (0x10, "\n@e9 success\n"),
        Outcome::Failure => (0x11, "\n@e9 failure\n"),
    };
    if serial::has_e9() {
        serial::write_e9(words);
        b"Shutdown"
            .iter()
            .for_each(|&byte| serial::outb(0x8900, byte));
    }
    // SAFETY: nothing else listens on this port, and the write does not touch memory.
    unsafe { Port::new(0xf4).write(value) };
    stop()
}

/// Stops this CPU for good.
pub(crate) fn stop() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

/// The first CPU that panicked, plus 1; the others stop, and a panic inside the panic ends the run at once.
pub(crate) static PANICKED: AtomicUsize = AtomicUsize::new(0);

/// Whether a CPU has panicked: then nothing waits for another one any more.
pub(crate) fn panicked() -> bool {
    PANICKED.load(Ordering::Acquire) != 0
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    interrupts::disable();
    let cpu = cpu::index_if_known().unwrap_or(0);
    match PANICKED.compare_exchange(0, cpu + 1, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => cpu::smp::stop_others(),
        Err(first) if first == cpu + 1 => exit(Outcome::Failure),
        Err(_) => stop(),
    }
    match info.location() {
        Some(at) => serial::write_line_forced(format_args!(
            "@panic CPU {cpu}: {} ({}:{})",
            info.message(),
            at.file(),
            at.line()
        )),
        None => serial::write_line_forced(format_args!("@panic CPU {cpu}: {}", info.message())),
    }
    if cpu::index_if_known().is_some() {
        glue::say_what_is_lost();
    }
    exit(Outcome::Failure)
}

/// Runs `f` as from a panic of this CPU, which nobody answers any more, and goes on: how many FPU states a crash would say are lost.
/// For tests, with interrupts off.
pub fn as_from_a_panic<R>(f: impl FnOnce() -> R) -> (R, usize) {
    PANICKED.store(cpu::index() + 1, Ordering::Release);
    let result = f();
    let n_lost = glue::say_what_is_lost();
    PANICKED.store(0, Ordering::Release);
    (result, n_lost)
}
