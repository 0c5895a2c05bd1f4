//! An ELF core of a guest, as QEMU's `dump-guest-memory` writes it without paging: memory by physical address, and every CPU's
//! registers in notes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, ReadCache, ReadRef};
use thiserror::Error;

use crate::memory::PhysicalMemory;
use crate::paging::{AddressSpace, Levels};

/// A guest has a note of some hundred bytes for each CPU; more than this is not a dump of one.
const NOTE_BYTES_MAX: u64 = 16 << 20;

/// A file that is not a dump.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DumpError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not an ELF core of an x86-64 guest.
    #[error("not an ELF core of an x86-64 machine: {0}")]
    Format(String),
    /// It was made with paging, which leaves out memory without a word.
    #[error(
        "it was made with paging=true, which loses memory (QEMU clamps each mapping to one block): dump again with paging=false"
    )]
    Paging,
    /// It ends before its segments do.
    #[error(
        "truncated: memory from physical {physical:#x} on should go up to byte {needed} of the file, which has {length}"
    )]
    Truncated {
        /// Where the segment begins.
        physical: u64,
        /// Where it should end in the file.
        needed: u64,
        /// Where the file ends.
        length: u64,
    },
}

/// A stretch of memory in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the guest.
    pub physical: u64,
    /// What is in the file; the rest of the segment is declared, but absent.
    pub bytes: u64,
    /// Where it begins in the file.
    pub offset: u64,
}

/// The control registers of a CPU, from QEMU's note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuRegisters {
    /// The instruction pointer.
    pub rip: u64,
    /// The stack pointer.
    pub rsp: u64,
    /// The base of `gs`.
    pub gs_base: u64,
    /// `CR0`.
    pub cr0: u64,
    /// `CR3`.
    pub cr3: u64,
    /// `CR4`.
    pub cr4: u64,
}

impl CpuRegisters {
    /// The address space that the CPU was in, `None` before it turned paging on.
    pub fn address_space(&self) -> Option<AddressSpace> {
        const PG: u64 = 1 << 31;
        const PAE: u64 = 1 << 5;
        const LA57: u64 = 1 << 12;
        let levels = if self.cr4 & LA57 == 0 {
            Levels::Four
        } else {
            Levels::Five
        };
        (self.cr0 & PG != 0 && self.cr4 & PAE != 0).then(|| AddressSpace::new(self.cr3, levels))
    }

    /// Reads a `QEMU` note. QEMU, `target/i386/arch_dump.c`, `QEMUCPUState`: version and size (32 bits each), 16 registers,
    /// RIP, RFLAGS, ten segments of 24 bytes, CR0 to CR4. The size grows with new fields at the end.
    fn parse(note: &[u8]) -> Option<Self> {
        let word = |at: usize| -> Option<u64> {
            Some(u64::from_le_bytes(note.get(at..at + 8)?.try_into().ok()?))
        };
        let version = u32::from_le_bytes(note.get(..4)?.try_into().ok()?);
        let segment_base = |index: usize| word(152 + 24 * index + 16);
        let control = |index: usize| word(392 + 8 * index);
        (version == 1).then_some(())?;
        Some(Self {
            rip: word(8 + 16 * 8)?,
            rsp: word(8 + 6 * 8)?,
            gs_base: segment_base(4)?,
            cr0: control(0)?,
            cr3: control(3)?,
            cr4: control(4)?,
        })
    }
}

/// A dump. Memory is read where it is asked for, so that its size does not matter.
#[derive(Debug)]
pub struct Dump {
    source: Source,
    segments: Vec<Segment>,
    cpus: Vec<CpuRegisters>,
    guest_notes: Vec<GuestNote>,
}

/// Where a dump's bytes are.
#[derive(Debug)]
enum Source {
    File(File),
    Bytes(Arc<[u8]>),
}

impl Source {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, offset),
            Self::Bytes(bytes) => {
                let from = usize::try_from(offset).ok();
                let rest = from.and_then(|from| bytes.get(from..));
                let found = rest.and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// A note that QEMU did not write itself: what the guest handed to its vmcoreinfo device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestNote {
    /// The name, without the closing zero.
    pub name: Vec<u8>,
    /// The type, which the name gives a meaning to.
    pub kind: u32,
    /// The contents.
    pub desc: Vec<u8>,
}

