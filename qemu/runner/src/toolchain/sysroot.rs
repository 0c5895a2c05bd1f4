//! A private sysroot: `core`, `alloc` and `compiler_builtins` for the guest, built once from the library source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::TARGET;
use super::rustup::has_core;
use crate::cargo;
use crate::error::{During, Error, Result};
use crate::lock::Lock;
use crate::place;
use crate::progress::Step;

/// The crate for whose sake cargo builds the libraries.
const CRATE: &str = "pcu9-guest-core";

/// What a sysroot is made with, and where.
#[derive(Debug)]
pub(super) struct Sysroot {
    /// The cargo of the compiler.
    pub(super) cargo: PathBuf,
    /// The compiler.
    pub(super) rustc: PathBuf,
    /// The directory of all sysroots.
    pub(super) base: PathBuf,
    /// The name of this one: it differs with the compiler's version.
    pub(super) key: String,
}

impl Sysroot {
    /// Returns the sysroot if it was built.
    pub(super) fn find(&self) -> Option<PathBuf> {
        let place = self.base.join(&self.key);
        has_core(&place).then_some(place)
    }

    /// Returns the sysroot, built now if it was not before.
    ///
    /// It is built beside its place and renamed, under a lock: what has the right name is complete.
    pub(super) fn provide(&self) -> Result<PathBuf> {
        if let Some(sysroot) = self.find() {
            return Ok(sysroot);
        }
        let _lock = Lock::take(&self.base, "makes the guest's toolchain")?;
        if let Some(sysroot) = self.find() {
            return Ok(sysroot);
        }
        let building = self.base.join(format!("building-{}", self.key));
        if building.exists() {
            fs::remove_dir_all(&building).during(building.display())?;
        }
        self.build(&building)?;
        let place = self.base.join(&self.key);
        fs::rename(building.join("sysroot"), &place).during(place.display())?;
        fs::remove_dir_all(&building).during(building.display())?;
        Ok(place)
    }

    /// Builds the libraries in `dir` and copies them to `dir/sysroot`.
    fn build(&self, dir: &Path) -> Result<()> {
        let source = dir.join("src");
        fs::create_dir_all(&source).during(source.display())?;
        let manifest = format!(
            "[package]\nname = \"{CRATE}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n"
        );
        let manifest_path = dir.join("Cargo.toml");
        fs::write(&manifest_path, manifest).during(manifest_path.display())?;
        fs::write(source.join("lib.rs"), "#![no_std]\n").during(source.display())?;

        let target_dir = dir.join("target");
        let mut command = Command::new(&self.cargo);
        place::forget_cargo(&mut command)
            .args(["build", "--release", "--target", TARGET])
            .args(["-Zbuild-std=core,alloc,compiler_builtins"])
            .args(["-Zbuild-std-features=compiler-builtins-mem"])
            .arg("--target-dir")
            .arg(&target_dir)
            .arg("--manifest-path")
            .arg(&manifest_path)
            .env("RUSTC", &self.rustc)
            // Lets a stable compiler build its own library; the project itself is built without it.
            .env("RUSTC_BOOTSTRAP", "1")
            // Takes the place of the flags in .cargo/config.toml, which are for kernels.
            .env("RUSTFLAGS", "-Cdebuginfo=line-tables-only")
            .current_dir(dir);
        let what = format!("building core and alloc for {TARGET} (once, about a minute)");
        let step = Step::start(&what);
        cargo::run(&mut command, &what, &step)?;
        step.done();

        let from = target_dir.join(TARGET).join("release/deps");
        let to = dir.join("sysroot/lib/rustlib").join(TARGET).join("lib");
        fs::create_dir_all(&to).during(to.display())?;
        copy_libraries(&from, &to)?;
        if has_core(&dir.join("sysroot")) {
            return Ok(());
        }
        let cargo = self.cargo.display();
        Err(Error::failed(format!(
            "{cargo} -Zbuild-std succeeded but left no core in {}",
            from.display()
        )))
    }
}

fn copy_libraries(from: &Path, to: &Path) -> Result<()> {
    let own = format!("lib{}-", CRATE.replace('-', "_"));
    for file in from.read_dir().during(from.display())? {
        let file = file.during(from.display())?;
        let name = file.file_name();
        let text = name.to_string_lossy();
        if text.ends_with(".rlib") && !text.starts_with(&own) {
            fs::copy(file.path(), to.join(&name)).during(file.path().display())?;
        }
    }
    Ok(())
}
