//! QEMU's machine protocol: one JSON object a line. QEMU, `docs/interop/qmp-spec`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

/// The longest line that is taken: QEMU's map of memory has some ten thousand bytes.
const LINE_BYTES_MAX: usize = 16 << 20;

/// QEMU did not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QmpError {
    /// The socket cannot be used.
    #[error("QEMU's control socket: {0}")]
    Io(#[from] io::Error),
    /// Nobody listens at the socket.
    #[error("QEMU's control socket: nobody listens; the QEMU that made it has ended")]
    Nobody,
    /// QEMU closed the connection.
    #[error("QEMU's control socket: it was closed; QEMU has ended")]
    Closed,
    /// Nothing comes.
    #[error(
        "QEMU's control socket: no answer within {} s; QEMU serves one program at a time, so another one may be connected",
        .0.as_secs()
    )]
    Silent(Duration),
    /// Whoever is behind the socket does not speak the protocol.
    #[error("not QEMU's control socket: it says {0}")]
    NotQmp(String),
    /// QEMU refused.
    #[error("QEMU refuses `{command}`: {reason}")]
    Refused {
        /// What it was asked.
        command: String,
        /// Why, in its words.
        reason: String,
    },
}

/// A connection to QEMU that is ready for commands.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    patience: Duration,
    /// What was received and is no whole line yet, or is not needed yet.
    received: Vec<u8>,
    events: Vec<String>,
}

impl Qmp {
    /// Connects to the socket that QEMU was given with `-qmp unix:PATH,server=on`. No answer takes longer than `patience`.
    ///
    /// # Errors
    ///
    /// [`QmpError`].
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, QmpError> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => QmpError::Nobody,
            _ => error.into(),
        })?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut qmp = Self {
            stream,
            patience,
            received: Vec::new(),
            events: Vec::new(),
        };
        let greeting = qmp.receive()?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::NotQmp(short(&greeting.to_string())));
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and returns its answer. Events that come in between are kept for [`events`](Self::events).
    ///
    /// # Errors
    ///
    /// [`QmpError`].
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        // In one piece: QEMU obeys at the last brace, and is gone after `quit` when the end of the line follows.
        let request = format!(
            "{}\n",
            json!({ "execute": command, "arguments": arguments })
        );
        let sent = self.stream.write_all(request.as_bytes());
        sent.map_err(|error| self.explain(error))?;
        loop {
            let mut answer = self.receive()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                let reason = error.get("desc").and_then(Value::as_str);
                return Err(QmpError::Refused {
                    command: command.into(),
                    reason: reason.map_or_else(|| error.to_string(), String::from),
                });
            }
            self.keep_event(&answer);
        }
    }

    /// Executes a command of the monitor for people, and returns what it prints.
    ///
    /// # Errors
    ///
    /// [`QmpError`].
    pub fn monitor(&mut self, line: &str) -> Result<String, QmpError> {
        let arguments = json!({ "command-line": line });
        let said = self.execute("human-monitor-command", &arguments)?;
        Ok(said.as_str().unwrap_or_default().into())
    }

    /// Returns the names of the events that QEMU told of since this was asked, and waits for none.
    ///
    /// # Errors
    ///
    /// [`QmpError`]; [`QmpError::Closed`] if QEMU has gone.
    pub fn events(&mut self) -> Result<Vec<String>, QmpError> {
        self.stream.set_nonblocking(true)?;
        let more = loop {
            match self.receive_some() {
                Ok(()) => {}
                Err(QmpError::Silent(_)) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.stream.set_nonblocking(false)?;
        // What QEMU said before it went comes first.
        while let Some(line) = self.line() {
            let object = parse(&line)?;
            self.keep_event(&object);
        }
        if self.events.is_empty() {
            more?;
        }
        Ok(std::mem::take(&mut self.events))
    }

    /// Writes the guest's memory and registers to an ELF core at `path`; the guest stands still meanwhile.
    ///
    /// Without paging: with it QEMU leaves out memory and says nothing.
    ///
    /// # Errors
    ///
    /// [`QmpError`].
    pub fn dump_guest_memory(&mut self, path: &Path) -> Result<(), QmpError> {
        let protocol = format!("file:{}", path.display());
        let arguments = json!({ "paging": false, "protocol": protocol });
        self.execute("dump-guest-memory", &arguments).map(|_| ())
    }

    /// Ends QEMU, and the guest with it.
    ///
    /// # Errors
    ///
    /// [`QmpError`].
    pub fn quit(&mut self) -> Result<(), QmpError> {
        self.execute("quit", &json!({})).map(|_| ())
    }

    fn keep_event(&mut self, object: &Value) {
        let name = object.get("event").and_then(Value::as_str);
        self.events.extend(name.map(String::from));
    }

    fn receive(&mut self) -> Result<Value, QmpError> {
        loop {
            if let Some(line) = self.line() {
                return parse(&line);
            }
            self.receive_some()?;
        }
    }

    /// Takes a whole line out of what was received.
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.received.iter().position(|&byte| byte == b'\n')?;
        let rest = self.received.split_off(end + 1);
        Some(std::mem::replace(&mut self.received, rest))
    }

    fn receive_some(&mut self) -> Result<(), QmpError> {
        if self.received.len() > LINE_BYTES_MAX {
            let begin = String::from_utf8_lossy(&self.received[..100]);
            return Err(QmpError::NotQmp(short(&begin)));
        }
        let mut buffer = [0; 1 << 14];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(QmpError::Closed),
            Ok(n) => {
                self.received.extend_from_slice(&buffer[..n]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.explain(error)),
        }
    }

    fn explain(&self, error: io::Error) -> QmpError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => QmpError::Silent(self.patience),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => QmpError::Closed,
            _ => error.into(),
        }
    }
}

fn parse(line: &[u8]) -> Result<Value, QmpError> {
    serde_json::from_slice(line)
        .map_err(|_| QmpError::NotQmp(short(&String::from_utf8_lossy(line))))
}

/// What another program says may be long, and is shown in one line.
fn short(said: &str) -> String {
    let begin = said.trim_end().chars().take(80).collect::<String>();
    format!("`{}`", begin.escape_debug())
}
