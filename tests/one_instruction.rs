//! A dpcpu increment is one instruction: the kernel of `boot_percpu` is disassembled.

use std::fs;
use std::path::Path;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use object::{File, Object, ObjectSection, ObjectSymbol};

/// The instructions of the function `name`, without the `ret` at its end.
fn body(file: &File<'_>, name: &str) -> Vec<Instruction> {
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
    let symbol = symbol.unwrap_or_else(|| panic!("no function {name}"));
    let section = symbol.section_index().expect("it is defined");
    let section = file.section_by_index(section).expect("a section");
    let code = section
        .data_range(symbol.address(), symbol.size())
        .expect("code")
        .expect("code");
    let decoder = Decoder::with_ip(64, code, symbol.address(), DecoderOptions::NONE);
    let mut body: Vec<_> = decoder.into_iter().collect();
    let end = body.pop().map(|end| end.mnemonic());
    assert_eq!(end, Some(Mnemonic::Ret), "{name} ends with {end:?}");
    body
}

/// The name of the word that the instruction reaches by `gs` and an address that is part of it.
fn word(instruction: &Instruction) -> Option<u64> {
    let by_gs = instruction.segment_prefix() == Register::GS;
    (by_gs && instruction.is_ip_rel_memory_operand()).then(|| instruction.ip_rel_memory_address())
}

fn is_named(path: &Path, word: &str) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().contains(word))
}

/// A kernel that does not use `percpu` has nothing of it, and no symbol that it would have to provide; that it boots is
/// `embed_boots`.
#[test]
fn a_kernel_without_percpu_has_none_of_it() {
    let images = pcu9_runner::kernel_images().unwrap_or_else(|error| panic!("{error}"));
    let path = images
        .iter()
        .find(|path| is_named(path, "embed"))
        .expect("the kernel is built");
    let image = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = File::parse(&*image).expect("an ELF file");
    let sections: Vec<_> = file
        .sections()
        .filter_map(|it| it.name().ok().map(str::to_owned))
        .collect();
    assert!(sections.iter().any(|name| name == ".text"), "{sections:?}");
    for name in ["set_pcpu", "set_pcu9_desc"] {
        let size = file
            .section_by_name(name)
            .map_or(0, |section| section.size());
        assert_eq!(size, 0, "{name}");
    }
    assert!(
        file.symbols()
            .all(|symbol| symbol.name() != Ok("pcu9_header"))
    );
}

#[test]
fn each_access_to_a_word_is_one_instruction() {
    let images = pcu9_runner::kernel_images().unwrap_or_else(|error| panic!("{error}"));
    let path = images
        .iter()
        .find(|path| is_named(path, "boot_percpu"))
        .expect("the kernel is built");
    let image = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = File::parse(&*image).expect("an ELF file");
    let section = file.section_by_name("set_pcpu").expect("the section");
    let names = section.address()..section.address() + section.size();
    for (function, mnemonic) in [
        ("dpcpu_increment", Mnemonic::Inc),
        ("dpcpu_add", Mnemonic::Add),
        ("dpcpu_get", Mnemonic::Mov),
        ("dpcpu_set", Mnemonic::Mov),
    ] {
        let body = body(&file, function);
        println!("{function}: {}", body[0]);
        assert_eq!(body.len(), 1, "{function}: {body:?}");
        assert_eq!(body[0].mnemonic(), mnemonic, "{function}");
        assert!(!body[0].has_lock_prefix(), "{function}");
        let word = word(&body[0]).expect("by gs, with the address in the instruction");
        assert!(names.contains(&word), "{function}: {word:#x}");
    }

    // An allocated counter's name is a value, which is loaded first; the addition is one instruction again.
    let body = body(&file, "counter_add");
    let additions: Vec<_> = body
        .iter()
        .filter(|it| it.segment_prefix() == Register::GS)
        .collect();
    assert_eq!(additions.len(), 1, "{body:?}");
    assert_eq!(additions[0].mnemonic(), Mnemonic::Add);
    assert_eq!(additions[0].op0_kind(), OpKind::Memory);
    assert!(!additions[0].has_lock_prefix());
    assert!(body.len() <= 2, "{body:?}");
}
