//! What lies in the registers: at random, and whose it is.

use fastrand::Rng;
use pcu9_mock::component::{Component, SSE, X87};
use pcu9_mock::{
    Cpu, ErrorPointers, FCW_INITIAL, Fault, Instruction, KERNEL_POINTERS, MXCSR_INITIAL, Mock,
    Model, Registers, X87Registers,
};

/// Contents of an x87 that a program may leave: any, as FNINIT leaves it, with an error pending.
pub(crate) fn random_x87(rng: &mut Rng) -> X87Registers {
    let (mut control, mut stack) = ([0; 24], [0; 128]);
    rng.fill(&mut stack);
    rng.fill(&mut control);
    control[15] = 0;
    control[23] = 0;
    match rng.u8(..4) {
        0 => control[2] = 0,
        1 => {
            control[..2].copy_from_slice(&FCW_INITIAL.to_le_bytes());
            control[2..6].fill(0);
            stack.fill(0);
        }
        2 => {
            // Zero divide, unmasked.
            control[0] &= !4;
            control[2] |= 4;
        }
        _ => {}
    }
    X87Registers::from_image(&control, &stack)
}

/// Some of the components that a program reaches are given other contents: random, or all zero.
pub(crate) fn compute_anything(cpu: &mut Cpu, rng: &mut Rng, enabled: u64) -> Result<(), Fault> {
    if rng.bool() {
        cpu.write_x87(random_x87(rng))?;
    }
    if rng.u8(..8) == 0 {
        cpu.write_mm(rng.usize(..8), rng.u64(..))?;
    }
    if rng.u8(..8) == 0 {
        cpu.fninit()?;
    }
    let bytes = |rng: &mut Rng, len: usize| {
        let mut bytes = vec![0; len];
        if rng.u8(..3) != 0 {
            rng.fill(&mut bytes);
        }
        bytes
    };
    if rng.bool() {
        let xmm = bytes(rng, 256);
        cpu.write_xmm(xmm.try_into().unwrap())?;
    }
    if rng.u8(..3) == 0 {
        cpu.ldmxcsr(rng.u32(..) & cpu.model().mxcsr_mask)?;
    }
    if rng.u8(..3) == 0 {
        cpu.ldmxcsr(MXCSR_INITIAL)?;
    }
    for component in cpu.model().components {
        if is_reached(component, enabled) && rng.bool() {
            cpu.write_extended(component.number, &bytes(rng, component.bytes))?;
        }
    }
    Ok(())
}

/// Every component that a program reaches is filled with a byte.
pub(crate) fn fill(cpu: &mut Cpu, byte: u8) -> Result<(), Fault> {
    fill_some(cpu, byte, u64::MAX)
}

/// As [`fill`], the components of a bitmap alone.
pub(crate) fn fill_some(cpu: &mut Cpu, byte: u8, bitmap: u64) -> Result<(), Fault> {
    if bitmap & X87 != 0 {
        cpu.write_x87(X87Registers {
            physical: [[byte; 10]; 8],
            occupied: 0xff,
            ..X87Registers::INITIAL
        })?;
    }
    if bitmap & SSE != 0 {
        cpu.write_xmm([byte; 256])?;
        cpu.ldmxcsr(MXCSR_INITIAL | u32::from(byte & 0x3f))?;
    }
    for component in cpu.model().components {
        if is_reached(component, cpu.xcr0) && bitmap & component.bit() != 0 {
            cpu.write_extended(component.number, &vec![byte; component.bytes])?;
        }
    }
    Ok(())
}

/// Vectors and opmasks.
fn is_reached(component: &Component, enabled: u64) -> bool {
    matches!(component.number, 2 | 5..=7) && enabled & component.bit() != 0
}

/// The components that the unit moves on this CPU.
fn moved(cpu: &Cpu) -> u64 {
    if cpu.xcr0 & !X87 == 0 {
        3 // FXSAVE's
    } else {
        cpu.xcr0
    }
}

