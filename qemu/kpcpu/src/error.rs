//! What can go wrong: each error says what was looked for, and where.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::dump::DumpError;
use crate::header::HeaderError;
use crate::kernel::KernelError;
use crate::live::LiveError;
use crate::memory::Gone;
use crate::paging::TranslateError;

/// The result of a question to a kernel.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A kernel, a dump or an answer that is not to be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel's file is no kernel with a header.
    #[error("kernel {}: {source}", path.display())]
    Kernel {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: KernelError,
    },
    /// The dump is none.
    #[error("dump {}: {source}", path.display())]
    Dump {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: DumpError,
    },
    /// The guest cannot be read while it runs.
    #[error("guest {}: {source}", socket.display())]
    Live {
        /// QEMU's control socket.
        socket: PathBuf,
        /// Why.
        source: LiveError,
    },
    /// The guest that was read is no more.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// Another kernel, or the same one begun anew, is where the one that was opened was.
    #[error("the kernel was replaced while it was looked at: {0}")]
    Replaced(&'static str),
    /// There is no kernel's file, and the dump does not say where the header is.
    #[error(
        "dump {}: it has no note of the kernel's header (the guest found no vmcoreinfo device, or did not use it), so the kernel's \
         file is needed",
        .0.display()
    )]
    NoNote(PathBuf),
    /// The image holds no header where the kernel's file says, or one that is not understood.
    #[error(
        "header at physical {physical:#x}: {source}; the image is of another kernel, or of a time before this one was loaded"
    )]
    Header {
        /// Where it was looked for.
        physical: u64,
        /// Why it is none.
        source: HeaderError,
    },
    /// The image does not reach to where the kernel's file puts something.
    #[error(
        "{what} of the kernel's file, linked at {address:#x}, is not in the image: it is of another kernel"
    )]
    OutsideImage {
        /// What was looked for.
        what: &'static str,
        /// Its address as linked.
        address: u64,
    },
    /// The image is of another build than the kernel's file.
    #[error("the image is of another kernel: its build id is {image}, that of the file {file}")]
    BuildId {
        /// As the image has it.
        image: String,
        /// As the file has it.
        file: String,
    },
    /// Neither file nor image says which build it is.
    #[error(
        "the kernel's file has no build id, so nothing shows that it fits the image: link it with --build-id"
    )]
    NoBuildId,
    /// The kernel had not set its per-CPU data up.
    #[error("the kernel had not come to `Percpu::init` yet: there are no per-CPU data")]
    NotReady,
    /// No known page table maps the header to where it is.
    #[error("no page table maps the header at {address:#x} to physical {physical:#x}: {tried}")]
    NoAddressSpace {
        /// The header's address.
        address: u64,
        /// Where it is.
        physical: u64,
        /// What was tried.
        tried: String,
    },
    /// Memory that cannot be read.
    #[error("{what} at {address:#x}: {done} of {wanted} bytes read: {cause}")]
    Read {
        /// What was read.
        what: String,
        /// From which address on.
        address: u64,
        /// How many bytes were there.
        done: usize,
        /// How many were wanted.
        wanted: usize,
        /// Why no more.
        cause: ReadCause,
    },
    /// Nothing has that name.
    #[error("no symbol, per-CPU variable or counter is called `{0}`")]
    NoName(String),
    /// More than one thing has that name.
    #[error("`{name}` is ambiguous: {found}")]
    Ambiguous {
        /// The name.
        name: String,
        /// What it could be.
        found: String,
    },
    /// Something of that name is of another kind.
    #[error("`{name}` is not {wanted}")]
    OtherKind {
        /// The name.
        name: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The counter or allocation was not made yet.
    #[error("`{0}` has not been allocated yet")]
    NotAllocated(String),
    /// No CPU can have that number.
    #[error("CPU {cpu} is too big: this kernel's ids are below {max}")]
    CpuTooBig {
        /// The number.
        cpu: u32,
        /// The bound.
        max: u32,
    },
    /// That CPU is not there.
    #[error("CPU {0} is not present")]
    CpuAbsent(u32),
    /// An address that no CPU has a copy of.
    #[error(
        "{address:#x} ({bytes} bytes) is not in the per-CPU area, which is {start:#x} to {stop:#x}"
    )]
    NotPerCpu {
        /// The name that was given.
        address: u64,
        /// How much was asked for.
        bytes: u64,
        /// The area's first name.
        start: u64,
        /// The name after the last one.
        stop: u64,
    },
    /// The kernel does not say where something is.
    #[error("the kernel's header does not say {0}")]
    NotSaid(&'static str),
    /// The kernel was changing its set of CPUs when the image was made, or each time that a running kernel was asked.
    #[error(
        "torn: the set of CPUs was being changed at that moment (generation {0}): what is said of them may not fit together"
    )]
    Torn(u64),
    /// A list of the kernel is longer than any kernel's.
    #[error("the list of LWPs has more than {0} entries: it is damaged")]
    TooMany(usize),
    /// A list of the kernel never ends.
    #[error(
        "the list of LWPs comes back to {0:#x}: it is damaged, or was changed while it was read"
    )]
    Loop(u64),
}

/// Why memory cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadCause {
    /// The address is not mapped.
    #[error(transparent)]
    Translate(#[from] TranslateError),
    /// It is mapped to memory that the image does not have.
    #[error("physical {0:#x} is not in the image")]
    Absent(u64),
    /// The file behind the image failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
