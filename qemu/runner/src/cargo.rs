//! Runs a nested cargo and learns from its messages which files it made.

use std::io::{BufRead, BufReader, IsTerminal, Read, stderr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::error::{During, Error, Result};
use crate::process::Ended;
use crate::progress::Step;

/// A program or test that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Executable {
    /// The target's name in its Cargo.toml (or of its file).
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// Runs `cargo`, a build or check to which this adds the form of messages, and returns what it made in cargo's order.
/// Says `what` is being done; what cargo says is shown when it fails or warns.
pub(crate) fn build(cargo: &mut Command, what: &str) -> Result<Vec<Executable>> {
    let step = Step::start(what);
    cargo.arg("--message-format=json-render-diagnostics");
    let said = run(cargo, what, &step)?;
    step.done();
    Ok(said.lines().filter_map(executable).collect())
}

/// Runs `cargo` to its end and returns its standard output. The last thing it says is shown as progress.
pub(crate) fn run(cargo: &mut Command, what: &str, step: &Step) -> Result<String> {
    if stderr().is_terminal() && std::env::var_os("CARGO_TERM_COLOR").is_none() {
        cargo.env("CARGO_TERM_COLOR", "always");
    }
    cargo.stdin(Stdio::null());
    cargo.stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = cargo.get_program().to_string_lossy().into_owned();
    let mut child = cargo
        .spawn()
        .map_err(|e| Error::unusable(format!("{what}: {program} cannot be run: {e}")))?;
    let stdout = child.stdout.take();
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut stdout) = stdout {
            let _ = stdout.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr)
            .split(b'\n')
            .map_while(std::result::Result::ok)
        {
            let line = String::from_utf8_lossy(&line);
            step.note(line.trim());
            said.push_str(&line);
            said.push('\n');
        }
    }
    let ended = Ended::of(child.wait().during(what)?);
    let stdout = reader.join().unwrap_or_default();
    if !ended.is_success() {
        step.print_error(&said);
        return Err(Error::failed(format!("{what} failed: {program}: {ended}")));
    }
    if said.contains("warning") {
        step.print_error(&said);
    }
    Ok(stdout)
}

/// Reads one of cargo's messages.
fn executable(line: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    Some(Executable {
        name: message["target"]["name"].as_str()?.to_owned(),
        path: message["executable"].as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Executable, executable};

    #[test]
    fn only_artifacts_with_an_executable_count() {
        let line = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"testbed"},"executable":"/t/testbed"}"#;
        let testbed = Executable {
            name: "testbed".into(),
            path: "/t/testbed".into(),
        };
        assert_eq!(executable(line), Some(testbed));
        let library =
            r#"{"reason":"compiler-artifact","target":{"name":"pcu9"},"executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(
            executable(r#"{"reason":"build-finished","success":true}"#),
            None
        );
        assert_eq!(executable("not json"), None);
    }
}
