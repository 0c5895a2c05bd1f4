//! The mock processor by the manuals, where no machine at hand can be asked: the gate, `XCR0`, compaction, both optimisations,
//! `IA32_XFD`, AMD's x87 pointers. What user mode can execute is compared with the machine in `mock_native`.

#![cfg(target_arch = "x86_64")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use pcu9::x86_64::machine::{Faulted, Machine};
use pcu9_mock::component::{AVX, AVX512, CET_U, PKRU, SSE, TILECFG, TILEDATA, X87};
use pcu9_mock::{
    CR0_EM, CR0_MP, CR0_TS, CR4_OSFXSR, CR4_OSXSAVE, Cpu, EFER_FFXSR, Fault, HeaderCheck,
    Instruction, Mock, Model, Registers, models,
};

/// An area of either format.
#[repr(align(64))]
struct Area([u8; 16384]);

impl Area {
    fn poisoned() -> Box<Self> {
        Box::new(Self([0xa5; 16384]))
    }

    /// One whose header says that every component is initial.
    fn initial() -> Box<Self> {
        let mut area = Box::new(Self([0; 16384]));
        area.0[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        area
    }

    fn at(&mut self) -> NonNull<u8> {
        NonNull::from(&mut self.0).cast()
    }

    fn long(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    fn set_long(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// A CPU in its initial state, with everything that CPUID shows enabled.
fn power_on(model: &'static Model) {
    Mock::power_on(model, 1);
    Mock::with(|cpu| {
        cpu.cr4 |= CR4_OSFXSR;
        if model.has_xsave() {
            cpu.cr4 |= CR4_OSXSAVE;
        }
        cpu.xcr0 = model.user_components() | X87;
        cpu.xss = model.supervisor_components();
    });
    if model.has_xsave() {
        let mask = u64::MAX;
        xrstor(&mut Area::initial(), mask).unwrap();
    }
    Mock::with(|cpu| cpu.registers = Registers::initial(model));
}

fn xrstor(area: &mut Area, mask: u64) -> Result<(), Faulted> {
    // SAFETY: an area is long enough for any image.
    unsafe { Mock::xrstor(area.at(), mask) }
}

fn xsave(area: &mut Area, mask: u64) {
    // SAFETY: as above.
    unsafe { Mock::xsave(area.at(), mask) };
}

fn xsaveopt(area: &mut Area, mask: u64) {
    // SAFETY: as above.
    unsafe { Mock::xsaveopt(area.at(), mask) };
}

fn xsavec(area: &mut Area, mask: u64) {
    // SAFETY: as above.
    unsafe { Mock::xsavec(area.at(), mask) };
}

fn xsaves(area: &mut Area, mask: u64) {
    // SAFETY: as above.
    unsafe { Mock::xsaves(area.at(), mask) };
}

/// An instruction on an area.
type OnArea = fn(NonNull<u8>);
/// Something that happens to a CPU.
type Change = fn(&mut Cpu);

/// The fault that ends `f`.
fn fault<R>(f: impl FnOnce() -> R) -> Option<Fault> {
    let payload = catch_unwind(AssertUnwindSafe(f)).err()?;
    Some(*payload.downcast_ref().expect("a fault of the processor's"))
}

/// L12. Intel SDM, volume 3A, "Action Taken By x87 FPU Instructions for Different Combinations of EM, MP, and TS" and its
/// likes for MMX and SSE; the XSAVE family knows TS alone, XGETBV none of them.
#[test]
fn ts_em_and_mp_stop_what_the_manual_says() {
    use Instruction::{Avx, Avx512, Fwait, Fxsave, Mmx, Sse, Tile, X87, Xgetbv, Xsave};
    const NM: Result<(), Fault> = Err(Fault::DeviceNotAvailable);
    const UD: Result<(), Fault> = Err(Fault::InvalidOpcode);
    const OK: Result<(), Fault> = Ok(());
    let all = [
        X87, Fwait, Mmx, Sse, Avx, Avx512, Fxsave, Xsave, Xgetbv, Tile,
    ];
    for (cr0, expected) in [
        (0, [OK, OK, OK, OK, OK, OK, OK, OK, OK, OK]),
        (CR0_MP, [OK, OK, OK, OK, OK, OK, OK, OK, OK, OK]),
        (CR0_TS, [NM, OK, NM, NM, NM, NM, NM, NM, OK, OK]),
        (CR0_TS | CR0_MP, [NM, NM, NM, NM, NM, NM, NM, NM, OK, OK]),
        (CR0_EM, [NM, OK, UD, UD, OK, OK, UD, OK, OK, OK]),
        (CR0_EM | CR0_TS, [NM, OK, UD, UD, NM, NM, UD, NM, OK, OK]),
        (
            CR0_EM | CR0_MP | CR0_TS,
            [NM, NM, UD, UD, NM, NM, UD, NM, OK, OK],
        ),
    ] {
        power_on(&models::SAPPHIRE_RAPIDS);
        Mock::with(|cpu| cpu.cr0 |= cr0);
        for (instruction, expected) in all.into_iter().zip(expected) {
            let found = Mock::with(|cpu| cpu.check(instruction));
            assert_eq!(found, expected, "{instruction:?} with {cr0:#x}");
        }
    }
    power_on(&models::ZEN4);
    Mock::with(|cpu| cpu.cr0 |= CR0_EM);
    assert_eq!(
        Mock::with(|cpu| cpu.check(Fxsave)),
        NM,
        "AMD's FXSAVE with EM"
    );
}

/// C26's counterpart: what QEMU lets pass is `#NM` here, for every instruction of the family.
#[test]
fn every_save_and_restore_is_stopped_by_ts() {
    power_on(&models::SKYLAKE_X);
    let mut area = Area::initial();
    let at = area.at();
    Mock::with(|cpu| cpu.cr0 |= CR0_TS);
    let instructions: [(&str, OnArea); 8] = [
        // SAFETY: an area is long enough for any image; this goes for all of them.
        ("fxsave", |at| unsafe { Mock::fxsave(at) }),
        // SAFETY: as above.
        ("xsave", |at| unsafe { Mock::xsave(at, 7) }),
        // SAFETY: as above.
        ("xsaveopt", |at| unsafe { Mock::xsaveopt(at, 7) }),
        // SAFETY: as above.
        ("xsavec", |at| unsafe { Mock::xsavec(at, 7) }),
        // SAFETY: as above.
        ("xsaves", |at| unsafe { Mock::xsaves(at, 7) }),
        // SAFETY: as above.
        ("fxrstor", |at| unsafe { Mock::fxrstor(at) }.unwrap()),
        // SAFETY: as above.
        ("xrstor", |at| unsafe { Mock::xrstor(at, 7) }.unwrap()),
        // SAFETY: as above.
        ("xrstors", |at| unsafe { Mock::xrstors(at, 7) }.unwrap()),
    ];
    for (name, instruction) in instructions {
        assert_eq!(
            fault(|| instruction(at)),
            Some(Fault::DeviceNotAvailable),
            "{name}"
        );
    }
}

/// Without CR4.OSXSAVE, or without the instruction, `#UD`; from the wrong place `#GP`.
#[test]
fn what_is_not_enabled_or_not_there_is_undefined() {
    let mut area = Area::initial();
    power_on(&models::SANDY_BRIDGE);
    assert_eq!(fault(|| xsavec(&mut area, 7)), Some(Fault::InvalidOpcode));
    assert_eq!(fault(|| xsaves(&mut area, 7)), Some(Fault::InvalidOpcode));
    Mock::with(|cpu| cpu.cr4 &= !CR4_OSXSAVE);
    assert_eq!(fault(|| xsave(&mut area, 7)), Some(Fault::InvalidOpcode));
    power_on(&models::PENRYN);
    assert_eq!(fault(|| xsaveopt(&mut area, 3)), Some(Fault::InvalidOpcode));
    let beside = area.at().map_addr(|at| at.checked_add(32).unwrap());
    // SAFETY: within the area.
    let misaligned = fault(|| unsafe { Mock::xsave(beside, 3) });
    assert!(
        matches!(misaligned, Some(Fault::GeneralProtection(_))),
        "V9"
    );
    power_on(&models::SKYLAKE_X);
    Mock::with(|cpu| cpu.cpl = 3);
    assert!(matches!(
        fault(|| xsaves(&mut area, 7)),
        Some(Fault::GeneralProtection(_))
    ));
}

/// Intel SDM, volume 2C, "XSETBV".
#[test]
fn xcr0_takes_what_belongs_together() {
    let good = [
        X87,
        X87 | SSE,
        X87 | SSE | AVX,
        X87 | SSE | AVX | AVX512,
        X87 | SSE | PKRU,
        X87 | TILECFG | TILEDATA,
    ];
    let bad = [
        0,
        SSE,
        X87 | AVX,
        X87 | SSE | AVX512,
        X87 | SSE | AVX | AVX512 & !(1 << 5),
        X87 | TILECFG,
        X87 | TILEDATA,
        X87 | CET_U,
        X87 | 1 << 40,
    ];
    power_on(&models::SAPPHIRE_RAPIDS);
    // SAFETY: a mock is in ring 0.
    let set = |value| fault(|| unsafe { Mock::xsetbv0(value) });
    for value in good {
        assert_eq!(set(value), None, "{value:#x}");
        // SAFETY: OSXSAVE is set.
        assert_eq!(unsafe { Mock::xgetbv0() }, value);
        let expected = Mock::with(|cpu| cpu.model().standard_bytes(value));
        assert_eq!(
            Mock::cpuid(0xd, 0).ebx as usize,
            expected,
            "CPUID follows XCR0"
        );
    }
    for value in bad {
        assert!(
            matches!(set(value), Some(Fault::GeneralProtection(_))),
            "{value:#x}"
        );
    }
}

/// C21, C22. Compacted offsets follow the bitmap, and tiles lie at multiples of 64. The numbers of Sapphire Rapids are those that
/// Linux prints at boot.
#[test]
fn the_compacted_format_is_packed_by_the_bitmap() {
    let model = &models::SAPPHIRE_RAPIDS;
    let user = X87 | SSE | AVX | AVX512 | PKRU | TILECFG | TILEDATA;
    let (places, bytes) = model.compacted(user);
    let expected = [
        (2, 576),
        (5, 832),
        (6, 896),
        (7, 1408),
        (9, 2432),
        (17, 2496),
        (18, 2560),
    ];
    assert_eq!((places.as_slice(), bytes), (&expected[..], 10752));
    assert_eq!(model.compacted(X87 | SSE | TILECFG).0, [(17, 576)]);
    power_on(model);
    Mock::with(|cpu| cpu.xss = 0);
    Mock::with(|cpu| cpu.write_extended(9, &[7; 8])).unwrap();
    let mut area = Area::poisoned();
    xsavec(&mut area, AVX | PKRU);
    assert_eq!(area.long(512), PKRU, "AVX is initial");
    assert_eq!(area.long(520), AVX | PKRU | 1 << 63);
    assert_eq!(area.long(832), 0x0707_0707_0707_0707, "behind AVX's place");
    assert_eq!(area.0[576..832], [0xa5; 256], "AVX's place is not written");
}

/// SDM: the compacted form takes `MXCSR` with SSE alone, and initialises it with SSE; the standard form takes it with AVX too.
#[test]
fn mxcsr_goes_with_sse_or_with_avx_by_the_form() {
    for (compacted, rfbm, xstate_bv, expected) in [
        (false, AVX, 0, 0x1fa0),
        (false, SSE, 0, 0x1fa0),
        (false, X87, 0, 0x9fc0),
        (true, AVX, AVX, 0x9fc0),
        (true, SSE, SSE, 0x1fa0),
        (true, SSE, 0, 0x1f80),
    ] {
        power_on(&models::ZEN4);
        Mock::with(|cpu| cpu.ldmxcsr(0x9fc0)).unwrap();
        let mut area = Area::initial();
        area.0[24..28].copy_from_slice(&0x1fa0_u32.to_le_bytes());
        area.set_long(512, xstate_bv);
        if compacted {
            area.set_long(520, X87 | SSE | AVX | 1 << 63);
        }
        xrstor(&mut area, rfbm).unwrap();
        let what = format!("compacted {compacted}, {rfbm:#x}, {xstate_bv:#x}");
        assert_eq!(Mock::with(|cpu| cpu.registers.mxcsr), expected, "{what}");
    }
}

/// Restores of a part: what is not asked for stays, what is asked for and absent is initialised.
#[test]
fn a_restore_touches_what_it_is_asked_for_alone() {
    power_on(&models::SKYLAKE_X);
    Mock::with(|cpu| cpu.write_xmm([1; 256])).unwrap();
    Mock::with(|cpu| cpu.write_extended(2, &[2; 256])).unwrap();
    Mock::with(|cpu| cpu.write_extended(9, &[3; 8])).unwrap();
    let mut area = Area::initial();
    xrstor(&mut area, AVX | AVX512).unwrap();
    Mock::with(|cpu| {
        assert_eq!(cpu.registers.not_initial(), SSE | PKRU);
        assert_eq!(cpu.registers.extended(9), [3; 8]);
    });
}

/// A knob for the validator of foreign images: a processor that looks at all the reserved bytes.
#[test]
fn reserved_bytes_of_the_header_are_refused_as_far_as_the_model_looks() {
    let strict: &'static Model = Box::leak(Box::new(Model {
        header_check: HeaderCheck::Bytes8To63,
        ..models::ZEN
    }));
    for (model, limit) in [(&models::ZEN, 24), (strict, 64)] {
        power_on(model);
        for at in 8..64 {
            let mut area = Area::initial();
            area.0[512 + at] = 1;
            assert_eq!(xrstor(&mut area, 7).is_err(), at < limit, "byte {at}");
        }
    }
}

/// Intel SDM, volume 1, "Processor Tracking of XSAVE-Managed State": the modified optimisation needs the same privilege level,
/// the same kind of operation, the same address and the same form.
#[test]
fn the_modified_optimisation_needs_the_same_restore() {
    let changes: [(&str, Change, bool); 4] = [
        ("nothing", |_| {}, true),
        ("another privilege level", |cpu| cpu.cpl = 3, false),
        ("in a guest", |cpu| cpu.in_guest = true, false),
        ("registers", |cpu| cpu.write_xmm([9; 256]).unwrap(), false),
    ];
    for (what, change, elides) in changes {
        power_on(&models::SANDY_BRIDGE);
        let mut area = Area::initial();
        area.set_long(512, SSE);
        xrstor(&mut area, 7).unwrap();
        area.0[160..416].fill(0x5a);
        Mock::with(change);
        xsaveopt(&mut area, 7);
        assert_eq!(area.0[160] == 0x5a, elides, "{what}");
    }
    power_on(&models::SANDY_BRIDGE);
    let (mut area, mut other) = (Area::initial(), Area::poisoned());
    area.set_long(512, SSE);
    area.0[160..416].fill(1);
    other.0[512..576].fill(0);
    xrstor(&mut area, 7).unwrap();
    xsaveopt(&mut other, 7);
    assert_eq!(other.0[160..416], [1; 256], "another address");
    // XSAVES after a restore of the standard form, and with another bitmap than XCOMP_BV.
    power_on(&models::SKYLAKE_X);
    Mock::with(|cpu| cpu.xss = 0);
    Mock::with(|cpu| cpu.write_xmm([1; 256])).unwrap();
    xsaves(&mut area, 7);
    // SAFETY: an area is long enough.
    unsafe { Mock::xrstors(area.at(), 7) }.unwrap();
    area.0[160..416].fill(0x5a);
    xsaves(&mut area, 7);
    assert_eq!(area.0[160], 0x5a, "nothing was changed");
    xsaves(&mut area, 3);
    assert_eq!(area.0[160], 1, "another bitmap");
}

/// Intel SDM, volume 1, "Extended Feature Disable (XFD)".
#[test]
fn xfd_stops_tiles_and_calls_them_initial() {
    power_on(&models::SAPPHIRE_RAPIDS);
    Mock::with(|cpu| cpu.write_extended(18, &[1; 8192])).unwrap();
    let mut area = Area::initial();
    xsave(&mut area, TILEDATA);
    assert_eq!(area.long(512), TILEDATA);
    // SAFETY: a mock is in ring 0.
    unsafe { Mock::wrmsr(0x1c4, TILEDATA) };
    assert_eq!(
        fault(|| xrstor(&mut area, TILEDATA)),
        Some(Fault::DeviceNotAvailable)
    );
    // SAFETY: as above.
    assert_eq!(unsafe { Mock::rdmsr(0x1c5) }, TILEDATA);
    // SAFETY: as above.
    unsafe { Mock::wrmsr(0x1c5, 0) };
    xsave(&mut area, TILEDATA);
    assert_eq!(area.long(512), 0, "as if initial");
    // SAFETY: OSXSAVE is set.
    assert_eq!(unsafe { Mock::xinuse() } & TILEDATA, 0);
    // The header names none, so the restore needs no permission, and initialises.
    xrstor(&mut area, TILEDATA).unwrap();
    assert_eq!(Mock::with(|cpu| cpu.registers.not_initial()), 0);
    // SAFETY: as above.
    let reserved = fault(|| unsafe { Mock::wrmsr(0x1c4, AVX) });
    assert!(matches!(reserved, Some(Fault::GeneralProtection(_))));
    power_on(&models::SKYLAKE_X);
    // SAFETY: as above.
    let absent = fault(|| unsafe { Mock::rdmsr(0x1c4) });
    assert!(matches!(absent, Some(Fault::GeneralProtection(_))));
}

/// AMD's fast FXSAVE leaves XMM out in ring 0; so may any FXSAVE without CR4.OSFXSR.
#[test]
fn fxsave_leaves_xmm_out_where_it_is_told_to() {
    for (model, cr4, efer, cpl, expected) in [
        (&models::K8, CR4_OSFXSR, EFER_FFXSR, 0, false),
        (&models::K8, CR4_OSFXSR, EFER_FFXSR, 3, true),
        (&models::K8, CR4_OSFXSR, 0, 0, true),
        (&models::MEROM, CR4_OSFXSR, EFER_FFXSR, 0, true),
        (&models::MEROM, 0, 0, 0, false),
    ] {
        power_on(model);
        Mock::with(|cpu| {
            cpu.registers.xmm = [1; 256];
            (cpu.cr4, cpu.efer, cpu.cpl) = (cr4, efer, cpl);
        });
        let mut area = Area::poisoned();
        // SAFETY: an area is long enough.
        unsafe { Mock::fxsave(area.at()) };
        assert_eq!(
            area.0[160] == 1,
            expected,
            "{}, {efer:#x}, {cpl}",
            model.name
        );
    }
}

/// MMX lies in the x87 registers, and FNINIT clears neither. L4.
#[test]
fn fninit_is_not_a_reset() {
    power_on(&models::SKYLAKE_X);
    Mock::with(|cpu| cpu.write_mm(3, 0x1234)).unwrap();
    Mock::with(|cpu| cpu.write_xmm([1; 256])).unwrap();
    Mock::with(Cpu::fninit).unwrap();
    Mock::with(|cpu| {
        assert_eq!(
            (cpu.registers.x87.occupied, cpu.registers.x87.fcw),
            (0, 0x37f)
        );
        assert_eq!(cpu.registers.x87.physical[3][..2], [0x34, 0x12]);
        assert_eq!(cpu.registers.not_initial(), X87 | SSE);
    });
}
