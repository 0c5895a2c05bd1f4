//! One run of the guest under one policy: booted, listened to, compared with the host, checked.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::compare::{self, Verdict};
use super::cores::{self, Written};
use super::dumping::Dumping;
use super::identities::{Identity, identities};
use super::plan::{Plan, Planned};
use super::session::{Job, Session};
use crate::cli::{DemoArgs, Policy};
use crate::control::{Control, MIB};
use crate::dump;
use crate::emulator::{Emulator, Machine, Outcome};
use crate::error::{During, Error, Result};
use crate::programs::Archive;
use crate::progress::Step;
use crate::timeline::{self, Window};
use crate::trace;
use crate::watch::watch;

/// How many processes leave a core file in a run.
const MOST_CORES: u32 = 4;

/// Everything that a run found out, as far as it came.
#[derive(Debug)]
pub(super) struct Run {
    /// The policy.
    pub(super) policy: Policy,
    /// The programs.
    pub(super) rows: Vec<Row>,
    /// How many LWPs were to share the CPUs.
    pub(super) lwps: usize,
    /// What the guest said.
    pub(super) session: Session,
    /// The equations that were checked.
    pub(super) identities: Vec<Identity>,
    /// The core files of processes that a signal ended.
    pub(super) cores: Vec<Written>,
    /// The word with which the guest stood still to be dumped.
    held: Option<String>,
    /// How long the guest ran.
    pub(super) seconds: f64,
    /// What was wrong.
    pub(super) problems: Vec<String>,
    /// It came to its end, and nothing was wrong.
    pub(super) is_ok: bool,
}

/// A program's line in the table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// The program.
    pub(super) name: String,
    /// How many copies were to run.
    pub(super) copies: u32,
    /// How much the host's run wrote.
    pub(super) bytes: usize,
    /// What came of it.
    pub(super) verdict: Verdict,
}

/// Makes the way into the guest, if anybody wants to look.
fn control(args: &DemoArgs, kernel: &Path) -> Result<Option<Control>> {
    if args.dump.is_none() && args.socket.is_none() && !args.watch {
        return Ok(None);
    }
    let mut control = Control::new(MIB)?;
    if let Some(path) = &args.socket {
        control.listen(path, kernel)?;
    }
    Ok(Some(control))
}

impl Row {
    pub(super) fn new(name: &str, copies: u32, bytes: usize, verdict: Verdict) -> Self {
        Self {
            name: name.into(),
            copies,
            bytes,
            verdict,
        }
    }
}

