//! `tests/tables/checklist.toml`: every row has an answer, and every test that it names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// The rows of each letter: leaks, input from user space, life cycle.
const ROWS: [(char, usize); 3] = [('L', 12), ('V', 14), ('C', 27)];

#[derive(Debug, Deserialize)]
struct Checklist {
    row: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(rename = "row")]
    name: String,
    about: String,
    #[serde(default)]
    tests: Vec<String>,
    #[serde(default)]
    on: Vec<String>,
    open: Option<String>,
    why: Option<String>,
}

fn checklist() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables/checklist.toml");
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let list: Checklist =
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    list.row
}

/// Where the tests of a file run.
fn places(path: &str) -> &'static [&'static str] {
    if path.starts_with("tests/boot_") {
        &["QEMU", "Bochs"]
    } else if path.starts_with("tests/fpu_mock/foreign/linux/") {
        // The unit is the mock's, and the host's Linux judges.
        &["host", "mock"]
    } else if path.starts_with("tests/fpu_mock/") || path == "tests/mock_cpu.rs" {
        &["mock"]
    } else {
        &["host"]
    }
}

/// What is wrong with a test's name: there is no such function in the file, or nothing runs it.
fn missing(test: &str) -> Option<String> {
    let Some((path, name)) = test.split_once("::") else {
        return Some(format!("{test}: not FILE::FUNCTION"));
    };
    let Ok(source) = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)) else {
        return Some(format!("{path}: there is no such file"));
    };
    let Some(before) = ["(", "<M: Machine>("]
        .iter()
        .find_map(|end| Some(source.split_once(&format!("fn {name}{end}"))?.0))
    else {
        return Some(format!("{path}: there is no function {name}"));
    };
    // A boot test's cases, and tests that run on each variant, stand in a list in front of the functions.
    let is_listed = ["boot_tests! {", "on_each_variant! {"]
        .iter()
        .filter_map(|list| before.split_once(list))
        .any(|(_, list)| {
            let list = list.split_once('}').map_or(list, |(list, _)| list);
            let mut words = list.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            words.any(|word| word == name)
        });
    let is_added = before.contains(&format!("\"{name}\", {name})"));
    let is_run = is_listed || is_added || {
        // Nothing but attributes and comments stands between `#[test]` and its function.
        let mut lines = before.lines().rev().map(str::trim);
        lines
            .find(|line| !line.is_empty() && !line.starts_with("//"))
            .is_some_and(|line| line == "#[test]" || line.starts_with("#[should_panic"))
    };
    (!is_run).then(|| format!("{path}: {name} is not a test that is run"))
}

#[test]
fn every_row_is_there_once() {
    let expected = ROWS
        .iter()
        .flat_map(|&(letter, n)| (1..=n).map(move |number| format!("{letter}{number}")));
    let seen: Vec<_> = checklist().into_iter().map(|row| row.name).collect();
    assert_eq!(seen, expected.collect::<Vec<_>>());
}

#[test]
fn every_row_has_an_answer() {
    for row in checklist() {
        assert!(!row.about.is_empty(), "{}: about what?", row.name);
        assert!(
            !row.tests.is_empty() || row.open.is_some() || row.why.is_some(),
            "{}: no test, no open work, no reason",
            row.name
        );
    }
}

#[test]
fn every_named_test_is_run_where_the_row_says() {
    let mut wrong = Vec::new();
    for row in checklist() {
        wrong.extend(row.tests.iter().filter_map(|test| missing(test)));
        let places: BTreeSet<_> = row
            .tests
            .iter()
            .filter_map(|test| Some(places(test.split_once("::")?.0)))
            .flatten()
            .copied()
            .collect();
        let said: BTreeSet<_> = row.on.iter().map(String::as_str).collect();
        if places != said {
            wrong.push(format!("{}: runs on {places:?}, not on {said:?}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_test_that_is_gone_is_noticed() {
    for test in [
        "tests/mock_cpu.rs",
        "tests/no_such_file.rs::a_test",
        "tests/mock_cpu.rs::no_such_test",
        "tests/mock_cpu.rs::poisoned",
        "tests/boot_leaks.rs::no_such_case",
        "tests/boot_leaks.rs::check",
    ] {
        assert!(missing(test).is_some(), "{test}");
    }
}
