//! The C programs of `qemu/programs/c`: built by musl-gcc as anybody builds a static program, and checked for exact arithmetic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::exact;
use crate::error::{During, Error, Result};
use crate::install::{self, last_lines};
use crate::place;
use crate::process::capture;
use crate::progress::Step;

const COMPILER: &str = "musl-gcc";
/// It is a script that runs the host's compiler.
const HOST_COMPILER: &str = "gcc";

/// Builds them and returns their files.
pub(crate) fn build() -> Result<Vec<PathBuf>> {
    let compiler = provide()?;
    let sources = sources(&place::checkout().join("qemu/programs/c"))?;
    let dir = place::target("programs").join("c");
    fs::create_dir_all(&dir).during(dir.display())?;
    let step = Step::start(format!("building {} C programs", sources.len()));
    let built = sources
        .iter()
        .map(|source| {
            let name = source.file_stem().unwrap_or_default();
            step.note(name.to_string_lossy());
            compile(&compiler, source, &[], &dir.join(name))
        })
        .collect();
    step.done();
    built
}

/// Builds `source` with `flags` to `program`, which it returns.
pub(crate) fn build_one(source: &Path, flags: &[&str], program: &Path) -> Result<PathBuf> {
    compile(&provide()?, source, flags, program)
}

/// Finds the compiler, or installs it.
fn provide() -> Result<PathBuf> {
    let mut packages = Vec::new();
    for (program, package) in [(COMPILER, "musl-tools"), (HOST_COMPILER, "gcc")] {
        if place::on_path(program).is_none() {
            packages.push(package);
        }
    }
    if !packages.is_empty() {
        install::packages(COMPILER, &packages)?;
    }
    place::on_path(COMPILER).ok_or_else(|| {
        Error::unusable(format!(
            "the package musl-tools is installed and there is no {COMPILER} on PATH"
        ))
    })
}

/// The sources in `dir`, by name.
fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(dir).during(dir.display())? {
        let path = entry.during(dir.display())?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            sources.push(path);
        }
    }
    sources.sort();
    if sources.is_empty() {
        return Err(Error::failed(format!("{}: no C program", dir.display())));
    }
    Ok(sources)
}

fn compile(compiler: &Path, source: &Path, flags: &[&str], program: &Path) -> Result<PathBuf> {
    // Two runs of this program may build at once, so each puts a whole file in the place.
    let own = program.with_extension(std::process::id().to_string());
    let mut command = Command::new(compiler);
    command.args(["-static", "-O2"]).args(flags);
    command.arg("-o").arg(&own).arg(source);
    let said = capture(&mut command, Duration::from_mins(2), 1 << 20).during(COMPILER)?;
    if !said.ended.is_success() {
        let text = String::from_utf8_lossy(&said.output);
        return Err(Error::failed(format!(
            "{}: {COMPILER} ended with {}:\n{}",
            source.display(),
            said.ended,
            last_lines(&text, 15).join("\n")
        )));
    }
    let image = fs::read(&own).during(own.display())?;
    let inexact = exact::inexact(&image).during(own.display())?;
    fs::rename(&own, program).during(program.display())?;
    match inexact.first() {
        None => Ok(program.to_owned()),
        Some(found) => Err(Error::failed(format!(
            "{}: {} instructions whose results differ between processors, the first {found}: use what is made of + - * / and \
             square roots",
            source.display(),
            inexact.len()
        ))),
    }
}
