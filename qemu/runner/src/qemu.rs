//! Finds QEMU and runs a kernel in it: streams what it says, limits its time, judges how it ended.

use std::collections::VecDeque;
use std::env;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::dump;
use crate::error::{Error, Result};
use crate::install;
use crate::place;
use crate::process::{Ended, capture, end_with_parent, wait_until};

const PROGRAM: &str = "qemu-system-x86_64";
/// How many of the last lines a failure shows.
const TAIL: usize = 30;

/// An emulator.
#[derive(Debug, Clone)]
pub(crate) struct Qemu(PathBuf);

/// A kernel and the machine to boot it on.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    /// The kernel's image.
    pub(crate) kernel: &'a Path,
    /// An archive that the kernel gets.
    pub(crate) initrd: Option<&'a Path>,
    /// The socket at which QEMU takes commands.
    pub(crate) qmp: Option<&'a Path>,
    /// The kernel's command line, without `cpus=N`.
    pub(crate) append: String,
    /// The CPU's model, with QEMU's name.
    pub(crate) model: &'a str,
    /// How many CPUs.
    pub(crate) cpus: u32,
    /// How long the machine may run.
    pub(crate) limit: Duration,
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// How QEMU ended.
    pub(crate) ended: Ended,
    /// How long it ran.
    pub(crate) seconds: f64,
    /// The last lines of the serial port.
    pub(crate) tail: VecDeque<String>,
    /// What QEMU itself said.
    pub(crate) complaints: String,
}

impl Qemu {
    /// Finds QEMU, or installs it.
    pub(crate) fn provide() -> Result<Self> {
        if let Some(given) = env::var_os("PCU9_QEMU").filter(|given| !given.is_empty()) {
            let given = PathBuf::from(given);
            if place::is_executable(&given) {
                return Ok(Self(given));
            }
            return Err(Error::unusable(format!(
                "PCU9_QEMU={}: no such program",
                given.display()
            )));
        }
        if let Some(found) = place::on_path(PROGRAM) {
            return Ok(Self(found));
        }
        install::packages(PROGRAM, &["qemu-system-x86"])?;
        place::on_path(PROGRAM).map(Self).ok_or_else(|| {
            Error::unusable(format!(
                "the package qemu-system-x86 is installed and there is no {PROGRAM} on PATH"
            ))
        })
    }

