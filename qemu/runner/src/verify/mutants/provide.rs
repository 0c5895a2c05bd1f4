//! Finds cargo-mutants, or builds it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo;
use crate::error::{Error, Result};
use crate::place;
use crate::progress::Step;

/// Another version makes other mutants, and names them otherwise than the table.
const VERSION: &str = "27.1.0";

/// Returns the program, which is built into the target directory where PATH does not have that version.
pub(super) fn cargo_mutants() -> Result<PathBuf> {
    let root = place::target("tools");
    let own = root.join("bin/cargo-mutants");
    let found = [Some(own.clone()), place::on_path("cargo-mutants")];
    if let Some(program) = found.into_iter().flatten().find(|program| is_that(program)) {
        return Ok(program);
    }
    let what = format!(
        "building cargo-mutants {VERSION} into {} (takes minutes)",
        root.display()
    );
    let step = Step::start(what.as_str());
    let mut install = Command::new("cargo");
    place::forget_cargo(&mut install)
        .args([
            "install",
            "cargo-mutants",
            "--locked",
            "--version",
            VERSION,
            "--root",
        ])
        .arg(&root);
    cargo::run(&mut install, &what, &step).map_err(|error| {
        Error::unusable(format!(
            "{error}: the mutants need it; `cargo install cargo-mutants --locked --version {VERSION}` gives it by hand"
        ))
    })?;
    step.done();
    Ok(own)
}

fn is_that(program: &Path) -> bool {
    let output = Command::new(program)
        .args(["mutants", "--version"])
        .output();
    output.is_ok_and(|output| says_version(&String::from_utf8_lossy(&output.stdout)))
}

fn says_version(said: &str) -> bool {
    said.trim().split_once(' ') == Some(("cargo-mutants", VERSION))
}

#[cfg(test)]
mod tests {
    use super::says_version;

    #[test]
    fn only_the_version_that_the_table_was_made_with_is_used() {
        assert!(says_version("cargo-mutants 27.1.0\n"));
        assert!(!says_version("cargo-mutants 27.2.0\n"));
        assert!(!says_version(""));
    }
}
