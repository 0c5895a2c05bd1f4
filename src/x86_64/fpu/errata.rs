//! Processors whose save instructions are not to be used although CPUID shows them.

use core::ops::RangeInclusive;

use super::SaveInstruction;
use crate::x86_64::model::CpuModel;

/// A fault of some processors, and the instruction that is avoided there.
struct Erratum {
    vendor: &'static [u8; 12],
    family: u32,
    models: RangeInclusive<u32>,
    avoid: SaveInstruction,
}

/// AMD erratum 1386, "XSAVES Instruction May Fail to Save XMM Registers to the Provided State Save Area": registers roll back to
/// older values after a switch. All of Zen 1 and Zen 2, as Linux has it (`fix_erratum_1386` in `arch/x86/kernel/cpu/amd.c`), whatever
/// the microcode: these have no supervisor states, so XSAVEC, which is right there, loses nothing.
///
/// Sources: AMD, Revision Guide for Family 17h Models 00h-0Fh (publication 55449) and 30h-3Fh (publication 56323).
/// Hygon's Dhyana is Zen 1 by licence (Linux, `arch/x86/kernel/cpu/hygon.c`); it is taken to have the fault too.
const ERRATA: [Erratum; 2] = [
    Erratum {
        vendor: b"AuthenticAMD",
        family: 0x17,
        models: 0..=0xff,
        avoid: SaveInstruction::Xsaves,
    },
    Erratum {
        vendor: b"HygonGenuine",
        family: 0x18,
        models: 0..=0xff,
        avoid: SaveInstruction::Xsaves,
    },
];

/// Is `instruction` to be avoided on `cpu`?
pub(super) fn forbid(cpu: &CpuModel, instruction: SaveInstruction) -> bool {
    ERRATA.iter().any(|erratum| {
        erratum.avoid == instruction
            && *erratum.vendor == cpu.vendor
            && erratum.family == cpu.family
            && erratum.models.contains(&cpu.model)
    })
}
