//! The handle: a kernel's file and its memory, opened together. libkvm's `kvm_open`(3), `kvm_read`(3), `kvm_nlist`(3).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use crate::dump::{CpuRegisters, Dump};
use crate::error::{Error, ReadCause, Result};
use crate::header::{self, Header, Text};
use crate::kernel::{KernelError, KernelFile};
use crate::live::Live;
use crate::memory::PhysicalMemory;
use crate::note::Travelled;
use crate::paging::{AddressSpace, Levels, Mapping, TranslateError};
use crate::percpu::Cpus;
use crate::table::Descriptor;

/// A kernel that is looked at from outside: libkvm's `kvm_t`. Everything cached belongs to the handle.
#[derive(Debug)]
pub struct Kpcpu {
    kernel: KernelFile,
    pub(crate) memory: Box<dyn PhysicalMemory>,
    registers: Vec<CpuRegisters>,
    pub(crate) header_physical: u64,
    space: AddressSpace,
    /// What the kernel's addresses are above those in its file.
    bias: u64,
    pub(crate) current_cpu: u32,
    pub(crate) torn: Torn,
    pub(crate) cache: RefCell<Cache>,
    /// What identifies the kernel that was opened: its header's address and build id.
    pub(crate) opened: (u64, Vec<u8>),
    /// A question to a running kernel is being asked; what it asks in turn is a part of it.
    pub(crate) is_asking: Cell<bool>,
}

/// What to do with a set of CPUs that the kernel was changing when the image was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    /// Refuse it with [`Error::Torn`]: what a handle does until it is told otherwise.
    Refuse,
    /// Read what there is.
    Accept,
}

/// What was read once and is kept until [`Kpcpu::clear_cache`].
#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) header: Option<Rc<Header>>,
    pub(crate) cpus: Option<Rc<Cpus>>,
    descriptors: Option<Rc<[Descriptor]>>,
    /// Pages of a running kernel that the question in hand has looked up, by their addresses.
    pub(crate) pages: HashMap<u64, Mapping>,
}

impl Kpcpu {
    /// Opens a kernel's file and a dump of it. FreeBSD: `kvm_open2`.
    ///
    /// # Errors
    ///
    /// Says which of the two is not what it should be, or that they do not belong together.
    #[doc(alias = "kvm_open")]
    #[doc(alias = "kvm_open2")]
    #[doc(alias = "kvm_openfiles")]
    pub fn open(kernel: &Path, dump: &Path) -> Result<Self> {
        let error = |source| Error::Kernel {
            path: kernel.into(),
            source,
        };
        let data = std::fs::read(kernel).map_err(|e| error(e.into()))?;
        let (file, header) = KernelFile::parse_any(&data).map_err(error)?;
        let image = open_dump(dump)?;
        let registers = image.cpus().to_vec();
        if header.is_some() {
            return Self::with_memory(file, Box::new(image), registers);
        }
        // The file has lost its symbols and notes; the dump may say where the header is.
        let note = Travelled::find(&image).ok_or_else(|| error(KernelError::NoHeader))?;
        Self::at(
            (file, note.address),
            note.physical,
            Box::new(image),
            registers,
        )
    }

    /// Opens a dump without the kernel's file, by the note in it with which the header travels: all but the kernel's symbols is
    /// known.
    ///
    /// # Errors
    ///
    /// [`Error::NoNote`] if there is no such note, else as [`open`](Self::open).
    pub fn open_dump(dump: &Path) -> Result<Self> {
        let image = open_dump(dump)?;
        let registers = image.cpus().to_vec();
        let note = Travelled::find(&image).ok_or_else(|| Error::NoNote(dump.into()))?;
        let file = KernelFile::unknown(note.address);
        Self::at(
            (file, note.address),
            note.physical,
            Box::new(image),
            registers,
        )
    }

    /// Opens a kernel's file and the guest that runs it, at QEMU's control socket; its memory is read as [`Live::connect`] finds best.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the file or the guest, or that they do not belong together.
    pub fn open_live(kernel: &Path, socket: &Path) -> Result<Self> {
        let file = KernelFile::open(kernel).map_err(|source| Error::Kernel {
            path: kernel.into(),
            source,
        })?;
        let live = Live::connect(socket, None).map_err(|source| Error::Live {
            socket: socket.into(),
            source,
        })?;
        Self::with_memory(file, Box::new(live), Vec::new())
    }

