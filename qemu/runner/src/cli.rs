//! The command line.

mod policy;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use pcu9_kpcpu::stat::usage_error;

use crate::emulator::Kind;
use crate::error::Error;
use crate::timeline::Window;

pub(crate) use policy::{Policies, Policy};

/// What stands under the help of every command.
macro_rules! environment {
    () => {
        "\
Environment:
  PCU9_GUEST_TOOLCHAIN=auto|rustup|distro
                  where the guest's compiler comes from. rustup: the toolchain in use, to which
                  `rustup target add` adds the target; distro: Debian's compiler and a sysroot
                  that is built here; auto (default): the first of these that works
  PCU9_INSTALL=1  install missing packages with sudo, without a question (0: never install)
  PCU9_QEMU=FILE  use this program in place of qemu-system-x86_64
  PCU9_BOCHS=FILE use this program in place of bochs
  PCU9_KERNEL=FILE
                  boot this image in place of the one that would be built
  PCU9_CPUS=N     CPUs of `run` (default 4)
  PCU9_SEED=N     the stress' choices (default: others each time)

Exit status: 0 all is well; 1 something ran and was wrong; 2 a wrong value, or a tool is missing."
    };
}

const ENVIRONMENT: &str = environment!();

const BOOT: &str = concat!(
    "\
Examples:
  cargo boot leaks
  cargo boot boot_leaks --cpu qemu64 --cpus 2
  cargo boot leaks --emulator bochs --cpu ryzen

",
    environment!()
);

const VERIFY: &str = concat!(
    "\
Examples:
  cargo verify --list --short
  cargo verify --only loom

",
    environment!()
);

const DEMO: &str = concat!(
    "\
Examples:
  cargo demo --cpus 8 --policy adaptive
  cargo demo --policy all --window 500..510
  cargo demo --policy probe --trace slices.trace
  cargo demo --program ./a.out --copies 8

Trace file: one slice a line, a slice being a stretch of one LWP on one CPU between two context
switches. Lines that begin with # are comments: the first gives the format's version (pcu9-trace 1)
and the columns, the second says key=value what ran.
  cpu begin end   where and when, in ticks of the time stamp counter since the first slice
                  (tsc_khz=.. of them in a millisecond)
  lwp job program the LWP's number; its job (a copy of a program), or kernel, or idle; the program
  user use migrated
                  1 or 0: it entered user mode; it used the FPU (known with --policy probe alone,
                  else ?); the LWP ran on another CPU before

",
    environment!()
);

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
    #[command(after_help = DEMO, override_usage = "cargo demo [OPTIONS]")]
    Demo(DemoArgs),
    /// Boot one boot test and show everything it says
    #[command(after_help = BOOT, override_usage = "cargo boot [OPTIONS] NAME\n       cargo boot --list")]
    Boot(BootArgs),
    /// Run the proofs that take longer than a test: the demo on many machines, the stress, boot tests on Bochs, loom, seeded bugs,
    /// mutants
    #[command(after_help = VERIFY, override_usage = "cargo verify [OPTIONS]")]
    Verify(VerifyArgs),
    /// Boot a kernel image (the cargo runner of the guest's target)
    #[command(after_help = ENVIRONMENT)]
    Run(RunArgs),
    /// Run clippy, of the guest's toolchain, over everything that runs in the guest
    #[command(after_help = ENVIRONMENT)]
    GuestClippy,
}

/// The model that Bochs emulates when none is asked for: the one that has the most.
const BOCHS_MODEL: &str = "tigerlake";

