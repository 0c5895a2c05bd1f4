//! Misuse of the tokens does not compile, and the messages say why: they are kept in `misuse/*.stderr`.
//!
//! A new compiler may word one anew: look at what it says, and if it still names the misuse, take it over with
//! `TRYBUILD=overwrite cargo test --package pcu9-compile-fail`. They are a toolchain's without the component `rust-src`, as
//! `rust-toolchain.toml` has it: with it the compiler quotes the library's source besides, where a message leads through one of its types.

use std::fs;
use std::path::Path;

/// The files in `misuse` whose names end with this.
fn files(extension: &str) -> Vec<String> {
    let misuse = Path::new(env!("CARGO_MANIFEST_DIR")).join("misuse");
    let entries = fs::read_dir(&misuse).unwrap_or_else(|e| panic!("{}: {e}", misuse.display()));
    let names = entries.filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(extension).map(str::to_owned)
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn misuse_does_not_compile_and_the_message_says_why() {
    trybuild::TestCases::new().compile_fail("misuse/*.rs");
}

/// trybuild writes a message that it does not find into a directory of its own, and passes.
#[test]
fn every_misuse_has_its_message() {
    assert!(files(".rs").len() >= 15, "{:?}", files(".rs"));
    assert_eq!(files(".rs"), files(".stderr"));
}
