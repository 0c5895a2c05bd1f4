//! The guest's kernels leave the FPU alone: no x87, SSE or AVX instruction outside of the section `.text.fpu`, and none in
//! compiled code. Every kernel is disassembled.

use std::fs;
use std::path::{Path, PathBuf};

use pcu9_runner::softfloat::{Allowed, Report, check};

/// The section of the assembly that reads and writes patterns in FPU registers, for the boot tests.
const FPU_TEXT: &str = ".text.fpu";

/// The crate's own instructions: the wipe names registers, the saves and restores move whole states.
const INSTRUCTIONS: &str = "pcu9::x86_64::instructions";
const WIPE: &str = "pcu9::x86_64::fpu::wipe";

/// The embedding kernel plays user code by routines of its assembly that touch registers.
const EMBED_USER_CODE: [&str; 3] = ["read_registers", "write_registers", "add_registers"];

fn images() -> Vec<PathBuf> {
    pcu9_runner::kernel_images().unwrap_or_else(|error| panic!("{error}"))
}

fn look(path: &Path, allowed: &Allowed<'_>) -> Report {
    let image = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    check(&image, allowed).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_embed(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().contains("embed"))
}

#[test]
fn no_kernel_uses_the_fpu_outside_of_its_assembly() {
    let mut functions = vec![INSTRUCTIONS, WIPE];
    functions.extend(EMBED_USER_CODE);
    let images = images();
    assert!(images.len() > 10, "all kernels are built: {images:?}");
    let mut wrong = Vec::new();
    for path in &images {
        let functions = if is_embed(path) {
            &functions
        } else {
            &functions[..2]
        };
        let allowed = Allowed {
            sections: &[FPU_TEXT],
            functions,
        };
        let report = look(path, &allowed);
        println!("{}: {} instructions", path.display(), report.instructions);
        assert!(report.instructions > 1_000, "{}", path.display());
        wrong.extend(
            report
                .findings
                .iter()
                .map(|found| format!("{}: {found}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The check sees what it looks for: with nothing exempted every kernel has such instructions, those of the assembly.
#[test]
fn the_check_finds_the_assembly_when_it_is_not_exempted() {
    let mut all = Vec::new();
    for path in images() {
        let found = look(&path, &Allowed::default()).findings;
        assert!(
            found
                .iter()
                .any(|found| found.function.contains(INSTRUCTIONS)),
            "{}: the crate's own instructions are not seen",
            path.display()
        );
        all.extend(found.iter().map(|found| found.instruction.clone()));
    }
    for text in ["xmm15", "ymm15", "fld ", "fninit", "ldmxcsr", "vzeroupper"] {
        let has = all.iter().any(|found| found.contains(text));
        assert!(has, "`{text}` is in no kernel");
    }
}

/// A section's name exempts that section and nothing else.
#[test]
fn what_is_exempted_is_the_assembly_alone() {
    let images = images();
    let first_use = images
        .iter()
        .find(|path| path.to_string_lossy().contains("boot_first_use"));
    let path = first_use.expect("a kernel that loads patterns");
    let numbers = [&[][..], &[FPU_TEXT], &[".text"]].map(|sections| {
        let functions = &[];
        look(
            path,
            &Allowed {
                sections,
                functions,
            },
        )
        .findings
        .len()
    });
    let [none, fpu_text, text] = numbers;
    // `.text` exempts `.text.fpu` too.
    assert!(
        text == 0 && 0 < fpu_text && fpu_text + 30 < none,
        "{numbers:?}"
    );
}