impl Dump {
    /// Opens a dump and reads its headers and notes.
    ///
    /// # Errors
    ///
    /// [`DumpError`] if it is not one, or not whole.
    pub fn open(path: &Path) -> Result<Self, DumpError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let cache = ReadCache::new(file.try_clone()?);
        Self::parse(&cache, length, Source::File(file))
    }

    /// Takes a dump that is in memory already; what is shared is not copied.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Result<Self, DumpError> {
        let bytes = bytes.into();
        let source = Source::Bytes(Arc::clone(&bytes));
        Self::parse(&*bytes, bytes.len() as u64, source)
    }

    /// Reads headers and notes from `data`, which has `length` bytes; memory is left to `source`.
    fn parse<'d>(data: impl ReadRef<'d>, length: u64, source: Source) -> Result<Self, DumpError> {
        let format = |e: object::Error| DumpError::Format(e.to_string());
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(format)?;
        let endian = header.endian().map_err(format)?;
        let (kind, machine) = (header.e_type(endian), header.e_machine(endian));
        if kind != elf::ET_CORE || machine != elf::EM_X86_64 {
            return Err(DumpError::Format(format!(
                "ELF type {kind}, machine {machine}, wanted {} and {}",
                elf::ET_CORE,
                elf::EM_X86_64
            )));
        }
        let mut dump = Self {
            source,
            segments: Vec::new(),
            cpus: Vec::new(),
            guest_notes: Vec::new(),
        };
        for segment in header.program_headers(endian, data).map_err(format)? {
            match segment.p_type(endian) {
                elf::PT_LOAD => dump.add_memory(segment, length)?,
                elf::PT_NOTE => dump.add_notes(segment, data)?,
                _ => {}
            }
        }
        dump.segments.sort_by_key(|segment| segment.physical);
        Ok(dump)
    }

    /// The CPUs in QEMU's order, started or not.
    pub fn cpus(&self) -> &[CpuRegisters] {
        &self.cpus
    }

    /// The memory that the file has, by address.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.segments.iter().copied()
    }

    /// The notes that came from the guest.
    pub fn guest_notes(&self) -> &[GuestNote] {
        &self.guest_notes
    }

    fn add_memory(
        &mut self,
        segment: &elf::ProgramHeader64<LittleEndian>,
        length: u64,
    ) -> Result<(), DumpError> {
        let endian = LittleEndian;
        let physical = segment.p_paddr(endian);
        let (virtual_address, bytes) = (segment.p_vaddr(endian), segment.p_filesz(endian));
        // Without paging QEMU repeats the physical address.
        if virtual_address != physical {
            return Err(DumpError::Paging);
        }
        let offset = segment.p_offset(endian);
        match offset.checked_add(bytes) {
            Some(end) if end <= length => {}
            end => {
                return Err(DumpError::Truncated {
                    physical,
                    needed: end.unwrap_or(u64::MAX),
                    length,
                });
            }
        }
        self.segments.push(Segment {
            physical,
            bytes,
            offset,
        });
        Ok(())
    }

    fn add_notes<'d>(
        &mut self,
        segment: &elf::ProgramHeader64<LittleEndian>,
        data: impl ReadRef<'d>,
    ) -> Result<(), DumpError> {
        let format = |e: object::Error| DumpError::Format(e.to_string());
        let bytes = segment.p_filesz(LittleEndian);
        if bytes > NOTE_BYTES_MAX {
            return Err(DumpError::Format(format!("{bytes} bytes of notes")));
        }
        let Some(mut notes) = segment.notes(LittleEndian, data).map_err(format)? else {
            return Ok(());
        };
        while let Some(note) = notes.next().map_err(format)? {
            match note.name() {
                b"CORE" => {}
                b"QEMU" => self.cpus.extend(CpuRegisters::parse(note.desc())),
                name => self.guest_notes.push(GuestNote {
                    name: name.to_vec(),
                    kind: note.n_type(LittleEndian),
                    desc: note.desc().to_vec(),
                }),
            }
        }
        Ok(())
    }
}

impl PhysicalMemory for Dump {
    fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let Some(at) = address.checked_add(done as u64) else {
                break;
            };
            let after = self.segments.partition_point(|s| s.physical <= at);
            let Some(segment) = after.checked_sub(1).map(|index| self.segments[index]) else {
                break;
            };
            let skip = at - segment.physical;
            let Some(left) = segment.bytes.checked_sub(skip).filter(|&left| left > 0) else {
                break;
            };
            let wanted = buffer.len() - done;
            let n = usize::try_from(left).map_or(wanted, |left| left.min(wanted));
            self.source
                .read_exact_at(&mut buffer[done..done + n], segment.offset + skip)?;
            done += n;
        }
        Ok(done)
    }
}
