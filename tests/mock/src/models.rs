//! Processors by name.
//!
//! The numbers of leaf 0DH are architectural sizes at offsets that each vendor chose: Intel's leave room for MPX behind AVX
//! (576 + 256 = 832, 960, 1024, 1088 ..), AMD's since Zen 3 do not. Both rows stand in gdb, `i387_guess_xsave_layout` in
//! `gdb/i387-tdep.c` (commit d39b60f2e036 tells the story); component sizes and alignments in Intel SDM, volume 1, "Enumeration of
//! CPU Support for XSAVE Instructions", AMX in "Intel AMX State"; AMD's also in AMD APM, volume 2, "XSAVE/XRSTOR"; LWP in AMD's
//! BIOS and Kernel Developer's Guide for family 15h, "CPUID `Fn0000_000D`". What Bochs shows for `penryn`, `sandy bridge`,
//! `skylake_x` and `tigerlake` agrees (`research/emulators-and-tools.md`), and QEMU's rows can be read by running it.

use crate::component::{ALIGNED, CAN_BE_DISABLED, Component, SUPERVISOR};
use crate::model::{
    EAX_XFD, EAX_XGETBV1, EAX_XSAVEC, EAX_XSAVEOPT, EAX_XSAVES, EBX_AVX512F, EBX_MPX,
    EBX_RSTR_FP_ERR_PTRS, ECX_AVX, ECX_CET_SS, ECX_PKU, ECX_XSAVE, EDX_AMX_TILE, ErrorPointers,
    HeaderCheck, InUse, Model, ModifiedOptimisation, Vendor,
};

pub use crate::host::this_machine;

const YMM: Component = Component::new(2, 256, 576, 0);
const BNDREGS: Component = Component::new(3, 64, 960, 0);
const BNDCSR: Component = Component::new(4, 64, 1024, 0);
const CET_U: Component = Component::new(11, 16, 0, SUPERVISOR);
const CET_S: Component = Component::new(12, 24, 0, SUPERVISOR);

/// All from XSAVEOPT to XSAVES.
const ALL_SAVES: u32 = EAX_XSAVEOPT | EAX_XSAVEC | EAX_XGETBV1 | EAX_XSAVES;

/// Intel's defaults, to be filled in.
const INTEL: Model = Model {
    name: "",
    vendor: Vendor::Intel,
    signature: 0,
    leaf_1_ecx: 0,
    leaf_7: [0; 3],
    max_leaf: 0xd,
    leaf_80000008_ebx: 0,
    extensions: 0,
    components: &[],
    mxcsr_mask: 0xffff,
    in_use: InUse::ByHistory,
    modified_optimisation: ModifiedOptimisation::Full,
    error_pointers: ErrorPointers::Moved,
    header_check: HeaderCheck::Bytes8To23,
};

/// AMD's. `MXCSR_MASK` has bit 17, misaligned SSE, since family 10h.
const AMD: Model = Model {
    vendor: Vendor::Amd,
    mxcsr_mask: 0x2_ffff,
    in_use: InUse::ByContent,
    modified_optimisation: ModifiedOptimisation::Absent,
    error_pointers: ErrorPointers::LeftOut,
    ..INTEL
};

/// Intel Core 2, the first: no XSAVE.
pub static MEROM: Model = Model {
    name: "merom",
    signature: 0x6f6,
    max_leaf: 0xa,
    ..INTEL
};

/// AMD's first 64-bit family: no XSAVE, and x87 pointers that FXSAVE leaves out.
pub static K8: Model = Model {
    name: "k8",
    signature: 0xf4a,
    max_leaf: 1,
    mxcsr_mask: 0xffff,
    ..AMD
};

/// Intel Core 2 with XSAVE, nothing else of the set: an area of 576 bytes.
pub static PENRYN: Model = Model {
    name: "penryn",
    signature: 0x1_067a,
    leaf_1_ecx: ECX_XSAVE,
    ..INTEL
};

/// AMD family 15h: AVX, no XSAVEOPT, LWP behind AVX in the highest component, pointers left out.
pub static PILEDRIVER: Model = Model {
    name: "piledriver",
    signature: 0x60_0f20,
    leaf_1_ecx: ECX_XSAVE | ECX_AVX,
    components: &[YMM, Component::new(62, 128, 832, 0)],
    ..AMD
};

/// Intel's second Core generation: XSAVEOPT and AVX.
pub static SANDY_BRIDGE: Model = Model {
    name: "sandy bridge",
    signature: 0x2_06a7,
    leaf_1_ecx: ECX_XSAVE | ECX_AVX,
    extensions: EAX_XSAVEOPT,
    components: &[YMM],
    ..INTEL
};

