//! The image of a state in memory: standard format, which begins with FXSAVE's.

use core::ptr::NonNull;

use static_assertions::{const_assert, const_assert_eq};

use super::{AREA_ALIGN, FpuFeatures, SaveInstruction};

/// The initial image is the legacy area and the XSAVE header.
pub(super) const INITIAL_BYTES: usize = size_of::<Image>();

/// Control word after FNINIT. Intel SDM, volume 1, "x87 FPU Control Word".
const FCW_INITIAL: u16 = 0x037f;
/// All SSE exceptions masked. Intel SDM, volume 1, "MXCSR Control and Status Register".
pub(super) const MXCSR_INITIAL: u32 = 0x1f80;

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
const_assert_eq!(INITIAL_BYTES, 576);
const_assert_eq!(align_of::<Image>(), AREA_ALIGN);
const_assert!(core::mem::offset_of!(Image, mxcsr) == 24);
const_assert!(core::mem::offset_of!(Image, st) == 32);
const_assert!(core::mem::offset_of!(Image, xmm) == 160);
const_assert!(core::mem::offset_of!(Image, xstate_bv) == 512);

/// The initial state for both families: XRSTOR sees no component in `XSTATE_BV` and initialises all, but takes `MXCSR` from
/// memory all the same; FXRSTOR takes everything from memory.
pub(super) const INITIAL: Image = Image {
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
    xcomp_bv: 0,
    header_reserved: [0; 6],
};

/// The initial image where the processor can read it.
pub(super) static INITIAL_IMAGE: Image = INITIAL;

/// Is the image at `area` the initial state?
///
/// # Safety
///
/// `area` holds an image that the save instruction of `features` wrote, or a prepared one.
pub(super) unsafe fn is_initial(area: NonNull<u8>, features: &FpuFeatures) -> bool {
    if features.save_instruction() != SaveInstruction::Fxsave {
        // SAFETY: an XSAVE area begins with these bytes, and is aligned for them.
        let image = unsafe { area.cast::<Image>().as_ref() };
        // MXCSR has no bit in XSTATE_BV that tells: it is written whenever SSE or AVX is asked for.
        return image.xstate_bv & features.xcr0() == 0 && image.mxcsr == MXCSR_INITIAL;
    }
    // SAFETY: FXSAVE writes its 416 bytes of state from the start on; the header behind the area is not touched.
    let legacy = unsafe { area.cast::<[u8; 416]>().as_ref() };
    // SAFETY: `INITIAL_IMAGE` is longer than that, and plain bytes.
    let initial = unsafe { NonNull::from(&INITIAL_IMAGE).cast::<[u8; 416]>().as_ref() };
    // MXCSR_MASK, bytes 28 to 31, is no state: FXSAVE writes the processor's mask there.
    legacy[..28] == initial[..28] && legacy[32..] == initial[32..]
}
