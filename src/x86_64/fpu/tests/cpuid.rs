//! What is made of recorded CPUIDs. A table has leaf, subleaf, EAX, EBX, ECX, EDX; what it has not, is 0.

use core::arch::x86_64::CpuidResult;

use super::super::{Format, FpuFeatures, Limits, SaveInstruction, TooLate};
use crate::x86_64::machine::Native;

type Table = [(u32, u32, [u32; 4])];

/// AMD EPYC 7B13 (Milan) under KVM, recorded for this test: `XCR0` 7, `IA32_XSS` 0x1800, which adds 40 bytes to (0DH,1).EBX.
const MILAN: &Table = &[
    (0x0, 0, [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
    (0x1, 0, [0x00a0_0f11, 0x0002_0800, 0xfffa_3203, 0x178b_fbff]),
    (0x7, 0, [0, 0x219c_07ab, 0x0040_0684, 0x10]),
    (0xd, 0, [0x7, 0x340, 0x340, 0]),
    (0xd, 1, [0xf, 0x368, 0x1800, 0]),
    (0xd, 2, [0x100, 0x240, 0, 0]),
    (0xd, 11, [0x10, 0, 1, 0]),
    (0xd, 12, [0x18, 0, 1, 0]),
    (0x8000_0000, 0, [0x8000_0021, 0, 0, 0]),
    (0x8000_0008, 0, [0x0030_3030, 0x1000_0005, 0x7001, 0]),
];

/// Sapphire Rapids: leaf 0DH from the log in microsoft/openvmm, issue 708, where it breaks off the components 9, 17 and 18 as
/// (0DH,0).ECX and Intel SDM, volume 1, "State Components" have them; feature bits as that processor's.
const SAPPHIRE_RAPIDS: &Table = &[
    (0x0, 0, [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
    (0x1, 0, [0x0008_06f8, 0, 1 << 26 | 1 << 27 | 1 << 28, 0]),
    (0x7, 0, [0, 1 << 16, 0, 1 << 24]),
    (0xd, 0, [0x0006_00e7, 0x2b00, 0x2b00, 0]),
    (0xd, 1, [0x1f, 0x29d0, 0x1800, 0]),
    (0xd, 2, [0x100, 0x240, 0, 0]),
    (0xd, 5, [0x40, 0x440, 0, 0]),
    (0xd, 6, [0x200, 0x480, 0, 0]),
    (0xd, 7, [0x400, 0x680, 0, 0]),
    (0xd, 9, [0x8, 0xa80, 0, 0]),
    (0xd, 17, [0x40, 0xac0, 2, 0]),
    (0xd, 18, [0x2000, 0xb00, 6, 0]),
];

/// AVX-512 at AMD's offsets, without the hole that MPX leaves on Intel's: the pair that broke debuggers (go-delve/delve, issue
/// 3827; gdb's "XSAVE layout" series).
const AMD_AVX512: &Table = &[
    (0x0, 0, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
    (0x1, 0, [0x00a1_0f11, 0, 1 << 26 | 1 << 27 | 1 << 28, 0]),
    (0x7, 0, [0, 1 << 16, 0, 0]),
    (0xd, 0, [0x0000_02e7, 0x988, 0x988, 0]),
    (0xd, 1, [0xf, 0x988, 0, 0]),
    (0xd, 2, [0x100, 0x240, 0, 0]),
    (0xd, 5, [0x40, 0x340, 0, 0]),
    (0xd, 6, [0x200, 0x380, 0, 0]),
    (0xd, 7, [0x400, 0x580, 0, 0]),
    (0xd, 9, [0x8, 0x980, 0, 0]),
    (0x8000_0000, 0, [0x8000_0028, 0, 0, 0]),
    (0x8000_0008, 0, [0, 1 << 2, 0, 0]),
];

/// What `table` comes to, with the registers of one leaf changed by `change`.
fn with(table: &Table, leaf: u32, subleaf: u32, change: [u32; 4]) -> FpuFeatures {
    within(Limits::NONE, table, leaf, subleaf, change)
}

fn within(limits: Limits, table: &Table, leaf: u32, subleaf: u32, change: [u32; 4]) -> FpuFeatures {
    FpuFeatures::within(limits, |asked_leaf, asked_subleaf| {
        let mut values = table
            .iter()
            .find(|&&(leaf, subleaf, _)| (leaf, subleaf) == (asked_leaf, asked_subleaf))
            .map_or([0; 4], |row| row.2);
        if (asked_leaf, asked_subleaf) == (leaf, subleaf) {
            for (value, flip) in values.iter_mut().zip(change) {
                *value ^= flip;
            }
        }
        let [eax, ebx, ecx, edx] = values;
        CpuidResult { eax, ebx, ecx, edx }
    })
}

fn of(table: &Table) -> FpuFeatures {
    with(table, u32::MAX, 0, [0; 4])
}

#[test]
fn the_machine_that_this_was_written_on() {
    let features = of(MILAN);
    assert_eq!(features.save_instruction(), SaveInstruction::Xsaves);
    assert_eq!((features.xcr0(), features.area_bytes()), (7, 832));
    assert!(features.can_tell_use() && !features.has_xfd());
    assert_eq!(features.tiles_bytes(), None);
}

#[test]
fn the_best_instruction_that_is_shown_is_taken() {
    for (hidden, instruction, format) in [
        (0b1000, SaveInstruction::Xsavec, Format::Compacted),
        (0b1010, SaveInstruction::Xsaveopt, Format::Standard),
        (0b1011, SaveInstruction::Xsave, Format::Standard),
    ] {
        let features = with(MILAN, 0xd, 1, [hidden, 0, 0, 0]);
        assert_eq!(features.save_instruction(), instruction);
        assert_eq!(instruction.format(), format);
        assert_eq!(features.area_bytes(), 832);
    }
}

#[test]
fn without_xsave_or_its_leaf_it_is_fxsave() {
    for features in [
        with(MILAN, 1, 0, [0, 0, 1 << 26, 0]),
        with(MILAN, 0, 0, [1, 0, 0, 0]),
    ] {
        assert_eq!(features.save_instruction(), SaveInstruction::Fxsave);
        assert_eq!((features.xcr0(), features.area_bytes()), (0, 512));
    }
}

/// Emulators enumerate components in leaf 0DH that the feature leaves deny.
#[test]
fn a_component_without_its_feature_is_not_enabled() {
    let no_avx = with(SAPPHIRE_RAPIDS, 1, 0, [0, 0, 1 << 28, 0]);
    assert_eq!((no_avx.xcr0(), no_avx.area_bytes()), (3, 576));
    let no_avx512 = with(SAPPHIRE_RAPIDS, 7, 0, [0, 1 << 16, 0, 0]);
    assert_eq!((no_avx512.xcr0(), no_avx512.area_bytes()), (7, 832));
    let no_tiles = with(SAPPHIRE_RAPIDS, 7, 0, [0, 0, 0, 1 << 24]);
    assert_eq!(no_tiles.tiles_bytes(), None);
    // And the reverse: the feature is shown, and one of the three components is not.
    let no_opmask = with(SAPPHIRE_RAPIDS, 0xd, 0, [1 << 5, 0, 0, 0]);
    assert_eq!(no_opmask.xcr0(), 7);
}

#[test]
fn avx512_takes_what_the_components_say_in_each_format() {
    let compacted = of(SAPPHIRE_RAPIDS);
    assert_eq!(compacted.save_instruction(), SaveInstruction::Xsaves);
    assert_eq!((compacted.xcr0(), compacted.area_bytes()), (0xe7, 2432));
    let standard = with(SAPPHIRE_RAPIDS, 0xd, 1, [0b1010, 0, 0, 0]);
    assert_eq!(standard.save_instruction(), SaveInstruction::Xsaveopt);
    assert_eq!((standard.xcr0(), standard.area_bytes()), (0xe7, 2688));
    let amd = with(AMD_AVX512, 0xd, 1, [0b1010, 0, 0, 0]);
    assert_eq!((amd.xcr0(), amd.area_bytes()), (0xe7, 2432));
}

/// PKRU (9) is enumerated, and never a part of the image; AMX (17, 18) is a unit of its own, compacted, aligned.
#[test]
fn what_is_not_lazy_is_left_out() {
    for table in [SAPPHIRE_RAPIDS, AMD_AVX512] {
        assert_eq!(of(table).xcr0() & !0xe7, 0);
    }
    assert_eq!(of(SAPPHIRE_RAPIDS).tiles_bytes(), Some(576 + 64 + 8192));
    let without_xfd = with(SAPPHIRE_RAPIDS, 0xd, 1, [1 << 4, 0, 0, 0]);
    assert_eq!(without_xfd.tiles_bytes(), None);
    let ungated = with(SAPPHIRE_RAPIDS, 0xd, 18, [0, 0, 4, 0]);
    assert_eq!(ungated.tiles_bytes(), None);
}

#[test]
fn erratum_1386_takes_xsaves_away_from_zen_1_and_2() {
    for (signature, instruction) in [
        (0x0080_0f12, SaveInstruction::Xsavec), // Zen 1
        (0x0083_0f10, SaveInstruction::Xsavec), // Zen 2
        (0x00a0_0f11, SaveInstruction::Xsaves), // Zen 3
    ] {
        let features = with(MILAN, 1, 0, [0x00a0_0f11 ^ signature, 0, 0, 0]);
        assert_eq!(features.save_instruction(), instruction, "{signature:#x}");
    }
    // An Intel processor of the same numbers has not AMD's fault.
    let (amd, intel) = (MILAN[0].2, SAPPHIRE_RAPIDS[0].2);
    let vendor = [0, amd[1] ^ intel[1], amd[2] ^ intel[2], amd[3] ^ intel[3]];
    let features = with(MILAN, 0, 0, vendor);
    assert_eq!(features.save_instruction(), SaveInstruction::Xsaves);
    assert!(!features.forgets_x87_pointers());
}

#[test]
fn x87_pointers_are_wiped_on_amd_unless_cpuid_says_that_they_are_restored() {
    for table in [MILAN, AMD_AVX512] {
        assert!(!of(table).forgets_x87_pointers());
        assert!(with(table, 0x8000_0008, 0, [0, 1 << 2, 0, 0]).forgets_x87_pointers());
    }
    // The leaf is not believed where it does not exist.
    let no_leaf = with(AMD_AVX512, 0x8000_0000, 0, [0x28 ^ 0x07, 0, 0, 0]);
    assert!(no_leaf.forgets_x87_pointers());
    assert!(!of(SAPPHIRE_RAPIDS).forgets_x87_pointers());
}

#[test]
fn limits_leave_no_later_instruction_and_no_other_component() {
    for (save_instruction, components, xcr0, bytes) in [
        (
            SaveInstruction::Xsaves,
            u64::MAX,
            0xe7,
            576 + 256 + 64 + 512 + 1024,
        ),
        (SaveInstruction::Xsavec, 0b111, 0b111, 832),
        (SaveInstruction::Xsaveopt, u64::MAX, 0xe7, 2688),
        (SaveInstruction::Xsave, 0, 0b11, 576),
        // AVX-512 needs AVX, and all of its three components.
        (SaveInstruction::Xsave, !0b100, 0b11, 576),
        (SaveInstruction::Xsave, !(1 << 6), 0b111, 832),
        (SaveInstruction::Fxsave, u64::MAX, 0, 512),
    ] {
        let limits = Limits {
            save_instruction,
            components,
        };
        let features = within(limits, SAPPHIRE_RAPIDS, u32::MAX, 0, [0; 4]);
        assert_eq!(features.save_instruction(), save_instruction);
        assert_eq!((features.xcr0(), features.area_bytes()), (xcr0, bytes));
    }
    // What the processor has not is not used, whatever is let.
    assert_eq!(of(MILAN), within(Limits::NONE, MILAN, u32::MAX, 0, [0; 4]));
}

#[test]
fn a_limit_comes_before_the_first_question() {
    let features = FpuFeatures::of::<Native>();
    assert_eq!(FpuFeatures::limit::<Native>(Limits::NONE), Ok(()));
    let limits = Limits {
        save_instruction: SaveInstruction::Fxsave,
        components: 0,
    };
    assert_eq!(FpuFeatures::limit::<Native>(limits), Err(TooLate));
    assert_eq!(FpuFeatures::of::<Native>(), features);
}
