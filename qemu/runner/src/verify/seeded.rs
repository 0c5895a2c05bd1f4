//! Bugs that kernels really had, and the lines that the course has changed, put into a copy of the checkout one after another: the test
//! that is named for each must fail.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use diffy::Patch;
use serde::Deserialize;

use super::copy;
use crate::cargo::{self, Executable};
use crate::error::{During, Error, Result};
use crate::patch;
use crate::place;
use crate::process::capture;
use crate::progress::{print, say, say_error};
use crate::table;

/// Patches in a folder, and the table with the test of each.
#[derive(Debug)]
struct Set {
    table: &'static str,
    patches: &'static str,
    /// One of them, for people.
    what: &'static str,
}

const SEEDED: Set = Set {
    table: "tests/tables/seeded.toml",
    patches: "tests/seeded",
    what: "seeded bug",
};

const COURSE: Set = Set {
    table: "tests/tables/course.toml",
    patches: "tests/course",
    what: "course solution",
};

/// A named test takes less than a second.
const LIMIT: Duration = Duration::from_mins(1);

/// What the table says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bugs {
    bug: Vec<Bug>,
}

/// One row: a patch, and the test that catches it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bug {
    /// The patch's file without its extension.
    patch: String,
    /// Where the bug was; the patch's header says more.
    source: String,
    /// The test target, `lib` for the library's own tests.
    target: String,
    /// The test's name in it.
    test: String,
    /// A part of what the failed test says, white space aside: it fails for this reason.
    says: String,
}

/// A file of the checkout with a bug in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Patched {
    /// Relative to the checkout.
    pub(super) file: PathBuf,
    pub(super) text: String,
}

/// Puts every seeded bug into the copy and wants its test to fail; without any, all the tests pass.
pub(super) fn run() -> Result<()> {
    SEEDED.run()
}

/// The same with the course's solutions.
pub(super) fn run_course() -> Result<()> {
    COURSE.run()
}

/// A file of `checkout` with the seeded bug of this name.
pub(super) fn patched(patch: &str, checkout: &Path) -> Result<Patched> {
    SEEDED.patched(patch, checkout)
}

impl Set {
    fn run(&self) -> Result<()> {
        let bugs = self.read(&place::checkout())?;
        let copy = place::target("seeded").join("checkout");
        copy::bring_up_to_date(&place::checkout(), &copy)?;
        let targets: BTreeSet<&str> = bugs.iter().map(|bug| bug.target.as_str()).collect();
        let built = build(
            &copy,
            &targets,
            &format!("building the tests for the {}s", self.what),
        )?;
        for bug in &bugs {
            passes(bug, &built, &copy)?;
        }
        let mut rows = vec![[self.what, "seconds", "test"].map(String::from).to_vec()];
        let mut failed = 0;
        for bug in &bugs {
            let begun = Instant::now();
            let result = self.caught(bug, &copy);
            let seconds = format!("{:.1}", begun.elapsed().as_secs_f64());
            let by = format!("{} {}", bug.target, bug.test);
            rows.push(vec![bug.patch.clone(), seconds, by]);
            if let Err(error) = result {
                say_error(format_args!("{} ({}): {error}", bug.patch, bug.source));
                failed += 1;
            }
        }
        print(table::render(&rows, false));
        if failed > 0 {
            let all = bugs.len();
            return Err(Error::failed(format!(
                "{failed} of {all} {}s were not caught",
                self.what
            )));
        }
        say(format_args!(
            "{} {}s, each caught by its test",
            bugs.len(),
            self.what
        ));
        Ok(())
    }

    /// Reads the table, whose rows and the folder of patches must be the same set.
    fn read(&self, checkout: &Path) -> Result<Vec<Bug>> {
        let Self { table, patches, .. } = *self;
        let text = fs::read_to_string(checkout.join(table)).during(table)?;
        let Bugs { bug: bugs } = toml::from_str(&text).during(table)?;
        let mut rows = BTreeSet::new();
        for bug in &bugs {
            if !rows.insert(bug.patch.clone()) {
                return Err(Error::failed(format!(
                    "{table}: {} stands there twice",
                    bug.patch
                )));
            }
        }
        let mut files = BTreeSet::new();
        for entry in fs::read_dir(checkout.join(patches)).during(patches)? {
            let path = entry.during(patches)?.path();
            files.extend(
                path.file_stem()
                    .map(|stem| stem.to_string_lossy().into_owned()),
            );
        }
        match rows.symmetric_difference(&files).next() {
            Some(odd) if rows.contains(odd) => Err(Error::failed(format!(
                "{table}: {patches}/{odd}.patch does not exist"
            ))),
            Some(odd) => Err(Error::failed(format!(
                "{table} has no row for {patches}/{odd}.patch"
            ))),
            None => Ok(bugs),
        }
    }

