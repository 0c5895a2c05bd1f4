//! Builds the kernels that boot: the demo's, the smallest one, and the boot tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{self, Executable};
use crate::error::{During, Error, Result};
use crate::place;
use crate::toolchain::Toolchain;

/// A kernel by what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The kernel of `cargo demo`: the testbed's program.
    Demo,
    /// The smallest kernel that uses the crate.
    Embed,
    /// The same on more than one CPU.
    EmbedSmp,
    /// The boot test of this name: `tests/NAME.rs`.
    Test(String),
}

impl Kernel {
    /// Returns the kernel of this name.
    pub(crate) fn named(name: &str) -> Self {
        [Self::Demo, Self::Embed, Self::EmbedSmp]
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .unwrap_or_else(|| Self::Test(name.to_owned()))
    }

    /// Returns the kernel's name, which is also that of cargo's target.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Demo => "testbed",
            Self::Embed => "pcu9-embed",
            Self::EmbedSmp => "pcu9-embed-smp",
            Self::Test(name) => name,
        }
    }

    /// Returns how many CPUs the kernel is made for.
    pub(crate) fn default_cpus(&self) -> u32 {
        let name = self.name();
        // Under -icount the CPUs take turns, and one that waits keeps the others from running.
        if *self == Self::Embed || counts_instructions(name) || name.ends_with("_one_cpu") {
            1
        } else if name.ends_with("_stress") {
            8
        } else {
            4
        }
    }

    /// Adds to `cargo build` what builds this kernel.
    fn select(&self, build: &mut Command) {
        match self {
            Self::Demo => build.args(["--package", "pcu9-testbed", "--bin", "testbed"]),
            Self::Embed | Self::EmbedSmp => {
                build.args(["--package", "pcu9-embed", "--bin", self.name()])
            }
            Self::Test(name) => build.args(["--package", "pcu9", "--test", name]),
        };
    }
}

/// Builds `kernel` and returns the path of its image.
pub(crate) fn build(toolchain: &Toolchain, kernel: &Kernel) -> Result<PathBuf> {
    let what = format!("building the kernel {}", kernel.name());
    let mut command = if counts_instructions(kernel.name()) {
        toolchain.cargo_with("build", "guest-release")
    } else {
        toolchain.cargo("build")
    };
    kernel.select(&mut command);
    let built = cargo::build(&mut command, &what)?;
    image(built, kernel.name())
}

/// Builds `kernel` of the sources in `copy`, in the target directory `target`.
pub(crate) fn build_in(
    copy: &Path,
    target: &str,
    toolchain: &Toolchain,
    kernel: &Kernel,
) -> Result<PathBuf> {
    let what = format!("building {}", kernel.name());
    let mut command = toolchain.cargo_into("build", "guest", target);
    kernel.select(&mut command);
    let built = cargo::build(command.current_dir(copy), &what)?;
    image(built, kernel.name())
}

/// Builds all kernels, the boot tests in one go, and returns their images.
pub(crate) fn build_all(toolchain: &Toolchain) -> Result<Vec<PathBuf>> {
    let mut images = vec![
        build(toolchain, &Kernel::Demo)?,
        build(toolchain, &Kernel::Embed)?,
        build(toolchain, &Kernel::EmbedSmp)?,
    ];
    let tests = build_tests(toolchain, &test_names()?)?;
    images.extend(tests.into_iter().map(|executable| executable.path));
    Ok(images)
}

/// Builds the boot tests of these names in one go.
pub(crate) fn build_tests(toolchain: &Toolchain, names: &[String]) -> Result<Vec<Executable>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = toolchain.cargo("build");
    command.args(["--package", "pcu9"]);
    for name in names {
        command.args(["--test", name]);
    }
    let mut built = cargo::build(
        &mut command,
        &format!("building {} boot tests", names.len()),
    )?;
    built.retain(|executable| names.contains(&executable.name));
    Ok(built)
}

/// Does a kernel of this name count instructions? It is built as a user would ship it, and run with QEMU's `-icount`.
pub(crate) fn counts_instructions(name: &str) -> bool {
    name.starts_with("boot_count_")
}

/// Does a kernel of this name run programs in user mode? Its machine gets an archive of the project's own.
pub(crate) fn runs_programs(name: &str) -> bool {
    // What cargo runs has a hash behind it.
    let others = ["boot_signals", "boot_ptrace", "boot_stress", "boot_exec"];
    others.iter().any(|other| name.starts_with(other)) || runs_c_programs(name)
}

/// Are those in C among them?
pub(crate) fn runs_c_programs(name: &str) -> bool {
    name.starts_with("boot_threads")
}

/// Returns the image that `PCU9_KERNEL` names, if it does.
pub(crate) fn given() -> Option<PathBuf> {
    std::env::var_os("PCU9_KERNEL")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

fn image(built: Vec<Executable>, name: &str) -> Result<PathBuf> {
    let found = built.into_iter().find(|executable| executable.name == name);
    found.map(|executable| executable.path).ok_or_else(|| {
        Error::failed(format!(
            "cargo built no executable `{name}`: see its Cargo.toml"
        ))
    })
}

/// Returns the names of the boot tests: the files `tests/boot_*.rs`.
pub(crate) fn test_names() -> Result<Vec<String>> {
    let tests = place::checkout().join("tests");
    let mut names = Vec::new();
    for file in fs::read_dir(&tests).during(tests.display())? {
        let name = file.during(tests.display())?.file_name();
        let name = name.to_string_lossy();
        if let Some(stem) = name.strip_suffix(".rs")
            && stem.starts_with("boot_")
        {
            names.push(stem.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Runs clippy of the guest's toolchain over everything that runs in the guest.
pub(crate) fn clippy(toolchain: &Toolchain) -> Result<()> {
    toolchain.provide_clippy()?;
    let mut library = toolchain.cargo("clippy");
    for package in ["pcu9", "pcu9-testbed", "pcu9-embed"] {
        library.args(["--package", package]);
    }
    library.args(["--lib", "--bins"]);
    check(
        library,
        "checking libraries and kernels of the guest by clippy",
    )?;

    let names = test_names()?;
    if names.is_empty() {
        return Ok(());
    }
    let mut tests = toolchain.cargo("clippy");
    tests.args(["--package", "pcu9"]);
    for name in &names {
        tests.args(["--test", name]);
    }
    check(
        tests,
        &format!("checking {} boot tests by clippy", names.len()),
    )
}

fn check(mut command: Command, what: &str) -> Result<()> {
    // Only what follows `--` goes to clippy; the messages are cargo's own, for people.
    command.args(["--", "-D", "warnings"]);
    let step = crate::progress::Step::start(what);
    cargo::run(&mut command, what, &step)?;
    step.done();
    Ok(())
}
