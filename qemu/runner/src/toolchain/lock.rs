//! A lock that parallel runs of this program take before they make something that all of them use.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::{During, Result};
use crate::progress::Step;

/// Held until dropped; the system drops it when the process dies.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "closing the file releases the lock")] File);

impl Lock {
    /// Waits for the lock of the directory `dir`, which is made when missing.
    pub(super) fn take(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).during(dir.display())?;
        let path = dir.join("lock");
        let file = File::create(&path).during(path.display())?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let step = Step::start("waiting for another run that makes the guest's toolchain");
            flock(&file, FlockOperation::LockExclusive).during(path.display())?;
            step.done();
        }
        Ok(Self(file))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::{Path, PathBuf};

    use crate::process::tests::executable;

    /// Writes a shell script that stands in for a program.
    pub(in crate::toolchain) fn script(dir: &Path, name: &str, body: &str) -> PathBuf {
        let path = dir.join(name);
        executable(&path, format!("#!/bin/sh\n{body}\n").as_bytes());
        path
    }
}
