//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

const HELP: &str = "\
Without a command: a row for each CPU and unit. OWNER is the LWP whose state is in the registers; in
parentheses it is clean: memory holds the same, and the LWP may be gone. GATE open: a use does not
trap. LOADS counts restores and initial loads; counters that are 0 everywhere are left out, --json
has them all.

Exit status: 0 all was read; 1 something was not, and one line says what; 2 a wrong command line.";

/// Shows the per-CPU data of a kernel that carries pcu9's header: who owns which unit on which CPU, and what that cost.
#[derive(Debug, Parser)]
#[command(name = "pcustat", version, after_help = HELP)]
pub(crate) struct Args {
    /// A dump of the guest: `cargo demo --dump FILE`, or QEMU's dump-guest-memory with paging=false
    pub(crate) dump: PathBuf,
    /// The kernel's ELF file [default: DUMP.kernel, which `cargo demo --dump` leaves there]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Go on if the kernel was changing its set of CPUs at that moment, though what is said of them may not fit together
    #[arg(long, global = true)]
    pub(crate) torn: bool,
    /// One JSON object instead of tables
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

impl Args {
    pub(crate) fn kernel(&self) -> PathBuf {
        self.kernel.clone().unwrap_or_else(|| {
            let mut name = self.dump.clone().into_os_string();
            name.push(".kernel");
            name.into()
        })
    }
}