/// What the demo runs, and on which machine.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// How many CPUs the machine has, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) cpus: u32,
    /// How many copies of every program run at once [default: at least 2, and two LWPs for each CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) copies: Option<u32>,
    /// Run this ELF file in place of the built-in programs; may be given several times. A process of it that a signal ends leaves a
    /// core file, for `gdb FILE CORE`: the first four do, and the demo says where
    #[arg(long, value_name = "FILE")]
    pub(crate) program: Vec<PathBuf>,
    /// Run the C programs of qemu/programs/c too, which musl-gcc builds: Debian's package musl-tools
    #[arg(long)]
    pub(crate) musl: bool,
    /// What the machine is emulated by
    #[arg(long, value_enum, value_name = "EMULATOR", default_value_t = Kind::Qemu)]
    pub(crate) emulator: Kind,
    /// The CPU's model, by the emulator's name; of QEMU: max, Haswell, Nehalem, qemu64 (FXSAVE only), ...; of Bochs:
    /// tigerlake, ryzen, ...
    #[arg(
        long,
        value_name = "MODEL",
        default_value = "max",
        default_value_if("emulator", "bochs", BOCHS_MODEL)
    )]
    pub(crate) cpu: String,
    /// What the next LWP may find in the registers
    #[arg(long, value_enum, default_value_t = Leak::Domain)]
    pub(crate) leak: Leak,
    /// When the FPU's state is switched
    #[arg(long, value_enum, default_value_t = Policies::One(Policy::Lazy))]
    pub(crate) policy: Policies,
    /// Let the kernel use the FPU itself meanwhile: its timer fills every register in kernel sections
    #[arg(long)]
    pub(crate) sections: bool,
    /// Write every slice of every CPU to this file, one a line (the format: see below); needs one policy
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// What is recorded for the timeline: what happens between two times in milliseconds after the first program began, such as
    /// 1000..1002.5, all of which is drawn; `auto`: the beginning, and a part of it is drawn in which much happens; or `none`
    #[arg(long, value_name = "FROM..TO", default_value = "auto")]
    pub(crate) window: Window,
    /// Where the timeline goes: timeline.svg, a picture of who ran and who owned the FPU, and trace.json, for
    /// <https://ui.perfetto.dev> [default: target/pcu9]
    #[arg(long, value_name = "DIR")]
    pub(crate) timeline: Option<PathBuf>,
    /// Write the guest's memory to this file at the end of the run, and the kernel to FILE.kernel: `cargo pcustat FILE` shows what
    /// is in it; needs one policy
    #[arg(long, value_name = "FILE")]
    pub(crate) dump: Option<PathBuf>,
    /// Write the dump so long after the first program began, and let the guest go on; at the end every program has exited, and
    /// owns nothing
    #[arg(long, value_name = "SECONDS", requires = "dump", value_parser = seconds)]
    pub(crate) dump_after: Option<f64>,
    /// Show who owns the FPU on which CPU while the guest runs, and what that costs
    #[arg(long)]
    pub(crate) watch: bool,
    /// Let others look while the guest runs: `cargo pcustat FILE` in another terminal. QEMU listens at FILE, and the kernel is put
    /// at FILE.kernel; both go at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) socket: Option<PathBuf>,
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

/// Which kernel boots, and on which machine.
#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    /// The boot test's name, with or without `boot_`
    #[arg(required_unless_present = "list")]
    pub(crate) name: Option<String>,
    /// What the machine is emulated by
    #[arg(long, value_enum, value_name = "EMULATOR", default_value_t = Kind::Qemu)]
    pub(crate) emulator: Kind,
    /// The CPU's model, by the emulator's name
    #[arg(
        long,
        value_name = "MODEL",
        default_value = "max",
        default_value_if("emulator", "bochs", BOCHS_MODEL)
    )]
    pub(crate) cpu: String,
    /// How many CPUs the machine has, 1 to 8 [default: 4, and 1 for a kernel that is made for one CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) cpus: Option<u32>,
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
    /// What CI runs: the demo on four machines and under every policy, a minute of stress, two models of Bochs, loom, the seeded bugs, a
    /// minute of fuzzing
    #[arg(long)]
    pub(crate) short: bool,
    /// Only the steps that have this word in their name
    #[arg(long, value_name = "WORD")]
    pub(crate) only: Option<String>,
    /// List the names of the steps
    #[arg(long)]
    pub(crate) list: bool,
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

/// Reads a number of seconds.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number @ 0.0..=86400.0) => Ok(number),
        _ => Err("not a number from 0 to 86400".into()),
    }
}

