//! The header: one object in the kernel's memory that tells a reader outside where everything per-CPU lies.
//!
//! A reader needs nothing else of the kernel: no types, no debug information, no compile-time agreement but this page. Every
//! number is little-endian, every address virtual (unless it says physical), every pointer 8 bytes.
//!
//! # Finding it
//!
//! 1. By the symbol `pcu9_header` of the kernel's ELF file.
//! 2. By the ELF note with name `pcu9` and type 1 ([`Note`]), in the file and in the loaded image.
//! 3. By the ELF note with name `pcu9` and type 2 ([`HeaderNote`]) in a dump, which holds a copy: the header itself is where its
//!    `address` is, by `root_table` or `image_bias`.
//! 4. By its first sixteen bytes, [`MAGIC`], at a multiple of 64 in physical memory; `address` then says where the
//!    kernel sees it. A position-independent kernel was loaded elsewhere by the difference to its symbol.
//!
//! Its physical address follows without page tables: `p_paddr` of the ELF segment that holds it. Then `root_table`
//! and `levels` translate everything else. `address == 0` says that the kernel has not come to `Percpu::init`.
//!
//! # Layout, version 1
//!
//! | at | bytes | field | |
//! |---|---|---|---|
//! | 0 | 16 | `magic` | [`MAGIC`] |
//! | 16 | 4 | `version` | [`VERSION`]; another one is another table |
//! | 20 | 4 | `header_bytes` | 384 |
//! | 24 | 4 | `byte_order` | `0x01020304` |
//! | 28 | 4 | `machine` | `e_machine` of the ELF specification: 62 is x86-64 |
//! | 32 | 8 | `address` | of the header itself; 0 before `init` |
//! | 40 | 8 | `generation` | odd while the set of CPUs is being changed: read again, or say so |
//! | 48 | 4 | `build_id_bytes` | 0: the kernel does not know it |
//! | 52 | 32 | `build_id` | of the kernel's ELF file |
//! | 84 | 4 | `max_cpus` | ids are below it; it is the bound of a table, not a count |
//! | 88 | 8 | `groups` | first of `n_groups` [`CpuGroup`]s |
//! | 96 | 4 | `n_groups` | 64 ids each |
//! | 100 | 4 | `group_bytes` | from one group to the next: 536 |
//! | 104 | 8 | `template_start` | the initial values, and the addresses by which per-CPU data are named |
//! | 112 | 8 | `template_stop` | |
//! | 120 | 8 | `stride` | bytes of each CPU's area: copy of the template, then the zpcpu slots |
//! | 128 | 8 | `zpcpu_start` | the name of the first zpcpu byte: `template_start` + the template's size, rounded up |
//! | 136 | 8 | `pcpu` | the name of the fixed block, [`Pcpu`](super::Pcpu) |
//! | 144 | 4 | `pcpu_bytes` | |
//! | 148 | 4 | `extension` | where the kernel's own part of the block begins |
//! | 152 | 4 | `extension_bytes` | |
//! | 156 | 4 | `descriptor_bytes` | from one descriptor to the next: 64 |
//! | 160 | 8 | `descriptors` | first [`Descriptor`] |
//! | 168 | 8 | `descriptors_stop` | after the last |
//! | 176 | 72 | `pcu` | [`Layout`] of `CpuPcu` and `LwpPcu`, 18 numbers of 4 bytes in its order; all 0 without units |
//! | 248 | 16 | `counter_names` | [`Text`]: `n_counters` names, a line feed after each |
//! | 264 | 16 | `unit_names` | [`Text`]: `n_units` names, a line feed after each |
//! | 280 | 32 | `lwp` | [`LwpLayout`] |
//! | 312 | 32 | `fpu` | [`FpuLayout`] |
//! | 344 | 8 | `root_table` | physical address of a top-level page table that maps the kernel; 0: unknown |
//! | 352 | 4 | `levels` | of page tables: 4 or 5; 0: unknown |
//! | 356 | 4 | reserved | 0 |
//! | 360 | 8 | `direct_map` | address at which physical address 0 appears |
//! | 368 | 8 | `direct_map_bytes` | 0: there is no direct map |
//! | 376 | 8 | `image_bias` | virtual minus physical address of the kernel's image, where the header is |
//!
//! # Reading a CPU
//!
//! Group `id / 64`, bit `id % 64` of [`CpuGroup`]'s `present` says whether the CPU has an area; only then has
//! `offsets[id % 64]` a meaning, and 0 is an offset like any other. *Everything* per-CPU has a name, which is an
//! address at or after `template_start`, and lies for that CPU at
//!
//! ```text
//! address = name + offset[cpu]      (modulo 2^64)         template_start <= name < template_start + stride
//! ```
//!
//! Names below `template_stop` are symbols of the kernel (`dpcpu!`), the initial values stand there; those from `zpcpu_start`
//! on are zpcpu allocations and counters, given out at run time. `template_start` is what FreeBSD calls the bias of both.
//! A counter's value is the wrapping sum of the `u64`s over all *present* CPUs, started or not.
//!
//! The block ([`Pcpu`](super::Pcpu)): `u32` id at 0, `u32` state at 4 (1 present, 2 started, 3 offline), current LWP at 8, idle LWP
//! at 16, dynamic offset at 24 (equal to `offsets`), own address at 32, address of its `CpuPcu` at 40 (0: none), extension at
//! `extension`.
//!
//! # Reading units and LWPs
//!
//! Tag and word ([`pcu`](crate::pcu) explains them; a field is `bits low..high`):
//!
//! ```text
//! tag    bit 0 live    bit 1 a kernel section is the owner         bits 16..64 serial
//! word   bit 0 live    bit 1 valid    bits 2..16 CPU + 1, or 0     bits 16..64 serial
//! ```
//!
//! The CPU's entry says *live* if bit 0 of its tag is set: then `owner` points to the LWP. With bit 0 clear and a serial that is not
//! 0 the entry is *clean*: `owner` is an identity, perhaps of an LWP that is gone, and must be shown as such and never
//! followed. An LWP's newest state is: in the registers of the word's CPU if bit 0 is set; else in memory if bit 1 is set; else
//! it has none. A clean word (bit 0 clear, bit 1 set, CPU not 0) whose serial is that CPU's tag serial, the tag not live, means that the
//! registers equal memory.

