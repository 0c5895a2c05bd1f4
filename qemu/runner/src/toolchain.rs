//! The guest's toolchain: a compiler that has `core` for x86_64-unknown-none, by one of three routes.
//!
//! 1. The toolchain in use has the target.
//! 2. `rustup target add` gets it.
//! 3. Debian's compiler and library source build `core` once, into a private sysroot.

mod distro;
mod rustup;
mod sysroot;

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use crate::error::{Error, Result};
use crate::install;
use crate::place;
use crate::progress::say;

use distro::Distro;
use rustup::Current;

/// The guest's target.
pub(crate) const TARGET: &str = "x86_64-unknown-none";

/// A cargo and compiler that can build for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// What it is, for people.
    pub(crate) name: String,
    cargo: PathBuf,
    /// The compiler, where it is not the one that cargo finds by itself.
    rustc: Option<PathBuf>,
    /// Flags for the guest's target beside those of `.cargo/config.toml`.
    rustflags: Vec<String>,
    /// The cargo-clippy that belongs to the compiler, where cargo does not find it by itself.
    cargo_clippy: Option<PathBuf>,
}

impl Toolchain {
    /// Returns `cargo SUBCOMMAND` for the guest's target, in the checkout, free of what an outer cargo has set; with every
    /// assertion on.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        self.cargo_with(subcommand, "guest")
    }

    /// The same with another profile of the workspace.
    pub(crate) fn cargo_with(&self, subcommand: &str, profile: &str) -> Command {
        self.cargo_into(subcommand, profile, "guest")
    }

    /// The same with another target directory.
    pub(crate) fn cargo_into(&self, subcommand: &str, profile: &str, target: &str) -> Command {
        let program = match (&self.cargo_clippy, subcommand) {
            (Some(clippy), "clippy") => clippy,
            _ => &self.cargo,
        };
        let mut command = Command::new(program);
        place::forget_cargo(&mut command).arg(subcommand);
        if let Some(rustc) = &self.rustc {
            // cargo-clippy runs the cargo that this names.
            command.env("RUSTC", rustc).env("CARGO", &self.cargo);
        }
        command.args(["--target", TARGET, "--profile", profile, "--target-dir"]);
        command.arg(place::target(target));
        if !self.rustflags.is_empty() {
            // Cargo joins this list with that of .cargo/config.toml; the variable RUSTFLAGS would replace it.
            let flags = serde_json::Value::from(self.rustflags.clone());
            command.arg("--config");
            command.arg(format!("target.{TARGET}.rustflags={flags}"));
        }
        command
    }

    /// Installs the clippy of this compiler if it is missing.
    pub(crate) fn provide_clippy(&self) -> Result<()> {
        match &self.cargo_clippy {
            Some(clippy) if !place::is_executable(clippy) => {
                install::packages("clippy for the guest", &["rust-web-clippy"])
            }
            _ => Ok(()),
        }
    }
}

/// Which routes may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Auto,
    Rustup,
    Distro,
}

impl Choice {
    fn parse(value: Option<&OsStr>) -> Result<Self> {
        match value.map(OsStr::to_string_lossy).as_deref() {
            None | Some("" | "auto") => Ok(Self::Auto),
            Some("rustup") => Ok(Self::Rustup),
            Some("distro") => Ok(Self::Distro),
            Some(other) => Err(Error::unusable(format!(
                "PCU9_GUEST_TOOLCHAIN={other}: the value is auto, rustup or distro"
            ))),
        }
    }
}

/// Finds or makes the guest's toolchain, by the routes that `PCU9_GUEST_TOOLCHAIN` allows.
pub(crate) fn provide() -> Result<Toolchain> {
    let choice = Choice::parse(env::var_os("PCU9_GUEST_TOOLCHAIN").as_deref())?;
    let distro = Distro::new("/usr", &place::target("guest-toolchain"));
    by(choice, &Current::default(), &distro)
}

/// Takes the first route that `choice` allows and that leads somewhere.
fn by(choice: Choice, current: &Current, distro: &Distro) -> Result<Toolchain> {
    if choice == Choice::Distro {
        return distro.provide();
    }
    let lacks = match current.find() {
        Ok(toolchain) => return Ok(toolchain),
        Err(lacks) => lacks,
    };
    if choice == Choice::Auto
        && let Some(toolchain) = distro.find()
    {
        // An earlier run has made it: no reason to try the network again.
        return Ok(toolchain);
    }
    say(format_args!("preparing the guest's toolchain: {lacks}"));
    match current.add() {
        Ok(toolchain) => Ok(toolchain),
        Err(reason) if choice == Choice::Auto => {
            say(format_args!(
                "taking Debian's compiler for the guest: {reason}"
            ));
            distro.provide()
        }
        Err(reason) => Err(Error::unusable(format!(
            "{reason}: run `rustup target add {TARGET}`, or set PCU9_GUEST_TOOLCHAIN=distro to use Debian's compiler"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::{Choice, by, distro, rustup};
    use std::fs;

    #[test]
    fn the_route_is_one_of_three_words() {
        assert_eq!(Choice::parse(None), Ok(Choice::Auto));
        assert_eq!(Choice::parse(Some("auto".as_ref())), Ok(Choice::Auto));
        assert_eq!(Choice::parse(Some("rustup".as_ref())), Ok(Choice::Rustup));
        assert_eq!(Choice::parse(Some("distro".as_ref())), Ok(Choice::Distro));
        let wrong = Choice::parse(Some("nightly".as_ref())).expect_err("no such route");
        assert_eq!(wrong.status(), 2);
        assert!(wrong.to_string().contains("nightly"));
    }
    #[test]
    fn the_routes_are_tried_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let tried = dir.path().join("tried");
        let fails = format!("echo rustup >> {}; exit 1", tried.display());
        let adds = "mkdir -p LIB && touch LIB/libcore-1.rlib";
        let without = rustup::tests::stand_in(&dir.path().join("a"), &fails);
        let with = rustup::tests::stand_in(&dir.path().join("b"), adds);
        let debian = distro::tests::stand_in(&dir.path().join("c"), "1.96.0");

        let refused = by(Choice::Rustup, &without, &debian).expect_err("rustup fails");
        assert_eq!(refused.status(), 2);
        assert!(refused.to_string().contains("PCU9_GUEST_TOOLCHAIN=distro"));
        assert_eq!(debian.find(), None);

        let built = by(Choice::Auto, &without, &debian).expect("Debian's");
        assert_eq!(debian.find().as_ref(), Some(&built));
        assert_eq!(by(Choice::Distro, &with, &debian).as_ref(), Ok(&built));
        // What was built is found again without another try.
        assert_eq!(by(Choice::Auto, &without, &debian).as_ref(), Ok(&built));
        assert_eq!(
            fs::read_to_string(&tried).expect("the mark"),
            "rustup\nrustup\n"
        );

        let added = by(Choice::Rustup, &with, &debian).expect("rustup's");
        assert_ne!(added, built);
        assert_eq!(by(Choice::Auto, &with, &debian), Ok(added));
    }
}
