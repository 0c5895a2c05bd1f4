//! `cargo demo`: programs that use the FPU share CPUs under pcu9, and the host says whether any of them noticed.

mod compare;
mod identities;
mod report;
mod session;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::DemoArgs;
use crate::error::{During, Error, Result};
use crate::guest::{self, Kernel};
use crate::place;
use crate::process::Ended;
use crate::programs::{self, Oracle, Program};
use crate::progress::Step;
use crate::qemu::{Machine, Outcome, Qemu};
use crate::toolchain;

use compare::Verdict;
use report::{Report, Row};
use session::{Job, Session};

/// How long a program may run on the host.
const HOST_LIMIT: Duration = Duration::from_secs(30);

/// A program that runs in the guest, and what it did on the host.
#[derive(Debug)]
struct Planned {
    program: Program,
    output: Vec<u8>,
    ended: Ended,
}

/// Runs the demo; writes the JSON object whatever happens.
pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    let mut report = Report::default();
    if let Some(path) = &args.json {
        // Known now that it can be written; and a run that is killed leaves an object that says so.
        report
            .write_json(args, false, path)
            .map_err(|e| Error::unusable(e.to_string()))?;
    }
    let mut problems = Vec::new();
    let mut result = steps(args, &mut report, &mut problems);
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    if result.is_ok() && !problems.is_empty() {
        let plural = if problems.len() == 1 { "" } else { "s" };
        result = Err(Error::failed(format!(
            "the demo failed: {} problem{plural}, see above",
            problems.len()
        )));
    }
    if let Some(path) = &args.json {
        report.write_json(args, result.is_ok(), path)?;
    }
    result
}

fn steps(args: &DemoArgs, report: &mut Report, problems: &mut Vec<String>) -> Result<()> {
    let qemu = Qemu::provide()?;
    qemu.check_model(&args.cpu)?;
    let kernel = match guest::given() {
        Some(kernel) => kernel,
        None => guest::build(&toolchain::provide()?, &Kernel::Demo)?,
    };
    let files = if args.program.is_empty() {
        programs::build()?
    } else {
        args.program.clone()
    };
    let (programs, rejected) = programs::read(&files);
    for file in rejected {
        report
            .rows
            .push(row(&file.name, 0, 0, Verdict::Wrong("no program")));
        problems.push(file.reason);
    }
    let planned = ask_the_host(programs, report, problems);
    if planned.is_empty() {
        return if problems.is_empty() {
            Err(Error::failed(
                "no program can run: the host lacks what they need",
            ))
        } else {
            Ok(())
        };
    }
    let copies = args
        .copies
        .unwrap_or_else(|| default_copies(args.cpus, planned.len()));
    report.lwps = planned.len() * copies as usize;

    let outcome = boot(&qemu, &kernel, &planned, copies, args, &mut report.session)?;
    report.seconds = outcome.seconds;
    judge(args, &planned, copies, report, problems);
    check_run(args, &outcome, report, problems);
    report.print(args);
    Ok(())
}

fn row(name: &str, copies: u32, bytes: usize, verdict: Verdict) -> Row {
    Row {
        name: name.into(),
        copies,
        bytes,
        verdict,
    }
}

/// At least two copies of each program, and at least two LWPs for each CPU.
fn default_copies(cpus: u32, programs: usize) -> u32 {
    let programs = u32::try_from(programs).unwrap_or(u32::MAX).max(1);
    (2 * cpus).div_ceil(programs).max(2)
}

/// Runs each program once on the host. What cannot be compared does not go to the guest.
fn ask_the_host(
    programs: Vec<Program>,
    report: &mut Report,
    problems: &mut Vec<String>,
) -> Vec<Planned> {
    let step = Step::start(format!("running {} programs on the host", programs.len()));
    let mut planned = Vec::new();
    for program in programs {
        step.note(&program.name);
        match programs::run(&program, HOST_LIMIT) {
            Ok(Oracle::Lacks(feature)) => {
                let why = format!("needs {feature}, the host lacks it");
                report
                    .rows
                    .push(row(&program.name, 0, 0, Verdict::Skipped(why)));
            }
            Ok(Oracle::Ran {
                output,
                ended: ended @ (Ended::TimedOut(_) | Ended::TooMuch(_)),
            }) => {
                report.rows.push(row(
                    &program.name,
                    0,
                    output.len(),
                    Verdict::Wrong("stopped on the host"),
                ));
                problems.push(format!(
                    "{}: on the host it {ended}; the guest did not run it",
                    program.path.display()
                ));
            }
            Ok(Oracle::Ran { output, ended }) => planned.push(Planned {
                program,
                output,
                ended,
            }),
            Err(error) => {
                report
                    .rows
                    .push(row(&program.name, 0, 0, Verdict::Wrong("no host run")));
                problems.push(error.to_string());
            }
        }
    }
    step.done();
    planned
}