macro_rules! assert_offsets {
    ($type:ty { $($field:ident: $offset:expr,)* } $bytes:expr) => {
        $(const_assert_eq!(offset_of!($type, $field), $offset);)*
        const_assert_eq!(size_of::<$type>(), $bytes);
    };
}

mod note;

use core::mem::offset_of;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64};

use static_assertions::{assert_eq_size, const_assert_eq};

use super::descriptor::{Descriptor, Text};
use super::table::CpuGroup;
use crate::pcu::Layout;

pub use self::note::{HeaderNote, Note};

/// What the header begins with.
pub const MAGIC: [u8; 16] = *b"\x7fpcu9 percpu hdr";
/// The version of the layout that this page describes.
pub const VERSION: u32 = 1;
/// What an offset says that the kernel does not give; 0 is an offset like any other.
pub const ABSENT: u32 = u32::MAX;

/// The header. The kernel defines it with [`percpu_header!`](crate::percpu_header), since sizes depend on its types; the module's page
/// lists it byte by byte.
#[derive(Debug)]
#[repr(C, align(64))]
#[expect(clippy::struct_field_names, reason = "the names are those of the page")]
pub struct Header {
    pub(super) magic: [u8; 16],
    pub(super) version: u32,
    pub(super) header_bytes: u32,
    pub(super) byte_order: u32,
    pub(super) machine: u32,
    pub(super) address: AtomicU64,
    pub(super) generation: AtomicU64,
    pub(super) build_id_bytes: AtomicU32,
    pub(super) build_id: [AtomicU8; 32],
    pub(super) max_cpus: AtomicU32,
    pub(super) groups: AtomicPtr<CpuGroup>,
    pub(super) n_groups: AtomicU32,
    pub(super) group_bytes: u32,
    pub(super) template_start: *const u8,
    pub(super) template_stop: *const u8,
    pub(super) stride: AtomicU64,
    pub(super) zpcpu_start: AtomicU64,
    pub(super) pcpu: *const u8,
    pub(super) pcpu_bytes: u32,
    pub(super) extension: u32,
    pub(super) extension_bytes: u32,
    pub(super) descriptor_bytes: u32,
    pub(super) descriptors: *const Descriptor,
    pub(super) descriptors_stop: *const Descriptor,
    pub(super) pcu: Layout,
    pub(super) counter_names: Text,
    pub(super) unit_names: Text,
    pub(super) lwp: LwpLayout,
    pub(super) fpu: FpuLayout,
    pub(super) root_table: AtomicU64,
    pub(super) levels: AtomicU32,
    pub(super) reserved: u32,
    pub(super) direct_map: AtomicU64,
    pub(super) direct_map_bytes: AtomicU64,
    pub(super) image_bias: AtomicU64,
}

