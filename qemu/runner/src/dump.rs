//! A guest that stands still at its end, so that its memory can be taken: over QEMU's control socket.
//!
//! With `hold=1` on its command line the kernel does not leave: it says `@hold success` or `@hold failure` and stops its CPU.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcu9_kpcpu::Qmp;
use tempfile::TempDir;

use crate::boot::Run;
use crate::emulator::{Emulator, End, Machine, Outcome};
use crate::error::{During, Error, Result};
use crate::guest::{self, Kernel};
use crate::qemu::Qemu;
use crate::toolchain;

/// How long QEMU may take to answer; a dump of the guest's 512 MiB takes about five seconds on a slow disk.
const PATIENCE: Duration = Duration::from_mins(2);

/// A control socket in a directory of its own, which goes with it.
#[derive(Debug)]
pub(crate) struct Control {
    dir: TempDir,
    socket: PathBuf,
}

impl Control {
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::tempdir().during("a directory for QEMU's control socket")?;
        let socket = dir.path().join("qmp");
        Ok(Self { dir, socket })
    }

    /// Where the socket will be.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    fn connect(&self) -> Result<Qmp> {
        Qmp::connect(&self.socket, PATIENCE).map_err(|e| Error::failed(e.to_string()))
    }

    /// Writes the guest's memory to `file` and the kernel beside it, and ends the emulator.
    pub(crate) fn dump_and_quit(&self, kernel: &Path, file: &Path) -> Result<()> {
        let file = std::path::absolute(file).during(file.display())?;
        let mut qmp = self.connect()?;
        let written = qmp.dump_guest_memory(&file);
        quit(&mut qmp)?;
        written.during(format_args!("--dump {}", file.display()))?;
        let beside = kernel_beside(&file);
        fs::copy(kernel, &beside).during(beside.display())?;
        Ok(())
    }
}

/// QEMU's argument for a control socket at `socket`.
pub(crate) fn qmp(socket: &Path) -> OsString {
    let mut argument = OsString::from("unix:");
    // A comma in a value is written twice.
    argument.push(socket.to_string_lossy().replace(',', ",,"));
    argument.push(",server=on,wait=off");
    argument
}

/// The name of the kernel's file beside a dump.
fn kernel_beside(dump: &Path) -> PathBuf {
    let mut name = dump.to_owned().into_os_string();
    name.push(".kernel");
    name.into()
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

fn quit(qmp: &mut Qmp) -> Result<()> {
    let quit = qmp.quit();
    quit.map_err(|e| Error::failed(e.to_string()))
}

/// A boot test's guest that stands still and can be looked into.
#[derive(Debug)]
pub struct Held<'a> {
    /// The kernel's file.
    pub kernel: &'a Path,
    /// QEMU's control socket, ready for commands.
    pub qmp: Qmp,
    /// What the guest said up to the line that was waited for.
    pub said: &'a [String],
    /// A directory that goes when the guest does.
    pub dir: &'a Path,
}

/// Boots the boot test `name` with `case=CASE hold=1` on the machine `run`, waits for its line `line`, calls `look`, and ends
/// the emulator.
///
/// # Errors
///
/// If tools are missing, the kernel does not compile, or the line does not come.
pub fn boot_and_hold(
    name: &str,
    case: &str,
    run: Run,
    line: &str,
    mut look: impl FnMut(&mut Held<'_>),
) -> Result<()> {
    let qemu = Qemu::provide()?;
    let kernel = match guest::given() {
        Some(kernel) => kernel,
        None => guest::build(&toolchain::provide()?, &Kernel::named(name))?,
    };
    let control = Control::new()?;
    let machine = Machine {
        kernel: &kernel,
        initrd: None,
        qmp: Some(control.socket()),
        append: format!("case={case} hold=1"),
        model: run.cpu,
        cpus: run.cpus,
        limit: crate::boot::LIMIT,
    };
    let mut said = Vec::new();
    let mut connected = Err(Error::failed(format!("{name} did not say `{line}`")));
    let outcome = qemu.run(&machine, &mut |text| {
        said.push(text.to_owned());
        if text != line {
            return;
        }
        connected = control.connect().and_then(|qmp| {
            let mut held = Held {
                kernel: &kernel,
                qmp,
                said: &said,
                dir: control.dir.path(),
            };
            look(&mut held);
            quit(&mut held.qmp)
        });
    })?;
    connected.during(outcome)
}
