//! Programs in user mode, for boot tests that the runner gives an archive of programs.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tar_no_std::TarArchiveRef;

use super::Case;
use crate::boot::info;
use crate::lock::IrqLock;
use crate::lwp::{ANYWHERE, Lwp};
use crate::{line, process};

/// Programs run for a case: what they write is text, and their ends are kept.
static IS_ON: AtomicBool = AtomicBool::new(false);
static DEATHS: IrqLock<Vec<String>> = IrqLock::new(Vec::new());
static OUTPUT: IrqLock<Vec<String>> = IrqLock::new(Vec::new());
/// Where forked processes run, by the bits of their CPUs.
static FORKED_PIN: AtomicU64 = AtomicU64::new(ANYWHERE);

/// A program that was started.
#[derive(Debug)]
pub struct Program {
    name: String,
    lwp: Arc<Lwp>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(u8),
    /// This signal killed it.
    Killed(u8),
}

impl Program {
    /// Starts a program of the archive with these arguments behind its name.
    ///
    /// # Panics
    ///
    /// When there is no archive, or no such program in it, or it cannot be started.
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        Self::start_pinned(ANYWHERE, name, arguments)
    }

    fn start_pinned(pin: u64, name: &str, arguments: &[&str]) -> Self {
        static NEXT_JOB: AtomicU64 = AtomicU64::new(0);
        IS_ON.store(true, Ordering::Relaxed);
        let archive = info::get()
            .module_bytes()
            .expect("no archive of programs was given (-initrd)");
        let archive =
            TarArchiveRef::new(archive).expect("the archive of programs is not a tar file");
        let entry = archive
            .entries()
            .find(|entry| entry.filename().as_str() == Ok(name))
            .unwrap_or_else(|| panic!("{name}: there is no such program in the archive"));
        let mut all = Vec::from([name]);
        all.extend(arguments);
        let job = NEXT_JOB.fetch_add(1, Ordering::Relaxed);
        let lwp = process::start(entry.data(), &all, job, pin)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            name: name.into(),
            lwp,
        }
    }

    /// As [`start`](Self::start), on CPU `cpu` alone.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn start_on(cpu: usize, name: &str, arguments: &[&str]) -> Self {
        Self::start_pinned(1 << cpu, name, arguments)
    }

    /// Its LWP.
    pub fn lwp(&self) -> &Arc<Lwp> {
        &self.lwp
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        let status = self.lwp.process.as_ref()?.status()?.0;
        Some(match status & 0x7f {
            0 => Ended::Exited((status >> 8) as u8),
            signal => Ended::Killed(signal as u8),
        })
    }
}

impl Case {
    /// Waits for the end of all programs, and of what they forked.
    pub fn wait_for_programs(&mut self) -> bool {
        self.wait_until("all programs end", process::have_all_ended)
    }

    /// Checks that programs exited with status 0.
    pub fn expect_success(&mut self, programs: &[Program]) {
        for program in programs {
            let what = program.name.clone() + " ended";
            self.expect_eq(&what, program.ended(), Some(Ended::Exited(0)));
        }
    }
}

/// An LWP of a process that runs; `number` says which, if there are several.
pub(crate) fn any_lwp(number: usize) -> Option<Arc<Lwp>> {
    process::any_lwp(number)
}

/// Sends `SIGUSR1` to a process that has a handler for it; `number` says to which, if there are several.
pub(crate) fn signal_any(number: usize) {
    process::signal_any(number);
}

/// Lets processes that are forked from now on run on CPU `cpu` alone; anywhere for `None`.
pub fn pin_forked(cpu: Option<usize>) {
    let pin = cpu.map_or(ANYWHERE, |cpu| 1 << cpu);
    FORKED_PIN.store(pin, Ordering::Relaxed);
}

/// The pin of a process that is being forked.
pub(crate) fn forked_pin() -> u64 {
    FORKED_PIN.load(Ordering::Relaxed)
}

/// What was told of processes that did not exit, one line each, since this was called last.
pub fn deaths() -> Vec<String> {
    core::mem::take(&mut DEATHS.lock())
}

/// The lines that programs wrote since this was called last.
pub fn output() -> Vec<String> {
    core::mem::take(&mut OUTPUT.lock())
}

/// A process ends so.
pub(crate) fn note_death(why: &fmt::Arguments<'_>) {
    if IS_ON.load(Ordering::Relaxed) {
        let why = why.to_string();
        DEATHS.lock().push(why);
    }
}

/// Prints what a program wrote, if it runs for a case.
pub(crate) fn takes_output(bytes: &[u8]) -> bool {
    let is_on = IS_ON.load(Ordering::Relaxed);
    if is_on {
        let text = String::from_utf8_lossy(bytes);
        for text in text.lines() {
            line!("  {text}");
            OUTPUT.lock().push(text.into());
        }
    }
    is_on
}