/// Packs the programs, boots the kernel, and takes in what it says.
fn boot(
    qemu: &Qemu,
    kernel: &Path,
    planned: &[Planned],
    copies: u32,
    args: &DemoArgs,
    session: &mut Session,
) -> Result<Outcome> {
    let archive = Archive::new(planned)?;
    let machine = Machine {
        kernel,
        initrd: Some(&archive.0),
        append: format!(
            "copies={copies} leak={} policy={}",
            args.leak.word(),
            args.policy.word()
        ),
        model: &args.cpu,
        cpus: args.cpus,
        limit: Duration::from_secs(args.timeout),
    };
    let step = Step::start(format!(
        "booting {} CPUs ({}) with {copies} copies of {} programs",
        args.cpus,
        args.cpu,
        planned.len()
    ));
    let outcome = qemu.run(&machine, |line| {
        if session.take(line) {
            let (started, ended) = session.progress();
            step.note(format_args!("{ended} of {started} jobs have ended"));
        } else {
            step.print(format_args!("| {line}"));
        }
    });
    step.done();
    outcome
}

/// The archive for the guest; its file goes when this does.
#[derive(Debug)]
struct Archive(PathBuf);

impl Archive {
    fn new(planned: &[Planned]) -> Result<Self> {
        let dir = place::target("demo");
        fs::create_dir_all(&dir).during(dir.display())?;
        let path = dir.join(format!("programs-{}.tar", std::process::id()));
        let programs: Vec<&Program> = planned.iter().map(|planned| &planned.program).collect();
        programs::pack(&programs, &path)?;
        Ok(Self(path))
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // What cannot be removed will be overwritten some day.
        let _ = fs::remove_file(&self.0);
    }
}

/// Compares every copy with the host.
fn judge(
    args: &DemoArgs,
    planned: &[Planned],
    copies: u32,
    report: &mut Report,
    problems: &mut Vec<String>,
) {
    for Planned {
        program,
        output,
        ended,
    } in planned
    {
        let name = &program.name;
        let jobs = report.session.jobs.values().filter(|job| job.name == *name);
        let jobs: Vec<&Job> = jobs.collect();
        let (verdict, wrong) = compare::judge(name, (output, *ended), copies, &jobs);
        let verdict = match verdict {
            Verdict::Skipped(why) => Verdict::Skipped(format!("{why} ({})", args.cpu)),
            other => other,
        };
        report.rows.push(row(name, copies, output.len(), verdict));
        problems.extend(wrong);
    }
    report.rows.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Checks what concerns the run as a whole: its end, its counters, their identities.
fn check_run(args: &DemoArgs, outcome: &Outcome, report: &mut Report, problems: &mut Vec<String>) {
    let session = &report.session;
    problems.extend(session.garbled.iter().take(10).cloned());
    if let Some(panic) = &session.panic {
        problems.push(format!("the kernel panicked: {panic}"));
    }
    if !outcome.is_success() {
        problems.push(outcome.to_string());
    }
    match session.end {
        Some(true) => {}
        // A fault of a program is a failure that is told already.
        Some(false) if !problems.is_empty() => {}
        Some(false) => problems.push("the kernel ended with `@end failed`".into()),
        None => problems.push("the kernel's closing line `@end` is missing".into()),
    }
    if session.end.is_none() {
        // Nothing can be said of counters that were not reported.
        return;
    }
    let expected = (0..args.cpus as usize).collect::<Vec<_>>();
    let reported = session.cpus.keys().copied().collect::<Vec<_>>();
    if reported != expected {
        problems.push(format!(
            "the kernel reported counters of the CPUs {reported:?}, the machine has {}",
            args.cpus
        ));
    }
    let (started, ended) = session.progress();
    if args.program.is_empty() && session.totals().get("traps") == 0 {
        problems.push("the built-in programs use the FPU, and the kernel counted no trap".into());
    }
    report.identities = identities::identities(&session.totals(), started == ended);
    for broken in report
        .identities
        .iter()
        .filter(|identity| !identity.holds())
    {
        problems.push(format!("the counters do not agree: {broken}"));
    }
}

#[cfg(test)]
mod tests {
    use super::default_copies;

    #[test]
    fn by_default_two_lwps_share_a_cpu_and_each_program_runs_twice() {
        assert_eq!(default_copies(4, 9), 2);
        assert_eq!(default_copies(8, 3), 6);
        assert_eq!(default_copies(8, 1), 16);
        assert_eq!(default_copies(1, 1), 2);
        for cpus in 1..=8 {
            for programs in 1..12 {
                let lwps = default_copies(cpus, programs) as usize * programs;
                assert!(lwps >= 2 * cpus as usize);
            }
        }
    }
}
