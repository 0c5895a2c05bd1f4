//! `cargo demo`: programs that use the FPU share CPUs under pcu9, and the host says whether any of them noticed.

mod compare;
mod cores;
mod dumping;
mod identities;
mod picture;
mod plan;
mod policies;
mod report;
mod run;
mod session;

use std::fs;
use std::path::Path;

use crate::cli::{DemoArgs, Policies};
use crate::control;
use crate::dump;
use crate::emulator;
use crate::error::{During, Error, Result};
use crate::guest::{self, Kernel};
use crate::programs;
use crate::progress::{say, say_error};
use crate::toolchain;

use plan::Plan;
use run::Run;

/// Runs the demo; writes the JSON object whatever happens.
pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    let mut runs: Vec<Run> = args.policy.list().into_iter().map(Run::new).collect();
    // Known now that they can be written; and a run that is killed leaves an object that says so.
    if let Some(path) = &args.json {
        write_json(args, &runs, false, path).map_err(|e| Error::unusable(e.to_string()))?;
    }
    if let Some(path) = &args.trace {
        fs::write(path, "")
            .map_err(|e| Error::unusable(format!("--trace {}: {e}", path.display())))?;
    }
    picture::make_dir(args)?;
    if let Some(path) = &args.dump {
        dump::check(path)?;
    }
    if let Some(path) = &args.socket {
        control::check_socket(path)?;
    }
    let mut problems = Vec::new();
    let mut result = steps(args, &mut runs, &mut problems);
    for run in &runs {
        let told = run.problems.iter().map(|problem| match args.policy {
            Policies::One(_) => problem.clone(),
            Policies::All => format!("{}: {problem}", run.policy.word()),
        });
        problems.extend(told);
    }
    for problem in &problems {
        say_error(problem);
    }
    if result.is_ok() && !problems.is_empty() {
        let plural = if problems.len() == 1 { "" } else { "s" };
        result = Err(Error::failed(format!(
            "the demo failed: {} problem{plural}, see above",
            problems.len()
        )));
    }
    if let Some(path) = &args.json {
        write_json(args, &runs, result.is_ok(), path)?;
    }
    result
}

/// Does everything; `problems` are those that concern every run.
fn steps(args: &DemoArgs, runs: &mut [Run], problems: &mut Vec<String>) -> Result<()> {
    let emulator = emulator::provide(args.emulator)?;
    emulator.check_model(&args.cpu)?;
    let kernel = match guest::given() {
        Some(kernel) => kernel,
        None => guest::build(&toolchain::provide()?, &Kernel::Demo)?,
    };
    let mut files = if args.program.is_empty() {
        programs::build()?
    } else {
        args.program.clone()
    };
    if args.musl {
        files.extend(programs::musl::build()?);
    }
    let plan = Plan::new(args, &files, problems);
    for run in &mut *runs {
        run.rows.clone_from(&plan.rows);
        run.lwps = plan.programs.len() * plan.copies as usize;
    }
    if plan.programs.is_empty() {
        return if problems.is_empty() {
            Err(Error::failed(
                "no program can run: the host lacks what they need",
            ))
        } else {
            Ok(())
        };
    }
    let archive = plan.pack()?;
    let n_runs = runs.len();
    for (number, run) in runs.iter_mut().enumerate() {
        if n_runs > 1 {
            say(format_args!(
                "running policy {}/{n_runs}: {}",
                number + 1,
                run.policy.word()
            ));
        }
        run.perform(args, &*emulator, &kernel, (&plan, &archive))?;
        run.is_ok = run.problems.is_empty() && problems.is_empty();
    }
    match &*runs {
        [run] => run.print(args),
        _ => policies::show(args, runs),
    }
    picture::write(args, runs)
}

/// Writes the JSON object to `path`: the run's, or for every policy one of the whole with each run's in it.
fn write_json(args: &DemoArgs, runs: &[Run], ok: bool, path: &Path) -> Result<()> {
    let object = match runs {
        [run] => run.json(args, ok),
        _ => policies::json(args, runs, ok),
    };
    fs::write(path, format!("{object}\n")).during(format_args!("--json {}", path.display()))
}
