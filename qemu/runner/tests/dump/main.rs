//! What the reader finds in a guest's memory is what the guest says of itself, and what other readers find.
//!
//! The kernel is `tests/boot_percpu.rs`: it stops every CPU, prints each value over the serial port, and waits.

#![cfg(not(target_os = "none"))]

mod gdb;
mod note;
mod other_readers;
mod running;
mod truth;

use std::path::PathBuf;

use pcu9_kpcpu::{KernelFile, Kpcpu, Live, Way};
use pcu9_runner::{Guest, Held, Run, boot_and_hold};

/// Boots the kernel on `cpus` CPUs and calls `look` once it stands still.
fn boot(cpus: u32, look: impl FnMut(&mut Held<'_>)) {
    let run = Run { cpu: "max", cpus };
    let looked = boot_and_hold("boot_percpu", "the_truth", run, "@truth end", look);
    looked.unwrap_or_else(|error| panic!("{error}"));
}

/// Takes a dump.
fn dump(held: &mut Held<'_>) -> PathBuf {
    let path = held.dir.join("dump");
    let made = held.qmp.dump_guest_memory(&path);
    made.unwrap_or_else(|error| panic!("{error}"));
    path
}

/// Takes a dump and opens it with the kernel.
fn open(held: &mut Held<'_>) -> Kpcpu {
    let path = dump(held);
    Kpcpu::open(held.kernel, &path).unwrap_or_else(|error| panic!("{error}"))
}

/// Opens the guest as it runs.
fn live(guest: &Guest<'_>, way: Way) -> Kpcpu {
    let live = Live::connect(&guest.socket(), Some(way)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(live.way(), way);
    let file = KernelFile::open(guest.kernel()).expect("the kernel's file");
    Kpcpu::with_memory(file, Box::new(live), Vec::new()).unwrap_or_else(|error| panic!("{error}"))
}
