//! The testbed: a small SMP kernel for x86-64 that boots on QEMU and Bochs and hosts `pcu9`.
#![cfg(target_os = "none")]
//!
//! It is the reference for whoever puts `pcu9` into a kernel: all that concerns the crate is in one file, `glue.rs`, and
//! what a kernel must have around it is here in the order in which it happens. It is a library, since the demo (the
//! binary `testbed`) and each boot test are kernels of their own around the same machine.
//!
//! | step | modules |
//! |---|---|
//! | from the loader to Rust code | `boot` |
//! | words to the outside, and the end of a run | [`serial`], [`exit`], [`lock`] |
//! | memory | [`memory`] |
//! | a CPU's tables, traps, timer, the other CPUs, and those that leave and come back | [`cpu`] |
//! | who runs when | [`lwp`], [`sched`], [`event`], `trace`, `timeline` |
//! | programs in user mode | `process`, [`demo`] |
//! | `pcu9` | [`glue`], [`registers`], [`watch`], `step` |
//! | tests that boot | [`testing`] |
//!
//! The package is empty for a host target, so that a whole workspace can be checked at once.
#![no_std]
#![expect(
    clippy::cast_possible_truncation,
    reason = "x86-64 only: a u64 fits in usize, and the narrower casts take fields out of registers"
)]

extern crate alloc;

mod boot;
pub mod cpu;
pub mod demo;
pub mod event;
pub mod exit;
pub mod glue;
pub mod lock;
pub mod lwp;
pub mod memory;
mod process;
pub mod registers;
pub mod report;
pub mod sched;
pub mod serial;
mod step;
pub mod testing;
mod timeline;
mod trace;
pub mod watch;

pub use boot::info::{command_line, option, option_number};

/// Says what a kernel does once the machine is up: a function that runs on a kernel thread and ends the run.
#[macro_export]
macro_rules! kernel_main {
    ($main:path) => {
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        fn pcu9_testbed_main() {
            $main()
        }
    };
}