impl DemoArgs {
    /// Returns the first option that looks into the guest.
    fn looks(&self) -> Option<&'static str> {
        let options = [
            ("--dump", self.dump.is_some()),
            ("--watch", self.watch),
            ("--socket", self.socket.is_some()),
        ];
        options
            .into_iter()
            .find_map(|(option, is_given)| is_given.then_some(option))
    }

    /// Returns the emulator and the model for people.
    pub(crate) fn machine(&self) -> String {
        match self.emulator {
            Kind::Qemu => self.cpu.clone(),
            Kind::Bochs => format!("Bochs {}", self.cpu),
        }
    }
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

/// Reads the command line. A wrong one is an error of one line; help that was asked for is printed, and ends the program.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Command, Error> {
    let arguments = without_leading_dashes(arguments);
    let help = helping(&arguments);
    match Cli::try_parse_from(arguments) {
        Ok(cli) => cli.command.checked(),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp
                    | ErrorKind::DisplayVersion
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            ) =>
        {
            error.exit()
        }
        Err(error) => Err(Error::unusable(usage_error(&error.to_string(), &help))),
    }
}

/// The command that helps with what was asked for.
fn helping(arguments: &[OsString]) -> String {
    let asked = arguments.get(1).and_then(|word| word.to_str());
    match asked {
        Some(command @ ("demo" | "boot" | "verify")) => format!("cargo {command} --help"),
        Some(command @ ("run" | "guest-clippy")) => format!("pcu9-runner {command} --help"),
        _ => "pcu9-runner --help".into(),
    }
}

impl Command {
    /// Checks what clap cannot.
    fn checked(self) -> Result<Self, Error> {
        match &self {
            Self::Demo(args) if args.trace.is_some() && args.policy == Policies::All => {
                Err(Error::unusable(
                    "--trace needs one policy: --policy all runs every one, and a trace file holds one run",
                ))
            }
            Self::Demo(args) if args.emulator == Kind::Bochs && args.looks().is_some() => {
                Err(Error::unusable(format!(
                    "{} needs QEMU, which can be asked for the guest's memory: leave --emulator bochs out",
                    args.looks().unwrap_or_default()
                )))
            }
            Self::Demo(args) if args.dump.is_some() && args.policy == Policies::All => {
                Err(Error::unusable(
                    "--dump needs one policy: --policy all runs every one, and a dump holds one guest",
                ))
            }
            _ => Ok(self),
        }
    }
}

/// Takes away a `--` before the first flag, so that `cargo demo -- --cpus 4` is `cargo demo --cpus 4`.
fn without_leading_dashes(mut arguments: Vec<OsString>) -> Vec<OsString> {
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
    use super::{Cli, Command};
    use crate::error::Error;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, Error> {
        super::parse(line.split(' ').map(Into::into).collect())
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
            "r demo --policy linux",
            "r demo --policy all --trace file",
            "r demo --trace",
            "r demo --policy all --dump file",
            "r demo --dump",
            "r demo --dump-after 1",
            "r demo --dump file --dump-after x",
            "r demo --dump file --dump-after -1",
            "r demo --watch --emulator bochs",
            "r demo --socket file --emulator bochs",
            "r demo --dump file --emulator bochs",
            "r demo --socket",
            "r demo --timeout 0",
            "r demo --what",
            "r demo extra",
            "r boot",
            "r nothing",
            "r boot x --cpus 9",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.status(), 2, "{line}");
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains('\n'), "{line}: {text}");
        }
    }

    #[test]
    fn a_wrong_policy_is_told_with_all_that_there_are() {
        let error = parse("r demo --policy linux").expect_err("no such policy");
        assert_eq!(
            error.to_string(),
            "invalid value 'linux' for '--policy <POLICY>' [possible values: lazy, deferred, eager, adaptive, \
             adaptive-write-through, probe, all]; see `cargo demo --help`"
        );
    }

    #[test]
    fn the_cargo_runner_passes_what_follows_the_image() {
        let Ok(Command::Run(args)) = parse("r run image --nocapture case") else {
            panic!("run");
        };
        assert_eq!(args.arguments, ["--nocapture", "case"]);
    }
}
