//! The explorer's large searches, which take minutes and gigabytes.

use std::process::Command;

use crate::cargo;
use crate::error::{Error, Result};
use crate::place;
use crate::progress::{Step, print};

/// Every ignored search of the explorer ends, and finds nothing.
pub(super) fn run() -> Result<()> {
    let mut cargo = Command::new("cargo");
    place::forget_cargo(&mut cargo)
        .current_dir(place::checkout())
        .args(["test", "--locked", "--package=pcu9", "--test=explorer"])
        .args(["--", "--ignored", "--nocapture", "--test-threads=1"]);
    let step = Step::start("searching the large state spaces");
    let said = cargo::run(&mut cargo, "the explorer's large searches", &step);
    step.done();
    let said = said?;
    for line in said.lines().filter(|line| line.contains(" states, ")) {
        print(format_args!("  {line}"));
    }
    if said.contains("test result: ok.") && !said.contains(" 0 passed") {
        return Ok(());
    }
    Err(Error::failed("no large search ran"))
}
