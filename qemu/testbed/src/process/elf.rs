//! The ELF loader: static programs for x86-64, with segments that are writable or executable, not both.
//!
//! System V Application Binary Interface, chapters "Object Files" and "Program Loading and Dynamic Linking".

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;

use super::StartError;
use super::space::{Access, Space};
use crate::memory::{PAGE_BYTES, USER_END};

/// The lowest address that a program may use, as on Linux by default.
const LOWEST: u64 = 0x1_0000;
/// Programs end well below the anonymous mappings and the stack.
const HIGHEST: u64 = USER_END / 2;

/// What the stack must tell a program about itself.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) entry: u64,
    pub(super) headers: u64,
    pub(super) header_bytes: u64,
    pub(super) n_headers: u64,
}

fn parse(file: &[u8]) -> Result<ElfBytes<'_, LittleEndian>, StartError> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file)
        .map_err(|_| StartError::BadFile("not an ELF file"))?;
    let header = elf.ehdr;
    if header.class != Class::ELF64 || header.e_machine != EM_X86_64 {
        return Err(StartError::BadFile("not an ELF file for x86-64"));
    }
    if header.e_type != ET_EXEC {
        return Err(StartError::BadFile(
            "not a static program at fixed addresses (ELF type EXEC)",
        ));
    }
    Ok(elf)
}

/// Whether the program's note of owner `pcu9` asks for `feature`.
pub(crate) fn needs(file: &[u8], feature: &str) -> bool {
    let Ok(elf) = parse(file) else { return false };
    let Some(segments) = elf.segments() else {
        return false;
    };
    segments
        .iter()
        .filter(|segment| segment.p_type == elf::abi::PT_NOTE)
        .any(|segment| {
            let Ok(notes) = elf.segment_data_as_notes(&segment) else {
                return false;
            };
            notes.into_iter().any(|note| match note {
                elf::note::Note::Unknown(note) => {
                    note.n_type == 1
                        && note.name.trim_end_matches('\0') == "pcu9"
                        && lists(note.desc, feature)
                }
                _ => false,
            })
        })
}

fn lists(descriptor: &[u8], feature: &str) -> bool {
    let text = core::str::from_utf8(descriptor).unwrap_or("");
    text.trim_end_matches('\0')
        .split(',')
        .any(|word| word == feature)
}

/// Maps the program in `file` into `space`.
pub(super) fn load(file: &[u8], space: &mut Space) -> Result<Program, StartError> {
    let elf = parse(file)?;
    let header = elf.ehdr;
    let segments = elf
        .segments()
        .ok_or(StartError::BadFile("no program headers"))?;
    let mut headers = 0;
    let mut entry_is_code = false;
    for segment in segments.iter() {
        if segment.p_type == PT_INTERP {
            return Err(StartError::BadFile(
                "not static: it asks for a dynamic linker",
            ));
        }
        if segment.p_type != PT_LOAD || segment.p_memsz == 0 {
            continue;
        }
        let end = segment.p_vaddr.saturating_add(segment.p_memsz);
        if segment.p_vaddr < LOWEST || end > HIGHEST {
            return Err(StartError::BadFile("a segment lies outside user addresses"));
        }
        if segment.p_filesz > segment.p_memsz {
            return Err(StartError::BadFile(
                "a segment is longer in the file than in memory",
            ));
        }
        let access = match (segment.p_flags & PF_W != 0, segment.p_flags & PF_X != 0) {
            (true, true) => {
                return Err(StartError::BadFile("a segment is writable and executable"));
            }
            (true, false) => Access::ReadWrite,
            (false, true) => Access::ReadExecute,
            (false, false) => Access::Read,
        };
        let data = elf
            .segment_data(&segment)
            .map_err(|_| StartError::BadFile("a segment lies outside the file"))?;
        map(space, segment.p_vaddr, end, access)?;
        space
            .fill(segment.p_vaddr, data)
            .ok_or(StartError::NoMemory)?;
        if (segment.p_offset..segment.p_offset + segment.p_filesz).contains(&header.e_phoff) {
            headers = segment.p_vaddr + header.e_phoff - segment.p_offset;
        }
        entry_is_code |=
            access == Access::ReadExecute && (segment.p_vaddr..end).contains(&header.e_entry);
        space.brk_start = space.brk_start.max(end.next_multiple_of(PAGE_BYTES));
    }
    if !entry_is_code {
        return Err(StartError::BadFile(
            "the entry point is not in an executable segment",
        ));
    }
    space.brk = space.brk_start;
    Ok(Program {
        entry: header.e_entry,
        headers,
        header_bytes: u64::from(header.e_phentsize),
        n_headers: u64::from(header.e_phnum),
    })
}

/// Maps the pages of a segment; one that an earlier segment has too must be wanted alike.
fn map(space: &mut Space, start: u64, end: u64, access: Access) -> Result<(), StartError> {
    for page in (start / PAGE_BYTES * PAGE_BYTES..end).step_by(PAGE_BYTES as usize) {
        match space.access(page) {
            None => space
                .map(page, access)
                .map(drop)
                .ok_or(StartError::NoMemory)?,
            Some(present) if present == access => {}
            Some(_) => {
                return Err(StartError::BadFile(
                    "two segments share a page and want different access",
                ));
            }
        }
    }
    Ok(())
}
