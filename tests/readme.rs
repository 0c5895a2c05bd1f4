//! The README's commands are commands, its links lead somewhere, and the tests that it names exist. Its Rust is a doctest of the crate; its
//! tables of figures are held to the commands that print them where these are tested (`qemu/bench/tests`, `qemu/simulator/tests`).
#![cfg(not(target_os = "none"))]

use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn readme() -> String {
    std::fs::read_to_string(Path::new(ROOT).join("README.md")).expect("a README")
}

/// What stands between backticks on one line, and the lines of blocks of text.
fn code_spans(text: &str) -> Vec<String> {
    let mut spans = Vec::new();
    let mut block = None;
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            block = match block {
                None => Some(language.to_owned()),
                Some(_) => None,
            };
        } else if let Some(language) = &block {
            if language == "text" {
                let command = line.split('#').next().unwrap_or_default();
                spans.push(command.trim().to_owned());
            }
        } else {
            spans.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    spans
}

/// The README's commands, with something in the place of what the reader puts in.
fn commands() -> Vec<Vec<String>> {
    let filled_in = |word: &str| match word {
        "N" | "SECONDS" | "CPU" => "1".to_owned(),
        "NAME" => "boot_smp".to_owned(),
        word => word.split('|').next().unwrap_or_default().to_owned(),
    };
    code_spans(&readme())
        .iter()
        .filter(|span| span.starts_with("cargo "))
        .map(|span| {
            let words = span.split_whitespace().skip(1);
            let words = words.filter(|word| !word.starts_with('+'));
            // Optional arguments are arguments.
            words
                .map(|word| filled_in(word.trim_matches(['[', ']'])))
                .collect()
        })
        .collect()
}

/// A command with `--help` behind it says what it can do, or what is wrong with the words before.
fn is_understood(words: &[String]) -> Result<(), String> {
    let output = Command::new("cargo")
        .args(words)
        .arg("--help")
        .current_dir(ROOT)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| line.contains("error"));
    Err(last.unwrap_or(&said).to_owned())
}

/// Is there such a test or bench, in this package or in one of `qemu`?
fn exists(name: &str) -> bool {
    let folders = [
        "tests",
        "qemu/bench/tests",
        "qemu/bench/benches",
        "qemu/kpcpu/tests",
        "qemu/runner/tests",
        "qemu/simulator/tests",
    ];
    let is_there = |folder: &str| {
        let folder = Path::new(ROOT).join(folder);
        let file = folder.join(format!("{name}.rs"));
        file.is_file() || folder.join(name).join("main.rs").is_file()
    };
    folders.into_iter().any(is_there)
}

#[test]
fn every_command_is_one() {
    let mut commands = commands();
    commands.sort();
    commands.dedup();
    assert!(commands.len() > 30, "only {} commands", commands.len());
    let mut wrong = Vec::new();
    for words in &commands {
        let fault = match words[0].as_str() {
            "demo" | "boot" | "verify" | "simulate" | "pcustat" | "package" => {
                is_understood(words).err()
            }
            "test" | "bench" => {
                let names = words.windows(2).filter(|pair| {
                    ["--test", "--bench"].contains(&pair[0].as_str()) && !exists(&pair[1])
                });
                names.map(|pair| format!("no {}", pair[1])).next()
            }
            other => Some(format!("no command {other}")),
        };
        wrong.extend(fault.map(|fault| format!("cargo {}: {fault}", words.join(" "))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_link_leads_to_a_file() {
    let text = readme();
    let links = text.split("](").skip(1);
    let targets: Vec<&str> = links.filter_map(|rest| rest.split(')').next()).collect();
    let local = |target: &&&str| !target.starts_with("http") && !target.starts_with('#');
    let missing: Vec<_> = targets
        .iter()
        .filter(local)
        .filter(|target| !Path::new(ROOT).join(target).exists())
        .collect();
    assert!(targets.len() > 20, "only {} links", targets.len());
    assert!(missing.is_empty(), "no file: {missing:?}");
}

#[test]
fn every_named_boot_test_exists() {
    let spans = code_spans(&readme());
    let named: Vec<&String> = spans
        .iter()
        .filter(|span| span.starts_with("boot_") && !span.contains([' ', ':']))
        .collect();
    assert!(named.len() > 10, "only {} boot tests", named.len());
    let missing: Vec<_> = named.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "no test: {missing:?}");
}

/// The boot test fails where a switch takes more than it may, and where it takes so much less that this would hide the next regression.
#[test]
fn whole_switches_take_what_the_boot_test_lets_them() {
    let test = include_str!("boot_count_switch.rs");
    let field = |text: &str, name: &str| -> Option<u64> {
        let rest = text.split_once(&format!("{name}: "))?.1;
        rest.split_once(',')?.0.parse().ok()
    };
    let costs: Vec<(&str, u64, u64)> = test
        .split("what: \"")
        .skip(1)
        .filter_map(|text| {
            let (what, rest) = text.split_once('"')?;
            Some((what, field(rest, "bound")?, field(rest, "may")?))
        })
        .collect();
    assert_eq!(costs.len(), 6, "{costs:?}");
    let readme = readme();
    for (what, bound, may) in costs {
        let line = format!("| {what} | ");
        let row = readme.lines().find_map(|text| text.strip_prefix(&line));
        let row = row.unwrap_or_else(|| panic!("the README has no row {line}"));
        let figures: Vec<u64> = row
            .split('|')
            .filter_map(|cell| cell.trim().parse().ok())
            .collect();
        let [count, shown] = figures[..] else {
            panic!("{line}{row}");
        };
        assert_eq!(shown, bound, "{what}");
        assert!(
            count <= may && may * 9 <= count * 10,
            "{what}: {count}, it may be {may}"
        );
    }
}

#[test]
fn a_wrong_command_is_found() {
    let words = ["demo", "--no-such-option"].map(String::from);
    assert!(is_understood(&words).is_err());
    assert!(!exists("boot_no_such_test"));
}
