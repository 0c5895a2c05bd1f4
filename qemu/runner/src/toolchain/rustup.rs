//! Routes 1 and 2: the toolchain in use has the guest's target, or rustup adds it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{TARGET, Toolchain};
use crate::place;
use crate::process::capture;
use crate::progress::Step;

/// Longer than the download of one target takes on a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(100);
const QUESTION_LIMIT: Duration = Duration::from_secs(30);

/// The toolchain in use: what `rustc`, `cargo` and `rustup` on PATH are in the checkout.
#[derive(Debug)]
pub(super) struct Current {
    rustc: PathBuf,
    rustup: PathBuf,
    download_limit: Duration,
}

impl Default for Current {
    fn default() -> Self {
        Self {
            rustc: "rustc".into(),
            rustup: "rustup".into(),
            download_limit: DOWNLOAD_LIMIT,
        }
    }
}

impl Current {
    /// Returns the toolchain when it has `core` for the guest, else what it lacks.
    pub(super) fn find(&self) -> Result<Toolchain, String> {
        let mut rustc = Command::new(&self.rustc);
        place::forget_cargo(&mut rustc).args(["--print", "sysroot"]);
        let rustc = capture(&mut rustc, QUESTION_LIMIT, 1 << 20)
            .map_err(|e| format!("rustc cannot be run: {e}"))?;
        let said = String::from_utf8_lossy(&rustc.output);
        let sysroot = said.lines().last().unwrap_or_default().trim();
        if !rustc.ended.is_success() || sysroot.is_empty() {
            return Err(format!("`rustc --print sysroot`: {}", rustc.ended));
        }
        if !has_core(Path::new(sysroot)) {
            return Err(format!("the toolchain in use has no core for {TARGET}"));
        }
        Ok(Toolchain {
            name: format!("the toolchain in use ({sysroot})"),
            cargo: "cargo".into(),
            rustc: None,
            rustflags: Vec::new(),
            cargo_clippy: None,
        })
    }

    /// Lets rustup add the target; else tells why that was not to be had.
    pub(super) fn add(&self) -> Result<Toolchain, String> {
        let step = Step::start(format!(
            "adding the guest's target: rustup target add {TARGET}"
        ));
        let mut rustup = Command::new(&self.rustup);
        place::forget_cargo(&mut rustup).args(["target", "add", TARGET]);
        // One failure is enough to go on to the next route.
        rustup.env("RUSTUP_MAX_RETRIES", "0");
        let added = capture(&mut rustup, self.download_limit, 1 << 20)
            .map_err(|e| format!("rustup cannot be run: {e}"))?;
        drop(step);
        if !added.ended.is_success() {
            let said = String::from_utf8_lossy(&added.output);
            let reason = said.lines().find(|line| line.starts_with("error"));
            let reason = reason.map_or(String::new(), |line| format!(" ({line})"));
            return Err(format!(
                "rustup target add {TARGET}: {}{reason}",
                added.ended
            ));
        }
        self.find()
    }
}

/// Tells whether `sysroot` has `core` for the guest.
pub(super) fn has_core(sysroot: &Path) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let Ok(files) = libraries.read_dir() else {
        return false;
    };
    files.flatten().any(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Current, TARGET};
    use crate::process::tests::script;
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    /// A toolchain of shell scripts, whose rustup does `add`.
    pub(in crate::toolchain) fn stand_in(dir: &Path, add: &str) -> Current {
        let sysroot = dir.join("sysroot");
        let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
        Current {
            rustc: script(dir, "rustc", &format!("echo {}", sysroot.display())),
            rustup: script(
                dir,
                "rustup",
                &add.replace("LIB", &libraries.display().to_string()),
            ),
            download_limit: Duration::from_secs(20),
        }
    }

    #[test]
    fn a_toolchain_with_the_target_is_used_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let current = stand_in(dir.path(), "exit 9");
        assert!(current.find().is_err_and(|lacks| lacks.contains(TARGET)));
        let libraries = dir
            .path()
            .join("sysroot/lib/rustlib")
            .join(TARGET)
            .join("lib");
        fs::create_dir_all(&libraries).expect("a directory");
        fs::write(libraries.join("libcore-1.rlib"), "").expect("a file");
        let toolchain = current.find().expect("the target is there");
        assert_eq!(toolchain.rustc, None);
    }

    #[test]
    fn rustup_adds_the_target() {
        let dir = tempfile::tempdir().expect("a directory");
        let current = stand_in(
            dir.path(),
            "test \"$*\" = 'target add x86_64-unknown-none' && mkdir -p LIB && touch LIB/libcore-1.rlib",
        );
        assert!(current.add().is_ok());
    }

    #[test]
    fn a_rustup_without_network_is_said() {
        let dir = tempfile::tempdir().expect("a directory");
        let current = stand_in(dir.path(), "echo 'error: no network' >&2; exit 1");
        let reason = current.add().expect_err("it failed");
        assert!(reason.contains("error: no network"), "{reason}");
    }

    #[test]
    fn a_rustup_that_hangs_is_given_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let begun = Instant::now();
        let mut current = stand_in(dir.path(), "sleep 60");
        current.download_limit = Duration::from_millis(500);
        assert!(current.add().is_err());
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_machine_without_rustup_is_said() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut current = stand_in(dir.path(), "");
        current.rustup = dir.path().join("none");
        assert!(
            current
                .add()
                .is_err_and(|reason| reason.contains("cannot be run"))
        );
    }
}