/// Where a kernel keeps things in its LWPs. [`ABSENT`] for an offset, null for the list: it does not say.
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 8 | `list`: address of a pointer to the first of all LWPs; the list ends with null |
/// | 8 | 4 | `next`: offset in an LWP of the pointer to the next one |
/// | 12 | 4 | `pcu`: offset in an LWP of its `LwpPcu` |
/// | 16 | 4 | `number`: offset in an LWP of its number, a `u64` |
/// | 20 | 4 | `bytes`: of an LWP |
/// | 24 | 4 | `name`: offset in an LWP of `name_bytes` bytes of UTF-8, filled up with 0 |
/// | 28 | 4 | `name_bytes` |
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LwpLayout {
    /// Address of a pointer to the first of all LWPs; the list ends with null. Null: the kernel keeps no such list.
    pub list: *const u8,
    /// Offset in an LWP of the pointer to the next one.
    pub next: u32,
    /// Offset in an LWP of its [`LwpPcu`](crate::pcu::LwpPcu).
    pub pcu: u32,
    /// Offset in an LWP of its number, a `u64`.
    pub number: u32,
    /// Bytes of an LWP.
    pub bytes: u32,
    /// Offset in an LWP of its name: `name_bytes` bytes of UTF-8, filled up with 0.
    pub name: u32,
    /// Bytes of the name.
    pub name_bytes: u32,
}

impl LwpLayout {
    /// Says nothing.
    pub const NONE: Self = Self {
        list: null(),
        next: ABSENT,
        pcu: ABSENT,
        number: ABSENT,
        bytes: 0,
        name: ABSENT,
        name_bytes: 0,
    };
}

/// Where an LWP's saved FPU registers are, and what lies there.
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 4 | `unit`: the FPU's number among the units |
/// | 4 | 4 | `place`: 0 the kernel does not say; 1 `offset` in an LWP is a pointer to the area; 2 it is the area |
/// | 8 | 4 | `offset`; a pointer may be null: the LWP has no area |
/// | 12 | 4 | `format`: 0 not known yet; 1 FXSAVE; 2 XSAVE in the standard format; 3 XSAVE, compacted |
/// | 16 | 4 | `area_bytes` |
/// | 20 | 4 | reserved, 0 |
/// | 24 | 8 | `xcr0`: the components that are saved; bits 0 (x87), 1 (SSE), 2 (AVX), 5 to 7 (AVX-512) |
///
/// Before the first save an area may hold anything: the LWP's word says whether there is a state in it.
#[derive(Debug)]
#[repr(C)]
pub struct FpuLayout {
    pub(super) unit: u32,
    pub(super) place: u32,
    pub(super) offset: u32,
    pub(super) format: AtomicU32,
    pub(super) area_bytes: AtomicU32,
    pub(super) reserved: u32,
    pub(super) xcr0: AtomicU64,
}

/// Where an area is, seen from its LWP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AreaPlace {
    /// The kernel does not say.
    Unknown = 0,
    /// At the offset is a pointer to it; null for an LWP without an area.
    Pointer = 1,
    /// At the offset it begins.
    Inside = 2,
}

/// What a saved state looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AreaFormat {
    /// The 512 bytes of FXSAVE.
    Fxsave = 1,
    /// XSAVE's standard format.
    Standard = 2,
    /// XSAVE's compacted format.
    Compacted = 3,
}

#[doc(hidden)]
pub const NO_UNITS: Layout = Layout {
    n_units: 0,
    n_counters: 0,
    cpu_bytes: 0,
    cpu_attention: 0,
    cpu_section_depth: 0,
    cpu_residue_summary: 0,
    cpu_serial: 0,
    cpu_units: 0,
    unit_bytes: 0,
    unit_owner: 0,
    unit_tag: 0,
    unit_residue: 0,
    unit_counters: 0,
    lwp_bytes: 0,
    lwp_used: 0,
    lwp_initial: 0,
    lwp_habits: 0,
    lwp_words: 0,
};

/// What the kernel's own definition of the header says, as [`percpu_header!`](crate::percpu_header) collects it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Parts {
    pub template: (*const u8, *const u8),
    pub descriptors: (*const Descriptor, *const Descriptor),
    pub pcpu: *const u8,
    pub pcpu_bytes: usize,
    pub extension: usize,
    pub extension_bytes: usize,
    pub pcu: Layout,
    pub unit_names: &'static str,
    pub lwp: LwpLayout,
    pub fpu: FpuLayout,
}

