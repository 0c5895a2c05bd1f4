//! The handle: a kernel's file and its memory, opened together. libkvm's `kvm_open`(3), `kvm_read`(3), `kvm_nlist`(3).

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use crate::dump::{CpuRegisters, Dump};
use crate::error::{Error, ReadCause, Result};
use crate::header::{self, Header, Text};
use crate::kernel::KernelFile;
use crate::memory::PhysicalMemory;
use crate::paging::{AddressSpace, Levels};
use crate::percpu::Cpus;
use crate::table::Descriptor;

/// A kernel that is looked at from outside: libkvm's `kvm_t`. Everything cached belongs to the handle.
#[derive(Debug)]
pub struct Kpcpu {
    kernel: KernelFile,
    memory: Box<dyn PhysicalMemory>,
    registers: Vec<CpuRegisters>,
    header_physical: u64,
    space: AddressSpace,
    /// What the kernel's addresses are above those in its file.
    bias: u64,
    pub(crate) current_cpu: u32,
    torn: Torn,
    cache: RefCell<Cache>,
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
struct Cache {
    header: Option<Rc<Header>>,
    cpus: Option<Rc<Cpus>>,
    descriptors: Option<Rc<[Descriptor]>>,
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
        let file = KernelFile::open(kernel).map_err(|source| Error::Kernel {
            path: kernel.into(),
            source,
        })?;
        let image = Dump::open(dump).map_err(|source| Error::Dump {
            path: dump.into(),
            source,
        })?;
        let registers = image.cpus().to_vec();
        Self::with_memory(file, Box::new(image), registers)
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
        let header_physical = kernel.physical(address).ok_or(Error::OutsideImage {
            what: "the header",
            address,
        })?;
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
        };
        let header = handle.header()?;
        handle.check_build_id(&header)?;
        if header.address == 0 {
            return Err(Error::NotReady);
        }
        handle.bias = header.address.wrapping_sub(address);
        handle.space = handle.find_space(&header)?;
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
        self.read_as("memory", address, buffer)
    }

    /// Reads up to the first byte that is not there, and returns how many there were: 0 at an address that is not mapped.
    ///
    /// # Errors
    ///
    /// If the file behind the image fails.
    pub fn read_partial(&self, address: u64, buffer: &mut [u8]) -> Result<usize> {
        match self.copy(address, buffer) {
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
        let mut done = 0;
        while done < buffer.len() {
            let at = address.wrapping_add(done as u64);
            let mapping = match self.space.translate(&*self.memory, at) {
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
            |this| this.read_header().map(Rc::new),
        )
    }

    pub(crate) fn cpus(&self) -> Result<Rc<Cpus>> {
        let generation = self.header()?.generation;
        if generation % 2 == 1 && self.torn == Torn::Refuse {
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

    fn read_header(&self) -> Result<Header> {
        let physical = self.header_physical;
        let mut bytes = [0; header::BYTES];
        let n = self.memory.read(physical, &mut bytes);
        let n = n.map_err(|cause| Error::Read {
            what: "the header".into(),
            address: self.kernel.header(),
            done: 0,
            wanted: bytes.len(),
            cause: cause.into(),
        })?;
        if n < bytes.len() {
            return Err(Error::OutsideImage {
                what: "the header",
                address: self.kernel.header(),
            });
        }
        Header::decode(&bytes).map_err(|source| Error::Header { physical, source })
    }

    /// Compares the build id of the file with that of the header, or with the note in the loaded image.
    fn check_build_id(&self, header: &Header) -> Result<()> {
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

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "not there".into();
    }
    crate::hex::text(bytes)
}
