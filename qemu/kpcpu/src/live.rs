//! The memory of a guest that runs, by QEMU's control socket: through the file that QEMU keeps it in, or by `pmemsave`.
//!
//! Which address is where QEMU is asked: a PC's memory is split around the hole for devices below 4 GiB, so that what lies above it
//! is elsewhere in the file. The file is read without QEMU, and the guest never waits; `pmemsave` needs no file, takes QEMU's
//! big lock for each read, and does not stop the guest's CPUs either.
//!
//! The connection is held for as long as the source is open: by it the reader hears at once when the guest ends or is reset.

mod file;
mod map;
mod pmemsave;

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

use crate::memory::{Gone, PhysicalMemory};
use crate::qmp::{Qmp, QmpError};
use file::MemoryFile;
use map::Stretch;
use pmemsave::Pmemsave;

/// How long QEMU may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a live guest's memory is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the file that QEMU keeps it in.
    MemoryFile,
    /// By QEMU's command of that name.
    Pmemsave,
}

/// A guest whose memory cannot be read while it runs.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LiveError {
    /// QEMU does not answer, or refuses.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU's map of memory is not of a form that is known.
    #[error("QEMU's map of memory (`info mtree -f`) is not understood: {0}")]
    Map(String),
    /// The memory is in no file that others can read.
    #[error(
        "QEMU keeps the guest's memory in no file that is shared: start it with `-object \
         memory-backend-file,id=ram,size=SIZE,mem-path=FILE,share=on -machine memory-backend=ram`, or read by pmemsave"
    )]
    NoFile,
    /// The file cannot be read.
    #[error("the guest's memory file {}: {source}", path.display())]
    File {
        /// Which file, as QEMU names it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is shorter than QEMU's map says.
    #[error(
        "the guest's memory file {} has {length} bytes, and QEMU's map needs {needed}: it is not the file that QEMU has",
        path.display()
    )]
    Short {
        /// Which file.
        path: PathBuf,
        /// What it has.
        length: u64,
        /// What it should have.
        needed: u64,
    },
}

/// The memory of a guest that runs.
#[derive(Debug)]
pub struct Live {
    qmp: RefCell<Qmp>,
    stretches: Vec<Stretch>,
    source: Source,
    /// What became of the guest: it never comes back.
    gone: Cell<Option<Gone>>,
}

#[derive(Debug)]
enum Source {
    /// The files, by the names of their blocks in the map.
    Files(Vec<(String, MemoryFile)>),
    /// What QEMU copied.
    Pmemsave(Pmemsave),
}

impl Live {
    /// Connects to QEMU at `socket` and asks it for its map of memory. Without a `way` it is read through its file if it is in one.
    ///
    /// # Errors
    ///
    /// [`LiveError`].
    pub fn connect(socket: &Path, way: Option<Way>) -> Result<Self, LiveError> {
        let mut qmp = Qmp::connect(socket, PATIENCE)?;
        let map = qmp.monitor("info mtree -f")?;
        let mut stretches = map::parse(&map).map_err(LiveError::Map)?;
        let mut source = None;
        if way != Some(Way::Pmemsave) {
            let files = files(&mut qmp, &stretches)?;
            if !files.is_empty() {
                stretches.retain(|stretch| files.iter().any(|(block, _)| *block == stretch.block));
                source = Some(Source::Files(files));
            } else if way == Some(Way::MemoryFile) {
                return Err(LiveError::NoFile);
            }
        }
        let source = match source {
            Some(source) => source,
            None => Source::Pmemsave(Pmemsave::new().map_err(QmpError::Io)?),
        };
        let live = Self {
            qmp: RefCell::new(qmp),
            stretches,
            source,
            gone: Cell::new(None),
        };
        // What happened before this is not news.
        live.qmp.borrow_mut().events()?;
        Ok(live)
    }

    /// How the memory is read.
    pub fn way(&self) -> Way {
        match self.source {
            Source::Files(_) => Way::MemoryFile,
            Source::Pmemsave(_) => Way::Pmemsave,
        }
    }

    /// Reads within one stretch.
    fn copy(&self, stretch: &Stretch, skip: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.source {
            Source::Files(files) => {
                let of_block = files.iter().find(|(block, _)| *block == stretch.block);
                of_block.map_or(Ok(0), |(_, file)| file.read(stretch.offset + skip, buffer))
            }
            Source::Pmemsave(pmemsave) => {
                let end = stretch.physical + stretch.bytes;
                pmemsave.read(&self.qmp, stretch.physical + skip, end, buffer)
            }
        }
    }
}

impl PhysicalMemory for Live {
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let Some(at) = address.checked_add(done as u64) else {
                break;
            };
            let Some((stretch, skip)) = map::find(&self.stretches, at) else {
                break;
            };
            let (left, wanted) = (stretch.bytes - skip, buffer.len() - done);
            let n = usize::try_from(left).map_or(wanted, |left| left.min(wanted));
            let copied = self.copy(stretch, skip, &mut buffer[done..done + n])?;
            done += copied;
            if copied == 0 {
                break;
            }
        }
        Ok(done)
    }

    fn is_live(&self) -> bool {
        true
    }

    fn forget(&self) {
        if let Source::Pmemsave(pmemsave) = &self.source {
            pmemsave.forget();
        }
    }

    fn check(&self) -> Result<(), Gone> {
        if let Some(gone) = self.gone.get() {
            return Err(gone);
        }
        let gone = match self.qmp.borrow_mut().events() {
            Err(_) => Some(Gone::Closed),
            Ok(events) => {
                let tells = |name: &str| events.iter().any(|event| event == name);
                match () {
                    () if tells("SHUTDOWN") => Some(Gone::Shutdown),
                    () if tells("RESET") => Some(Gone::Reset),
                    () => None,
                }
            }
        };
        self.gone.set(gone);
        gone.map_or(Ok(()), Err)
    }
}

/// The files of the blocks that are in the map, as far as QEMU shares them.
fn files(qmp: &mut Qmp, stretches: &[Stretch]) -> Result<Vec<(String, MemoryFile)>, LiveError> {
    let objects = qmp.execute("qom-list", &json!({ "path": "/objects" }))?;
    let mut files = Vec::new();
    for object in objects.as_array().into_iter().flatten() {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let (Some(id), Some("child<memory-backend-file>")) = (text("name"), text("type")) else {
            continue;
        };
        let path = format!("/objects/{id}");
        // The block is called by the object's path, or by its name alone, as the machine's version wants it.
        let Some(block) = [id, &path]
            .into_iter()
            .find(|name| stretches.iter().any(|stretch| stretch.block == **name))
        else {
            continue;
        };
        let mut property =
            |name: &str| qmp.execute("qom-get", &json!({ "path": path, "property": name }));
        if property("share")? != Value::Bool(true) {
            continue;
        }
        let path = PathBuf::from(property("mem-path")?.as_str().unwrap_or_default());
        let of_block = stretches.iter().filter(|stretch| stretch.block == block);
        let needed = of_block.map(Stretch::end).max().unwrap_or(0);
        let file = MemoryFile::open(&path).map_err(|source| LiveError::File {
            path: path.clone(),
            source,
        })?;
        let length = file.bytes();
        if length < needed {
            return Err(LiveError::Short {
                path,
                length,
                needed,
            });
        }
        files.push((block.to_owned(), file));
    }
    Ok(files)
}
