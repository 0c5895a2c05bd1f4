//! `tests/tables/checklist.toml`, `scenarios.toml` and `peers.toml`: every row has an answer, and all that it names is there; and so is
//! every test that the embedding guide and the course name.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

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

#[derive(Debug, Deserialize)]
struct Scenarios {
    scenario: Vec<Scenario>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    letter: char,
    what: String,
    test: Option<String>,
    open: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Peers {
    peer: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    name: String,
    theirs: String,
    asserts: String,
    #[serde(default)]
    tests: Vec<String>,
    #[serde(default)]
    programs: Vec<String>,
    #[serde(default)]
    differs: String,
    open: Option<String>,
}

/// The file at `path` in the repository.
fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn table<T: DeserializeOwned>(name: &str) -> T {
    let path = format!("tests/tables/{name}.toml");
    toml::from_str(&read(&path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn checklist() -> Vec<Row> {
    table::<Checklist>("checklist").row
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

#[test]
fn every_scenario_has_its_boot_test() {
    let scenarios = table::<Scenarios>("scenarios").scenario;
    let letters: String = scenarios.iter().map(|scenario| scenario.letter).collect();
    assert_eq!(letters, "abcdefghijklmnopqrst");
    for Scenario {
        letter,
        what,
        test,
        open,
    } in scenarios
    {
        assert!(!what.is_empty(), "{letter}: what?");
        let Some(test) = test else {
            assert!(open.is_some(), "{letter}: no test, no open work");
            continue;
        };
        assert_eq!(missing(&test), None, "{letter}");
        let (file, name) = test.split_once("::").expect("a file and a function");
        assert!(file.starts_with("tests/boot_"), "{letter}: on the testbed");
        let prefix = format!("scenario_{letter}_");
        assert!(name.starts_with(&prefix), "{letter}: {name}");
    }
}

/// The peers' tests, by their names.
const PEERS: [&str; 15] = [
    "t_fpu",
    "h_fpufork",
    "t_signal_and_fpu",
    "t_ptrace_x86",
    "xstate",
    "corrupt_xstate_header",
    "FPU0000",
    "FPU0001",
    "FPU0002",
    "FPU0003",
    "FPU0004",
    "avx_sig",
    "spawn_fpu",
    "fpu_sharing",
    "YMM-upper sentinel",
];

#[test]
fn every_peers_test_has_ours() {
    let peers = table::<Peers>("peers").peer;
    let names: Vec<_> = peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(names, PEERS);
    let manifest = read("qemu/programs/Cargo.toml");
    for peer in &peers {
        let name = &peer.name;
        assert!(
            ![&peer.theirs, &peer.asserts].iter().any(|s| s.is_empty()),
            "{name}: where, and what?"
        );
        let is_answered = !peer.tests.is_empty() || !peer.programs.is_empty();
        assert!(is_answered || peer.open.is_some(), "{name}: none of ours");
        assert!(
            is_answered || peer.differs.is_empty(),
            "{name}: what differs, where there is nothing?"
        );
        for test in &peer.tests {
            assert_eq!(missing(test), None, "{name}");
        }
        for program in &peer.programs {
            let is_there = manifest.contains(&format!("[[bin]]\nname = \"{program}\"\n"));
            assert!(is_there, "{name}: there is no program {program}");
        }
    }
}

/// The tests that a text names, between backquotes.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let is_test = |word: &&str| word.starts_with("tests/") && word.contains(".rs::");
    text.split('`').filter(is_test)
}

#[test]
fn every_test_that_the_course_names_is_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/course");
    let mut n_units = 0;
    for file in fs::read_dir(folder).expect("the course") {
        let text = fs::read_to_string(file.expect("a unit").path()).expect("a unit");
        assert!(named(&text).count() > 0, "no test: {text}");
        for test in named(&text) {
            assert_eq!(missing(test), None);
        }
        n_units += 1;
    }
    assert_eq!(n_units, 6, "units");
}

#[test]
fn every_test_that_the_guide_names_is_run() {
    let text = read("src/guide/wrong.rs");
    let rows = text
        .lines()
        .filter(|line| line.starts_with("//! | "))
        .skip(1);
    let mut n_rows = 0;
    for row in rows {
        let tests: Vec<_> = named(row).collect();
        assert_eq!(tests.len(), 1, "one test a row: {row}");
        assert_eq!(missing(tests[0]), None, "{row}");
        n_rows += 1;
    }
    assert_eq!(n_rows, 18, "rows");
}
