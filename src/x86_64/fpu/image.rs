//! The image of a state in memory: its legacy region and header, which all formats begin with, and the initial state in each
//! format.
//!
//! A component that `XSTATE_BV` does not name is in its initial state. So an image that was saved when fewer components were
//! enabled is good for more: XRSTOR, always asked for all of them, initialises those it lacks. (XSA-62, CVE-2013-1442, is what
//! happens to a kernel that asks for those of the image alone.)

use core::ptr::NonNull;

use static_assertions::{const_assert, const_assert_eq};

use super::detect::{AVX, SSE};
use super::{AREA_ALIGN, Format, FpuFeatures};
use crate::x86_64::machine::Machine;

/// The legacy region and the XSAVE header.
pub(in crate::x86_64) const LEGACY_AND_HEADER: usize = size_of::<Image>();

/// Control word after FNINIT. Intel SDM, volume 1, "x87 FPU Control Word".
pub(super) const FCW_INITIAL: u16 = 0x037f;
/// All SSE exceptions masked. Intel SDM, volume 1, "MXCSR Control and Status Register".
pub(super) const MXCSR_INITIAL: u32 = 0x1f80;

/// What `MXCSR` has where FXSAVE reports a mask of 0. Intel SDM, volume 1, "Guidelines for Writing to the MXCSR Register".
pub(super) const MXCSR_MASK_DEFAULT: u32 = 0xffbf;

/// Intel SDM, volume 1, "Legacy Region of an XSAVE Area" and "XSAVE Header".
#[repr(C, align(64))]
pub(super) struct Image {
    fcw: u16,
    fsw: u16,
    /// Abridged: a set bit is an *occupied* register, so empty is 0.
    ftw: u8,
    reserved: u8,
    fop: u16,
    fip: u64,
    fdp: u64,
    mxcsr: u32,
    mxcsr_mask: u32,
    st: [u128; 8],
    xmm: [u128; 16],
    unused: [u8; 96],
    xstate_bv: u64,
    xcomp_bv: u64,
    header_reserved: [u64; 6],
}
const_assert_eq!(LEGACY_AND_HEADER, 576);
const_assert_eq!(align_of::<Image>(), AREA_ALIGN);
const_assert!(core::mem::offset_of!(Image, mxcsr) == 24);
const_assert!(core::mem::offset_of!(Image, st) == 32);
const_assert!(core::mem::offset_of!(Image, xmm) == 160);
const_assert!(core::mem::offset_of!(Image, xstate_bv) == 512);
const_assert!(core::mem::offset_of!(Image, xcomp_bv) == XCOMP_BV);

/// Where `XCOMP_BV` is, and its bit that says that the image is compacted. Intel SDM, volume 1, "XSAVE Header".
pub(in crate::x86_64) const XCOMP_BV: usize = 520;
pub(in crate::x86_64) const COMPACTED: u64 = 1 << 63;

/// The initial state for all restores: XRSTOR and XRSTORS see no component in `XSTATE_BV` and initialise all; from the standard
/// format XRSTOR takes `MXCSR` from memory all the same, and FXRSTOR takes everything from memory.
///
/// The tag word is FXSAVE's: 0 is eight empty registers. An image of zeros would unmask all exceptions.
const fn initial(xcomp_bv: u64) -> Image {
    Image {
        fcw: FCW_INITIAL,
        fsw: 0,
        ftw: 0,
        reserved: 0,
        fop: 0,
        fip: 0,
        fdp: 0,
        mxcsr: MXCSR_INITIAL,
        mxcsr_mask: 0,
        st: [0; 8],
        xmm: [0; 16],
        unused: [0; 96],
        xstate_bv: 0,
        xcomp_bv,
        header_reserved: [0; 6],
    }
}

/// The initial image where the processor can read it, in the format that it is restored from.
pub(super) fn initial_image(format: Format) -> NonNull<u8> {
    static STANDARD: Image = initial(0);
    static COMPACTED_IMAGE: Image = initial(COMPACTED);
    NonNull::from(match format {
        Format::Legacy | Format::Standard => &STANDARD,
        Format::Compacted => &COMPACTED_IMAGE,
    })
    .cast()
}

