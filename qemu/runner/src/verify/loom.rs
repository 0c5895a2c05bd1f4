//! loom's scenarios in every interleaving (`tests/loom`), and what they say when an ordering of the protocol is weaker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::copy;
use crate::cargo;
use crate::error::{During, Error, Result};
use crate::place;
use crate::process::{Captured, Ended, capture};
use crate::progress::{Step, print, say};
use crate::table;

/// Debug assertions check I3 and others inside the protocol; a release build would drop them.
const RUSTFLAGS: &str = "--cfg loom -C debug-assertions";
/// The scenarios take half a minute of one core.
const LIMIT: Duration = Duration::from_mins(15);
const MAX_BYTES: usize = 1 << 20;
/// In the target directory: the copy, and what is built of it.
const FOLDER: &str = "loom-verify";
/// Where the orderings are that the scenarios are about.
const PROTOCOL: &str = "src/pcu";
/// What is weakened to `Relaxed`, and what stands before it.
const PREFIX: &str = "Ordering::";
const ORDERINGS: [&str; 4] = ["Acquire", "Release", "AcqRel", "SeqCst"];
/// How loom says that two CPUs touched something unordered.
const VIOLATION: &str = "Causality violation";

/// Every scenario passes.
pub(super) fn run() -> Result<()> {
    let copy = fresh_copy()?;
    let said = explore(&copy, "exploring loom's scenarios")?;
    let text = String::from_utf8_lossy(&said.output);
    let explored = text.lines().filter_map(explored);
    explored.for_each(|line| say(format_args!("explored {line}")));
    if said.ended.is_success() {
        return Ok(());
    }
    eprint!("{text}");
    Err(Error::failed(format!("loom: {}", said.ended)))
}

/// Each ordering of the protocol that is not `Relaxed` is needed: without it some scenario fails.
pub(super) fn run_weakened() -> Result<()> {
    let copy = fresh_copy()?;
    let orderings = find_orderings(&copy)?;
    if orderings.is_empty() {
        return Err(Error::failed(format!(
            "{PROTOCOL} has no ordering but Relaxed, or the search for them is out of date"
        )));
    }
    let mut rows = vec![["weakened", "seconds", "result"].map(String::from).to_vec()];
    let mut survived = 0;
    for ordering in &orderings {
        let begun = Instant::now();
        let source = copy.join(&ordering.file);
        fs::write(&source, &ordering.weakened).during(source.display())?;
        let said = explore(&copy, &format!("exploring with {ordering} weakened"))?;
        let result = judge(&said);
        fs::write(&source, &ordering.original).during(source.display())?;
        let seconds = format!("{:.1}", begun.elapsed().as_secs_f64());
        survived += usize::from(result.is_err());
        let result = result.unwrap_or_else(|why| why);
        rows.push(vec![ordering.to_string(), seconds, result]);
    }
    print(format_args!("\n{}", table::render(&rows, false)));
    if survived == 0 {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{survived} of {} weakened orderings were not noticed: a scenario is missing, or the ordering is not needed",
        orderings.len()
    )))
}

/// A copy of the checkout that may be broken. The scenarios run there alone: cargo takes what was built in another copy for its
/// own, and a build of the checkout would be one.
fn fresh_copy() -> Result<PathBuf> {
    let copy = place::target(FOLDER).join("checkout");
    copy::bring_up_to_date(&place::checkout(), &copy)?;
    Ok(copy)
}

/// One ordering in a source file.
#[derive(Debug, PartialEq, Eq)]
struct Ordering {
    /// Relative to the checkout.
    file: PathBuf,
    line: usize,
    name: &'static str,
    original: String,
    /// The file with this ordering `Relaxed`.
    weakened: String,
}

impl std::fmt::Display for Ordering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{} {}", self.file.display(), self.line, self.name)
    }
}

/// All orderings of the protocol that are stronger than `Relaxed`.
fn find_orderings(checkout: &Path) -> Result<Vec<Ordering>> {
    let folder = checkout.join(PROTOCOL);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).during(folder.display())? {
        files.push(entry.during(folder.display())?.file_name());
    }
    files.sort();
    let mut orderings = Vec::new();
    for file in files {
        let file = Path::new(PROTOCOL).join(file);
        let path = checkout.join(&file);
        if path.is_file() {
            let text = fs::read_to_string(&path).during(path.display())?;
            orderings.extend(weaken(&file, &text));
        }
    }
    Ok(orderings)
}

