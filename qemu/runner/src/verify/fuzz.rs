//! Coverage-guided fuzzing of what reads bytes from outside: libFuzzer, with LLVM's own instrumentation, on the stable compiler.
//!
//! A target is a file in `qemu/kpcpu/fuzz/src/bin` and a folder of the same name in `qemu/kpcpu/fuzz/corpus`; its name stands in
//! [`TARGETS`] and nowhere else.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::Step;
use crate::error::{During, Error, Result};
use crate::install;
use crate::place;
use crate::process::Ended;
use crate::progress::say;

const TARGETS: [&str; 1] = ["dump"];
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
    let step = |target| Step {
        name: format!("fuzz {target}"),
        run: Box::new(move || fuzz(target, length)),
    };
    TARGETS.map(step).into()
}

fn fuzz(target: &str, length: Length) -> Result<()> {
    let sources = place::checkout().join("qemu/kpcpu/fuzz");
    let built = place::target("fuzz");
    if place::on_path("c++").is_none() {
        install::packages("c++", &["g++"])?;
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
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
    let mut program = Command::new(built.join(HOST).join("release").join(target));
    program.arg(match length {
        Length::Seconds(seconds) => format!("-max_total_time={seconds}"),
        Length::Executions(n) => format!("-runs={n}"),
    });
    program
        .args(["-max_len=512", "-timeout=20", "-rss_limit_mb=1024"])
        .arg(format!("-artifact_prefix={}", found.display()))
        .arg(&fresh)
        .arg(sources.join("corpus").join(target));
    run(&mut program, target, length)
}

/// Runs the fuzzer to its end, and says how many executions there were.
fn run(program: &mut Command, target: &str, length: Length) -> Result<()> {
    program.stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
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
    let Some(done) = done.filter(|_| ended.is_success()) else {
        for line in last.iter().filter(|line| !line.starts_with('#')) {
            eprintln!("| {line}");
        }
        return Err(Error::failed(format!(
            "the fuzz target {target} failed ({ended}): the input that did it is in the folder that the last lines name"
        )));
    };
    check(done, length)?;
    let seconds = begun.elapsed().as_secs_f64();
    say(format_args!(
        "fuzz {target}: {done} executions in {seconds:.0} s, no panic, no hang"
    ));
    Ok(())
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
        let fuzz = place::checkout().join("qemu/kpcpu/fuzz");
        for target in TARGETS {
            assert!(fuzz.join(format!("src/bin/{target}.rs")).is_file());
            let corpus = std::fs::read_dir(fuzz.join("corpus").join(target)).expect("a corpus");
            assert!(corpus.count() > 5, "{target}");
        }
    }

    #[test]
    fn a_crash_and_too_few_executions_fail() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            run(&mut command, "dump", Length::Executions(1000))
        };
        assert!(shell("echo 'Done 1000 runs in 1 second(s)' >&2").is_ok());
        for script in [
            "echo 'Done 999 runs in 1 second(s)' >&2",
            "echo 'Done 1000 runs in 1 second(s)' >&2; exit 77",
            "echo nothing >&2",
        ] {
            assert_eq!(shell(script).expect_err(script).status(), 1);
        }
        assert_eq!(
            executions("Done 10000000 runs in 61 second(s)"),
            Some(10_000_000)
        );
    }
}
