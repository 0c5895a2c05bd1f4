//! A guest's memory, taken over QEMU's control socket: in the midst of its run, or at its end, where it stands still for that.
//!
//! With `hold=1` on its command line the kernel does not leave: it says `@hold success` or `@hold failure` and stops its CPU.

use std::fs;
use std::path::Path;

use pcu9_kpcpu::Qmp;

use crate::control::{Control, kernel_beside};
use crate::emulator::{End, Outcome};
use crate::error::{During, Error, Result};

/// Writes the guest's memory to `file` and the kernel beside it.
pub(crate) fn write(qmp: &mut Qmp, kernel: &Path, file: &Path) -> Result<()> {
    let file = std::path::absolute(file).during(file.display())?;
    let written = qmp.dump_guest_memory(&file);
    written.during(format_args!("--dump {}", file.display()))?;
    let beside = kernel_beside(&file);
    fs::copy(kernel, &beside).during(beside.display())?;
    Ok(())
}

/// The same, and ends the emulator in any case.
pub(crate) fn write_and_quit(control: &Control, kernel: &Path, file: &Path) -> Result<()> {
    let mut qmp = control.connect()?;
    let written = write(&mut qmp, kernel, file);
    qmp.quit().map_err(|e| Error::failed(e.to_string()))?;
    written
}

/// Finds out at once whether a dump can be written to `file` and a kernel beside it.
pub(crate) fn check(file: &Path) -> Result<()> {
    for path in [file, &kernel_beside(file)] {
        fs::write(path, "")
            .map_err(|e| Error::unusable(format!("--dump {}: {e}", path.display())))?;
    }
    Ok(())
}

/// The word of the kernel's last line, `@hold success` or `@hold failure`, if `line` is that.
pub(crate) fn held(line: &str) -> Option<&str> {
    line.strip_prefix("@hold ")
}

/// Tells whether the kernel ended well: by itself, or held with `success` and ended by the runner.
pub(crate) fn is_success(outcome: &Outcome, held: Option<&str>) -> bool {
    match held {
        // Told to quit, QEMU ends with the status that a reset has too.
        Some(word) => word == "success" && outcome.end == End::TripleFault,
        None => outcome.is_success(),
    }
}
