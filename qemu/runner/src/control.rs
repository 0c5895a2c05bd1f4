//! What lets others look into QEMU's guest: control sockets, the guest's memory in a file, and the device by which a dump brings the
//! kernel's header with it.
//!
//! The file has no name on any disk: it is memory of this process, which QEMU and readers open by `/proc`, and which goes with it. It
//! is sealed, so nobody makes it shorter under a reader.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use pcu9_kpcpu::Qmp;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use tempfile::TempDir;

use crate::error::{During, Error, Result};

/// How long QEMU may take to answer; a dump of the guest's 512 MiB takes about five seconds on a slow disk.
const PATIENCE: Duration = Duration::from_mins(2);
/// How much memory a guest has, in MiB.
pub(crate) const MIB: u64 = 512;

/// The way into one guest. Its directory goes with it.
#[derive(Debug)]
pub(crate) struct Control {
    dir: TempDir,
    memory: OwnedFd,
    mib: u64,
    /// A socket where somebody asked for one.
    asked_for: Option<PathBuf>,
    /// Further arguments for QEMU.
    options: Vec<OsString>,
}

impl Control {
    /// Makes one for a guest with so much memory.
    pub(crate) fn new(mib: u64) -> Result<Self> {
        let dir = tempfile::tempdir().during("a directory for QEMU's control socket")?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let what = "memory for the guest";
        let memory = memfd_create("pcu9-guest", flags).during(what)?;
        ftruncate(&memory, mib << 20).during(what)?;
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW).during(what)?;
        Ok(Self {
            dir,
            memory,
            mib,
            asked_for: None,
            options: Vec::new(),
        })
    }

    /// Adds a socket at `path` for `cargo pcustat`, and puts the kernel's file beside it.
    pub(crate) fn listen(&mut self, path: &Path, kernel: &Path) -> Result<()> {
        let path = std::path::absolute(path).during(path.display())?;
        let beside = kernel_beside(&path);
        fs::copy(kernel, &beside).during(beside.display())?;
        self.asked_for = Some(path);
        Ok(())
    }

    /// Adds an argument to QEMU's.
    pub(crate) fn option(&mut self, option: impl Into<OsString>) {
        self.options.push(option.into());
    }

    /// A directory that goes when the guest does.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The socket for whoever looks into the guest; QEMU serves one at a time.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("qmp")
    }

    /// The file that QEMU writes its process's number to.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.dir.path().join("pid")
    }

    fn own_socket(&self) -> PathBuf {
        self.dir.path().join("own")
    }

    /// Connects to the runner's own socket.
    pub(crate) fn connect(&self) -> Result<Qmp> {
        Qmp::connect(&self.own_socket(), PATIENCE).map_err(|e| Error::failed(e.to_string()))
    }

    /// QEMU's arguments.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let memory = format!("/proc/{}/fd/{}", process::id(), self.memory.as_raw_fd());
        let mut arguments = vec![
            "-object".into(),
            format!(
                "memory-backend-file,id=guest-memory,size={}M,mem-path={memory},share=on",
                self.mib
            )
            .into(),
            "-machine".into(),
            "memory-backend=guest-memory".into(),
            "-device".into(),
            "vmcoreinfo".into(),
            "-pidfile".into(),
            self.pid_file().into(),
        ];
        let sockets = [self.own_socket(), self.socket()];
        for socket in sockets.iter().chain(&self.asked_for) {
            arguments.push("-qmp".into());
            arguments.push(qmp(socket));
        }
        arguments.extend(self.options.iter().cloned());
        arguments
    }

    /// How much memory the guest has, in MiB.
    pub(crate) fn mib(&self) -> u64 {
        self.mib
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Where QEMU was killed it has left its socket.
        if let Some(path) = &self.asked_for {
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(kernel_beside(path));
        }
    }
}

/// QEMU's argument for a control socket at `socket`.
fn qmp(socket: &Path) -> OsString {
    let mut argument = OsString::from("unix:");
    // A comma in a value is written twice.
    argument.push(socket.to_string_lossy().replace(',', ",,"));
    argument.push(",server=on,wait=off");
    argument
}

/// The name of the kernel's file beside a dump or a socket.
pub(crate) fn kernel_beside(file: &Path) -> PathBuf {
    let mut name = file.to_owned().into_os_string();
    name.push(".kernel");
    name.into()
}

/// Finds out at once whether QEMU can listen at `path`: what is there already, unless it is a socket, QEMU would delete.
pub(crate) fn check_socket(path: &Path) -> Result<()> {
    let unusable = |why: String| Error::unusable(format!("--socket {}: {why}", path.display()));
    // The system's limit for the name of a socket, `sun_path` of unix(7).
    let absolute = std::path::absolute(path).map_err(|e| unusable(e.to_string()))?;
    if absolute.as_os_str().len() > 107 {
        return Err(unusable(
            "too long a name for a socket; 107 bytes are the most".into(),
        ));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(unusable("there is something, and it is no socket".into()));
        }
        _ => {}
    }
    let beside = kernel_beside(path);
    fs::write(&beside, "").map_err(|e| unusable(e.to_string()))?;
    fs::remove_file(&beside).map_err(|e| unusable(e.to_string()))
}
