//! `tests/tables/kvm.toml` names items that exist and tests that run.

#![cfg(not(target_os = "none"))]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    says: String,
    item: String,
    test: String,
}

/// The text of all Rust files under `folder`.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all += &fs::read_to_string(&path).expect("text");
        }
    }
    all
}

#[test]
fn every_row_names_an_item_and_a_test_that_there_are() {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let checkout = package.ancestors().nth(2).expect("the checkout");
    let text = fs::read_to_string(checkout.join("tests/tables/kvm.toml")).expect("the table");
    let table: BTreeMap<String, Vec<Row>> = toml::from_str(&text).expect("it is well-formed");
    let items = sources(&package.join("src"));
    let tests = sources(&package.join("tests")) + &sources(&package.join("../runner/tests/dump"));
    let kinds: Vec<_> = table.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["defect", "page", "source"]);
    for row in table.values().flatten() {
        let (item, says) = (&row.item, &row.says);
        let is_defined = [
            format!("fn {item}("),
            format!("struct {item} "),
            format!("enum {item} "),
            format!("    {item}("),
            format!("    {item} {{"),
            format!("{item}: u64,"),
        ];
        assert!(
            is_defined.iter().any(|form| items.contains(form)),
            "{item}: {says}"
        );
        let attribute = format!("#[test]\nfn {}()", row.test);
        assert!(tests.contains(&attribute), "{}: {says}", row.test);
    }
}