    /// Applies the patch of this name to the file of `checkout` that it is for, in memory.
    fn patched(&self, patch: &str, checkout: &Path) -> Result<Patched> {
        let name = format!("{}/{patch}.patch", self.patches);
        let text = fs::read_to_string(checkout.join(&name)).during(&name)?;
        let file = Patch::from_str(&text).during(&name)?;
        let file = file.modified().and_then(|file| file.strip_prefix("b/src/"));
        let file = file.ok_or_else(|| Error::failed(format!("{name}: no line `+++ b/src/..`")))?;
        let file = Path::new("src").join(file);
        let source = fs::read_to_string(checkout.join(&file)).during(file.display())?;
        let to = file.display().to_string();
        let text = patch::apply(&text, &source, &name, &to)?;
        Ok(Patched { file, text })
    }

    /// With the bug, its test must fail, for the reason that the table gives.
    fn caught(&self, bug: &Bug, copy: &Path) -> Result<()> {
        let Patched { file, text } = self.patched(&bug.patch, copy)?;
        let path = copy.join(&file);
        let original = fs::read(&path).during(path.display())?;
        fs::write(&path, text).during(path.display())?;
        let what = format!("building with {}", bug.patch);
        let result = build(copy, &BTreeSet::from([bug.target.as_str()]), &what)
            .and_then(|built| test(bug, &built, copy));
        fs::write(&path, original).during(path.display())?;
        let (outcome, said) = result?;
        if outcome == Outcome::Passed {
            return Err(Error::failed(format!("{} passes with the bug", bug.test)));
        }
        if in_one_line(&said).contains(&bug.says) {
            return Ok(());
        }
        eprint!("{said}");
        Err(Error::failed(format!(
            "{} fails, but does not say `{}`",
            bug.test, bug.says
        )))
    }
}

/// Builds the tests of `targets` in the copy, as programs by the names of their targets.
fn build(copy: &Path, targets: &BTreeSet<&str>, what: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut cargo = Command::new("cargo");
    place::forget_cargo(&mut cargo)
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", place::target("seeded").join("target"))
        .args(["test", "--no-run", "--quiet", "--package=pcu9"])
        // A bug may leave something unused.
        .env("RUSTFLAGS", "--cap-lints=allow");
    for target in targets {
        match *target {
            "lib" => cargo.arg("--lib"),
            test => cargo.arg(format!("--test={test}")),
        };
    }
    let built = cargo::build(&mut cargo, what)?;
    let name = |name: String| {
        if name == "pcu9" {
            "lib".to_owned()
        } else {
            name
        }
    };
    Ok(built
        .into_iter()
        .map(|Executable { name: of, path }| (name(of), path))
        .collect())
}

/// What became of one test.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// It did not run to a verdict.
    None,
}

/// Reads libtest's verdict on the test `name`.
fn outcome(name: &str, said: &str) -> Outcome {
    let verdict = said.lines().find_map(|line| {
        let rest = line.strip_prefix("test ")?.strip_prefix(name)?;
        let rest = rest.strip_prefix(" - should panic").unwrap_or(rest);
        rest.strip_prefix(" ... ")
    });
    match verdict {
        Some("ok") => Outcome::Passed,
        Some("FAILED") => Outcome::Failed,
        _ => Outcome::None,
    }
}

/// Runs the bug's test alone; gives its outcome and what it said.
fn test(bug: &Bug, built: &BTreeMap<String, PathBuf>, copy: &Path) -> Result<(Outcome, String)> {
    let program = built.get(&bug.target);
    let program =
        program.ok_or_else(|| Error::failed(format!("there is no test target {}", bug.target)))?;
    let mut command = Command::new(program);
    command
        .current_dir(copy)
        .args(["--exact", "--test-threads=1", &bug.test])
        .env_remove("RUST_BACKTRACE");
    let captured = capture(&mut command, LIMIT, 16 << 20).during(program.display())?;
    let said = String::from_utf8_lossy(&captured.output).into_owned();
    let outcome = outcome(&bug.test, &said);
    if outcome == Outcome::None {
        return Err(Error::failed(format!(
            "the test {} of {} came to no verdict ({})",
            bug.test, bug.target, captured.ended
        )));
    }
    Ok((outcome, said))
}

/// Without the bug, its test must pass.
fn passes(bug: &Bug, built: &BTreeMap<String, PathBuf>, copy: &Path) -> Result<()> {
    let (outcome, said) = test(bug, built, copy)?;
    if outcome == Outcome::Passed {
        return Ok(());
    }
    eprint!("{said}");
    Err(Error::failed(format!("{} fails without any bug", bug.test)))
}

/// The words of a text with one space between.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
