//! Whoever searches the documentation for a name of NetBSD's or FreeBSD's finds what it is here.
#![cfg(not(target_os = "none"))]

use std::fs;
use std::path::{Path, PathBuf};

/// The Rust files below a folder.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The names in the first column of the tables in a crate's documentation.
fn foreign_names(library: &str) -> Vec<String> {
    let rows = library
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"));
    rows.filter_map(|row| row.split(" | ").next())
        .flat_map(|cell| {
            cell.split('`')
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .map(|name| {
            let name = name.strip_prefix("struct ").unwrap_or(&name);
            let end = name.find(['(', '[']).unwrap_or(name.len());
            name[..end].to_owned()
        })
        .filter(|name| !name.trim_matches([' ', ',']).is_empty())
        .collect()
}

#[test]
fn every_name_in_the_tables_is_found_by_a_search() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let text: String = files
        .iter()
        .map(|file| fs::read_to_string(file).expect("a source"))
        .collect();
    let library = fs::read_to_string(root.join("src/lib.rs")).expect("the library");
    let names = foreign_names(&library);
    assert!(names.len() > 40, "only {} names", names.len());
    let is_found = |name: &&String| {
        text.contains(&format!("alias = \"{name}\"")) || text.contains(&format!("const {name} ="))
    };
    let missing: Vec<_> = names.iter().filter(|name| !is_found(name)).collect();
    assert!(missing.is_empty(), "no alias for {missing:?}");
}
