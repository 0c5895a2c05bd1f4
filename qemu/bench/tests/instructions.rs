//! The instructions of pcu9's operations, as `cargo bench` counts them, stay within their bounds: looked for in the JSON that it writes.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn operations_take_no_more_instructions_than_they_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new("cargo")
        .args([
            "bench",
            "--quiet",
            "--package",
            "pcu9-bench",
            "--bench",
            "instructions",
        ])
        .current_dir(&root)
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let json =
        fs::read_to_string(root.join("target/pcu9/instructions.json")).expect("it was written");
    let results: Value = serde_json::from_str(&json).expect("JSON");
    let operations = results["operations"].as_array().expect("rows");
    assert!(operations.len() >= 9, "{json}");
    let mut within = 0;
    for row in operations {
        let figure = |key: &str| row[key].as_u64();
        let (count, ceiling) = (
            figure("pcu9").expect("a count"),
            figure("ceiling").expect("a ceiling"),
        );
        assert!(count > 0 && count <= ceiling, "{row}");
        within += u32::from(figure("netbsd").is_some_and(|netbsd| count <= netbsd));
    }
    assert!(within >= 3, "no more than NetBSD's: {json}");
    let readme = fs::read_to_string(root.join("README.md"))
        .expect("a README")
        .replace('`', "");
    for row in operations {
        let (name, count) = (row["operation"].as_str(), row["pcu9"].as_u64());
        let Some(netbsd) = row["netbsd"].as_u64() else {
            continue;
        };
        let line = format!("| {} | ", name.expect("a name"));
        let shown = readme.lines().find_map(|text| text.strip_prefix(&line));
        let shown: Vec<u64> = shown
            .unwrap_or_else(|| panic!("the README has no row {line}"))
            .split('|')
            .filter_map(|cell| cell.trim().parse().ok())
            .collect();
        let count = count.expect("a count");
        // Compilers differ by a few instructions.
        assert!(
            shown.len() == 2 && shown[0].abs_diff(count) <= 1 + count / 30 && shown[1] == netbsd,
            "the README says {shown:?}: {row}"
        );
    }
    let memory = |name: &str| results["memory"][name].as_u64();
    assert!(
        memory("an LWP's state, one unit").is_some_and(|bytes| bytes <= 24),
        "{json}"
    );
    assert!(
        memory("an LWP's state, three units").is_some_and(|bytes| bytes <= 48),
        "{json}"
    );
}
