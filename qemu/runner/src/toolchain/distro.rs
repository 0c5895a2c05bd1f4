//! Route 3: the distribution's compiler with a private sysroot.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Toolchain;
use super::sysroot::Sysroot;
use crate::error::{Error, Result};
use crate::install;
use crate::place;
use crate::process::capture;
use crate::progress::say;

/// Debian's packages of a compiler that is new enough, its library source, cargo and clippy.
const PACKAGES: [&str; 4] = ["rustc-web", "rust-web-src", "cargo-web", "rust-web-clippy"];
/// The oldest compiler that builds the project, as (major, minor).
const OLDEST: (u32, u32) = (1, 88);
const QUESTION_LIMIT: Duration = Duration::from_secs(30);

/// The distribution's compiler below `prefix`, and the place for what is made of it.
#[derive(Debug)]
pub(super) struct Distro {
    prefix: PathBuf,
    base: PathBuf,
}

impl Distro {
    /// Names the compiler below `prefix` (`/usr`) and the directory for sysroots.
    pub(super) fn new(prefix: impl Into<PathBuf>, base: &Path) -> Self {
        Self {
            prefix: prefix.into(),
            base: base.to_owned(),
        }
    }

    /// Returns the toolchain if nothing has to be installed or built for it.
    pub(super) fn find(&self) -> Option<Toolchain> {
        let version = self.version().ok()?;
        let sysroot = self.sysroot(&version).find()?;
        self.toolchain(&version, &sysroot).ok()
    }

    /// Returns the toolchain; installs and builds what is missing, and says so.
    pub(super) fn provide(&self) -> Result<Toolchain> {
        let version = match self.version() {
            Ok(version) => version,
            Err(lacks) => {
                say(format_args!("preparing the guest's toolchain: {lacks}"));
                install::packages("a compiler for the guest", &PACKAGES)?;
                self.version().map_err(|lacks| {
                    Error::unusable(format!(
                        "the packages {} are installed and still {lacks}",
                        PACKAGES.join(", ")
                    ))
                })?
            }
        };
        // Before the build of the sysroot, which takes a minute: what has no linker should end soon.
        linker()?;
        let sysroot = self.sysroot(&version).provide()?;
        self.toolchain(&version, &sysroot)
    }

    fn bin(&self, program: &str) -> PathBuf {
        self.prefix.join("bin").join(program)
    }

    /// Returns the compiler's version, as a key for what is built with it, or what is missing.
    fn version(&self) -> Result<String, String> {
        for program in ["rustc", "cargo"] {
            let program = self.bin(program);
            if !place::is_executable(&program) {
                return Err(format!("there is no {}", program.display()));
            }
        }
        let mut rustc = Command::new(self.bin("rustc"));
        place::forget_cargo(&mut rustc).arg("-vV");
        let said = capture(&mut rustc, QUESTION_LIMIT, 1 << 20)
            .map_err(|e| format!("{} cannot be run: {e}", self.bin("rustc").display()))?;
        let said = String::from_utf8_lossy(&said.output).into_owned();
        let field = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let release = field("release:");
        if !is_new_enough(&release) {
            let rustc = self.bin("rustc");
            return Err(format!("{} is {release}, too old", rustc.display()));
        }
        let source = self.prefix.join("lib/rustlib/src/rust/library/core");
        if !source.is_dir() {
            return Err(format!(
                "there is no library source at {}",
                source.display()
            ));
        }
        let commit: String = field("commit-hash:").chars().take(9).collect();
        Ok(format!("{release}-{commit}"))
    }

    fn sysroot(&self, version: &str) -> Sysroot {
        Sysroot {
            cargo: self.bin("cargo"),
            rustc: self.bin("rustc"),
            base: self.base.clone(),
            key: format!("distro-{version}"),
        }
    }

    fn toolchain(&self, version: &str, sysroot: &Path) -> Result<Toolchain> {
        let mut rustflags = vec![format!("--sysroot={}", sysroot.display())];
        rustflags.extend(linker()?);
        Ok(Toolchain {
            name: format!("the distribution's compiler {version}"),
            cargo: self.bin("cargo"),
            rustc: Some(self.bin("rustc")),
            rustflags,
            cargo_clippy: Some(self.bin("cargo-clippy")),
        })
    }
}

fn is_new_enough(release: &str) -> bool {
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST,
        _ => false,
    }
}

