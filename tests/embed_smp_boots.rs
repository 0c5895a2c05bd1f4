//! The smallest kernel that uses the crate on more than one CPU, `qemu/embed/src/smp.rs`, boots and passes its own cases.
//!
//! Leak rule: `DomainAware`, the default.

use std::process::ExitCode;

use pcu9_runner::Run;

fn main() -> ExitCode {
    let runs = [("max", 4), ("qemu64", 3), ("max", 1)].map(|(cpu, cpus)| Run { cpu, cpus });
    pcu9_runner::boot_test("pcu9-embed-smp", &runs)
}
