//! The kernel's ELF file: its symbols, its build id, and where the header is.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSymbol, elf};
use thiserror::Error;

/// The symbol of the header, `pcu9::percpu::header`.
const HEADER_SYMBOL: &str = "pcu9_header";
/// Owner and type of the note that names the header's address.
const NOTE: (&[u8], u32) = (b"pcu9", 1);

/// A file that is not a kernel with a header.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not an ELF file of an x86-64 kernel.
    #[error("not an x86-64 ELF executable: {0}")]
    Format(String),
    /// It exports no header.
    #[error(
        "it has neither the symbol `{HEADER_SYMBOL}` nor a note of `pcu9`: the kernel exports no header (`percpu_header!`)"
    )]
    NoHeader,
}

/// A symbol of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its address as linked.
    pub address: u64,
    /// Its size, 0 if the file does not say.
    pub bytes: u64,
}

/// A loadable segment.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    address: u64,
    physical: u64,
    bytes: u64,
}

/// What the file of a kernel says.
#[derive(Clone, Debug)]
pub struct KernelFile {
    symbols: HashMap<String, Symbol>,
    build_id: Option<Vec<u8>>,
    /// Where the build id's bytes stand in the loaded image, as linked.
    build_id_address: Option<u64>,
    header: u64,
    segments: Vec<Loaded>,
}

impl KernelFile {
    /// Reads a kernel's file.
    ///
    /// # Errors
    ///
    /// [`KernelError`].
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        Self::parse(&fs::read(path)?)
    }

    /// Reads a kernel's file from memory.
    ///
    /// # Errors
    ///
    /// [`KernelError`].
    pub fn parse(data: &[u8]) -> Result<Self, KernelError> {
        let (kernel, header) = Self::parse_any(data)?;
        header.ok_or(KernelError::NoHeader)?;
        Ok(kernel)
    }

    /// A kernel without a file: all that is known of it is where its header is.
    pub(crate) fn unknown(header: u64) -> Self {
        Self {
            symbols: HashMap::new(),
            build_id: None,
            build_id_address: None,
            header,
            segments: Vec::new(),
        }
    }

    /// Reads a kernel's file that may have lost what tells of its header, symbols and notes; and the header's address if it has not.
    pub(crate) fn parse_any(data: &[u8]) -> Result<(Self, Option<u64>), KernelError> {
        let format = |e: object::Error| KernelError::Format(e.to_string());
        let file = ElfFile64::<LittleEndian>::parse(data).map_err(format)?;
        let machine = file.elf_header().e_machine(LittleEndian);
        if machine != elf::EM_X86_64 {
            return Err(KernelError::Format(format!(
                "machine {machine}, wanted {}",
                elf::EM_X86_64
            )));
        }
        let symbols = file
            .symbols()
            .filter_map(|symbol| {
                let place = Symbol {
                    address: symbol.address(),
                    bytes: symbol.size(),
                };
                let name = symbol.name().ok().filter(|name| !name.is_empty())?;
                (!symbol.is_undefined()).then(|| (name.to_owned(), place))
            })
            .collect::<HashMap<_, _>>();
        let mut kernel = Self {
            symbols,
            build_id: None,
            build_id_address: None,
            header: 0,
            segments: Vec::new(),
        };
        let mut note = None;
        for segment in file.elf_program_headers() {
            match segment.p_type(LittleEndian) {
                elf::PT_LOAD => kernel.segments.push(Loaded {
                    address: segment.p_vaddr(LittleEndian),
                    physical: segment.p_paddr(LittleEndian),
                    bytes: segment.p_memsz(LittleEndian),
                }),
                elf::PT_NOTE => {
                    let in_note = kernel.read_notes(segment, data).map_err(format)?;
                    note = note.or(in_note);
                }
                _ => {}
            }
        }
        let symbol = kernel.symbols.get(HEADER_SYMBOL).map(|s| s.address);
        let header = symbol.or(note);
        kernel.header = header.unwrap_or(0);
        Ok((kernel, header))
    }

    /// Takes the build id from a note segment, and returns the header's address if a note of `pcu9` names it.
    fn read_notes(
        &mut self,
        segment: &elf::ProgramHeader64<LittleEndian>,
        data: &[u8],
    ) -> object::Result<Option<u64>> {
        let mut header = None;
        let Some(mut notes) = segment.notes(LittleEndian, data)? else {
            return Ok(None);
        };
        while let Some(note) = notes.next()? {
            let kind = note.n_type(LittleEndian);
            if (note.name(), kind) == (elf::ELF_NOTE_GNU, elf::NT_GNU_BUILD_ID) {
                let offset = note.desc().as_ptr().addr() - data.as_ptr().addr();
                let skip = (offset as u64).wrapping_sub(segment.p_offset(LittleEndian));
                self.build_id = Some(note.desc().to_vec());
                self.build_id_address = segment.p_vaddr(LittleEndian).checked_add(skip);
            } else if (note.name(), kind) == NOTE {
                // Version and size, 4 bytes each, then the address.
                let address = note.desc().get(8..16).and_then(|at| at.try_into().ok());
                header = address.map(u64::from_le_bytes);
            }
        }
        Ok(header)
    }

    /// Is there no file?
    pub(crate) fn is_unknown(&self) -> bool {
        self.segments.is_empty()
    }

    /// The symbol of that name, exactly as it stands in the file.
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        self.symbols.get(name).copied()
    }

    /// The linker's build id.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// Where the build id lies in guest-physical memory, if it is in the loaded image.
    pub(crate) fn build_id_physical(&self) -> Option<u64> {
        self.physical(self.build_id_address?)
    }

    /// The address of the header as linked.
    pub(crate) fn header(&self) -> u64 {
        self.header
    }

    /// The physical address at which a boot loader puts what was linked at `address`.
    pub(crate) fn physical(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let offset = address.checked_sub(segment.address)?;
            (offset < segment.bytes).then(|| segment.physical.checked_add(offset))?
        })
    }
}
