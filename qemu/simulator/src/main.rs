//! `cargo simulate`: see the library.

#[cfg(target_os = "none")]
fn main() {}

#[cfg(not(target_os = "none"))]
mod cli;

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    cli::main()
}
