//! One error type: a line for people, and the exit status that goes with it.

use std::fmt;

/// A failure of the runner, said in one line: what, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    status: u8,
    text: String,
}

/// The status of a check that this machine cannot run; `cargo verify` shows it as that, neither passed nor failed.
const NOT_RUN: u8 = 3;

/// The result of what can fail in the runner.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes the error of a run or a check that did not succeed: exit status 1.
    pub fn failed(text: impl Into<String>) -> Self {
        Self {
            status: 1,
            text: text.into(),
        }
    }

    /// Makes the error of a wrong value or a missing tool: exit status 2.
    pub fn unusable(text: impl Into<String>) -> Self {
        Self {
            status: 2,
            text: text.into(),
        }
    }

    /// Makes the error of a check that this machine cannot run, and that is no failure of what it checks.
    pub(crate) fn not_run(text: impl Into<String>) -> Self {
        Self {
            status: NOT_RUN,
            text: text.into(),
        }
    }

    /// Is it a check that did not run?
    pub(crate) fn is_not_run(&self) -> bool {
        self.status == NOT_RUN
    }

    /// Returns the exit status that the runner ends with.
    pub fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// Says what was being done when something failed.
pub(crate) trait During<T> {
    /// Turns any error into an [`Error`] of exit status 1 that begins with `what`.
    fn during(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> During<T> for std::result::Result<T, E> {
    fn during(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::failed(format!("{what}: {e}")))
    }
}