impl Header {
    #[doc(hidden)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sizes of structures that are per-CPU data are small"
    )]
    pub const fn new(parts: Parts) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            header_bytes: size_of::<Self>() as u32,
            byte_order: 0x0102_0304,
            machine: if cfg!(target_arch = "x86_64") {
                EM_X86_64
            } else {
                0
            },
            address: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            build_id_bytes: AtomicU32::new(0),
            build_id: [const { AtomicU8::new(0) }; 32],
            max_cpus: AtomicU32::new(0),
            groups: AtomicPtr::new(null_mut()),
            n_groups: AtomicU32::new(0),
            group_bytes: size_of::<CpuGroup>() as u32,
            template_start: parts.template.0,
            template_stop: parts.template.1,
            stride: AtomicU64::new(0),
            zpcpu_start: AtomicU64::new(0),
            pcpu: parts.pcpu,
            pcpu_bytes: parts.pcpu_bytes as u32,
            extension: parts.extension as u32,
            extension_bytes: parts.extension_bytes as u32,
            descriptor_bytes: size_of::<Descriptor>() as u32,
            descriptors: parts.descriptors.0,
            descriptors_stop: parts.descriptors.1,
            pcu: parts.pcu,
            counter_names: Text::new(Layout::counter_names()),
            unit_names: Text::new(parts.unit_names),
            lwp: parts.lwp,
            fpu: parts.fpu,
            root_table: AtomicU64::new(0),
            levels: AtomicU32::new(0),
            reserved: 0,
            direct_map: AtomicU64::new(0),
            direct_map_bytes: AtomicU64::new(0),
            image_bias: AtomicU64::new(0),
        }
    }
}

impl FpuLayout {
    /// Says nothing.
    pub const fn none() -> Self {
        Self::new(0, AreaPlace::Unknown, ABSENT)
    }

    /// The FPU is unit number `unit`, and its areas are at `place`, which is `offset` bytes into an LWP.
    pub const fn new(unit: u32, place: AreaPlace, offset: u32) -> Self {
        Self {
            unit,
            place: place as u32,
            offset,
            format: AtomicU32::new(0),
            area_bytes: AtomicU32::new(0),
            reserved: 0,
            xcr0: AtomicU64::new(0),
        }
    }
}

// SAFETY: the pointers are to what never changes and lives as long as the kernel; all else is atomic.
unsafe impl Sync for Header {}

/// `e_machine` of x86-64: System V ABI, AMD64 supplement, "Machine Information".
const EM_X86_64: u32 = 62;

// The layout is for 64-bit kernels.
assert_eq_size!(*const u8, u64);
const_assert_eq!(align_of::<Header>(), 64);
assert_offsets!(Header {
    magic: 0,
    version: 16,
    header_bytes: 20,
    byte_order: 24,
    machine: 28,
    address: 32,
    generation: 40,
    build_id_bytes: 48,
    build_id: 52,
    max_cpus: 84,
    groups: 88,
    n_groups: 96,
    group_bytes: 100,
    template_start: 104,
    template_stop: 112,
    stride: 120,
    zpcpu_start: 128,
    pcpu: 136,
    pcpu_bytes: 144,
    extension: 148,
    extension_bytes: 152,
    descriptor_bytes: 156,
    descriptors: 160,
    descriptors_stop: 168,
    pcu: 176,
    counter_names: 248,
    unit_names: 264,
    lwp: 280,
    fpu: 312,
    root_table: 344,
    levels: 352,
    reserved: 356,
    direct_map: 360,
    direct_map_bytes: 368,
    image_bias: 376,
} 384);
assert_offsets!(LwpLayout {
    list: 0,
    next: 8,
    pcu: 12,
    number: 16,
    bytes: 20,
    name: 24,
    name_bytes: 28,
} 32);
assert_offsets!(FpuLayout {
    unit: 0,
    place: 4,
    offset: 8,
    format: 12,
    area_bytes: 16,
    xcr0: 24,
} 32);
assert_offsets!(CpuGroup {
    present: 0,
    started: 8,
    offline: 16,
    offsets: 24,
} 536);
assert_offsets!(Descriptor {
    name: 0,
    type_name: 16,
    at: 32,
    bytes: 40,
    kind: 48,
    align: 52,
    reserved: 56,
} 64);
assert_offsets!(Text {
    at: 0,
    bytes: 8,
} 16);
