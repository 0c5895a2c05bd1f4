//! The host tests of the protocol under Miri, which sees undefined behaviour that no test's outcome shows.

use std::env;
use std::ffi::OsString;
use std::process::Command;

use crate::cargo;
use crate::error::{Error, Result};
use crate::place;
use crate::process::Ended;
use crate::progress::Step;

/// Pointers keep where they come from; the conformance vectors are files, which Miri reads only without isolation.
const FLAGS: &str = "-Zmiri-strict-provenance -Zmiri-disable-isolation";
/// One seed of the model, and a few cases of it: Miri takes a hundred times as long.
const MODEL: [(&str, &str); 2] = [("PCU9_SEED", "1"), ("PCU9_CASES", "3")];
const TESTS: [&str; 3] = ["protocol", "conformance", "model"];

/// The tests pass under Miri, or Miri is not here.
pub(super) fn run() -> Result<()> {
    run_with(env::var_os("PATH"))
}

fn run_with(path: Option<OsString>) -> Result<()> {
    let path = path.unwrap_or_default();
    let mut probe = cargo_miri(&path);
    let found = probe.arg("--version").output();
    if !found.is_ok_and(|said| Ended::of(said.status).is_success()) {
        return Err(Error::not_run(
            "cargo miri is not on this toolchain; where rustup has it for nightly, `cargo +nightly verify` runs this step",
        ));
    }
    let mut cargo = cargo_miri(&path);
    cargo
        .env("MIRIFLAGS", FLAGS)
        .envs(MODEL)
        .env("CARGO_TARGET_DIR", place::target("miri"))
        .args(["test", "--locked", "--package=pcu9"])
        .args(TESTS.map(|test| format!("--test={test}")));
    let step = Step::start("running the protocol's tests under Miri");
    let said = cargo::run(&mut cargo, "the protocol's tests under Miri", &step);
    step.done();
    match said {
        Ok(said) => verdicts(&said),
        Err(error) => Err(error),
    }
}

/// Every test file has given its verdict, and none was empty.
fn verdicts(said: &str) -> Result<()> {
    let passed = said
        .lines()
        .filter(|line| line.starts_with("test result: ok.") && !line.contains(" 0 passed"))
        .count();
    if passed == TESTS.len() {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{passed} of {} test files ran under Miri",
        TESTS.len()
    )))
}

/// `cargo miri` of the toolchain that the user chose: no stable one has it.
fn cargo_miri(path: &OsString) -> Command {
    let mut cargo = Command::new("cargo");
    place::forget_cargo(&mut cargo)
        .env("PATH", path)
        .arg("miri");
    if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
        cargo.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    cargo
}

#[cfg(test)]
mod tests {
    use super::run_with;
    use crate::process::tests::executable;
    use std::env;
    use std::ffi::OsString;
    use std::fs;
    use tempfile::TempDir;

    /// A folder with a `cargo-miri` that runs `script`, and a PATH on which it comes first.
    fn stand_in(script: &str) -> (TempDir, OsString) {
        let folder = tempfile::tempdir().expect("a folder");
        let script = format!("#!/bin/sh\nhere=${{0%/*}}\n{script}\n");
        executable(&folder.path().join("cargo-miri"), script.as_bytes());
        let mut path = OsString::from(folder.path());
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        (folder, path)
    }

    const VERDICT: &str = "test result: ok. 3 passed; 0 failed";

    #[test]
    fn the_tests_run_with_strict_provenance() {
        let script = format!(
            "[ \"$2\" = --version ] && exit 0\necho \"$MIRIFLAGS $PCU9_SEED $*\" >$here/said\n\
             for i in 1 2 3; do echo '{VERDICT}'; done"
        );
        let (folder, path) = stand_in(&script);
        assert_eq!(run_with(Some(path)), Ok(()));
        let said = fs::read_to_string(folder.path().join("said")).expect("it ran");
        assert_eq!(
            said,
            "-Zmiri-strict-provenance -Zmiri-disable-isolation 1 miri test --locked --package=pcu9 \
             --test=protocol --test=conformance --test=model\n"
        );
    }

    #[test]
    fn a_toolchain_without_miri_is_said_and_is_no_failure() {
        let (_folder, path) = stand_in("exit 1");
        let error = run_with(Some(path)).expect_err("it cannot run");
        assert!(error.is_not_run(), "{error}");
        assert!(
            error
                .to_string()
                .contains("cargo miri is not on this toolchain")
        );
    }

    #[test]
    fn undefined_behaviour_fails_and_so_does_a_file_that_did_not_run() {
        let (_folder, path) = stand_in("[ \"$2\" = --version ] || exit 1");
        let error = run_with(Some(path)).expect_err("Miri found something");
        assert_eq!(error.status(), 1);
        let (_folder, path) = stand_in(&format!("echo '{VERDICT}'"));
        let error = run_with(Some(path)).expect_err("two files are missing");
        assert!(error.to_string().contains("1 of 3"), "{error}");
    }
}