/// Returns the compiler's flags that name a linker: Debian's compiler brings none for bare metal.
fn linker() -> Result<Vec<String>> {
    if let Some(lld) = rust_lld() {
        return Ok(vec![format!("-Clinker={}", lld.display())]);
    }
    if let Some(lld) = place::on_path("ld.lld") {
        return Ok(vec![format!("-Clinker={}", lld.display())]);
    }
    if let Some(ld) = place::on_path("ld") {
        let ld = format!("-Clinker={}", ld.display());
        return Ok(vec![ld, "-Clinker-flavor=ld".into()]);
    }
    install::packages("a linker for the guest", &["lld"])?;
    match place::on_path("ld.lld") {
        Some(lld) => Ok(vec![format!("-Clinker={}", lld.display())]),
        None => Err(Error::unusable(
            "the package lld is installed and there is no ld.lld on PATH",
        )),
    }
}

/// Finds the linker that the toolchain in use brings.
fn rust_lld() -> Option<PathBuf> {
    let mut rustc = Command::new("rustc");
    place::forget_cargo(&mut rustc).args(["--print", "target-libdir"]);
    let said = capture(&mut rustc, QUESTION_LIMIT, 1 << 20).ok()?;
    let libraries = String::from_utf8(said.output).ok()?;
    let lld = Path::new(libraries.lines().last()?)
        .parent()?
        .join("bin/rust-lld");
    place::is_executable(&lld).then_some(lld)
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Distro, is_new_enough};
    use crate::process::tests::script;
    use crate::toolchain::TARGET;
    use std::fs;
    use std::path::Path;

    /// A distribution of shell scripts whose cargo "builds" and leaves a mark each time.
    pub(in crate::toolchain) fn stand_in(dir: &Path, release: &str) -> Distro {
        let prefix = dir.join("usr");
        let version = format!(
            "echo 'rustc {release}'; echo 'release: {release}'; echo 'commit-hash: 0123456789abc'"
        );
        script(&prefix.join("bin"), "rustc", &version);
        let mark = dir.join("builds");
        let build = format!(
            "echo build >> {}\ntest \"$RUSTC_BOOTSTRAP\" = 1 || exit 3\n\
             while [ $# -gt 0 ]; do [ \"$1\" = --target-dir ] && out=$2; shift; done\n\
             deps=$out/{TARGET}/release/deps; mkdir -p $deps\n\
             for c in core-1 alloc-2 compiler_builtins-3 pcu9_guest_core-4; do touch $deps/lib$c.rlib; done",
            mark.display()
        );
        script(&prefix.join("bin"), "cargo", &build);
        fs::create_dir_all(prefix.join("lib/rustlib/src/rust/library/core")).expect("a directory");
        Distro::new(prefix, &dir.join("base"))
    }

    #[test]
    fn the_sysroot_is_built_once_and_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let distro = stand_in(dir.path(), "1.96.0");
        assert_eq!(distro.find(), None);
        let made = distro.provide().expect("a toolchain");
        assert_eq!(distro.find().as_ref(), Some(&made));
        assert_eq!(distro.provide().as_ref(), Ok(&made));
        let builds = fs::read_to_string(dir.path().join("builds")).expect("the mark");
        assert_eq!(builds, "build\n");
        assert!(
            made.rustflags[0].contains("distro-1.96.0-012345678"),
            "{made:?}"
        );
    }

    #[test]
    fn parallel_calls_build_it_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let distro = stand_in(dir.path(), "1.96.0");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| distro.provide().expect("a toolchain"));
            }
        });
        let builds = fs::read_to_string(dir.path().join("builds")).expect("the mark");
        assert_eq!(builds, "build\n");
    }

    #[test]
    fn what_an_interrupted_build_left_is_not_used() {
        let dir = tempfile::tempdir().expect("a directory");
        let distro = stand_in(dir.path(), "1.96.0");
        let left = dir
            .path()
            .join("base/building-distro-1.96.0-012345678/sysroot");
        fs::create_dir_all(&left).expect("a directory");
        assert_eq!(distro.find(), None);
        assert!(distro.provide().is_ok());
        assert!(!left.exists());
    }

    #[test]
    fn an_old_compiler_is_said_to_be_old() {
        let dir = tempfile::tempdir().expect("a directory");
        let distro = stand_in(dir.path(), "1.63.0");
        assert!(
            distro
                .version()
                .is_err_and(|lacks| lacks.contains("1.63.0"))
        );
        assert!(is_new_enough("1.88.0") && is_new_enough("2.0.0"));
        assert!(!is_new_enough("1.87.9") && !is_new_enough("") && !is_new_enough("x.y"));
    }
}