/// AMD's first Zen: all of the set, but erratum 1386: its XSAVES must not be used.
pub static ZEN: Model = Model {
    name: "zen",
    signature: 0x80_0f11,
    leaf_1_ecx: ECX_XSAVE | ECX_AVX,
    leaf_80000008_ebx: EBX_RSTR_FP_ERR_PTRS,
    extensions: ALL_SAVES,
    components: &[YMM],
    error_pointers: ErrorPointers::ZeroedInMemory,
    ..AMD
};

/// Hygon's Zen, here without the bit for the pointers, as a hypervisor that masks the leaf shows it.
pub static DHYANA: Model = Model {
    name: "dhyana",
    vendor: Vendor::Hygon,
    signature: 0x90_0f01,
    leaf_80000008_ebx: 0,
    error_pointers: ErrorPointers::LeftOut,
    ..ZEN
};

/// Intel's AVX-512 with PKRU, at Intel's offsets: behind MPX.
pub static SKYLAKE_X: Model = Model {
    name: "skylake-x",
    signature: 0x5_0654,
    leaf_1_ecx: ECX_XSAVE | ECX_AVX,
    leaf_7: [EBX_AVX512F | EBX_MPX, ECX_PKU, 0],
    extensions: ALL_SAVES,
    components: &[
        YMM,
        BNDREGS,
        BNDCSR,
        Component::new(5, 64, 1088, 0),
        Component::new(6, 512, 1152, 0),
        Component::new(7, 1024, 1664, 0),
        Component::new(8, 128, 0, SUPERVISOR),
        Component::new(9, 8, 2688, 0),
    ],
    ..INTEL
};

/// AMD's AVX-512 with PKRU, at AMD's offsets: opmasks at 0x340.
pub static ZEN4: Model = Model {
    name: "zen 4",
    signature: 0xa1_0f11,
    leaf_1_ecx: ECX_XSAVE | ECX_AVX,
    leaf_7: [EBX_AVX512F, ECX_PKU | ECX_CET_SS, 0],
    leaf_80000008_ebx: EBX_RSTR_FP_ERR_PTRS,
    extensions: ALL_SAVES,
    components: &[
        YMM,
        Component::new(5, 64, 832, 0),
        Component::new(6, 512, 896, 0),
        Component::new(7, 1024, 1408, 0),
        Component::new(9, 8, 2432, 0),
        CET_U,
        CET_S,
    ],
    error_pointers: ErrorPointers::ZeroedInMemory,
    ..AMD
};

/// Intel's AMX: tiles of 8 KiB, aligned when compacted, and `IA32_XFD`.
pub static SAPPHIRE_RAPIDS: Model = Model {
    name: "sapphire rapids",
    signature: 0x8_06f8,
    leaf_1_ecx: ECX_XSAVE | ECX_AVX,
    leaf_7: [EBX_AVX512F, ECX_PKU | ECX_CET_SS, EDX_AMX_TILE],
    max_leaf: 0x20,
    extensions: ALL_SAVES | EAX_XFD,
    components: &[
        YMM,
        Component::new(5, 64, 1088, 0),
        Component::new(6, 512, 1152, 0),
        Component::new(7, 1024, 1664, 0),
        Component::new(9, 8, 2688, 0),
        CET_U,
        CET_S,
        Component::new(17, 64, 2752, ALIGNED),
        Component::new(18, 8192, 2816, ALIGNED | CAN_BE_DISABLED),
    ],
    ..INTEL
};

/// What QEMU 7.2 shows as `Skylake-Server`: leaf 0DH describes AVX-512, which leaf 7 denies.
pub static QEMU_SKYLAKE_SERVER: Model = Model {
    name: "qemu skylake-server",
    signature: 0x5_0654,
    leaf_1_ecx: ECX_XSAVE | ECX_AVX,
    leaf_7: [0; 3],
    extensions: EAX_XSAVEOPT | EAX_XGETBV1,
    components: SKYLAKE_X_USER,
    modified_optimisation: ModifiedOptimisation::Absent,
    ..INTEL
};

const SKYLAKE_X_USER: &[Component] = &[
    YMM,
    BNDREGS,
    BNDCSR,
    Component::new(5, 64, 1088, 0),
    Component::new(6, 512, 1152, 0),
    Component::new(7, 1024, 1664, 0),
    Component::new(9, 8, 2688, 0),
];

/// All of them.
pub static ALL: [&Model; 11] = [
    &MEROM,
    &K8,
    &PENRYN,
    &PILEDRIVER,
    &SANDY_BRIDGE,
    &ZEN,
    &DHYANA,
    &SKYLAKE_X,
    &ZEN4,
    &SAPPHIRE_RAPIDS,
    &QEMU_SKYLAKE_SERVER,
];
