//! Runs other programs: with a time limit, with everything they say, and with nothing left behind.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With this exit status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
    /// It did not, within the limit, and was stopped.
    TimedOut(Duration),
    /// It wrote more than this many bytes, and was stopped.
    TooMuch(usize),
}

impl Ended {
    /// Reads an exit status.
    pub(crate) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exit(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }

    /// Tells whether the program ended with status 0.
    pub(crate) fn is_success(self) -> bool {
        self == Self::Exit(0)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exit(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "killed by {}", signal_name(signal)),
            Self::TimedOut(limit) => write!(f, "did not end within {} s", limit.as_secs()),
            Self::TooMuch(bytes) => write!(f, "wrote more than {bytes} bytes"),
        }
    }
}

/// What a program wrote to standard output and standard error, in order, and how it ended.
#[derive(Debug)]
pub(crate) struct Captured {
    /// The bytes of both streams in the order of writing.
    pub(crate) output: Vec<u8>,
    /// How it ended.
    pub(crate) ended: Ended,
}

/// Runs `command` with no input and both outputs in one pipe, for at most `limit` and `max_bytes`.
///
/// The program and the processes that it starts are one process group. The run is over when all of them have closed
/// the pipe; a group that is too slow or too talkative is killed as a whole.
pub(crate) fn capture(
    command: &mut Command,
    limit: Duration,
    max_bytes: usize,
) -> io::Result<Captured> {
    let (mut reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).process_group(0);
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // The command keeps its copies of the pipe's writing end until they are replaced.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (send, chunks) = channel();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(n @ 1..) = reader.read(&mut buffer) {
            if send.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + limit;
    let mut output = Vec::new();
    let stopped = loop {
        match chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(chunk) => output.extend_from_slice(&chunk),
            Err(RecvTimeoutError::Timeout) => break Some(Ended::TimedOut(limit)),
            Err(RecvTimeoutError::Disconnected) => break None,
        }
        if output.len() > max_bytes {
            break Some(Ended::TooMuch(max_bytes));
        }
    };
    let ended = match stopped {
        Some(ended) => ended,
        None => match wait_until(&mut child, deadline)? {
            Some(status) => Ended::of(status),
            None => Ended::TimedOut(limit),
        },
    };
    kill_group(&child);
    child.wait()?;
    Ok(Captured { output, ended })
}

/// Lets the system kill the program that `command` will start when the thread that starts it ends, however it ends.
pub(crate) fn end_with_parent(command: &mut Command) {
    let ask = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(ask) };
}

/// Waits for `child` until `deadline`; `None` when it still runs then.
pub(crate) fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Kills what is left of the process group that `child` leads.
fn kill_group(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // An error means that the group is gone already.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Returns the name of a signal of Linux on x86-64 that ends programs.
fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Ended, capture};
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    /// Writes a file that can be run.
    ///
    /// Another process writes it: a program that is forked by a thread of this one could hold the file open, and then Linux
    /// would refuse to run it.
    pub(crate) fn executable(path: &Path, content: &[u8]) {
        let mut shell = Command::new("sh")
            .args([
                "-c",
                "mkdir -p \"${0%/*}\" && cat > \"$0\" && chmod 755 \"$0\"",
            ])
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let mut input = shell.stdin.take().expect("a pipe");
        input.write_all(content).expect("sh reads");
        drop(input);
        assert!(shell.wait().expect("sh ends").success());
    }

    /// Writes a shell script that stands in for a program.
    pub(crate) fn script(dir: &Path, name: &str, body: &str) -> PathBuf {
        let path = dir.join(name);
        executable(&path, format!("#!/bin/sh\n{body}\n").as_bytes());
        path
    }

    fn shell(script: &str, limit_ms: u64) -> super::Captured {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        capture(&mut command, Duration::from_millis(limit_ms), 1000).expect("sh runs")
    }

    #[test]
    fn both_streams_come_in_order_with_the_exit_status() {
        let captured = shell("echo a; echo b >&2; echo c; exit 3", 20_000);
        assert_eq!(captured.output, b"a\nb\nc\n");
        assert_eq!(captured.ended, Ended::Exit(3));
    }

    #[test]
    fn a_signal_has_its_name() {
        let captured = shell("kill -SEGV $$", 20_000);
        assert_eq!(captured.ended.to_string(), "killed by SIGSEGV");
    }

    #[test]
    fn the_limit_kills_the_whole_group() {
        let begun = Instant::now();
        let captured = shell("sleep 60 & echo begun; sleep 60", 5000);
        assert_eq!(
            captured.ended,
            Ended::TimedOut(Duration::from_secs(5)),
            "an orphan held the pipe"
        );
        assert_eq!(captured.output, b"begun\n");
        assert!(begun.elapsed() < Duration::from_secs(45));
    }

    #[test]
    fn a_flood_is_stopped() {
        let captured = shell("while :; do echo flood; done", 20_000);
        assert_eq!(captured.ended, Ended::TooMuch(1000));
    }
}