    /// Opens a kernel on any memory; `registers` are those of its CPUs, as far as they are known.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn with_memory(
        kernel: KernelFile,
        memory: Box<dyn PhysicalMemory>,
        registers: Vec<CpuRegisters>,
    ) -> Result<Self> {
        let address = kernel.header();
        let physical = kernel.physical(address).ok_or(Error::OutsideImage {
            what: "the header",
            address,
        })?;
        Self::at((kernel, address), physical, memory, registers)
    }

    /// Opens a kernel whose header, linked at `address`, is at `header_physical`.
    fn at(
        (kernel, address): (KernelFile, u64),
        header_physical: u64,
        memory: Box<dyn PhysicalMemory>,
        registers: Vec<CpuRegisters>,
    ) -> Result<Self> {
        let mut handle = Self {
            kernel,
            memory,
            registers,
            header_physical,
            space: AddressSpace::new(0, Levels::Four),
            bias: 0,
            current_cpu: 0,
            torn: Torn::Refuse,
            cache: RefCell::default(),
            opened: (0, Vec::new()),
            is_asking: Cell::new(false),
        };
        let header = handle.read_header(address)?;
        handle.check_build_id(&header)?;
        if header.address == 0 {
            return Err(Error::NotReady);
        }
        handle.opened = (header.address, header.build_id.clone());
        handle.bias = header.address.wrapping_sub(address);
        handle.space = handle.find_space(&header)?;
        handle.cache.borrow_mut().header = Some(Rc::new(header));
        Ok(handle)
    }

    /// Forgets everything that was read of the kernel, so that the next question reads it anew. FreeBSD: `kvm_getmaxcpu` and
    /// `kvm_getpcpu` with `kd` NULL, which forget only a part.
    pub fn clear_cache(&self) {
        *self.cache.borrow_mut() = Cache::default();
    }

    /// Says what to do if the kernel was changing its set of CPUs at that moment, so that what is said of them may not fit together.
    pub fn accept_torn(&mut self, torn: Torn) {
        self.torn = torn;
    }

    /// Says that the guest is still there that was opened; a dump stays.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`].
    pub fn check(&self) -> Result<()> {
        Ok(self.memory.check()?)
    }

    /// The registers of the guest's CPUs in the emulator's order, if the image has them.
    pub fn registers(&self) -> &[CpuRegisters] {
        &self.registers
    }

    /// Reads exactly as many bytes as `buffer` has. FreeBSD: `kvm_read2`.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], which says how many bytes there were and why no more.
    #[doc(alias = "kvm_read")]
    #[doc(alias = "kvm_read2")]
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<()> {
        let read = self.read_as("memory", address, buffer);
        self.check()?;
        read
    }

    /// Reads up to the first byte that is not there, and returns how many there were: 0 at an address that is not mapped.
    ///
    /// # Errors
    ///
    /// If the file behind the image fails.
    pub fn read_partial(&self, address: u64, buffer: &mut [u8]) -> Result<usize> {
        let copied = self.copy(address, buffer);
        self.check()?;
        match copied {
            (done, Some(ReadCause::Io(cause))) => Err(Error::Read {
                what: "memory".into(),
                address,
                done,
                wanted: buffer.len(),
                cause: ReadCause::Io(cause),
            }),
            (done, _) => Ok(done),
        }
    }

    /// Reads what an error should call `what`.
    pub(crate) fn read_as(&self, what: &str, address: u64, buffer: &mut [u8]) -> Result<()> {
        match self.copy(address, buffer) {
            (_, None) => Ok(()),
            (done, Some(cause)) => Err(Error::Read {
                what: what.into(),
                address,
                done,
                wanted: buffer.len(),
                cause,
            }),
        }
    }

    /// Reads into a fresh buffer.
    pub(crate) fn read_vec(&self, what: &str, address: u64, bytes: u64) -> Result<Vec<u8>> {
        // Every size that comes from the kernel was bounded when the header was decoded.
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(0)];
        self.read_as(what, address, &mut buffer)?;
        Ok(buffer)
    }

    pub(crate) fn read_u64(&self, what: &str, address: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read_as(what, address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads text; what is not UTF-8 is shown as such.
    pub(crate) fn read_text(&self, what: &str, text: Text) -> Result<String> {
        const LONGEST: u64 = 1 << 16;
        let bytes = self.read_vec(what, text.at, text.bytes.min(LONGEST))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Copies until something is missing, and says what.
    fn copy(&self, address: u64, buffer: &mut [u8]) -> (usize, Option<ReadCause>) {
        if !self.is_asking.get() {
            self.memory.forget();
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = address.wrapping_add(done as u64);
            let mapping = match self.translate(at) {
                Ok(mapping) => mapping,
                Err(cause) => return (done, Some(cause.into())),
            };
            let left = buffer.len() - done;
            let wanted = usize::try_from(mapping.bytes_left).map_or(left, |n| n.min(left));
            match self
                .memory
                .read(mapping.physical, &mut buffer[done..done + wanted])
            {
                Ok(n) if n == wanted => done += n,
                Ok(n) => {
                    let missing = mapping.physical.wrapping_add(n as u64);
                    return (done + n, Some(ReadCause::Absent(missing)));
                }
                Err(cause) => return (done, Some(cause.into())),
            }
        }
        (done, None)
    }

    /// Looks an address up; within a question to a running kernel each page but once.
    fn translate(&self, address: u64) -> Result<Mapping, TranslateError> {
        const PAGE: u64 = 1 << 12;
        if !self.is_asking.get() {
            return self.space.translate(&*self.memory, address);
        }
        let skip = address % PAGE;
        let page = address - skip;
        let kept = self.cache.borrow().pages.get(&page).copied();
        let page_mapping = match kept {
            Some(kept) => kept,
            None => self.space.translate(&*self.memory, page)?,
        };
        self.cache.borrow_mut().pages.insert(page, page_mapping);
        Ok(Mapping {
            physical: page_mapping.physical + skip,
            bytes_left: page_mapping.bytes_left - skip,
        })
    }

    /// The kernel's file.
    pub(crate) fn kernel(&self) -> &KernelFile {
        &self.kernel
    }

    /// What the kernel's addresses are above those in its file.
    pub(crate) fn bias(&self) -> u64 {
        self.bias
    }

    pub(crate) fn header(&self) -> Result<Rc<Header>> {
        self.cached(
            |cache| &mut cache.header,
            |this| this.read_header(this.opened.0).map(Rc::new),
        )
    }

    pub(crate) fn cpus(&self) -> Result<Rc<Cpus>> {
        let generation = self.header()?.generation;
        // Of a running kernel that is found out as often as it is asked: `consistent`.
        if generation % 2 == 1 && self.torn == Torn::Refuse && !self.memory.is_live() {
            return Err(Error::Torn(generation));
        }
        self.cached(
            |cache| &mut cache.cpus,
            |this| this.read_cpus().map(Rc::new),
        )
    }

    pub(crate) fn descriptors(&self) -> Result<Rc<[Descriptor]>> {
        self.cached(
            |cache| &mut cache.descriptors,
            |this| this.read_descriptors().map(Rc::from),
        )
    }

    /// Gives what `slot` holds, or reads it first. A failure leaves the cache as it was.
    fn cached<T: Clone>(
        &self,
        slot: impl Fn(&mut Cache) -> &mut Option<T>,
        read: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        if let Some(kept) = slot(&mut self.cache.borrow_mut()).clone() {
            return Ok(kept);
        }
        let fresh = read(self)?;
        *slot(&mut self.cache.borrow_mut()) = Some(fresh.clone());
        Ok(fresh)
    }

    /// Reads the header, which an error says is at `address`.
    pub(crate) fn read_header(&self, address: u64) -> Result<Header> {
        let physical = self.header_physical;
        let mut bytes = [0; header::BYTES];
        let n = self.memory.read(physical, &mut bytes);
        let n = n.map_err(|cause| Error::Read {
            what: "the header".into(),
            address,
            done: 0,
            wanted: bytes.len(),
            cause: cause.into(),
        })?;
        if n < bytes.len() {
            return Err(Error::OutsideImage {
                what: "the header",
                address,
            });
        }
        Header::decode(&bytes).map_err(|source| Error::Header { physical, source })
    }

    /// Compares the build id of the file with that of the header, or with the note in the loaded image. Without a file there is
    /// nothing to compare.
    fn check_build_id(&self, header: &Header) -> Result<()> {
        if self.kernel.is_unknown() {
            return Ok(());
        }
        let file = self.kernel.build_id().ok_or(Error::NoBuildId)?;
        let mut image = header.build_id.clone();
        if image.is_empty() {
            let physical = self.kernel.build_id_physical().ok_or(Error::NoBuildId)?;
            image = vec![0; file.len()];
            let n = self.memory.read(physical, &mut image);
            image.truncate(n.unwrap_or(0));
        }
        if image == file {
            return Ok(());
        }
        Err(Error::BuildId {
            image: hex(&image),
            file: hex(file),
        })
    }

    /// Finds page tables that map the header to where it is: the kernel's own, or those of a CPU.
    fn find_space(&self, header: &Header) -> Result<AddressSpace> {
        let levels: &[Levels] = match header.levels {
            4 => &[Levels::Four],
            5 => &[Levels::Five],
            _ => &[Levels::Four, Levels::Five],
        };
        let levels = levels.iter().filter(|_| header.root_table != 0);
        let own = levels.map(|&levels| AddressSpace::new(header.root_table, levels));
        let of_cpus = self
            .registers
            .iter()
            .filter_map(CpuRegisters::address_space);
        let mut tried = String::from("the header names none, and no CPU has paging on");
        for space in own.chain(of_cpus) {
            match space.translate(&*self.memory, header.address) {
                Ok(mapping) if mapping.physical == self.header_physical => return Ok(space),
                Ok(mapping) => tried = format!("it is mapped to {:#x}", mapping.physical),
                Err(cause) => tried = cause.to_string(),
            }
        }
        Err(Error::NoAddressSpace {
            address: header.address,
            physical: self.header_physical,
            tried,
        })
    }
}

fn open_dump(path: &Path) -> Result<Dump> {
    Dump::open(path).map_err(|source| Error::Dump {
        path: path.into(),
        source,
    })
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "not there".into();
    }
    crate::hex::text(bytes)
}
