//! The ELF parts of a kernel's file and of a dump.

use object::Endianness;
use object::elf;
use object::write::elf::{FileHeader, ProgramHeader, Sym, Writer};

/// What the kernel's addresses are above physical ones.
pub(crate) const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;

fn note(name: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    let name_bytes = u32::try_from(name.len() + 1).expect("short");
    let desc_bytes = u32::try_from(desc.len()).expect("short");
    note.extend(
        [name_bytes, desc_bytes, kind]
            .into_iter()
            .flat_map(u32::to_le_bytes),
    );
    note.extend(name);
    note.resize((note.len() + 1).next_multiple_of(4), 0);
    note.extend(desc);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

fn file_header(kind: u16) -> FileHeader {
    FileHeader {
        os_abi: 0,
        abi_version: 0,
        e_type: kind,
        e_machine: elf::EM_X86_64,
        e_entry: 0,
        e_flags: 0,
    }
}

/// A kernel's file with these symbols: name, address, size. With an empty build id it has none.
pub(crate) fn kernel_file(build_id: &[u8], symbols: &[(&str, u64, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut bytes);
    writer.reserve_file_header();
    writer.reserve_program_headers(2);
    let note = match build_id {
        [] => Vec::new(),
        id => note(b"GNU", elf::NT_GNU_BUILD_ID, id),
    };
    let note_at = writer.reserve(note.len(), 4);
    let names = symbols
        .iter()
        .map(|(name, ..)| writer.add_string(name.as_bytes()));
    let names: Vec<_> = names.collect();
    writer.reserve_null_symbol_index();
    for _ in symbols {
        writer.reserve_symbol_index(None);
    }
    writer.reserve_symtab_section_index();
    writer.reserve_symtab();
    writer.reserve_strtab_section_index();
    writer.reserve_strtab();
    writer.reserve_shstrtab_section_index();
    writer.reserve_shstrtab();
    writer.reserve_section_headers();

    writer
        .write_file_header(&file_header(elf::ET_EXEC))
        .expect("room");
    writer.write_align_program_headers();
    writer.write_program_header(&ProgramHeader {
        p_type: elf::PT_LOAD,
        p_flags: elf::PF_R,
        p_offset: 0,
        p_vaddr: KERNEL_BASE,
        p_paddr: 0,
        p_filesz: 0,
        p_memsz: super::IMAGE_BYTES,
        p_align: 0x1000,
    });
    writer.write_program_header(&ProgramHeader {
        p_type: elf::PT_NOTE,
        p_flags: elf::PF_R,
        p_offset: note_at as u64,
        p_vaddr: KERNEL_BASE,
        p_paddr: 0,
        p_filesz: note.len() as u64,
        p_memsz: note.len() as u64,
        p_align: 4,
    });
    writer.pad_until(note_at);
    writer.write(&note);
    writer.write_null_symbol();
    for (&(_, address, size), name) in symbols.iter().zip(names) {
        writer.write_symbol(&Sym {
            name: Some(name),
            section: None,
            st_info: elf::STT_OBJECT,
            st_other: 0,
            st_shndx: elf::SHN_ABS,
            st_value: address,
            st_size: size,
        });
    }
    writer.write_strtab();
    writer.write_shstrtab();
    writer.write_null_section_header();
    writer.write_symtab_section_header(1);
    writer.write_strtab_section_header();
    writer.write_shstrtab_section_header();
    bytes
}

/// What a dump begins with: headers and notes; memory follows, stretch after stretch.
pub(crate) fn core_header(ram: &[(u64, u64)], cr3: u64, levels: u32) -> Vec<u8> {
    let note = note(b"QEMU", 0, &registers(cr3, levels));
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut bytes);
    writer.reserve_file_header();
    writer.reserve_program_headers(1 + u32::try_from(ram.len()).expect("few"));
    let note_at = writer.reserve(note.len(), 4) as u64;
    writer
        .write_file_header(&file_header(elf::ET_CORE))
        .expect("room");
    writer.write_align_program_headers();
    let header = |p_type, p_offset, physical, bytes| ProgramHeader {
        p_type,
        p_flags: 0,
        p_offset,
        p_vaddr: physical,
        p_paddr: physical,
        p_filesz: bytes,
        p_memsz: bytes,
        p_align: 0,
    };
    let note_bytes = note.len() as u64;
    writer.write_program_header(&header(elf::PT_NOTE, note_at, 0, note_bytes));
    let mut offset = note_at + note_bytes;
    for &(from, bytes) in ram {
        writer.write_program_header(&header(elf::PT_LOAD, offset, from, bytes));
        offset += bytes;
    }
    writer.pad_until(usize::try_from(note_at).expect("small"));
    writer.write(&note);
    bytes
}

/// QEMU's note of a CPU that has paging on.
fn registers(cr3: u64, levels: u32) -> Vec<u8> {
    let mut desc = vec![0; 440];
    let mut put = |at: usize, value: u64| desc[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, 1 | 440 << 32);
    put(392, 1 << 31 | 1);
    put(392 + 24, cr3);
    put(392 + 32, 1 << 5 | if levels == 5 { 1 << 12 } else { 0 });
    desc
}
