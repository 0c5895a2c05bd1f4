//! Everything but the run of cargo-mutants.

use std::fs;

use super::survivors::Table;
use super::{Report, TABLE, judge};

const ROW: &str = "[[equivalent]]\nfile = 'src/a.rs'\ncode = 'a | b'\nmutation = 'replace | with ^ in f'\nwhy = 'no common bit'\n";

/// cargo-mutants' report of one caught mutant, and of one at line 2 with this summary.
fn report(summary: &str) -> Report {
    let mutant = |line: usize| {
        serde_json::json!({"Mutant": {
            "name": format!("src/a.rs:{line}:7: replace | with ^ in f"),
            "file": "src/a.rs",
            "span": {"start": {"line": line, "column": 7}, "end": {"line": line, "column": 8}},
        }})
    };
    let report = serde_json::json!({
        "end_time": "2026-01-01T00:00:00Z",
        "outcomes": [
            {"scenario": "Baseline", "summary": "Success"},
            {"scenario": mutant(1), "summary": "CaughtMutant"},
            {"scenario": mutant(2), "summary": summary},
        ],
    });
    serde_json::from_value(report).expect("a report")
}

/// Judges the report in a checkout with this table; gives the error and the table that was written.
fn judged(report: &Report, table: &str) -> (Option<String>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    for (file, text) in [("src/a.rs", "fn f() {\n    a | b\n}\n"), (TABLE, table)] {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    let error = judge(report, folder.path(), folder.path()).err();
    let written = fs::read_to_string(folder.path().join("mutants.toml"));
    (
        error.map(|error| error.to_string()),
        written.unwrap_or_default(),
    )
}

#[test]
fn an_argued_survivor_is_no_failure_wherever_it_stands() {
    let (error, written) = judged(&report("MissedMutant"), ROW);
    assert_eq!(error, None);
    assert_eq!(Table::parse(&written), Table::parse(ROW));
}

#[test]
fn a_survivor_without_an_argument_is_written_into_the_new_table() {
    for table in ["", &ROW.replace("no common bit", " ")] {
        let (error, written) = judged(&report("MissedMutant"), table);
        let error = error.expect("a failure");
        assert!(
            error.starts_with("1 complaints about tests/tables/mutants.toml"),
            "{error}"
        );
        let filled = ROW.replace("no common bit", if table.is_empty() { "" } else { " " });
        assert_eq!(Table::parse(&written), Table::parse(&filled));
    }
}

#[test]
fn a_row_whose_mutant_is_noticed_has_to_go() {
    for summary in ["CaughtMutant", "Timeout", "Unviable"] {
        let (error, written) = judged(&report(summary), ROW);
        assert!(error.is_some(), "{summary}");
        assert_eq!(Table::parse(&written), Ok(Table::default()));
        assert_eq!(judged(&report(summary), "").0, None, "{summary}");
    }
}

#[test]
fn a_run_that_was_cut_off_or_tested_nothing_is_a_failure() {
    let mut cut = report("MissedMutant");
    cut.end_time = None;
    assert!(
        judged(&cut, ROW)
            .0
            .expect("cut off")
            .contains("did not come to its end")
    );
    let mut empty = report("MissedMutant");
    empty.outcomes.truncate(1);
    assert!(
        judged(&empty, "")
            .0
            .expect("empty")
            .contains("tested nothing")
    );
    assert!(
        judged(&report("Failure"), "")
            .0
            .expect("failed")
            .contains("not all")
    );
}
