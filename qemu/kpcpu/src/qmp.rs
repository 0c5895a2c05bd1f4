//! QEMU's machine protocol: one JSON object a line. QEMU, `docs/interop/qmp-spec`.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

/// QEMU did not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QmpError {
    /// The socket cannot be reached, or QEMU has gone.
    #[error("QEMU's control socket: {0}")]
    Io(#[from] io::Error),
    /// Whoever is behind the socket does not speak the protocol.
    #[error("not QEMU's control socket: {0}")]
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
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket that QEMU was given with `-qmp unix:PATH,server=on`. No answer takes longer than `patience`.
    ///
    /// # Errors
    ///
    /// [`QmpError`].
    pub fn connect(path: &Path, patience: Duration) -> Result<Self, QmpError> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
        };
        let greeting = qmp.receive()?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::NotQmp(greeting.to_string()));
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and returns its answer. Events that come in between are skipped.
    ///
    /// # Errors
    ///
    /// [`QmpError`].
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        let request = json!({ "execute": command, "arguments": arguments });
        // In one piece: QEMU obeys at the last brace, and is gone after `quit` when the end of the line follows.
        let line = format!("{request}\n");
        self.reader.get_mut().write_all(line.as_bytes())?;
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
        }
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

    fn receive(&mut self) -> Result<Value, QmpError> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        serde_json::from_str(&line).map_err(|_| QmpError::NotQmp(line.trim_end().into()))
    }
}
