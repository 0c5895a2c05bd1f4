//! The host's side of a boot test: what `cargo test` runs.

use std::env;
use std::fs;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use super::{Cases, LIMIT, Said, Selection, verdict};
use crate::emulator::{self, Emulator, Kind, Machine};
use crate::error::Result;
use crate::guest::{self, Kernel};
use crate::place;
use crate::programs::Archive;
use crate::toolchain;

/// A machine that a boot test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The CPU's model, by QEMU's name.
    pub cpu: &'static str,
    /// How many CPUs.
    pub cpus: u32,
}

/// What came of all runs of a test.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    filtered: u64,
    /// The failed cases, with what is to be said of them.
    failed: Vec<(String, Vec<String>)>,
}

/// What a boot test needs.
struct Tools {
    emulator: Box<dyn Emulator>,
    image: PathBuf,
    /// The programs, for a kernel that runs some.
    archive: Option<Archive>,
}

/// A boot test at work.
struct Launch<'a> {
    name: &'a str,
    selection: &'a Selection,
    out: &'a mut dyn Write,
    tally: Tally,
}

/// Runs the boot test `name` as a test program: builds the kernel `tests/NAME.rs` (or the kernel `pcu9-embed`) for the
/// guest, boots it once for each of `runs`, and prints a line for each case as libtest does. On the first of `runs` the cases
/// that can run under every policy do so, by the name `CASE/POLICY`.
///
/// The arguments of libtest that select cases work: words, `--exact`, `--skip`, `--list`; others are passed over. A
/// case's name is taken to stand in the test's file: a word that is not found there selects nothing and boots nothing. The
/// word `/eager` selects what runs under that policy.
pub fn boot_test(name: &str, runs: &[Run]) -> ExitCode {
    let selection = Selection::parse(env::args().skip(1));
    let source = place::checkout().join("tests").join(format!("{name}.rs"));
    let source = fs::read_to_string(source).unwrap_or_default();
    let provide = || {
        let emulator = emulator::provide(Kind::Qemu)?;
        let image = match guest::given() {
            Some(image) => image,
            None => guest::build(&toolchain::provide()?, &Kernel::named(name))?,
        };
        Ok(Tools {
            emulator,
            image,
            archive: Archive::for_kernel(name)?,
        })
    };
    if launch(name, runs, &selection, &source, provide, &mut stdout()) {
        ExitCode::SUCCESS
    } else {
        // What libtest ends with.
        ExitCode::from(101)
    }
}

/// Does what [`boot_test`] says, with tools from `provide`, and tells whether all is well.
fn launch(
    name: &str,
    runs: &[Run],
    selection: &Selection,
    source: &str,
    provide: impl FnOnce() -> Result<Tools>,
    out: &mut dyn Write,
) -> bool {
    let mut launch = Launch {
        name,
        selection,
        out,
        tally: Tally::default(),
    };
    if selection.list {
        for run in runs {
            launch.print(&format!("{name} [{}]: test", machine_name(*run)));
        }
        launch.print(&format!("\n{} tests, 0 benchmarks", runs.len()));
        return true;
    }
    let begun = Instant::now();
    let wanted: Vec<Run> = runs
        .iter()
        .filter(|run| selection.can_have(name, &machine_name(**run), source))
        .copied()
        .collect();
    launch.print(&format!(
        "\nrunning {name} on {} of {} machines",
        wanted.len(),
        runs.len()
    ));
    if runs.is_empty() {
        launch.fail(name, vec!["the test names no machine to run on".into()]);
    } else if !wanted.is_empty() {
        let done = provide().and_then(|tools| launch.run_all(&tools, &wanted, runs));
        if let Err(error) = done {
            launch.fail(name, vec![format!("error: {error}")]);
        }
    }
    launch.report(begun)
}

fn machine_name(run: Run) -> String {
    format!("{}/{}", run.cpu, run.cpus)
}

