//! Mutants: cargo-mutants changes the protocol in every small way that it knows, and the named tests must notice.
//!
//! What lives is argued in a table, one line each; a mutant without an argument and an argument without a mutant are failures.
//! Every run writes the table anew, to [`place::target`]`("mutants")`, with the arguments that there are.

mod provide;
mod survivors;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use self::survivors::{Survivor, Table};
use crate::error::{During, Error, Result};
use crate::place;
use crate::process::Ended;
use crate::progress::{say, say_error};

/// The survivors, and why each is no gap of the tests.
const TABLE: &str = "tests/tables/mutants.toml";

/// What cargo-mutants writes of its run: the parts that count here.
#[derive(Debug, Deserialize)]
struct Report {
    /// `None` when the run was cut off.
    end_time: Option<String>,
    outcomes: Vec<Outcome>,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    scenario: Scenario,
    summary: Summary,
}

#[derive(Debug, Deserialize)]
enum Scenario {
    Baseline,
    Mutant(Mutant),
}

#[derive(Debug, Deserialize)]
struct Mutant {
    /// `FILE:LINE:COLUMN: WHAT`.
    name: String,
    file: String,
    span: Span,
}

#[derive(Debug, Deserialize)]
struct Span {
    start: Position,
}

#[derive(Debug, Deserialize)]
struct Position {
    line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Summary {
    Success,
    CaughtMutant,
    MissedMutant,
    /// It does not compile.
    Unviable,
    /// The tests did not end, which is noticed too.
    Timeout,
    Failure,
}

/// Makes the mutants, runs the tests on each, and judges the survivors by the table.
pub(super) fn run() -> Result<()> {
    let program = provide::cargo_mutants()?;
    let checkout = place::checkout();
    let output = place::target("mutants");
    fs::create_dir_all(&output).during(output.display())?;
    let mut command = Command::new(program);
    place::forget_cargo(&mut command)
        .args(["mutants", "--jobs=1", "--no-shuffle", "--output"])
        .arg(&output)
        .stdin(Stdio::null());
    let ended = Ended::of(command.status().during("cargo-mutants")?);
    // 2: some lived; 3: the tests did not end for some.
    if !matches!(ended, Ended::Exit(0 | 2 | 3)) {
        return Err(Error::failed(format!(
            "cargo-mutants: {ended}; what it says is above, its logs are in {}",
            output.display()
        )));
    }
    let path = output.join("mutants.out/outcomes.json");
    let report = fs::read_to_string(&path).during(path.display())?;
    let report = serde_json::from_str(&report).during(path.display())?;
    judge(&report, &checkout, &output)
}

/// Compares a run's survivors with the table of `checkout`, and writes the table as it should be into `output`.
fn judge(report: &Report, checkout: &Path, output: &Path) -> Result<()> {
    if report.end_time.is_none() {
        return Err(Error::failed("cargo-mutants did not come to its end"));
    }
    let table = checkout.join(TABLE);
    let table = Table::parse(&fs::read_to_string(&table).during(TABLE)?).during(TABLE)?;
    let mutants = report
        .outcomes
        .iter()
        .filter_map(|outcome| match &outcome.scenario {
            Scenario::Baseline => None,
            Scenario::Mutant(mutant) => Some((mutant, outcome.summary)),
        });
    let mut survivors = Vec::new();
    let count = |wanted| {
        mutants
            .clone()
            .filter(|(_, summary)| *summary == wanted)
            .count()
    };
    for (mutant, _) in mutants
        .clone()
        .filter(|(_, summary)| *summary == Summary::MissedMutant)
    {
        survivors.push(survivor(mutant, checkout)?);
    }
    let caught = count(Summary::CaughtMutant);
    say(format_args!(
        "tested {} mutants: {caught} caught, {} ran into the time limit, {} do not compile, {} live",
        mutants.clone().count(),
        count(Summary::Timeout),
        count(Summary::Unviable),
        survivors.len()
    ));
    if caught == 0 || count(Summary::Failure) + count(Summary::Success) > 0 {
        return Err(Error::failed("cargo-mutants tested nothing, or not all"));
    }
    let judged = table.judge(survivors);
    let anew = output.join("mutants.toml");
    fs::write(&anew, judged.table.render()).during(anew.display())?;
    for line in &judged.complaints {
        say_error(line);
    }
    if judged.complaints.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{} complaints about {TABLE}: write a test that kills the mutant, or put {} in its place with an argument for each",
        judged.complaints.len(),
        anew.display()
    )))
}

/// Names a mutant by what it is, not by where it stands.
fn survivor(mutant: &Mutant, checkout: &Path) -> Result<Survivor> {
    let text = fs::read_to_string(checkout.join(&mutant.file)).during(&mutant.file)?;
    let code = text.lines().nth(mutant.span.start.line.saturating_sub(1));
    let position = || {
        Error::failed(format!(
            "cargo-mutants names a mutant oddly: {}",
            mutant.name
        ))
    };
    let mutation = mutant.name.splitn(4, ':').nth(3).ok_or_else(position)?;
    Ok(Survivor {
        file: mutant.file.clone(),
        code: code.ok_or_else(position)?.trim().to_owned(),
        mutation: mutation.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests;