/// The x87 registers without the pointers.
fn without_pointers(x87: &X87Registers) -> X87Registers {
    X87Registers {
        fop: 0,
        fip: 0,
        fdp: 0,
        ..x87.clone()
    }
}

fn pointers(x87: &X87Registers) -> (u16, u64, u64) {
    (x87.fop, x87.fip, x87.fdp)
}

/// May these pointers lie in the registers for the owner of `own`? Where the processor does not keep them over a save, nothing is
/// as good as they, and so are the kernel's own.
fn are_fit(model: &Model, found: (u16, u64, u64), own: &X87Registers) -> bool {
    let nobodys = found == (0, 0, 0) || found == KERNEL_POINTERS;
    let are_kept = model.error_pointers == ErrorPointers::Moved || own.is_pending();
    found == pointers(own) || nobodys && !are_kept
}

/// Are the registers those of `own`, whole?
pub(crate) fn check_own(cpu: &Cpu, own: &Registers, when: &str) {
    let differences = differences(cpu, own);
    assert_eq!(
        differences,
        0,
        "{} on {}: components {differences:#x} are not the LWP's own {when}: {:x?} for {:x?}",
        "registers",
        cpu.model().name,
        cpu.registers.x87,
        own.x87
    );
}

/// A bit of its own: MXCSR goes its own ways.
const MXCSR: u64 = 1 << 63;

/// The components that are not those of `own`.
pub(crate) fn differences(cpu: &Cpu, own: &Registers) -> u64 {
    let mut differences = cpu.registers.differences(own) & moved(cpu);
    if cpu.registers.mxcsr != own.mxcsr {
        differences |= MXCSR;
    }
    if cpu.registers.xmm == own.xmm {
        differences &= !SSE;
    }
    let (found, x87) = (&cpu.registers.x87, &own.x87);
    if without_pointers(found) == without_pointers(x87)
        && are_fit(cpu.model(), pointers(found), x87)
    {
        differences &= !X87;
    }
    differences
}

/// Is nothing but the pointers left of an x87 state, on a processor that does not count them as in use, so that neither `XINUSE` nor
/// an image tells of them?
fn has_pointers_alone(cpu: &Cpu) -> bool {
    cpu.model().error_pointers != ErrorPointers::Moved
        && without_pointers(&cpu.registers.x87) == X87Registers::INITIAL
}

/// The gate is closed over them, and whatever opens it for an LWP has a restore write over them.
fn are_pointers_out_of_reach(cpu: &Cpu) -> bool {
    has_pointers_alone(cpu) && cpu.check(Instruction::X87).is_err()
}

/// What a kernel section finds: an open gate and the initial state, control words too. The kernel may have the pointers that
/// nobody wiped: they go into no image before an error of its own overwrites them.
pub(crate) fn check_section(cpu: &Cpu) {
    assert_eq!(cpu.check(Instruction::X87), Ok(()), "behind a closed gate");
    let initial = Registers::initial(cpu.model());
    let mut differences = differences(cpu, &initial);
    if has_pointers_alone(cpu) {
        differences &= !X87;
    }
    assert_eq!(
        differences,
        0,
        "a kernel section on {}: components {differences:#x} are not initial: {:x?}",
        cpu.model().name,
        cpu.registers.x87
    );
}

/// Does each component hold what somebody of the domain has in it, or its initial state?
pub(crate) fn check_foreign(cpu: &Cpu, domain: &[Registers]) {
    let initial = Registers::initial(cpu.model());
    let mut foreign = differences(cpu, &initial);
    if are_pointers_out_of_reach(cpu) {
        foreign &= !X87;
    }
    for own in domain {
        foreign &= differences(cpu, own);
    }
    assert_eq!(
        foreign,
        0,
        "registers on {}: components {foreign:#x} hold another domain's bits: {:x?}",
        cpu.model().name,
        cpu.registers.x87
    );
}

/// [`check_foreign`] on the CPU that executes.
pub(crate) fn check_foreign_now(domain: &[Registers]) {
    Mock::with(|cpu| check_foreign(cpu, domain));
}
