//! What boots a kernel: an emulator that is provided, streamed line by line, limited in time, and judged by how it ended.
//!
//! Each emulator is a module of its own, `qemu` and `bochs`; everybody else sees the trait [`Emulator`] alone.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::bochs::Bochs;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::process::{Ended, end_with_parent, wait_until};
use crate::qemu::Qemu;

/// How many of the last lines a failure shows.
const TAIL: usize = 30;

/// The emulators that there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Fast, with real concurrency; lets XSAVE and XRSTOR pass through a closed gate
    #[default]
    Qemu,
    /// Slow, the same at every run, and faithful to the manual in all that concerns the FPU
    Bochs,
}

/// A program that boots kernels.
pub(crate) trait Emulator: fmt::Debug + Sync {
    /// Checks that it has the CPU model `model`; an error of one line otherwise.
    fn check_model(&self, model: &str) -> Result<()>;

    /// Boots the machine and gives each line that the kernel writes to `line` as it comes.
    fn run(&self, machine: &Machine<'_>, line: &mut dyn FnMut(&str)) -> Result<Outcome>;
}

/// A kernel and the machine to boot it on.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    /// The kernel's image.
    pub(crate) kernel: &'a Path,
    /// An archive that the kernel gets.
    pub(crate) initrd: Option<&'a Path>,
    /// The way into the guest for whoever looks; Bochs has none.
    pub(crate) control: Option<&'a Control>,
    /// The kernel's command line, without what tells of the machine.
    pub(crate) append: String,
    /// The CPU's model, with the emulator's name.
    pub(crate) model: &'a str,
    /// How many CPUs.
    pub(crate) cpus: u32,
    /// How long the machine may run.
    pub(crate) limit: Duration,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The kernel reported success.
    Success,
    /// The kernel reported failure.
    Failure,
    /// The machine was reset, or stopped for good, without a report.
    TripleFault,
    /// It did not end within this limit.
    TimedOut(Duration),
    /// The emulator ended in a way that no kernel asks for.
    Broken(String),
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// How it ended.
    pub(crate) end: End,
    /// How long it ran.
    pub(crate) seconds: f64,
    /// The last lines that the kernel wrote.
    pub(crate) tail: Tail,
    /// What the emulator itself said, by lines.
    pub(crate) complaints: String,
}

/// The last lines of many.
#[derive(Debug, Default)]
pub(crate) struct Tail(VecDeque<String>);

/// What an emulator's process did.
#[derive(Debug)]
pub(crate) struct Watched {
    /// How it ended.
    pub(crate) ended: Ended,
    /// How long it ran.
    pub(crate) seconds: f64,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

/// Finds the emulator, or installs it.
pub(crate) fn provide(kind: Kind) -> Result<Box<dyn Emulator>> {
    Ok(match kind {
        Kind::Qemu => Box::new(Qemu::provide()?),
        Kind::Bochs => Box::new(Bochs::provide()?),
    })
}

impl Kind {
    /// Returns the word for command lines and the JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Bochs => "bochs",
        }
    }

    /// Returns the kernel's command line on such a machine.
    pub(crate) fn command_line(self, machine: &Machine<'_>) -> String {
        // Bochs 2.7 lays out compacted images wrongly: `InitError::Layout` of pcu9. What is appended wins.
        let limit = match self {
            Self::Qemu => "",
            Self::Bochs => "xsave=xsaveopt ",
        };
        let line = format!(
            "cpus={} emulator={} cpu={} {limit}{}",
            machine.cpus,
            self.word(),
            machine.model,
            machine.append
        );
        line.trim_end().to_owned()
    }
}

/// Runs `command` with no input for at most `limit`, and gives each line of its standard output to `line` as it comes.
pub(crate) fn watch(
    command: &mut Command,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Result<Watched> {
    end_with_parent(command);
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| {
        let program = Path::new(command.get_program());
        Error::unusable(format!("{} cannot be run: {e}", program.display()))
    })?;
    let begun = Instant::now();
    let deadline = begun + limit;
    let stdout = lines(&mut child);
    let stderr = rest(&mut child);
    let in_time = loop {
        match stdout.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    let status = if in_time {
        wait_until(&mut child, deadline)
    } else {
        Ok(None)
    };
    let ended = if let Ok(Some(status)) = status {
        Ended::of(status)
    } else {
        // An error means that it has ended in this moment.
        let _ = child.kill();
        Ended::TimedOut(limit)
    };
    let _ = child.wait();
    Ok(Watched {
        ended,
        seconds: begun.elapsed().as_secs_f64(),
        stderr: stderr.join().unwrap_or_default(),
    })
}

/// Reads standard output by lines in a thread of its own.
fn lines(child: &mut Child) -> Receiver<String> {
    let (send, lines) = channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&bytes);
                if send.send(text.trim_end().to_owned()).is_err() {
                    break;
                }
                bytes.clear();
            }
        });
    }
    lines
}

/// Reads standard error in a thread of its own.
fn rest(child: &mut Child) -> thread::JoinHandle<String> {
    let stderr = child.stderr.take();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Tail {
    /// Adds a line and forgets the oldest of too many.
    pub(crate) fn push(&mut self, line: &str) {
        if self.0.len() == TAIL {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }
}

impl Outcome {
    /// Tells whether the kernel reported success.
    pub(crate) fn is_success(&self) -> bool {
        self.end == End::Success
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("the kernel reported success"),
            Self::Failure => f.write_str("the kernel reported failure"),
            Self::TripleFault => {
                f.write_str("the machine was reset without a report: a triple fault")
            }
            Self::TimedOut(limit) => write!(
                f,
                "the kernel did not end within {} s: it hangs, or needs more time",
                limit.as_secs()
            ),
            Self::Broken(how) => f.write_str(how),
        }
    }
}

impl fmt::Display for Outcome {
    /// The verdict with the last lines seen: what a failure shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.end)?;
        for line in self.complaints.lines() {
            write!(f, "\n  the emulator says: {line}")?;
        }
        if self.tail.0.is_empty() {
            return write!(f, "\n  the kernel said nothing");
        }
        write!(f, "\n  the last {} lines of the kernel:", self.tail.0.len())?;
        for line in &self.tail.0 {
            let short: String = line.chars().take(200).collect();
            write!(f, "\n  | {short}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Outcome {
    /// A run that ended so, after these lines.
    pub(crate) fn recorded(end: End, text: &str) -> Self {
        let mut tail = Tail::default();
        text.lines().for_each(|line| tail.push(line));
        Self {
            end,
            seconds: 0.1,
            tail,
            complaints: String::new(),
        }
    }
}
