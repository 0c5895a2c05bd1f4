//! The runner's manners at a terminal and in a pipe, which are cargo's.

#![cfg(not(target_os = "none"))]

#[path = "../../kpcpu/tests/live/pty.rs"]
mod pty;

use std::process::{Command, Output, Stdio};

use pty::{Terminal, lines};

fn runner(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pcu9-runner"));
    command.args(arguments);
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CARGO_TERM_COLOR"] {
        command.env_remove(name);
    }
    command
}

fn output(arguments: &[&str]) -> Output {
    runner(arguments).output().expect("the runner runs")
}

const UNKNOWN: [&str; 2] = ["boot", "nothing"];

#[test]
fn the_help_of_each_command_says_how_it_is_called_and_what_else_counts() {
    for (command, usage, example) in [
        (
            "demo",
            "Usage: cargo demo [OPTIONS]\n",
            "  cargo demo --policy all --window",
        ),
        (
            "boot",
            "Usage: cargo boot [OPTIONS] NAME\n",
            "  cargo boot leaks\n",
        ),
        (
            "verify",
            "Usage: cargo verify [OPTIONS]\n",
            "  cargo verify --only loom\n",
        ),
    ] {
        for help in [
            &[command, "--help"][..],
            &[command, "-h"],
            &["help", command],
        ] {
            let output = output(help);
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(0), "{help:?}");
            assert_eq!(output.stderr, b"", "{help:?}");
            for part in [
                usage,
                "Examples:\n",
                example,
                "PCU9_INSTALL=1",
                "Exit status: 0",
            ] {
                assert!(said.contains(part), "{help:?}: {part}: {said}");
            }
            assert!(!said.contains('\u{1b}'), "{said}");
        }
    }
}

#[test]
fn a_wrong_command_line_is_told_in_one_line_that_says_what_to_do() {
    for (arguments, says) in [
        (
            &["demo", "--cpu1", "2"][..],
            "a similar argument exists: '--cpu'; see `cargo demo --help`",
        ),
        (
            &["demo", "--cpus", "9"],
            "9 is not in 1..=8; see `cargo demo --help`",
        ),
        (&["boot"], "see `cargo boot --help`"),
        (&UNKNOWN, "there is no boot test `nothing`; there are boot_"),
        (
            &["verify", "--only", "nothing"],
            "`cargo verify --list` lists them",
        ),
        (
            &["verfy"],
            "a similar subcommand exists: 'verify'; see `pcu9-runner --help`",
        ),
        (&["run"], "see `pcu9-runner run --help`"),
    ] {
        let output = output(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(said.starts_with("error: ") && said.contains(says), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn the_steps_of_verify_are_listed_without_being_run() {
    let list = |more: &[&str]| {
        let output = output(&[&["verify", "--list"], more].concat());
        assert_eq!(output.status.code(), Some(0));
        let said = String::from_utf8(output.stdout).expect("text");
        said.lines().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let (all, short) = (list(&[]), list(&["--short"]));
    assert!(short.len() > 5 && short.len() < all.len());
    assert_eq!(list(&["--only", "weakened"]), ["loom, weakened orderings"]);
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let in_a_pipe = |colour: Option<&str>| {
        let mut command = runner(&UNKNOWN);
        command.envs(colour.map(|colour| ("CARGO_TERM_COLOR", colour)));
        let output = command.output().expect("the runner runs");
        String::from_utf8_lossy(&output.stderr).starts_with("\u{1b}[")
    };
    assert_eq!(
        [None, Some("auto"), Some("never"), Some("always")].map(in_a_pipe),
        [false, false, false, true]
    );

    let at_a_terminal = |variable: Option<(&str, &str)>| {
        let mut command = runner(&UNKNOWN);
        command.envs(variable);
        let terminal = Terminal::start(&mut command, (30, 200));
        let is_told = |lines: &[String]| lines.iter().any(|line| line.contains("boot_leaks"));
        terminal.wait_for_minutes(1, "an error", is_told);
        let (status, screen) = terminal.end();
        assert_eq!(status, Some(2));
        assert!(lines(&screen)[0].starts_with("error: there is no boot test"));
        let cell = screen.screen().cell(0, 0).expect("a letter");
        cell.fgcolor() != vt100::Color::Default && cell.bold()
    };
    assert!(at_a_terminal(None));
    assert!(!at_a_terminal(Some(("NO_COLOR", "1"))));
    assert!(!at_a_terminal(Some(("CARGO_TERM_COLOR", "never"))));
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let mut command = runner(&["boot", "--list"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("the runner runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(0), ""));
}
