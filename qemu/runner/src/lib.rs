//! The host tool of pcu9: provides what is missing, builds, boots, streams, compares, reports.
//!
//! The program `pcu9-runner` stands behind `cargo demo`, `cargo boot` and `cargo verify`, and is the cargo runner for the
//! guest's target. Boot tests call [`boot_test`] on the host; [`softfloat`] checks that a kernel leaves the FPU alone.
//!
//! Nothing here knows the crate `pcu9`: the runner sees kernels as files and as lines on a serial port.

mod cli;
mod error;
mod progress;
mod table;

mod lock;
mod patch;
mod place;
mod process;

mod cargo;
mod install;
mod toolchain;

mod guest;
mod programs;
mod protocol;

mod bochs;
mod emulator;
mod qemu;

mod control;
mod dump;
mod looking;
mod watch;

mod boot;
mod demo;
mod timeline;
pub mod trace;
mod verify;

pub mod softfloat;

use std::process::ExitCode;

pub use boot::{Run, boot_test};
pub use error::{Error, Result};
pub use looking::{Guest, Held, Looking, boot_and_hold};
pub use pcu9_kpcpu::stat::usage_error;
pub use progress::{Step, choose_colours, say_error};

/// Sets a table in columns: the first column to the left, the others to the right.
#[must_use]
pub fn render_table(rows: &[Vec<String>]) -> String {
    table::render(rows, true)
}

/// Does what the command line says, and returns the program's exit status.
pub fn main() -> ExitCode {
    choose_colours();
    let result = cli::parse(std::env::args_os().collect()).and_then(|command| match command {
        cli::Command::Demo(args) => demo::run(&args),
        cli::Command::Boot(args) => boot::boot(&args),
        cli::Command::Verify(args) => verify::run(&args),
        cli::Command::Run(args) => boot::run(&args),
        cli::Command::GuestClippy => toolchain::provide().and_then(|found| guest::clippy(&found)),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&error);
            ExitCode::from(error.status())
        }
    }
}

/// Builds every kernel - the demo's, the smallest one, the boot tests - and returns the images, for tests that look into
/// them.
///
/// # Errors
///
/// When the guest's toolchain cannot be had, or a kernel does not compile.
pub fn kernel_images() -> Result<Vec<std::path::PathBuf>> {
    guest::build_all(&toolchain::provide()?)
}

/// Builds the C program `source` as a static musl binary, with these flags more, as those of `qemu/programs/c` are built; returns
/// `program`.
///
/// # Errors
///
/// When the compiler cannot be had, or does not like the source.
pub fn compile_c(
    source: &std::path::Path,
    flags: &[&str],
    program: &std::path::Path,
) -> Result<std::path::PathBuf> {
    programs::musl::build_one(source, flags, program)
}

/// Finds `program` on PATH, or installs it from the system's `package`.
///
/// # Errors
///
/// When it may not, or cannot.
pub fn provide_tool(program: &str, package: &str) -> Result<std::path::PathBuf> {
    if let Some(found) = place::on_path(program) {
        return Ok(found);
    }
    install::packages(program, &[package])?;
    place::on_path(program).ok_or_else(|| {
        Error::unusable(format!(
            "the package {package} is installed and there is no {program} on PATH"
        ))
    })
}
