//! Finds instructions whose results differ between processors and emulators, in a program that is to write the same everywhere.

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, Mnemonic};
use object::{Object, ObjectSection, SectionKind};

use crate::error::{During, Error, Result};

/// Transcendental instructions of the x87, approximations of SSE and AVX, and what asks the processor who it is.
const INEXACT: [Mnemonic; 17] = [
    Mnemonic::Fsin,
    Mnemonic::Fcos,
    Mnemonic::Fsincos,
    Mnemonic::Fptan,
    Mnemonic::Fpatan,
    Mnemonic::F2xm1,
    Mnemonic::Fyl2x,
    Mnemonic::Fyl2xp1,
    Mnemonic::Rcpss,
    Mnemonic::Rcpps,
    Mnemonic::Rsqrtss,
    Mnemonic::Rsqrtps,
    Mnemonic::Vrcpss,
    Mnemonic::Vrcpps,
    Mnemonic::Vrsqrtss,
    Mnemonic::Vrsqrtps,
    Mnemonic::Cpuid,
];

/// Disassembles the code of the ELF file `image`; each such instruction with its address.
pub(super) fn inexact(image: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(image).during("the program")?;
    let mut found = Vec::new();
    let mut n_decoded = 0;
    for section in file
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
    {
        let code = section.data().during("a section")?;
        let (n, inexact) = in_code(code, section.address());
        n_decoded += n;
        found.extend(inexact);
    }
    if n_decoded == 0 {
        return Err(Error::failed("the program has no code to check"));
    }
    Ok(found)
}

/// How many instructions there are, and the inexact ones.
fn in_code(code: &[u8], address: u64) -> (usize, Vec<String>) {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut formatter = IntelFormatter::new();
    let mut instruction = Instruction::default();
    let (mut n_decoded, mut found) = (0, Vec::new());
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        n_decoded += 1;
        if INEXACT.contains(&instruction.mnemonic()) {
            let mut text = String::new();
            formatter.format(&instruction, &mut text);
            found.push(format!("{text} at {:#x}", instruction.ip()));
        }
    }
    (n_decoded, found)
}

#[cfg(test)]
mod tests {
    use super::{in_code, inexact};

    #[test]
    fn transcendental_and_approximate_instructions_are_found() {
        for (code, text) in [
            (&[0xd9, 0xfe][..], "fsin at 0x10"),
            (&[0xd9, 0xf3], "fpatan at 0x10"),
            (&[0xd9, 0xf0], "f2xm1 at 0x10"),
            (&[0xd9, 0xf1], "fyl2x at 0x10"),
            (&[0xf3, 0x0f, 0x53, 0xc1], "rcpss xmm0,xmm1 at 0x10"),
            (&[0x0f, 0x52, 0xc1], "rsqrtps xmm0,xmm1 at 0x10"),
            (&[0x0f, 0xa2], "cpuid at 0x10"),
        ] {
            assert_eq!(in_code(code, 16), (1, vec![text.to_owned()]));
        }
    }

    #[test]
    fn exact_arithmetic_is_not_meant() {
        for code in [
            &[0xd9, 0xfa][..],         // fsqrt
            &[0xf2, 0x0f, 0x51, 0xc1], // sqrtsd xmm0, xmm1
            &[0xd8, 0xf1],             // fdiv st, st(1)
            &[0xd9, 0xf8],             // fprem
            &[0xf2, 0x0f, 0x2d, 0xc1], // cvtsd2si eax, xmm1
        ] {
            assert_eq!(in_code(code, 16), (1, vec![]), "{code:x?}");
        }
    }

    #[test]
    fn a_file_without_code_is_an_error() {
        assert!(inexact(b"text").is_err());
        assert!(inexact(&crate::programs::elf::tests::program(&[0xc3])).is_err());
    }
}