/// The file once for each ordering, with that one weakened.
fn weaken(file: &Path, text: &str) -> Vec<Ordering> {
    let places = text.match_indices(PREFIX).map(|(at, _)| at + PREFIX.len());
    let found = places.filter_map(|at| {
        let name = ORDERINGS
            .iter()
            .find(|name| text[at..].starts_with(**name))?;
        let (before, rest) = text.split_at(at);
        Some(Ordering {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            name,
            original: text.to_owned(),
            weakened: format!("{before}Relaxed{}", &rest[name.len()..]),
        })
    });
    found.collect()
}

/// Did the scenarios fail as they should: because loom saw an unordered access?
fn judge(said: &Captured) -> std::result::Result<String, String> {
    let text = String::from_utf8_lossy(&said.output);
    let failed = text
        .lines()
        .filter(|line| line.ends_with("... FAILED"))
        .count();
    match said.ended {
        Ended::Exit(0) => Err("SURVIVED: every scenario passes".to_owned()),
        Ended::Exit(_) if failed != 0 && text.contains(VIOLATION) => {
            Ok(format!("caught by {failed} scenarios"))
        }
        ended => Err(format!("no verdict: {ended}, and no \"{VIOLATION}\"")),
    }
}

/// What a scenario says about itself; libtest puts the test's name before it when there is one thread.
fn explored(line: &str) -> Option<&str> {
    line.find("loom: ").map(|at| &line[at..])
}

/// Compiles the scenarios of the copy for loom, and runs them all.
fn explore(copy: &Path, what: &str) -> Result<Captured> {
    let mut cargo = Command::new("cargo");
    place::forget_cargo(&mut cargo)
        .current_dir(copy)
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("CARGO_TARGET_DIR", place::target(FOLDER).join("target"))
        .args(["test", "--no-run", "--quiet", "--release", "--locked"])
        .args(["--package=pcu9-loom", "--test=scenarios"]);
    let built = cargo::build(&mut cargo, "compiling the scenarios for loom")?;
    let program = built.iter().find(|made| made.name == "scenarios");
    let program =
        program.ok_or_else(|| Error::failed("cargo made no program of loom's scenarios"))?;
    let step = Step::start(what);
    let mut command = Command::new(&program.path);
    for (name, _) in std::env::vars_os() {
        // A bound from the environment would cut the exploration short.
        if name.to_string_lossy().starts_with("LOOM_") {
            command.env_remove(name);
        }
    }
    let said = capture(&mut command, LIMIT, MAX_BYTES).during("loom's scenarios")?;
    step.done();
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::{explored, find_orderings, judge, weaken};
    use crate::place;
    use crate::process::{Captured, Ended};
    use std::path::Path;

    #[test]
    fn each_ordering_is_weakened_alone() {
        let text =
            "a.load(Ordering::Acquire);\nb.swap(1, Ordering::AcqRel); c.load(Ordering::Relaxed);\n";
        let found = weaken(Path::new("x.rs"), text);
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["x.rs:1 Acquire", "x.rs:2 AcqRel"]);
        assert_eq!(
            found[1].weakened,
            "a.load(Ordering::Acquire);\nb.swap(1, Ordering::Relaxed); c.load(Ordering::Relaxed);\n"
        );
        assert_eq!(found[1].original, text);
    }

    #[test]
    fn the_protocol_has_a_release_and_an_acquire() {
        let found = find_orderings(&place::checkout()).expect("the sources");
        for name in ["Release", "Acquire"] {
            assert!(found.iter().any(|ordering| ordering.name == name), "{name}");
        }
    }

    #[test]
    fn only_a_failure_that_loom_explains_counts() {
        let said = |text: &str, code| Captured {
            output: text.into(),
            ended: Ended::Exit(code),
        };
        let caught = "test a ... FAILED\nCausality violation: Concurrent write accesses\n";
        assert_eq!(
            judge(&said(caught, 101)),
            Ok("caught by 1 scenarios".into())
        );
        assert!(judge(&said("test a ... ok\n", 0)).is_err());
        assert!(judge(&said("test a ... FAILED\nassertion failed\n", 101)).is_err());
        assert!(judge(&said("Segmentation fault\n", 139)).is_err());
    }

    #[test]
    fn what_was_explored_is_found_behind_a_tests_name() {
        assert_eq!(
            explored("test a ... loom: b: 3 executions"),
            Some("loom: b: 3 executions")
        );
        assert_eq!(explored("test a ... ok"), None);
    }
}
