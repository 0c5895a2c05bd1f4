//! The command line.

use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use pcu9_kpcpu::Way;

const HELP: &str = "\
Without a command: a row for each CPU and unit. OWNER is the LWP whose state is in the registers; in
parentheses it is clean: memory holds the same, and the LWP may be gone. GATE open: a use does not
trap. LOADS counts restores and initial loads; counters that are 0 everywhere are left out, --json
has them all. With --interval counts are per second, and a row whose owner has changed is bold.

A guest that runs is read through the file that QEMU keeps its memory in, and does not notice:
  qemu-system-x86_64 .. -qmp unix:SOCKET,server=on,wait=off -m 1G -machine memory-backend=ram \\
      -object memory-backend-file,id=ram,size=1G,mem-path=FILE,share=on
Without such a file QEMU copies what is asked for (--by pmemsave). `cargo demo --socket SOCKET`
gives QEMU both.

Examples:
  cargo pcustat SOCKET --interval 1
  cargo pcustat SOCKET lwp 7 --follow
  cargo pcustat DUMP counters --json

Exit status: 0 all was read; 1 something was not, or the guest ended, and one line says what; 2 a
wrong command line.";

/// Shows the per-CPU data of a kernel that carries pcu9's header: who owns which unit on which CPU, and what that costs.
#[derive(Debug, Parser)]
#[command(name = "pcustat", version, after_help = HELP)]
pub(crate) struct Args {
    /// QEMU's control socket of a guest that runs (-qmp unix:SOURCE,server=on,wait=off), or a dump: `cargo demo --dump FILE`, or
    /// QEMU's dump-guest-memory with paging=false
    pub(crate) source: PathBuf,
    /// The kernel's ELF file [default: SOURCE.kernel, which `cargo demo` leaves there; a dump may do without]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// How a guest that runs is read [default: by its memory file, or else by pmemsave]
    #[arg(long, value_enum, global = true)]
    pub(crate) by: Option<By>,
    /// Ask again and again, with a pause of so many seconds
    #[arg(long, value_name = "SECONDS", global = true, value_parser = seconds)]
    interval: Option<Duration>,
    /// Answer N times (once a second, if --interval does not say otherwise)
    #[arg(long, value_name = "N", global = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Go on if the kernel was changing its set of CPUs at that moment, though what is said of them may not fit together
    #[arg(long, global = true)]
    pub(crate) torn: bool,
    /// JSON instead of tables: one object, or with --interval one a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) question: Option<Question>,
}

/// What is asked; without one, a table of all CPUs.
#[derive(Debug, Subcommand)]
pub(crate) enum Question {
    /// Where an LWP's state is, and what is in it
    Lwp {
        /// The LWP's number
        number: u64,
        /// Write a line each time that it or its state moves, until it ends; looks ten times a second, or as --interval says
        #[arg(long)]
        follow: bool,
    },
    /// Every counter: its value, and what each CPU has added
    Counters,
    /// A per-CPU variable, on one CPU or on all
    Dpcpu {
        /// Its name, whole or as many of its last parts as make it unique
        name: String,
        /// The CPU
        cpu: Option<u32>,
    },
}

/// How a guest that runs is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// Through the file that QEMU keeps its memory in
    File,
    /// By QEMU's command, which copies what is asked for
    Pmemsave,
}

/// How often a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    Once,
    Every(Duration, u64),
}

impl Args {
    /// The kernel's file, if one was named or is where `cargo demo` leaves it.
    pub(crate) fn kernel(&self) -> Option<PathBuf> {
        let beside = self.kernel_beside();
        self.kernel
            .clone()
            .or_else(|| beside.exists().then_some(beside))
    }

    pub(crate) fn kernel_beside(&self) -> PathBuf {
        let mut name = self.source.clone().into_os_string();
        name.push(".kernel");
        name.into()
    }

    /// Is the source a guest that runs?
    pub(crate) fn is_live(&self) -> bool {
        let kind = self.source.metadata().map(|found| found.file_type());
        kind.is_ok_and(|kind| kind.is_socket())
    }

    /// How often the question is asked; an error is what a dump cannot do.
    pub(crate) fn repeat(&self) -> Result<Repeat, String> {
        let follow = matches!(self.question, Some(Question::Lwp { follow: true, .. }));
        let default = match (follow, self.count) {
            (true, _) => Some(Duration::from_millis(100)),
            (false, Some(_)) => Some(Duration::from_secs(1)),
            (false, None) => None,
        };
        let Some(interval) = self.interval.or(default) else {
            return Ok(Repeat::Once);
        };
        // What is not there at all is told when it is opened.
        if self.source.exists() && !self.is_live() {
            return Err(format!(
                "{}: not QEMU's control socket, and a dump stays as it is: --interval, --count and --follow need a guest that runs",
                self.source.display()
            ));
        }
        Ok(Repeat::Every(interval, self.count.unwrap_or(u64::MAX)))
    }
}

impl By {
    pub(crate) fn way(self) -> Way {
        match self {
            Self::File => Way::MemoryFile,
            Self::Pmemsave => Way::Pmemsave,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match number {
        0.01..=86400.0 => Ok(Duration::from_secs_f64(number)),
        _ => Err("not between 0.01 and 86400".into()),
    }
}