impl Launch<'_> {
    fn print(&mut self, line: &str) {
        // A reader that has gone away is no reason to stop testing.
        let _ = writeln!(self.out, "{line}");
    }

    fn fail(&mut self, label: &str, said: Vec<String>) {
        self.print(&format!("test {label} ... FAILED"));
        self.tally.failed.push((label.to_owned(), said));
    }

    /// Boots the kernel on each machine of `wanted`. The other policies than `Lazy` are run through on the first machine of the
    /// test's list alone, to save time.
    fn run_all(&mut self, tools: &Tools, wanted: &[Run], runs: &[Run]) -> Result<()> {
        for run in wanted {
            self.run(tools, *run, runs.first() == Some(run))?;
        }
        Ok(())
    }

    /// Boots the kernel once and takes in its cases.
    fn run(&mut self, tools: &Tools, run: Run, every_policy: bool) -> Result<()> {
        let machine_name = machine_name(run);
        // A word that is a part of the test's own name selects all its cases.
        let everything = self.selection.has(self.name, &machine_name);
        let filter = self.selection.for_guest().filter(|_| !everything);
        let append = super::kernel_options(filter, every_policy);
        let machine = Machine {
            kernel: &tools.image,
            initrd: tools.archive.as_ref().map(Archive::path),
            control: None,
            append,
            model: run.cpu,
            cpus: run.cpus,
            limit: LIMIT,
        };
        let mut cases = Cases::default();
        let mut log = Vec::new();
        let outcome = tools
            .emulator
            .run(&machine, &mut |line| match cases.take(line) {
                Said::Case { name: case, passed } => {
                    let said = std::mem::take(&mut log);
                    self.case(&case, &machine_name, passed, said);
                }
                Said::Log if self.selection.show_output => self.print(line),
                Said::Log => log.push(line.to_owned()),
                Said::Closing(..) | Said::Panic(_) => {}
            })?;
        let wrong = verdict(&outcome, &cases, self.selection.is_everything());
        // Failed cases have their own lines; what else is wrong gets one for the run.
        if !wrong.is_empty() {
            let label = format!("{} [{machine_name}]", self.name);
            self.fail(&label, wrong);
        }
        Ok(())
    }

    fn case(&mut self, case: &str, machine: &str, passed: bool, said: Vec<String>) {
        let full = format!("{}::{case}", self.name);
        let label = format!("{full} [{machine}]");
        if !self.selection.has(&full, machine) {
            self.tally.filtered += 1;
        } else if passed {
            self.tally.passed += 1;
            self.print(&format!("test {label} ... ok"));
        } else {
            self.fail(&label, said);
        }
    }

    /// Prints what failed and the closing line; tells whether all is well.
    fn report(&mut self, begun: Instant) -> bool {
        let failed = std::mem::take(&mut self.tally.failed);
        if !failed.is_empty() {
            self.print("\nfailures:\n");
            for (label, said) in &failed {
                self.print(&format!("---- {label} ----"));
                for line in said {
                    self.print(line);
                }
                self.print("");
            }
            self.print("failures:");
            for (label, _) in &failed {
                self.print(&format!("    {label}"));
            }
        }
        let Tally {
            passed, filtered, ..
        } = self.tally;
        self.print(&format!(
            "\ntest result: {}. {passed} passed; {} failed; 0 ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
            if failed.is_empty() { "ok" } else { "FAILED" },
            failed.len(),
            begun.elapsed().as_secs_f64()
        ));
        failed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Run, Selection, Tools, launch};
    use crate::emulator::Emulator;
    use crate::error::Error;
    use crate::process::tests::executable;
    use crate::qemu::Qemu;

    const RUNS: [Run; 2] = [
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
        Run {
            cpu: "max",
            cpus: 4,
        },
    ];

    /// Launches a test whose kernel is a shell script, with arguments as of libtest.
    fn run(script: &str, arguments: &str) -> (bool, String) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("qemu");
        executable(&path, format!("#!/bin/sh\n{script}\n").as_bytes());
        let selection = Selection::parse(arguments.split_whitespace().map(str::to_owned));
        let mut out = Vec::new();
        let provide = || {
            let emulator: Box<dyn Emulator> = Box::new(Qemu::at(path));
            Ok(Tools {
                emulator,
                image: "kernel".into(),
                archive: None,
            })
        };
        let ok = launch(
            "boot_two",
            &RUNS,
            &selection,
            "fn first() fn second()",
            provide,
            &mut out,
        );
        (ok, String::from_utf8(out).expect("text"))
    }

    const GOOD: &str =
        "echo 'test first ... ok'; echo 'test second ... ok'; echo '2 passed, 0 failed'; exit 33";

    #[test]
    fn each_case_on_each_machine_has_a_line() {
        let (ok, text) = run(GOOD, "");
        assert!(ok, "{text}");
        for line in [
            "test boot_two::first [qemu64/1] ... ok",
            "test boot_two::second [max/4] ... ok",
            "test result: ok. 4 passed; 0 failed; 0 ignored",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn the_first_machine_runs_every_policy() {
        let script = r#"case "$*" in
            *policies=all*) echo 'test first/eager ... ok';;
            *) echo 'test first ... ok';;
            esac
            echo '1 passed, 0 failed'; exit 33"#;
        let (ok, text) = run(script, "");
        assert!(ok, "{text}");
        for line in [
            "test boot_two::first/eager [qemu64/1] ... ok",
            "test boot_two::first [max/4] ... ok",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let (ok, text) = run(script, "max/4");
        assert!(ok && !text.contains("/eager"), "{text}");
    }

    #[test]
    fn a_failed_case_shows_its_log() {
        let (ok, text) = run(
            "echo 'expected 1, seen 2'; echo 'test first ... FAILED'; echo '0 passed, 1 failed'; exit 35",
            "",
        );
        assert!(!ok);
        assert!(
            text.contains("---- boot_two::first [max/4] ----\nexpected 1, seen 2\n"),
            "{text}"
        );
        assert!(text.contains("FAILED. 0 passed; 2 failed;"), "{text}");
    }

    #[test]
    fn a_run_without_cases_fails_and_so_does_a_triple_fault() {
        let (ok, text) = run("echo '0 passed, 0 failed'; exit 33", "");
        assert!(!ok && text.contains("no case ran"), "{text}");
        let (ok, text) = run("echo 'test first ... ok'; exit 0", "");
        assert!(
            !ok && text.contains("triple fault") && text.contains("closing line"),
            "{text}"
        );
    }

    #[test]
    fn filters_choose_cases_and_machines() {
        let (ok, text) = run(GOOD, "second");
        assert!(
            ok && text.contains("2 passed; 0 failed") && text.contains("2 filtered out"),
            "{text}"
        );
        let (ok, text) = run(GOOD, "max/4");
        assert!(
            ok && text.contains("on 1 of 2 machines") && text.contains("2 passed"),
            "{text}"
        );
        let (ok, text) = run("exit 1", "conformance");
        assert!(ok && text.contains("0 passed; 0 failed"), "{text}");
        let (ok, text) = run("exit 1", "--list");
        assert!(ok && text.contains("boot_two [max/4]: test"), "{text}");
    }

    #[test]
    fn a_missing_tool_fails_the_test() {
        let mut out = Vec::new();
        let provide = || Err(Error::unusable("no emulator"));
        assert!(!launch(
            "boot_two",
            &RUNS,
            &Selection::default(),
            "",
            provide,
            &mut out
        ));
        assert!(String::from_utf8_lossy(&out).contains("no emulator"));
    }
}