/// Writes the initial state to an area. A compacted one names all components, as every save to it will.
///
/// # Safety
///
/// `area` is as long as the features say, at a multiple of [`AREA_ALIGN`], and nobody else uses it.
pub(super) unsafe fn write_initial(area: NonNull<u8>, features: &FpuFeatures) {
    let format = features.save_instruction().format();
    let bytes = features.area_bytes();
    // SAFETY: the caller promises so many writable bytes.
    unsafe { area.write_bytes(0, bytes) };
    let head = bytes.min(LEGACY_AND_HEADER);
    // SAFETY: as above; the area is not the static image, which is as long.
    unsafe { area.copy_from_nonoverlapping(initial_image(format), head) };
    if format == Format::Compacted {
        // SAFETY: a compacted area has a header.
        let xcomp_bv = unsafe { area.add(XCOMP_BV) };
        // SAFETY: as above, and aligned.
        unsafe { xcomp_bv.cast().write(COMPACTED | features.xcr0()) };
    }
}

/// Writes a state with SSE, and AVX where there is, in use: what a program that computes leaves.
///
/// # Safety
///
/// As [`write_initial`].
pub(super) unsafe fn write_in_use(area: NonNull<u8>, features: &FpuFeatures) {
    const FILLING: u8 = 0x3c;
    // SAFETY: the same promises.
    unsafe { write_initial(area, features) };
    // SAFETY: every area has the legacy region.
    let xmm = unsafe { area.add(core::mem::offset_of!(Image, xmm)) };
    // SAFETY: as above.
    unsafe { xmm.write_bytes(FILLING, size_of::<[u128; 16]>()) };
    if features.save_instruction().format() == Format::Legacy {
        return;
    }
    let in_use = features.xcr0() & (SSE | AVX);
    // SAFETY: an XSAVE area has a header, aligned.
    let xstate_bv = unsafe { area.add(core::mem::offset_of!(Image, xstate_bv)) };
    // SAFETY: as above.
    unsafe { xstate_bv.cast().write(in_use) };
    if in_use & AVX != 0 {
        // The upper halves of YMM0 to 15, in either format the first behind the header. Intel SDM, volume 1, "AVX State".
        // SAFETY: an area with AVX is so long.
        let upper = unsafe { area.add(LEGACY_AND_HEADER) };
        // SAFETY: as above.
        unsafe { upper.write_bytes(FILLING, size_of::<[u128; 16]>()) };
    }
}

/// Is the image at `area` the initial state?
///
/// # Safety
///
/// `area` holds an image that the save instruction of `features` wrote, or a prepared one.
pub(super) unsafe fn is_initial(area: NonNull<u8>, features: &FpuFeatures) -> bool {
    let format = features.save_instruction().format();
    if format != Format::Legacy {
        // SAFETY: an XSAVE area begins with these bytes, and is aligned for them.
        let image = unsafe { area.cast::<Image>().as_ref() };
        // In the standard format MXCSR is written and taken whatever XSTATE_BV says; in the compacted one it goes with SSE, and
        // is old in memory if SSE was not written. Intel SDM, volume 1, "Operation of XSAVE", "Operation of XSAVEC".
        let is_mxcsr_initial = format == Format::Compacted || image.mxcsr == MXCSR_INITIAL;
        return image.xstate_bv & features.xcr0() == 0 && is_mxcsr_initial;
    }
    // SAFETY: FXSAVE writes its 416 bytes of state from the start on; the header behind the area is not touched.
    let legacy = unsafe { area.cast::<[u8; 416]>().as_ref() };
    // SAFETY: the initial image is longer than that, and plain bytes.
    let initial = unsafe { initial_image(format).cast::<[u8; 416]>().as_ref() };
    // MXCSR_MASK, bytes 28 to 31, is no state: FXSAVE writes the processor's mask there.
    legacy[..28] == initial[..28] && legacy[32..] == initial[32..]
}

/// The bits of `MXCSR` that the processor has: FXSAVE writes them behind it. Source as [`MXCSR_MASK_DEFAULT`].
///
/// # Safety
///
/// `CR0.TS` is clear, `CR4.OSFXSR` set.
pub(super) unsafe fn read_mxcsr_mask<M: Machine>() -> u32 {
    let mut image = Image {
        mxcsr_mask: 0,
        ..initial(0)
    };
    // SAFETY: an image begins with FXSAVE's 512 bytes.
    unsafe { M::fxsave(NonNull::from(&mut image).cast()) };
    match image.mxcsr_mask {
        0 => MXCSR_MASK_DEFAULT,
        mask => mask,
    }
}
