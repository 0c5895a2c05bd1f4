//! QEMU: the kernel is loaded directly, speaks on the serial line, and ends the machine through `isa-debug-exit`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::control::{Control, MIB};
use crate::emulator::{Emulator, End, Kind, Machine, Outcome, Tail, watch};
use crate::error::{Error, Result};
use crate::install;
use crate::place;
use crate::process::{Ended, capture};

const PROGRAM: &str = "qemu-system-x86_64";

/// The program.
#[derive(Debug, Clone)]
pub(crate) struct Qemu(PathBuf);

impl Qemu {
    /// Finds QEMU, or installs it.
    pub(crate) fn provide() -> Result<Self> {
        let given = place::given_program("PCU9_QEMU")?;
        if let Some(found) = given.or_else(|| place::on_path(PROGRAM)) {
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

    fn command(&self, machine: &Machine<'_>) -> Command {
        let mut command = Command::new(&self.0);
        command
            .args(["-accel", "tcg", "-cpu", machine.model])
            .args(["-smp", &machine.cpus.to_string()])
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
        let mib = machine.control.map_or(MIB, Control::mib);
        command.args(["-m", &format!("{mib}M")]);
        command.args(
            machine
                .control
                .iter()
                .flat_map(|control| control.arguments()),
        );
        command.args(["-append", &Kind::Qemu.command_line(machine)]);
        command
    }
}

impl Emulator for Qemu {
    /// A model is `NAME`, or `NAME,+feature,-feature`.
    fn check_model(&self, model: &str) -> Result<()> {
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

    fn run(&self, machine: &Machine<'_>, line: &mut dyn FnMut(&str)) -> Result<Outcome> {
        let mut tail = Tail::default();
        let watched = watch(&mut self.command(machine), machine.limit, |text| {
            line(text);
            tail.push(text);
        })?;
        // Features that a model has and TCG lacks are no news.
        let lines = watched.stderr.lines();
        let told = lines.filter(|line| !line.contains("TCG doesn't support requested feature"));
        Ok(Outcome {
            end: end(watched.ended),
            seconds: watched.seconds,
            tail,
            complaints: told.fold(String::new(), |all, line| all + line + "\n"),
        })
    }
}

/// Reads QEMU's exit status: the kernel writes 0x10 or 0x11 to the debug-exit port.
pub(crate) fn end(ended: Ended) -> End {
    match ended {
        Ended::Exit(33) => End::Success,
        Ended::Exit(35) => End::Failure,
        Ended::Exit(0) => End::TripleFault,
        Ended::Exit(1) => End::Broken("QEMU ended with status 1, by an error of its own".into()),
        Ended::TimedOut(limit) => End::TimedOut(limit),
        other => End::Broken(format!("QEMU ended with an unexpected {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::Qemu;
    use crate::emulator::{Emulator, End, Machine, Outcome};
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
            control: None,
            append: "leak=domain".into(),
            model: "max",
            cpus: 2,
            limit: Duration::from_millis(limit_ms),
        };
        let mut lines = Vec::new();
        let outcome = Qemu(path).run(&machine, &mut |line| lines.push(line.to_owned()));
        (outcome.expect("it runs"), lines)
    }

    #[test]
    fn the_command_line_has_cpus_and_options() {
        let (outcome, lines) = run("for a; do echo \"$a\"; done; exit 33", 20_000);
        assert!(outcome.is_success());
        assert!(
            lines.contains(&"cpus=2 emulator=qemu cpu=max leak=domain".to_owned()),
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
        let (outcome, _) = run("echo begun; exec sleep 60", 5000);
        assert!(begun.elapsed() < Duration::from_secs(45));
        assert!(matches!(outcome.end, End::TimedOut(_)));
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
