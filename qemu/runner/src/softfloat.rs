//! Finds FPU instructions in a kernel: pcu9's kernels are soft-float, and only named code may touch the FPU's registers.

use std::fmt;

use iced_x86::{
    CpuidFeature, Decoder, DecoderOptions, Formatter, Instruction, InstructionInfoFactory,
    IntelFormatter, Mnemonic, Register,
};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind};

use crate::error::{During, Error, Result};

/// The code that may use the FPU.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed<'a> {
    /// Sections with one of these names (or with a name that goes on after it with a dot) are left out: code that is
    /// for ring 3 or is not 64-bit code.
    pub sections: &'a [&'a str],
    /// Functions whose demangled name has one of these texts in it are left out.
    pub functions: &'a [&'a str],
}

/// What the check has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many instructions were decoded.
    pub instructions: usize,
    /// The FPU instructions outside of the allowed code.
    pub findings: Vec<Finding>,
    /// How many FPU instructions the allowed functions have.
    pub allowed: usize,
}

/// An FPU instruction where none may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The function that it is in, demangled.
    pub function: String,
    /// Its address.
    pub address: u64,
    /// The instruction, in Intel's syntax.
    pub instruction: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:#x} in {}: {}",
            self.address, self.function, self.instruction
        )
    }
}

/// Disassembles every executable section of the kernel `image` (an ELF64 file) and collects what uses the FPU.
///
/// # Errors
///
/// When `image` is not such a file, or has no code to check.
pub fn check(image: &[u8], allowed: &Allowed<'_>) -> Result<Report> {
    let file = object::File::parse(image).during("the kernel image")?;
    let symbols = functions(&file);
    let mut report = Report {
        instructions: 0,
        findings: Vec::new(),
        allowed: 0,
    };
    for section in file.sections() {
        let name = section.name().during("a section's name")?;
        let executable = match section.flags() {
            SectionFlags::Elf { sh_flags } => sh_flags & u64::from(object::elf::SHF_EXECINSTR) != 0,
            _ => false,
        };
        if executable && !is_left_out(name, allowed.sections) {
            let code = section.data().during(format_args!("the section {name}"))?;
            check_code(code, section.address(), &symbols, allowed, &mut report);
        }
    }
    if report.instructions == 0 {
        return Err(Error::failed("the kernel image has no code to check"));
    }
    Ok(report)
}

fn is_left_out(section: &str, names: &[&str]) -> bool {
    names.iter().any(|name| {
        let rest = section.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Returns address and demangled name of each function and label, by address.
fn functions(file: &object::File<'_>) -> Vec<(u64, String)> {
    let mut functions: Vec<(u64, String)> = file
        .symbols()
        .filter(|symbol| {
            matches!(
                symbol.kind(),
                SymbolKind::Text | SymbolKind::Label | SymbolKind::Unknown
            )
        })
        .filter(ObjectSymbol::is_definition)
        .filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            Some((
                symbol.address(),
                format!("{:#}", rustc_demangle::demangle(name)),
            ))
        })
        .collect();
    functions.sort();
    functions
}

fn check_code(
    code: &[u8],
    address: u64,
    symbols: &[(u64, String)],
    allowed: &Allowed<'_>,
    report: &mut Report,
) {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut details = InstructionInfoFactory::new();
    let mut formatter = IntelFormatter::new();
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        report.instructions += 1;
        if !uses_fpu(&instruction, &mut details) {
            continue;
        }
        let function = function_at(symbols, instruction.ip());
        if allowed.functions.iter().any(|name| function.contains(name)) {
            report.allowed += 1;
            continue;
        }
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        report.findings.push(Finding {
            function: function.to_owned(),
            address: instruction.ip(),
            instruction: text,
        });
    }
}

fn function_at(symbols: &[(u64, String)], address: u64) -> &str {
    let after = symbols.partition_point(|(begin, _)| *begin <= address);
    after.checked_sub(1).map_or("?", |at| &symbols[at].1)
}

/// Tells whether an instruction belongs to the x87 FPU, MMX, SSE or AVX, or names one of their registers.
///
/// FXSAVE, XSAVE and their kin move whole states and are not meant; nor are instructions that came with SSE and work on
/// memory or general registers alone.
fn uses_fpu(instruction: &Instruction, details: &mut InstructionInfoFactory) -> bool {
    let is_vector = |register: Register| {
        register.is_vector_register()
            || register.is_mm()
            || register.is_st()
            || register.is_k()
            || register.is_tmm()
    };
    let mut registers = details.info(instruction).used_registers().iter();
    if is_state(instruction) {
        return false;
    }
    if registers.any(|used| is_vector(used.register())) {
        return true;
    }
    let controls = [
        Mnemonic::Ldmxcsr,
        Mnemonic::Stmxcsr,
        Mnemonic::Vldmxcsr,
        Mnemonic::Vstmxcsr,
        Mnemonic::Vzeroall,
        Mnemonic::Vzeroupper,
        Mnemonic::Emms,
        Mnemonic::Femms,
        Mnemonic::Wait,
    ];
    controls.contains(&instruction.mnemonic()) || is_x87(instruction)
}

