//! Checks that a file is a program which the guest can load, and reads the note in which it says what it needs.

use object::elf::{
    EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_NOTE,
};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, LittleEndian};

/// The note's owner name and type.
const OWNER: &[u8] = b"pcu9";
const TYPE: u32 = 1;

/// Returns the CPU features that a program asks for, or why the file is no static ELF64 program for x86-64.
pub(super) fn needs(image: &[u8]) -> Result<Vec<String>, String> {
    if !image.starts_with(b"\x7fELF") {
        return Err("it does not begin as an ELF file".into());
    }
    if image.get(4) != Some(&2) {
        return Err("it is a 32-bit ELF file".into());
    }
    let header = FileHeader64::<Endianness>::parse(image).map_err(|e| e.to_string())?;
    if !matches!(header.endian(), Ok(Endianness::Little)) {
        return Err("it is big-endian".into());
    }
    let endian = Endianness::Little;
    if header.e_machine.get(endian) != EM_X86_64 {
        return Err(format!(
            "it is for machine {}",
            header.e_machine.get(endian)
        ));
    }
    match header.e_type.get(endian) {
        ET_EXEC => {}
        ET_DYN => {
            return Err("it is position-independent: link it with -static -no-pie".into());
        }
        other => {
            return Err(format!(
                "its ELF type is {other}, that of an executable is 2"
            ));
        }
    }
    let segments = header
        .program_headers(endian, image)
        .map_err(|e| e.to_string())?;
    let mut loads = 0;
    let mut needs = Vec::new();
    for segment in segments {
        match segment.p_type(endian) {
            PT_INTERP | PT_DYNAMIC => {
                return Err("it is dynamically linked: link it with -static".into());
            }
            PT_LOAD => {
                loads += 1;
                segment
                    .data(endian, image)
                    .map_err(|()| "a segment lies outside the file")?;
            }
            PT_NOTE => {
                let bytes = segment
                    .data(endian, image)
                    .map_err(|()| "a note lies outside the file")?;
                read_notes(bytes, &mut needs);
            }
            _ => {}
        }
    }
    if loads == 0 {
        return Err("it has nothing to load".into());
    }
    Ok(needs)
}

/// Reads the project's own notes in a note segment: name size, descriptor size, type, name, descriptor, each part
/// padded to four bytes (System V ABI, chapter 5, "Note Section").
fn read_notes(mut bytes: &[u8], needs: &mut Vec<String>) {
    while let Some((header, rest)) = bytes.split_at_checked(12) {
        let word = |at: usize| {
            let word = header[at..].first_chunk().copied().unwrap_or_default();
            object::U32Bytes::<LittleEndian>::from_bytes(word).get(LittleEndian)
        };
        let padded = |size: u32| usize::try_from(size).map(|size| size.next_multiple_of(4));
        let (Ok(name_size), Ok(size)) = (padded(word(0)), padded(word(4))) else {
            return;
        };
        let Some((name, rest)) = rest.split_at_checked(name_size) else {
            return;
        };
        let Some((descriptor, rest)) = rest.split_at_checked(size) else {
            return;
        };
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            text.trim_end_matches('\0').to_owned()
        };
        if text(name).as_bytes() == OWNER && word(8) == TYPE {
            let features = text(descriptor);
            let features = features.split(',').map(str::trim);
            needs.extend(features.filter(|f| !f.is_empty()).map(str::to_owned));
        }
        bytes = rest;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::needs;

    /// Builds the smallest static program: headers, an optional note, and `code`, all in one segment at 4 MiB.
    pub(crate) fn program_with_note(code: &[u8], note: &[u8]) -> Vec<u8> {
        const BASE: u64 = 0x40_0000;
        let headers = 64 + 2 * 56;
        let entry = BASE + headers as u64 + note.len() as u64;
        let size = (headers + note.len() + code.len()) as u64;
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let half = |file: &mut Vec<u8>, n: u16| file.extend(n.to_le_bytes());
        half(&mut file, 2); // ET_EXEC
        half(&mut file, 62); // EM_X86_64
        file.extend(1u32.to_le_bytes());
        file.extend([entry, 64, 0].into_iter().flat_map(u64::to_le_bytes));
        file.extend(0u32.to_le_bytes());
        for n in [64, 56, 2, 64, 0, 0] {
            half(&mut file, n);
        }
        let mut segment = |kind: u32, offset: u64, size: u64| {
            file.extend(kind.to_le_bytes());
            file.extend(5u32.to_le_bytes());
            let fields = [offset, BASE + offset, BASE + offset, size, size, 4];
            file.extend(fields.into_iter().flat_map(u64::to_le_bytes));
        };
        segment(1, 0, size);
        segment(4, headers as u64, note.len() as u64);
        file.extend(note);
        file.extend(code);
        file
    }

    /// The smallest static program without a note.
    pub(crate) fn program(code: &[u8]) -> Vec<u8> {
        program_with_note(code, &[])
    }

    /// A note by which a program asks for features.
    pub(crate) fn note(features: &str) -> Vec<u8> {
        let mut descriptor = features.as_bytes().to_vec();
        descriptor.resize(descriptor.len().next_multiple_of(4), 0);
        let size = u32::try_from(descriptor.len()).expect("a short note");
        let mut note = Vec::new();
        for word in [5, size, 1] {
            note.extend(u32::to_le_bytes(word));
        }
        note.extend(b"pcu9\0\0\0\0");
        note.extend(descriptor);
        note
    }

    #[test]
    fn a_static_program_needs_what_its_note_says() {
        assert_eq!(needs(&program(&[0xc3])), Ok(vec![]));
        let avx = program_with_note(&[0xc3], &note("avx"));
        assert_eq!(needs(&avx), Ok(vec!["avx".to_owned()]));
        let two = program_with_note(&[0xc3], &note("avx,fma"));
        assert_eq!(needs(&two), Ok(vec!["avx".to_owned(), "fma".to_owned()]));
    }

    #[test]
    fn what_is_no_program_is_told_apart() {
        let reason = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut file = program(&[0xc3]);
            change(&mut file);
            needs(&file).expect_err("no program")
        };
        assert!(needs(b"#!/bin/sh").is_err_and(|e| e.contains("does not begin")));
        assert!(reason(&|f| f[4] = 1).contains("32-bit"));
        assert!(reason(&|f| f[16] = 3).contains("position-independent"));
        assert!(reason(&|f| f[18] = 0xb7).contains("machine 183"));
        assert!(reason(&|f| f[64] = 3).contains("dynamically"));
        assert!(reason(&|f| f[64] = 6).contains("nothing to load"));
        assert!(!reason(&|f| f.truncate(100)).is_empty());
        assert!(
            !reason(&|f| f[64 + 38] = 1).is_empty(),
            "a segment of 281 TB"
        );
    }

    #[test]
    fn random_and_truncated_files_are_refused_without_a_panic() {
        let file = program_with_note(&[0xc3], &note("avx"));
        for length in 0..file.len() {
            let _ = needs(&file[..length]);
        }
        let mut seed = 1u64;
        for _ in 0..2000 {
            let mut file = file.clone();
            for _ in 0..4 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let bytes = seed.to_be_bytes();
                let at = usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) % file.len();
                file[at] = bytes[2];
            }
            let _ = needs(&file);
        }
    }
}
