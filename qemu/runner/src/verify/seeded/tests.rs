//! Everything but the builds.

use std::fs;
use std::path::Path;

use walkdir::WalkDir;

use super::{Bug, COURSE, Outcome, SEEDED, in_one_line, outcome, patched};
use crate::place::checkout;

/// Does the test's name stand in the sources of its target? `cargo verify` runs it; this finds what was renamed sooner.
fn is_named(bug: &Bug) -> bool {
    let root = checkout();
    let roots = match bug.target.as_str() {
        "lib" => vec![root.join("src")],
        target => vec![
            root.join(format!("tests/{target}.rs")),
            root.join("tests").join(target),
        ],
    };
    let name = bug.test.rsplit("::").next();
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let roots = roots.iter().filter(|root| root.exists());
    let files = roots.flat_map(WalkDir::new).filter_map(Result::ok);
    files
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .any(|text| {
            text.split(|letter| !is_part(letter))
                .any(|word| Some(word) == name)
        })
}

#[test]
fn every_patch_applies_and_every_named_test_exists() {
    let bugs = SEEDED.read(&checkout()).expect("the table");
    assert!(bugs.len() >= 20, "{} bugs", bugs.len());
    for bug in &bugs {
        patched(&bug.patch, &checkout()).expect("a patch that applies");
        assert!(
            is_named(bug),
            "there is no test {} in {}",
            bug.test,
            bug.target
        );
    }
}

/// Each unit names its test and its solution, which changes one line.
#[test]
fn every_unit_of_the_course_has_its_solution() {
    let bugs = COURSE.read(&checkout()).expect("the table");
    let units: Vec<_> = bugs.iter().map(|bug| bug.source.as_str()).collect();
    assert_eq!(units.len(), 6, "{units:?}");
    for bug in &bugs {
        COURSE
            .patched(&bug.patch, &checkout())
            .expect("a patch that applies");
        let file = format!("tests/course/{}.patch", bug.patch);
        let patch = fs::read_to_string(checkout().join(&file)).expect("a patch");
        let changed = |sign, header| {
            let lines = patch.lines().filter(|line| line.starts_with(sign));
            lines.filter(|line| !line.starts_with(header)).count()
        };
        let n_changed = [changed('-', "---"), changed('+', "+++")];
        assert!(n_changed.iter().all(|&n| n <= 1), "{file}: {n_changed:?}");
        let unit = bug.source.strip_prefix("course::").expect("a unit");
        let text = fs::read_to_string(checkout().join(format!("src/course/{unit}.rs")));
        let text = text.expect("the unit");
        assert!(text.contains(&format!("`{file}`")), "{unit}: {file}");
        let (module, name) = bug.test.split_once("::").expect("a module's test");
        let by = format!("`tests/{}/{module}.rs::{name}`", bug.target);
        assert!(text.contains(&by), "{unit}: {by}");
        assert!(is_named(bug), "{unit}: there is no {by}");
    }
}

/// A checkout of one source file, one patch of it and one row.
fn small(source: &str, patch: &str, row: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (file, text) in [
        ("src/a.rs", source),
        ("tests/seeded/01-a.patch", patch),
        ("tests/tables/seeded.toml", row),
    ] {
        let to = folder.path().join(file);
        fs::create_dir_all(to.parent().expect("a parent")).expect("a folder");
        fs::write(to, text).expect("a file");
    }
    folder
}

const PATCH: &str =
    "A kernel had it.\n\n--- a/src/a.rs\n+++ b/src/a.rs\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n";

#[test]
fn a_patch_is_applied_to_the_file_that_it_names() {
    let folder = small("one\ntwo\n", PATCH, "");
    let patched = patched("01-a", folder.path()).expect("a patch that applies");
    assert_eq!(
        (patched.file.as_path(), patched.text.as_str()),
        (Path::new("src/a.rs"), "one\nthree\n")
    );
}

#[test]
fn a_patch_that_does_not_apply_is_an_error_with_its_name() {
    for (source, patch, expected) in [
        (
            "one\nother\n",
            PATCH,
            "tests/seeded/01-a.patch no longer applies to src/a.rs",
        ),
        ("one\ntwo\n", "no patch", "no line `+++ b/src/..`"),
        (
            "one\ntwo\n",
            "--- a/src/a.rs\n+++ b/src/a.rs\n",
            "changes nothing",
        ),
    ] {
        let folder = small(source, patch, "");
        let error = patched("01-a", folder.path()).expect_err("an error");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn the_table_and_the_folder_are_one_set() {
    let row = "[[bug]]\npatch = '01-a'\nsource = 's'\ntarget = 't'\ntest = 'n'\nsays = 'w'\n";
    assert_eq!(
        SEEDED
            .read(small("", PATCH, row).path())
            .expect("a table")
            .len(),
        1
    );
    for (table, expected) in [
        (
            row.replace("01-a", "02-b"),
            "has no row for tests/seeded/01-a.patch",
        ),
        (
            format!("{row}{}", row.replace("01-a", "02-b")),
            "tests/seeded/02-b.patch does not exist",
        ),
        (row.repeat(2), "01-a stands there twice"),
        (row.replace("says", "said"), "unknown field `said`"),
    ] {
        let error = SEEDED
            .read(small("", PATCH, &table).path())
            .expect_err("an error");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn only_libtests_own_verdict_counts() {
    let said = "running 1 test\ntest a::b ... FAILED\n\nfailures:\n";
    assert_eq!(outcome("a::b", said), Outcome::Failed);
    assert_eq!(outcome("b", said), Outcome::None);
    assert_eq!(outcome("a::b", "test a::b ... ok\n"), Outcome::Passed);
    assert_eq!(
        outcome("a::b", "test a::b - should panic ... FAILED\n"),
        Outcome::Failed
    );
    assert_eq!(
        outcome("a::b", "test a::b ... "),
        Outcome::None,
        "it was killed"
    );
    assert_eq!(
        outcome("a::b", "test result: ok. 0 passed\n"),
        Outcome::None,
        "no such test"
    );
}

#[test]
fn white_space_in_what_a_test_says_does_not_count() {
    assert_eq!(in_one_line("  left: 0\n right: 7\n"), "left: 0 right: 7");
}
