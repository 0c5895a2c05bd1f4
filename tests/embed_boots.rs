//! The smallest kernel that uses the crate, `qemu/embed`, boots and passes its own cases.
//!
//! Leak rule: `DomainAware`, the default.

use std::process::ExitCode;

use pcu9_runner::Run;

fn main() -> ExitCode {
    let runs = [
        Run {
            cpu: "max",
            cpus: 1,
        },
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("pcu9-embed", &runs)
}
