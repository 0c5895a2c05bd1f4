//! The command line of `cargo simulate`: what it prints, and that wrong input is told in one line.
#![cfg(not(target_os = "none"))]

use std::fs;
use std::process::{Command, Output};

fn run(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pcu9-simulator"))
        .args(line.split(' '))
        .output()
        .expect("the program starts")
}

#[track_caller]
fn expect_error(line: &str, status: i32, says: &str) {
    let output = run(line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.starts_with("error: ") && stderr.contains(says),
        "{line}: {stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{line}: {stderr}");
    assert_eq!(output.status.code(), Some(status), "{line}");
}

#[test]
fn a_made_up_workload_gives_a_row_for_each_policy_and_machine() {
    let output = run(
        "-- workload --slices 2000 --lwps 8 --habit p=0.9 --habit on=10,off=10 --costs milan --costs risc,t=99",
    );
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("risc,t=99: T=99 R=120"), "{said}");
    for policy in [
        "lazy",
        "adaptive",
        "NetBSD pcu(9)",
        "seL4 14, flag",
        "clairvoyant",
    ] {
        let n = said
            .lines()
            .filter(|line| line.trim_start().starts_with(policy))
            .count();
        assert!(n >= 2, "{policy}: {said}");
    }
}

#[test]
fn what_is_wrong_is_told_in_one_line() {
    expect_error("workload --habit p=2", 2, "p=P");
    expect_error(
        "workload --costs vax",
        2,
        "no machine `vax`: there are milan,",
    );
    expect_error("workload --costs milan,q=1", 2, "`q=1` is not one of");
    expect_error("workload --migrate 1", 2, "from 0 to below 1");
    expect_error("workload --slices 0", 2, "a number from 1 was expected");
    expect_error(
        "workload --cpu 2",
        2,
        "a similar argument exists: '--cpus'; see `cargo simulate workload --help`",
    );
    expect_error("swep", 2, "'sweep'; see `cargo simulate --help`");
    // Before the minutes that it takes.
    expect_error("sweep --json /proc/no/file", 1, "/proc/no/file: ");
    expect_error("trace no-such-file", 1, "no-such-file: ");
    expect_error(
        "plot --json no-such-file",
        1,
        "`cargo simulate sweep` writes it",
    );
}

#[test]
fn a_trace_without_slices_or_knowledge_is_refused() {
    let folder = env!("CARGO_TARGET_TMPDIR");
    for (name, line, says) in [
        ("idle", "0 0 1 7 idle - 0 0 0", "no slices but idle ones"),
        (
            "lazy",
            "0 0 1 7 0 a.0 1 ? 0",
            "line 2: the trace does not know",
        ),
    ] {
        let file = format!("{folder}/{name}.trace");
        fs::write(&file, format!("# pcu9-trace 1: ..\n{line}\n")).expect("a file");
        expect_error(&format!("trace {file}"), 1, says);
    }
}

#[test]
fn the_help_says_how_each_command_is_called() {
    for command in ["trace", "workload", "sweep", "plot"] {
        let output = run(&format!("{command} --help"));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains(&format!("Usage: cargo simulate {command} ")),
            "{said}"
        );
    }
}
