//! Where things are: the checkout, and the directories that the runner builds in.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// Returns the checkout: the folder of the workspace's `Cargo.toml`.
pub(crate) fn checkout() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    match package.ancestors().nth(2) {
        Some(root) => root.to_owned(),
        None => package.to_owned(),
    }
}

/// Returns the folder `name` in cargo's target directory.
pub(crate) fn target(name: &str) -> PathBuf {
    let base = match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => {
            std::path::absolute(&dir).unwrap_or_else(|_| PathBuf::from(dir))
        }
        _ => checkout().join("target"),
    };
    base.join(name)
}

/// Returns the program that the environment variable `variable` names, if it is set.
pub(crate) fn given_program(variable: &str) -> Result<Option<PathBuf>> {
    let Some(given) = env::var_os(variable).filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    let given = PathBuf::from(given);
    if is_executable(&given) {
        return Ok(Some(given));
    }
    Err(Error::unusable(format!(
        "{variable}={}: no such program",
        given.display()
    )))
}

/// Finds `program` on PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| is_executable(file))
}

/// Tells whether `file` is a regular file that somebody may execute.
pub(crate) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Takes from `command` what a cargo that runs this program has put into the environment, and what would change
/// what a nested cargo builds. Where cargo finds its home, registries and network stays.
pub(crate) fn forget_cargo(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        if is_cargos(&name) {
            command.env_remove(name);
        }
    }
    command.current_dir(checkout())
}

fn is_cargos(name: &OsString) -> bool {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    let Some(name) = name.to_str() else {
        return false;
    };
    let changes_builds = name.starts_with("CARGO")
        || name.starts_with("RUSTC")
        || [
            "RUSTFLAGS",
            "RUSTDOC",
            "RUSTDOCFLAGS",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
        ]
        .contains(&name);
    changes_builds && !KEPT.iter().any(|kept| name.starts_with(kept))
}

#[cfg(test)]
mod tests {
    use super::{checkout, is_cargos};

    #[test]
    fn the_checkout_has_the_workspace() {
        let manifest = std::fs::read_to_string(checkout().join("Cargo.toml")).expect("a manifest");
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn a_nested_cargo_inherits_where_crates_are_and_not_what_to_build() {
        for gone in [
            "CARGO",
            "CARGO_BUILD_TARGET",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTFLAGS",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_BOOTSTRAP",
            "RUSTUP_TOOLCHAIN",
            "CARGO_TARGET_DIR",
            "CARGO_PKG_NAME",
        ] {
            assert!(is_cargos(&gone.into()), "{gone}");
        }
        for kept in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_NET_OFFLINE",
            "PATH",
            "HOME",
            "RUST_BACKTRACE",
        ] {
            assert!(!is_cargos(&kept.into()), "{kept}");
        }
    }
}