/// Tells whether an instruction saves or restores whole states.
fn is_state(instruction: &Instruction) -> bool {
    instruction.cpuid_features().iter().any(|feature| {
        use CpuidFeature as F;
        matches!(
            feature,
            F::FXSR | F::XSAVE | F::XSAVEC | F::XSAVEOPT | F::XSAVES
        )
    })
}

/// Tells whether an instruction is one of the x87 FPU, those that name no register included.
fn is_x87(instruction: &Instruction) -> bool {
    instruction.cpuid_features().iter().any(|feature| {
        use CpuidFeature as F;
        matches!(
            feature,
            F::FPU
                | F::FPU287
                | F::FPU287XL_ONLY
                | F::FPU387
                | F::FPU387SL_ONLY
                | F::MMX
                | F::D3NOW
                | F::D3NOWEXT
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{Allowed, Report, check, check_code};

    fn findings(code: &[u8]) -> Vec<String> {
        let symbols = [
            (0x1000, "kernel::main".to_owned()),
            (0x1010, "pcu9::x86_64::instructions::fninit".to_owned()),
        ];
        let allowed = Allowed {
            sections: &[],
            functions: &["x86_64::instructions"],
        };
        let mut report = Report {
            instructions: 0,
            findings: vec![],
            allowed: 0,
        };
        check_code(code, 0x1000, &symbols, &allowed, &mut report);
        report.findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn fpu_instructions_are_found() {
        for (code, text) in [
            (&[0xdb, 0xe3][..], "fninit"),
            (&[0x9b], "wait"),
            (&[0xd9, 0x2f], "fldcw"),
            (&[0x0f, 0x77], "emms"),
            (&[0x0f, 0x6f, 0xc1], "movq mm0"),
            (&[0x0f, 0x28, 0xc1], "movaps xmm0"),
            (&[0x0f, 0xae, 0x17], "ldmxcsr"),
            (&[0xc5, 0xfc, 0x77], "vzeroall"),
            (&[0xc5, 0xf8, 0x77], "vzeroupper"),
            (&[0xc5, 0xfc, 0x28, 0xc1], "vmovaps ymm0"),
            (&[0x66, 0x0f, 0x38, 0xdc, 0xc1], "aesenc xmm0"),
        ] {
            let found = findings(code);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(
                found[0].starts_with("0x1000 in kernel::main: "),
                "{found:?}"
            );
            assert!(found[0].contains(text), "{found:?}");
        }
    }

    #[test]
    fn state_moves_fences_and_integers_are_not_meant() {
        for code in [
            &[0x0f, 0xae, 0x07][..],   // fxsave [rdi]
            &[0x48, 0x0f, 0xae, 0x27], // xsave64 [rdi]
            &[0x48, 0x0f, 0xae, 0x37], // xsaveopt64 [rdi]
            &[0x48, 0x0f, 0xae, 0x2f], // xrstor64 [rdi]
            &[0x0f, 0x01, 0xd1],       // xsetbv
            &[0x0f, 0x06],             // clts
            &[0xf3, 0x90],             // pause
            &[0x0f, 0xae, 0xf0],       // mfence
            &[0x0f, 0xc3, 0x07],       // movnti [rdi], eax
            &[0x0f, 0xae, 0x3f],       // clflush [rdi]
            &[0x48, 0x01, 0xc8],       // add rax, rcx
        ] {
            assert_eq!(findings(code), Vec::<String>::new(), "{code:x?}");
        }
    }

    #[test]
    fn named_functions_may() {
        let mut code = vec![0x90; 16];
        code.extend([0xdb, 0xe3]);
        assert_eq!(findings(&code), Vec::<String>::new());
    }

    #[test]
    fn this_test_program_uses_sse_and_text_is_no_kernel() {
        let own = std::env::current_exe().expect("a path");
        let own = std::fs::read(own).expect("a file");
        let report = check(&own, &Allowed::default()).expect("an ELF file");
        assert!(
            report
                .findings
                .iter()
                .any(|finding| finding.instruction.contains("xmm"))
        );
        let none = Allowed {
            sections: &[".text", ".plt", ".init", ".fini"],
            functions: &[],
        };
        assert!(check(&own, &none).is_err(), "nothing was checked");
        assert!(check(b"text", &Allowed::default()).is_err());
    }
}
