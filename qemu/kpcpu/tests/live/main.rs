//! `pcustat` on a guest that runs, as a person uses it: at a terminal, in a pipe, and when something is wrong.
//!
//! The guest is `tests/boot_live.rs`: LWPs count and use the FPU on every CPU.

#![cfg(not(target_os = "none"))]

mod cost;
mod pipe;
mod pty;
mod terminal;
mod wrong;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use pcu9_runner::{Guest, Looking, Run};

/// Boots the guest on `cpus` CPUs and calls `look` while it runs.
fn boot(cpus: u32, look: impl FnOnce(&mut Guest<'_>)) {
    let run = Run { cpu: "max", cpus };
    let guest = Looking::new("boot_live", "the_sum_is_told_while_it_grows", run);
    let looked = guest.look(|guest| {
        guest.wait_for("@live ").expect("a beat");
        look(guest);
    });
    looked.unwrap_or_else(|error| panic!("{error}"));
}

/// The program on a guest.
fn pcustat(guest: &Guest<'_>) -> Command {
    of(guest.socket(), guest.kernel().into())
}

/// The program on any source with any kernel.
fn of(source: PathBuf, kernel: PathBuf) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pcustat"));
    command.arg(source).arg("--kernel").arg(kernel);
    command.stdin(Stdio::null());
    command
}

/// Runs it; gives the exit status, what it printed, and what it complained of.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let status = output.status.code().expect("a status");
    (status, text(output.stdout), text(output.stderr))
}

/// Ends a guest by force.
fn kill(guest: &Guest<'_>) {
    let pid = guest.pid().expect("a number").to_string();
    let killed = Command::new("kill").args(["-KILL", &pid]).status();
    assert!(killed.expect("kill runs").success());
}
