//! A state in the bytes of an image, and its way into the bytes of another, of whatever formats the two are.

use core::ops::Range;

use super::super::detect::{SSE, X87};
use super::super::image::{FCW_INITIAL, MXCSR_INITIAL};
use super::super::{COMPACTED, Format, Fpu, FpuFeatures, XCOMP_BV};
use super::form::{put, u32_at, u64_at};
use crate::x86_64::machine::Machine;

/// Places in every image. Intel SDM, volume 1, "Legacy Region of an XSAVE Area", "XSAVE Header".
pub(super) const AT_MXCSR: usize = 24;
const AT_MXCSR_MASK: usize = 28;
pub(super) const XSTATE_BV: usize = 512;
/// Control, status and tags of x87; with the pointers behind them.
const CONTROL_WORDS: Range<usize> = 0..6;
const CONTROL: Range<usize> = 0..24;
const X87_REGISTERS: Range<usize> = 32..160;
const XMM: Range<usize> = 160..416;

/// A state, in the bytes of an image that is known to be good.
#[derive(Clone, Copy, Debug)]
pub(super) struct State<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) format: Format,
    /// The components whose bytes count; the others are initial, whatever lies there.
    pub(super) xstate_bv: u64,
    pub(super) mxcsr: u32,
}

impl<'a> State<'a> {
    /// The initial state.
    pub(super) const INITIAL: State<'static> = State {
        bytes: &[],
        format: Format::Standard,
        xstate_bv: 0,
        mxcsr: MXCSR_INITIAL,
    };

    /// The state in an area of this machine's.
    pub(super) fn of_area(area: &'a [u8], features: &FpuFeatures) -> Self {
        let format = features.save_instruction().format();
        let xstate_bv = match format {
            Format::Legacy => X87 | SSE,
            Format::Standard | Format::Compacted => u64_at(area, XSTATE_BV) & features.components(),
        };
        debug_assert!(
            format != Format::Compacted || u64_at(area, XCOMP_BV) == COMPACTED | features.xcr0(),
            "the area has other components than a save writes: {:#x}",
            u64_at(area, XCOMP_BV)
        );
        // In the compacted format MXCSR goes with SSE, and is old in memory if SSE was not written. Intel SDM, volume 1,
        // "Operation of XSAVEC".
        let is_taken = format != Format::Compacted || xstate_bv & SSE != 0;
        let mxcsr = u32_at(area, AT_MXCSR).filter(|_| is_taken);
        Self {
            bytes: area,
            format,
            xstate_bv,
            mxcsr: mxcsr.unwrap_or(MXCSR_INITIAL),
        }
    }

    /// Writes the state as an image in `format`: every byte of `to`.
    pub(super) fn write<M: Machine>(&self, to: &mut [u8], format: Format) {
        let features = FpuFeatures::of::<M>();
        to.fill(0);
        if self.xstate_bv & X87 != 0 {
            let has_pointers = !features.forgets_x87_pointers() || self.is_x87_pending();
            let control = if has_pointers { CONTROL } else { CONTROL_WORDS };
            self.copy(to, control.clone(), control);
            self.copy(to, X87_REGISTERS, X87_REGISTERS);
        } else {
            put(to, 0, &FCW_INITIAL.to_le_bytes());
        }
        put(to, AT_MXCSR, &self.mxcsr.to_le_bytes());
        put(to, AT_MXCSR_MASK, &Fpu::<M>::mxcsr_mask().to_le_bytes());
        if self.xstate_bv & SSE != 0 {
            self.copy(to, XMM, XMM);
        }
        if format == Format::Legacy {
            return;
        }
        for place in features.extended() {
            if self.xstate_bv & place.bit != 0 {
                self.copy(to, place.range(format), place.range(self.format));
            }
        }
        let with_mxcsr = if self.mxcsr == MXCSR_INITIAL { 0 } else { SSE };
        put(to, XSTATE_BV, &(self.xstate_bv | with_mxcsr).to_le_bytes());
        if format == Format::Compacted {
            let xcomp_bv = COMPACTED | features.xcr0();
            put(to, XCOMP_BV, &xcomp_bv.to_le_bytes());
        }
    }

    /// Is an unmasked exception pending? If not, some processors neither save nor restore the pointers, and what lies in their place
    /// is as old as the area: from before an exec, for instance. The processor derives `FSW.ES` from the rest, so it does not count.
    /// AMD APM, volume 2, "FXSAVE and FXRSTOR Instructions".
    fn is_x87_pending(&self) -> bool {
        let [fcw, fsw] = [0, 2].map(|at| self.bytes.get(at).copied().unwrap_or_default());
        fsw & !fcw & 0x3f != 0
    }

    fn copy(&self, to: &mut [u8], place: Range<usize>, from: Range<usize>) {
        let from = self.bytes.get(from);
        debug_assert!(from.is_some(), "a component behind the end of its image");
        put(to, place.start, from.unwrap_or_default());
    }
}
