//! Coverage-guided fuzzing of what reads bytes from outside: libFuzzer, with LLVM's own instrumentation, on the stable compiler.
//!
//! A target is a file in `qemu/fuzz/src/bin` and a folder of the same name in `qemu/fuzz/corpus`; its name stands in
//! [`TARGETS`] and nowhere else.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use super::Step;
use crate::error::{During, Error, Result};
use crate::install;
use crate::place;
use crate::process::Ended;
use crate::progress::say;

/// The targets, and the length of their inputs: the foreign image of a processor with AVX fits in.
const TARGETS: [(&str, usize); 2] = [("dump", 512), ("foreign", 1024)];
/// More fuzzers than this at a time find little more in the same time.
const WORKERS_MAX: u64 = 4;
const HOST: &str = "x86_64-unknown-linux-gnu";
/// Every edge is counted, and what is compared is told to the fuzzer. Clang, "Sanitizer coverage".
const COVERAGE: &str = "-Cpasses=sancov-module -Ccodegen-units=1 -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// How long a target is fuzzed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Seconds(u32),
    Executions(u64),
}

/// The steps: a minute of each target in CI, ten million executions of each otherwise.
pub(super) fn steps(short: bool) -> Vec<Step> {
    let length = if short {
        Length::Seconds(60)
    } else {
        Length::Executions(10_000_000)
    };
    let step = |(target, max_len)| Step {
        name: format!("fuzz {target}"),
        run: Box::new(move || fuzz(target, max_len, length)),
    };
    TARGETS.map(step).into()
}

fn fuzz(target: &str, max_len: usize, length: Length) -> Result<()> {
    let sources = place::checkout().join("qemu/fuzz");
    let built = place::target("fuzz");
    if place::on_path("c++").is_none() {
        install::packages("c++", &["g++"])?;
    }
    // Rustup's, where there is rustup: it keeps crates that name a toolchain of their own to the checkout's.
    let mut cargo = Command::new("cargo");
    place::forget_cargo(&mut cargo);
    cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--target",
            HOST,
            "--bin",
            target,
        ])
        .arg("--manifest-path")
        .arg(sources.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&built)
        .env("RUSTFLAGS", COVERAGE);
    crate::cargo::build(&mut cargo, &format!("building the fuzz target {target}"))?;

    let work = built.join("work").join(target);
    let found = work.join("found/");
    let fresh = work.join("fresh");
    for dir in [&found, &fresh] {
        fs::create_dir_all(dir).during(dir.display())?;
    }
    let workers = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let workers = workers.min(WORKERS_MAX);
    let mut programs = Vec::new();
    for _ in 0..workers {
        let mut program = Command::new(built.join(HOST).join("release").join(target));
        program.arg(match length {
            Length::Seconds(seconds) => format!("-max_total_time={seconds}"),
            Length::Executions(n) => format!("-runs={}", n.div_ceil(workers)),
        });
        program
            .args(["-timeout=20", "-rss_limit_mb=1024"])
            .arg(format!("-max_len={max_len}"))
            .arg(format!("-artifact_prefix={}", found.display()))
            .arg(&fresh)
            .arg(sources.join("corpus").join(target));
        programs.push(program);
    }
    run(programs, target, length)
}

/// Runs the fuzzers side by side, each to its end, and says how many executions there were. What one finds worth keeping the others
/// take up from the folder that they share.
fn run(programs: Vec<Command>, target: &str, length: Length) -> Result<()> {
    let begun = Instant::now();
    let done = thread::scope(|scope| {
        let mut fuzzers = Vec::new();
        for mut program in programs {
            fuzzers.push(scope.spawn(move || run_one(&mut program, target)));
        }
        let done = fuzzers.into_iter().map(|fuzzer| {
            let done = fuzzer.join();
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        done.sum::<Result<u64>>()
    })?;
    check(done, length)?;
    let seconds = begun.elapsed().as_secs_f64();
    say(format_args!(
        "fuzzed {target}: {done} executions in {seconds:.0} s, no panic, no hang"
    ));
    Ok(())
}

/// Runs one fuzzer; gives the number of its executions.
fn run_one(program: &mut Command, target: &str) -> Result<u64> {
    program.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = program.stderr(Stdio::piped()).spawn().during(target)?;
    let (mut done, mut last) = (None, Vec::new());
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            done = done.or(executions(&line));
            last.push(line);
            if last.len() > 100 {
                last.remove(0);
            }
        }
    }
    let ended = Ended::of(child.wait().during(target)?);
    if let Some(done) = done.filter(|_| ended.is_success()) {
        return Ok(done);
    }
    for line in last.iter().filter(|line| !line.starts_with('#')) {
        eprintln!("| {line}");
    }
    Err(Error::failed(format!(
        "the fuzz target {target} failed ({ended}): the input that did it is in the folder that the last lines name"
    )))
}

/// Reads libFuzzer's closing line.
fn executions(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("Done ")?;
    rest.split_once(" runs in ")?.0.parse().ok()
}

/// A fuzzer that ran too little proves nothing.
fn check(done: u64, length: Length) -> Result<()> {
    let least = match length {
        Length::Seconds(_) => 10_000,
        Length::Executions(n) => n,
    };
    if done < least {
        return Err(Error::failed(format!(
            "the fuzzer made {done} executions, and at least {least} were wanted"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Length, TARGETS, executions, run};
    use crate::place;

    #[test]
    fn every_target_has_its_file_and_its_corpus() {
        let fuzz = place::checkout().join("qemu/fuzz");
        for (target, _) in TARGETS {
            assert!(fuzz.join(format!("src/bin/{target}.rs")).is_file());
            let corpus = std::fs::read_dir(fuzz.join("corpus").join(target)).expect("a corpus");
            assert!(corpus.count() > 5, "{target}");
        }
    }

    #[test]
    fn a_crash_and_too_few_executions_fail() {
        let shells = |scripts: [&str; 2]| {
            let programs = scripts.map(|script| {
                let mut command = Command::new("sh");
                command.args(["-c", script]);
                command
            });
            run(programs.into(), "dump", Length::Executions(1000))
        };
        let half = "echo 'Done 500 runs in 1 second(s)' >&2";
        assert!(shells([half, half]).is_ok());
        for script in [
            "echo 'Done 499 runs in 1 second(s)' >&2",
            "echo 'Done 500 runs in 1 second(s)' >&2; exit 77",
            "echo nothing >&2",
        ] {
            assert_eq!(shells([half, script]).expect_err(script).status(), 1);
            assert_eq!(shells([script, half]).expect_err(script).status(), 1);
        }
        assert_eq!(
            executions("Done 10000000 runs in 61 second(s)"),
            Some(10_000_000)
        );
    }
}
