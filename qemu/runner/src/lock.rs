//! A lock that parallel runs of this program take before they make something that all of them use.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::{During, Result};
use crate::progress::Step;

/// Held until dropped; the system drops it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing the file releases the lock")] File);

impl Lock {
    /// Waits for the lock of the directory `dir`, which is made when missing; `other` says what another run that has it does.
    pub(crate) fn take(dir: &Path, other: &str) -> Result<Self> {
        fs::create_dir_all(dir).during(dir.display())?;
        let path = dir.join("lock");
        let file = File::create(&path).during(path.display())?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let step = Step::start(format!("waiting for another run that {other}"));
            flock(&file, FlockOperation::LockExclusive).during(path.display())?;
            step.done();
        }
        Ok(Self(file))
    }
}