impl Run {
    /// A run that has not begun.
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            rows: Vec::new(),
            lwps: 0,
            session: Session::default(),
            identities: Vec::new(),
            cores: Vec::new(),
            held: None,
            seconds: 0.0,
            problems: Vec::new(),
            is_ok: false,
        }
    }

    /// Boots the kernel, takes in what it says, and judges it.
    pub(super) fn perform(
        &mut self,
        args: &DemoArgs,
        emulator: &dyn Emulator,
        kernel: &Path,
        (plan, archive): (&Plan, &Archive),
    ) -> Result<()> {
        let outcome = self.boot(args, emulator, kernel, (plan, archive))?;
        self.seconds = outcome.seconds;
        self.judge(args, plan);
        self.check(args, &outcome);
        let (written, cut) = cores::write(&self.session)?;
        self.cores = written;
        self.problems.extend(cut);
        self.write_trace(args)
    }

    fn boot(
        &mut self,
        args: &DemoArgs,
        emulator: &dyn Emulator,
        kernel: &Path,
        (plan, archive): (&Plan, &Archive),
    ) -> Result<Outcome> {
        let copies = plan.copies;
        let control = control(args, kernel)?;
        let holds = args.dump.is_some() && args.dump_after.is_none();
        let option = if holds { " hold=1" } else { "" };
        // The project's own programs end by signals as it should be.
        let cores = if args.program.is_empty() {
            String::new()
        } else {
            format!(" cores={MOST_CORES}")
        };
        let trace = if args.trace.is_some() { " trace=1" } else { "" };
        let timeline = args.window.option();
        let sections = if args.sections { " sections=1" } else { "" };
        let machine = Machine {
            kernel,
            initrd: Some(archive.path()),
            control: control.as_ref(),
            append: format!(
                "copies={copies}{cores}{timeline} leak={} policy={}{sections}{trace}{option}",
                args.leak.word(),
                self.policy.word()
            ),
            model: &args.cpu,
            cpus: args.cpus,
            limit: Duration::from_secs(args.timeout),
        };
        let step = Step::start(format!(
            "booting {} CPUs ({}) with {copies} copies of {} programs",
            args.cpus,
            args.machine(),
            plan.programs.len()
        ));
        let mut dumping = Dumping::new(args, control.as_ref(), kernel);
        let (session, held) = (&mut self.session, &mut self.held);
        let mut line = |line: &str| {
            if let Some(word) = dump::held(line).filter(|_| holds) {
                step.note("writing the dump");
                *held = Some(word.to_owned());
                dumping.at_the_end();
            } else if session.take(line) {
                let (started, ended) = session.progress();
                step.note(format_args!("{ended} of {started} jobs have ended"));
                dumping.in_the_midst(started, &step);
            } else {
                step.print(format_args!("| {line}"));
            }
        };
        let watched = args.watch.then_some(control.as_ref()).flatten();
        let (outcome, watched) = match watched {
            None => (emulator.run(&machine, &mut line), Ok(())),
            Some(control) => {
                let (board, is_over) = (step.board(), AtomicBool::new(false));
                thread::scope(|scope| {
                    let look = || watch(kernel, &control.socket(), &board, &is_over).map(|_| ());
                    let onlooker = scope.spawn(look);
                    let outcome = emulator.run(&machine, &mut line);
                    is_over.store(true, Ordering::Release);
                    let watched = onlooker.join();
                    let watched =
                        watched.unwrap_or_else(|_| Err(Error::failed("--watch panicked")));
                    (outcome, watched)
                })
            }
        };
        step.done();
        let problems = [dumping.end(), watched.err().map(|e| e.to_string())];
        self.problems.extend(problems.into_iter().flatten());
        outcome
    }

    /// Compares every copy with the host.
    fn judge(&mut self, args: &DemoArgs, plan: &Plan) {
        for Planned {
            program,
            output,
            ended,
        } in &plan.programs
        {
            let name = &program.name;
            let jobs = self.session.jobs.values().filter(|job| job.name == *name);
            let jobs: Vec<&Job> = jobs.collect();
            let (verdict, wrong) = compare::judge(name, (output, *ended), plan.copies, &jobs);
            let verdict = match verdict {
                Verdict::Skipped(why) => Verdict::Skipped(format!("{why} ({})", args.cpu)),
                other => other,
            };
            self.rows
                .push(Row::new(name, plan.copies, output.len(), verdict));
            self.problems.extend(wrong);
        }
        self.rows.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Checks what concerns the run as a whole: its end, its counters, their identities.
    fn check(&mut self, args: &DemoArgs, outcome: &Outcome) {
        let (session, problems) = (&self.session, &mut self.problems);
        problems.extend(session.garbled.iter().take(10).cloned());
        if let Some(panic) = &session.panic {
            problems.push(format!("the kernel panicked: {panic}"));
        }
        if !dump::is_success(outcome, self.held.as_deref()) {
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
        let totals = session.totals();
        let (started, ended) = session.progress();
        if args.program.is_empty() && totals.get("traps") == 0 {
            problems
                .push("the built-in programs use the FPU, and the kernel counted no trap".into());
        }
        self.identities = identities(&totals, self.policy, started == ended);
        let broken = self.identities.iter().filter(|one| !one.holds());
        problems.extend(broken.map(|broken| format!("the counters do not agree: {broken}")));
        if args.trace.is_some() {
            problems.extend(trace::missing(&session.traces, args.cpus));
        }
        if args.window != Window::None {
            problems.extend(timeline::wrong(&session.timelines, args.cpus));
            problems.extend(timeline::outside(&session.timelines, args.window));
        }
    }

    /// Writes the trace file, with what there is of it after a failure.
    fn write_trace(&self, args: &DemoArgs) -> Result<()> {
        let Some(path) = &args.trace else {
            return Ok(());
        };
        let head = trace::Head {
            policy: self.policy.word(),
            knows_use: self.policy == Policy::Probe,
            leak: args.leak.word(),
            cpu_model: &args.cpu,
            cpus: args.cpus,
        };
        let text = trace::text(&head, &self.session.traces, |job| self.session.program(job));
        fs::write(path, text).during(format_args!("--trace {}", path.display()))
    }
}
