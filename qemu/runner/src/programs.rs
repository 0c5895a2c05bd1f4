//! The ring-3 programs: built for the host, checked, run once on the host, packed for the guest. Those in Rust are built by cargo, those
//! in C by musl-gcc ([`musl`]).

mod archive;
mod elf;
mod exact;
pub(crate) mod musl;
mod oracle;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo;
use crate::error::{During, Error, Result};
use crate::place;

pub(crate) use archive::Archive;
pub(crate) use oracle::{Oracle, run};

/// A program that can run on the host and in the guest.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Its name in the archive, in the protocol and in reports: different for each.
    pub(crate) name: String,
    /// Its file.
    pub(crate) path: PathBuf,
    /// The file's bytes.
    pub(crate) image: Vec<u8>,
    /// The CPU features that its note asks for.
    pub(crate) needs: Vec<String>,
}

/// A file that is no program, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// The name that the program would have had.
    pub(crate) name: String,
    /// What is wrong, with the file's path.
    pub(crate) reason: String,
}

/// Builds the project's own programs with the host's toolchain and returns their files.
pub(crate) fn build() -> Result<Vec<PathBuf>> {
    let mut command = Command::new("cargo");
    place::forget_cargo(&mut command)
        .args(["build", "--package", "pcu9-programs", "--bins"])
        .args(["--profile", "program", "--target-dir"])
        .arg(place::target("programs"));
    let built = cargo::build(&mut command, "building the programs")?;
    if built.is_empty() {
        return Err(Error::failed("the package pcu9-programs has no programs"));
    }
    let mut files: Vec<PathBuf> = built
        .into_iter()
        .map(|executable| executable.path)
        .collect();
    // Cargo's order is another one each time, and Bochs is to do the same each time.
    files.sort();
    Ok(files)
}

/// Reads and checks the programs in `files`; each gets a name of its own.
pub(crate) fn read(files: &[PathBuf]) -> (Vec<Program>, Vec<Rejected>) {
    let mut names = BTreeSet::new();
    let mut programs = Vec::new();
    let mut rejected = Vec::new();
    for path in files {
        let name = new_name(path, &mut names);
        let read = fs::read(path).during(path.display());
        let checked = read.and_then(|image| match elf::needs(&image) {
            Ok(needs) => Ok((image, needs)),
            Err(why) => Err(Error::failed(format!(
                "{}: not a static ELF64 program for x86-64: {why}",
                path.display()
            ))),
        });
        match checked {
            Ok((image, needs)) => programs.push(Program {
                name,
                path: path.clone(),
                image,
                needs,
            }),
            Err(error) => rejected.push(Rejected {
                name,
                reason: error.to_string(),
            }),
        }
    }
    (programs, rejected)
}

/// Makes a name from a file's: without blanks, short enough for the archive, and used by no other program.
fn new_name(path: &Path, names: &mut BTreeSet<String>) -> String {
    const LONGEST: usize = 60;
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    let base: String = file_name
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .take(LONGEST)
        .collect();
    let base = if base.is_empty() {
        "program".into()
    } else {
        base
    };
    let mut name = base.clone();
    let mut number = 1;
    while !names.insert(name.clone()) {
        number += 1;
        name = format!("{base}~{number}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::{new_name, read};
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn names_are_plain_and_differ() {
        let mut names = BTreeSet::new();
        let mut name = |path: &str| new_name(Path::new(path), &mut names);
        assert_eq!(name("/a/nbody"), "nbody");
        assert_eq!(name("/b/nbody"), "nbody~2");
        assert_eq!(name("/c/nbody"), "nbody~3");
        assert_eq!(name("/b/my prog\n"), "my_prog_");
        assert_eq!(name(".."), "program");
        assert_eq!(name(&"x".repeat(200)).len(), 60);
    }

    #[test]
    fn a_file_that_is_no_program_is_named_and_the_others_go_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let text = dir.path().join("notes.txt");
        std::fs::write(&text, "no program").expect("a file");
        let missing = dir.path().join("missing");
        let good = dir.path().join("good");
        std::fs::write(&good, super::elf::tests::program(&[0xc3])).expect("a file");
        let (programs, rejected) = read(&[text, missing, good]);
        assert_eq!(programs.len(), 1);
        assert_eq!(programs[0].name, "good");
        assert_eq!(rejected.len(), 2);
        assert!(rejected[0].reason.contains("notes.txt: not a static ELF64"));
        assert!(rejected[1].reason.contains("missing"));
    }
}
