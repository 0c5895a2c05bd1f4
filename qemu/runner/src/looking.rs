//! A boot test's guest that is looked into from outside while it runs, or while it stands still.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use pcu9_kpcpu::Qmp;

use crate::boot::{LIMIT, Run};
use crate::control::{Control, MIB};
use crate::emulator::{Emulator, Machine};
use crate::error::{During, Error, Result};
use crate::guest::{self, Kernel};
use crate::qemu::Qemu;
use crate::toolchain;

/// Which guest boots, and on what machine.
#[derive(Debug, Clone, Copy)]
pub struct Looking<'a> {
    /// The boot test.
    pub name: &'a str,
    /// The case that it runs, with `hold=1`.
    pub case: &'a str,
    /// CPUs.
    pub run: Run,
    /// How much memory, in MiB; what the guest does not touch costs nothing.
    pub mib: u64,
    /// Further arguments for QEMU; `{dir}` in one stands for [`Guest::dir`].
    pub options: &'a [&'a str],
}

/// A guest that runs.
#[derive(Debug)]
pub struct Guest<'a> {
    kernel: &'a Path,
    control: &'a Control,
    lines: Receiver<String>,
    said: Vec<String>,
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

impl<'a> Looking<'a> {
    /// The case of a boot test on `run` with the memory that guests usually have.
    pub fn new(name: &'a str, case: &'a str, run: Run) -> Self {
        Self {
            name,
            case,
            run,
            mib: MIB,
            options: &[],
        }
    }

    /// Boots it, calls `look` once QEMU listens, and ends the emulator.
    ///
    /// # Errors
    ///
    /// If tools are missing, the kernel does not compile, or QEMU does not come up.
    pub fn look(&self, look: impl FnOnce(&mut Guest<'_>)) -> Result<()> {
        let qemu = Qemu::provide()?;
        let kernel = match guest::given() {
            Some(kernel) => kernel,
            None => guest::build(&toolchain::provide()?, &Kernel::named(self.name))?,
        };
        let mut control = Control::new(self.mib)?;
        let dir = control.dir().display().to_string();
        for option in self.options {
            control.option(option.replace("{dir}", &dir));
        }
        let (send, lines) = channel();
        let machine = Machine {
            kernel: &kernel,
            initrd: None,
            control: Some(&control),
            append: format!("case={} hold=1", self.case),
            model: self.run.cpu,
            cpus: self.run.cpus,
            limit: LIMIT,
        };
        thread::scope(|scope| {
            let emulator = scope.spawn(|| {
                // Nobody may listen any more.
                let ran = qemu.run(&machine, &mut |line| {
                    let _ = send.send(line.to_owned());
                });
                drop(send);
                ran
            });
            let mut guest = Guest {
                kernel: &kernel,
                control: &control,
                lines,
                said: Vec::new(),
            };
            let is_up = guest.wait_for_sockets();
            if is_up {
                look(&mut guest);
            }
            drop(guest);
            let outcome = emulator
                .join()
                .map_err(|_| Error::failed("QEMU's thread"))??;
            if is_up {
                return Ok(());
            }
            Err(Error::failed(format!(
                "QEMU does not listen at its control socket: {outcome}"
            )))
        })
    }
}

impl Guest<'_> {
    /// The kernel's file.
    pub fn kernel(&self) -> &Path {
        self.kernel
    }

    /// QEMU's control socket.
    pub fn socket(&self) -> PathBuf {
        self.control.socket()
    }

    /// A directory that goes when the guest does.
    pub fn dir(&self) -> &Path {
        self.control.dir()
    }

    /// The number of QEMU's process.
    ///
    /// # Errors
    ///
    /// If QEMU has not told it.
    pub fn pid(&self) -> Result<u32> {
        let path = self.control.pid_file();
        let text = fs::read_to_string(&path).during(path.display())?;
        text.trim().parse().during(path.display())
    }

    /// Connects to QEMU at a socket of its own.
    ///
    /// # Errors
    ///
    /// If QEMU does not answer.
    pub fn connect(&self) -> Result<Qmp> {
        self.control.connect()
    }

    /// What the guest has said so far.
    pub fn said(&self) -> &[String] {
        &self.said
    }

    /// Waits for a line that begins with `begin`, and returns it.
    ///
    /// # Errors
    ///
    /// If the guest ends first, or says nothing of the kind for a minute.
    pub fn wait_for(&mut self, begin: &str) -> Result<String> {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).map_err(|_| {
                let last = self.said.last().map_or("nothing", String::as_str);
                Error::failed(format!(
                    "the guest did not say `{begin}`; the last was: {last}"
                ))
            })?;
            self.said.push(line.clone());
            if line.starts_with(begin) {
                return Ok(line);
            }
        }
    }

    fn wait_for_sockets(&self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.pid().is_ok() && self.connect().is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        if let Ok(mut qmp) = self.connect() {
            let _ = qmp.quit();
        }
    }
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
    let mut looked = Ok(());
    Looking::new(name, case, run).look(|guest| {
        looked = guest.wait_for(line).and_then(|_| {
            let mut held = Held {
                kernel: guest.kernel,
                qmp: guest.connect()?,
                said: &guest.said,
                dir: guest.control.dir(),
            };
            look(&mut held);
            held.qmp.quit().map_err(|e| Error::failed(e.to_string()))
        });
    })?;
    looked
}
