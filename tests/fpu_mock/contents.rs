//! What lies in the registers: at random, and whose it is.

use fastrand::Rng;
use pcu9_mock::component::{SSE, X87};
use pcu9_mock::{
    Cpu, ErrorPointers, FCW_INITIAL, Fault, KERNEL_POINTERS, Mock, Model, Registers, X87Registers,
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
        cpu.ldmxcsr(pcu9_mock::MXCSR_INITIAL)?;
    }
    for component in cpu.model().components {
        let is_reached = matches!(component.number, 2 | 5..=7) && enabled & component.bit() != 0;
        if is_reached && rng.bool() {
            cpu.write_extended(component.number, &bytes(rng, component.bytes))?;
        }
    }
    Ok(())
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

/// Does each component hold what somebody of the domain has in it, or its initial state?
pub(crate) fn check_foreign(cpu: &Cpu, domain: &[Registers]) {
    let initial = Registers::initial(cpu.model());
    let mut foreign = differences(cpu, &initial);
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
