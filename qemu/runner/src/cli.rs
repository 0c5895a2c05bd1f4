//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const ENVIRONMENT: &str = "\
Environment:
  PCU9_GUEST_TOOLCHAIN=auto|rustup|distro
                  where the guest's compiler comes from. rustup: the toolchain in use, to which
                  `rustup target add` adds the target; distro: Debian's compiler and a sysroot
                  that is built here; auto (default): the first of these that works
  PCU9_INSTALL=1  install missing packages with sudo, without a question (0: never install)
  PCU9_QEMU=FILE  use this program in place of qemu-system-x86_64
  PCU9_KERNEL=FILE
                  boot this image in place of the one that would be built
  PCU9_CPUS=N     CPUs of `run` (default 4)

Exit status: 0 all is well; 1 something ran and was wrong; 2 a wrong value, or a tool is missing.";

/// Builds, boots and judges the kernels of pcu9.
#[derive(Debug, Parser)]
#[command(name = "pcu9-runner", after_help = ENVIRONMENT)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run programs that use the FPU in a kernel that shares it by pcu9, and compare their output with the host's
    #[command(after_help = ENVIRONMENT)]
    Demo(DemoArgs),
    /// Boot one boot test and show everything it says
    #[command(after_help = ENVIRONMENT)]
    Boot(BootArgs),
    /// Run the demo on several machines and show which succeed
    #[command(after_help = ENVIRONMENT)]
    Verify(VerifyArgs),
    /// Boot a kernel image (the cargo runner of the guest's target)
    #[command(after_help = ENVIRONMENT)]
    Run(RunArgs),
    /// Run clippy, of the guest's toolchain, over everything that runs in the guest
    #[command(after_help = ENVIRONMENT)]
    GuestClippy,
}

/// What the demo runs, and on which machine.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// How many CPUs the machine has, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) cpus: u32,
    /// How many copies of every program run at once [default: at least 2, and two LWPs for each CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) copies: Option<u32>,
    /// Run this ELF file in place of the built-in programs; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) program: Vec<PathBuf>,
    /// The CPU's model, by QEMU's name: max, Haswell, Nehalem, qemu64 (FXSAVE only), ...
    #[arg(long, value_name = "MODEL", default_value = "max")]
    pub(crate) cpu: String,
    /// What the next LWP may find in the registers
    #[arg(long, value_enum, default_value_t = Leak::Domain)]
    pub(crate) leak: Leak,
    /// When the FPU's state is switched
    #[arg(long, value_enum, default_value_t = Policy::Lazy)]
    pub(crate) policy: Policy,
    /// How long the guest may run
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub(crate) timeout: u64,
    /// Write the results to this file as one JSON object, on failure too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// The leak rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Leak {
    /// Plain pcu(9): registers keep what their last owner left there (on some CPUs `LazyFP`, CVE-2018-3665, reads it)
    Trusting,
    /// Registers are saved and wiped before another process runs
    Domain,
}

/// The switching policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// NetBSD's: the state moves when an LWP uses the unit
    Lazy,
}

/// Which kernel boots, and on which machine.
#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    /// The boot test's name, with or without `boot_`
    #[arg(required_unless_present = "list")]
    pub(crate) name: Option<String>,
    /// The CPU's model, by QEMU's name
    #[arg(long, value_name = "MODEL", default_value = "max")]
    pub(crate) cpu: String,
    /// How many CPUs the machine has, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) cpus: u32,
    /// How long the guest may run
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub(crate) timeout: u64,
    /// List the names
    #[arg(long)]
    pub(crate) list: bool,
}

/// How much to verify.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Four machines only: what CI runs
    #[arg(long)]
    pub(crate) short: bool,
}

/// An image to boot.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The kernel's image
    pub(crate) image: PathBuf,
    /// Arguments as for a test program; a word selects the cases whose name has it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}

impl Leak {
    /// Returns the word for the command lines and the JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Trusting => "trusting",
            Self::Domain => "domain",
        }
    }
}

impl Policy {
    /// Returns the word for the command lines and the JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Lazy => "lazy",
        }
    }
}

/// Takes away a `--` before the first flag, so that `cargo demo -- --cpus 4` is `cargo demo --cpus 4`.
pub(crate) fn without_leading_dashes(mut arguments: Vec<OsString>) -> Vec<OsString> {
    // Before the subcommand, or right after it; later ones may be an argument of `run`.
    for at in [1, 2] {
        if arguments.get(at).is_some_and(|argument| argument == "--") {
            arguments.remove(at);
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::{Cli, Command, without_leading_dashes};
    use clap::{CommandFactory, Parser};

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = line.split(' ').map(Into::into).collect();
        Cli::try_parse_from(without_leading_dashes(words)).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_leading_pair_of_dashes_is_dropped() {
        for line in [
            "r demo --cpus 2",
            "r demo -- --cpus 2",
            "r -- demo -- --cpus 2",
        ] {
            let Ok(Command::Demo(args)) = parse(line) else {
                panic!("{line}");
            };
            assert_eq!(args.cpus, 2);
        }
    }

    #[test]
    fn wrong_values_end_with_status_2() {
        for line in [
            "r demo --cpus 0",
            "r demo --cpus 9",
            "r demo --cpus x",
            "r demo --copies 0",
            "r demo --leak none",
            "r demo --policy eager",
            "r demo --timeout 0",
            "r demo --what",
            "r demo extra",
            "r boot",
            "r nothing",
            "r",
            "r boot x --cpus 9",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_cargo_runner_passes_what_follows_the_image() {
        let Ok(Command::Run(args)) = parse("r run image --nocapture case") else {
            panic!("run");
        };
        assert_eq!(args.arguments, ["--nocapture", "case"]);
    }
}