    /// The program at this path.
    #[cfg(test)]
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Checks that QEMU has the CPU model `model` (`NAME`, or `NAME,+feature,-feature`).
    pub(crate) fn check_model(&self, model: &str) -> Result<()> {
        let mut command = Command::new(&self.0);
        command.args(["-cpu", "help"]);
        let Ok(said) = capture(&mut command, Duration::from_secs(30), 1 << 20) else {
            return Ok(());
        };
        let said = String::from_utf8_lossy(&said.output);
        let known: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix("x86 "))
            .filter_map(|rest| rest.split_whitespace().next())
            .collect();
        let name = model.split(',').next().unwrap_or_default();
        // A QEMU that lists its models in a form not known here will complain by itself.
        if known.is_empty() || known.contains(&name) {
            return Ok(());
        }
        Err(Error::unusable(format!(
            "--cpu {model}: QEMU has no such CPU model; `{} -cpu help` lists them, max has the most",
            self.0.display()
        )))
    }

    /// Boots the machine and gives each line of its serial port to `line` as it comes.
    pub(crate) fn run(&self, machine: &Machine<'_>, mut line: impl FnMut(&str)) -> Result<Outcome> {
        let mut child = self
            .command(machine)
            .spawn()
            .map_err(|e| Error::unusable(format!("{} cannot be run: {e}", self.0.display())))?;
        let begun = Instant::now();
        let deadline = begun + machine.limit;
        let serial = serial_lines(&mut child);
        let complaints = complaints(&mut child);
        let mut tail = VecDeque::new();
        let in_time = loop {
            match serial.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(text) => {
                    line(&text);
                    if tail.len() == TAIL {
                        tail.pop_front();
                    }
                    tail.push_back(text);
                }
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
            Ended::TimedOut(machine.limit)
        };
        let _ = child.wait();
        Ok(Outcome {
            ended,
            seconds: begun.elapsed().as_secs_f64(),
            tail,
            complaints: complaints.join().unwrap_or_default(),
        })
    }

    fn command(&self, machine: &Machine<'_>) -> Command {
        let mut command = Command::new(&self.0);
        command
            .args(["-accel", "tcg", "-cpu", machine.model])
            .args(["-smp", &machine.cpus.to_string(), "-m", "512M"])
            .args(["-display", "none", "-serial", "stdio", "-monitor", "none"])
            .args(["-no-reboot", "-nic", "none"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .arg("-kernel")
            .arg(machine.kernel);
        let image = machine.kernel.file_name().unwrap_or_default();
        if crate::guest::counts_instructions(&image.to_string_lossy()) {
            // A tick of the time stamp counter is an instruction then, and a run is like the one before.
            command.args(["-icount", "shift=0"]);
        }
        if let Some(initrd) = machine.initrd {
            command.arg("-initrd").arg(initrd);
        }
        if let Some(socket) = machine.qmp {
            command.arg("-qmp").arg(dump::qmp(socket));
        }
        let append = format!("cpus={} {}", machine.cpus, machine.append);
        command.args(["-append", append.trim()]);
        end_with_parent(&mut command);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Reads the serial port by lines in a thread of its own.
fn serial_lines(child: &mut Child) -> Receiver<String> {
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

/// Reads what QEMU itself says, without its remarks on features that a model has and TCG lacks.
fn complaints(child: &mut Child) -> thread::JoinHandle<String> {
    let stderr = child.stderr.take();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.read_to_end(&mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines();
        let told = lines.filter(|line| !line.contains("TCG doesn't support requested feature"));
        told.fold(String::new(), |all, line| all + line + "\n")
    })
}

impl Outcome {
    /// Tells whether the kernel ended QEMU by saying success: the value 0x10 at the debug-exit port.
    pub(crate) fn is_success(&self) -> bool {
        self.ended == Ended::Exit(33)
    }

    /// Says how the run ended.
    pub(crate) fn verdict(&self) -> String {
        match self.ended {
            Ended::Exit(33) => "the kernel reported success".into(),
            Ended::Exit(35) => "the kernel reported failure".into(),
            Ended::Exit(0) => "the machine was reset without a report: a triple fault".into(),
            Ended::Exit(1) => "QEMU ended with status 1, by an error of its own".into(),
            Ended::TimedOut(limit) => format!(
                "the kernel did not end within {} s: it hangs, or needs more time",
                limit.as_secs()
            ),
            other => format!("QEMU ended with an unexpected {other}"),
        }
    }
}

impl fmt::Display for Outcome {
    /// The verdict with the last lines seen: what a failure shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.verdict())?;
        for line in self.complaints.lines() {
            write!(f, "\n  QEMU says: {line}")?;
        }
        if self.tail.is_empty() {
            return write!(f, "\n  the kernel said nothing");
        }
        write!(
            f,
            "\n  the last {} lines of the serial port:",
            self.tail.len()
        )?;
        for line in &self.tail {
            let short: String = line.chars().take(200).collect();
            write!(f, "\n  | {short}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, Outcome, Qemu};
    use crate::process::Ended;
    use crate::process::tests::executable;
    use std::path::Path;
    use std::time::{Duration, Instant};

    /// Runs a shell script in the emulator's place.
    fn run(script: &str, limit_ms: u64) -> (Outcome, Vec<String>) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("qemu");
        executable(&path, format!("#!/bin/sh\n{script}\n").as_bytes());
        let machine = Machine {
            kernel: Path::new("kernel"),
            initrd: None,
            qmp: None,
            append: "leak=domain".into(),
            model: "max",
            cpus: 2,
            limit: Duration::from_millis(limit_ms),
        };
        let mut lines = Vec::new();
        let outcome = Qemu(path).run(&machine, |line| lines.push(line.to_owned()));
        (outcome.expect("it runs"), lines)
    }

    #[test]
    fn the_command_line_has_cpus_and_options() {
        let (outcome, lines) = run("for a; do echo \"$a\"; done; exit 33", 20_000);
        assert!(outcome.is_success());
        assert!(
            lines.contains(&"cpus=2 leak=domain".to_owned()),
            "{lines:?}"
        );
        assert!(lines.windows(2).any(|pair| pair == ["-smp", "2"]));
    }

    #[test]
    fn a_triple_fault_shows_the_last_thirty_lines() {
        let (outcome, lines) = run("seq 1 40; exit 0", 20_000);
        assert_eq!(lines.len(), 40);
        assert!(!outcome.is_success());
        let text = outcome.to_string();
        assert!(text.contains("triple fault") && text.contains("| 40"));
        assert!(text.contains("| 11") && !text.contains("| 10"));
    }

    #[test]
    fn a_hang_is_killed_and_shows_what_was_seen() {
        let begun = Instant::now();
        let (outcome, _) = run("echo begun; exec sleep 60", 1500);
        assert!(begun.elapsed() < Duration::from_secs(15));
        assert!(matches!(outcome.ended, Ended::TimedOut(_)));
        assert!(outcome.to_string().contains("| begun"));
    }

    #[test]
    fn remarks_on_features_are_dropped_and_errors_kept() {
        let (outcome, _) = run(
            "echo \"qemu: warning: TCG doesn't support requested feature: x\" >&2; echo bad >&2; exit 1",
            20_000,
        );
        assert_eq!(outcome.complaints, "bad\n");
    }
}
