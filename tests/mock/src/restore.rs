//! FXRSTOR, XRSTOR and XRSTORS.
//!
//! A fault in memory leaves the components before it loaded: the manuals promise no order and no undoing (Intel SDM, volume 1,
//! "Memory Access by the XSAVE Feature Set"), and here it is ascending, so that a test knows how far a restore came.

use std::ptr::NonNull;

use crate::component::{AVX, SSE, X87, numbers};
use crate::cpu::{Cpu, Instruction, RestoreInfo};
use crate::fault::Fault;
use crate::model::{EAX_XSAVEC, EAX_XSAVES, ErrorPointers, HeaderCheck};
use crate::registers::{MXCSR_INITIAL, X87Registers, long};
use crate::save::{COMPACTED, HEADER};

/// The restores of the family. Intel SDM, volume 1, "Operation of XRSTOR", "Operation of XRSTORS".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restore {
    /// XRSTOR.
    Xrstor,
    /// XRSTORS.
    Xrstors,
}

/// A header that was found good.
struct Header {
    xstate_bv: u64,
    xcomp_bv: u64,
}

impl Cpu {
    /// FXRSTOR64. Intel SDM, volume 2A, "FXRSTOR".
    ///
    /// # Safety
    ///
    /// `area` is 512 readable bytes, where it is mapped.
    pub(crate) unsafe fn fxrstor(&mut self, area: NonNull<u8>) -> Result<(), Fault> {
        self.check(Instruction::Fxsave)?;
        Self::check_alignment(area.addr().get(), 16)?;
        // SAFETY: the area is long enough.
        let mxcsr = unsafe { self.load_mxcsr(area) }?;
        self.restored_from = None;
        self.touch(X87 | SSE);
        // SAFETY: as above.
        unsafe { self.load_x87(area) }?;
        self.registers.mxcsr = mxcsr;
        if self.moves_xmm() {
            // SAFETY: as above.
            unsafe { self.load_xmm(area) }?;
        }
        self.events.restores += 1;
        Ok(())
    }

    /// XRSTOR64 and XRSTORS64.
    ///
    /// # Safety
    ///
    /// `area` is readable where it is mapped, and long enough for what `mask`, its header and the control registers ask for.
    pub(crate) unsafe fn xrstor(
        &mut self,
        restore: Restore,
        area: NonNull<u8>,
        mask: u64,
    ) -> Result<(), Fault> {
        if restore == Restore::Xrstors && self.model.extensions & EAX_XSAVES == 0 {
            return Err(Fault::InvalidOpcode);
        }
        self.check(Instruction::Xsave)?;
        if restore == Restore::Xrstors && self.cpl != 0 {
            return Err(Fault::GeneralProtection("XRSTORS outside ring 0"));
        }
        Self::check_alignment(area.addr().get(), 64)?;
        let supervisor = if restore == Restore::Xrstors {
            self.xss
        } else {
            0
        };
        let rfbm = mask & (self.xcr0 | supervisor);
        // SAFETY: the header is part of every XSAVE area.
        let header = unsafe { self.load_header(restore, area) }?;
        let loaded = rfbm & header.xstate_bv;
        if loaded & self.xfd != 0 {
            self.xfd_err |= loaded & self.xfd;
            return Err(Fault::DeviceNotAvailable);
        }
        let is_compacted = header.xcomp_bv & COMPACTED != 0;
        let takes_mxcsr = if is_compacted {
            loaded & SSE != 0
        } else {
            rfbm & (SSE | AVX) != 0
        };
        let mxcsr = if takes_mxcsr {
            // SAFETY: the caller's area is long enough.
            Some(unsafe { self.load_mxcsr(area) }?)
        } else {
            (rfbm & SSE != 0).then_some(MXCSR_INITIAL)
        };
        // Nothing has changed so far; from here on it may have, whatever comes.
        self.restored_from = None;
        self.modified = u64::MAX;
        if let Some(mxcsr) = mxcsr {
            self.registers.mxcsr = mxcsr;
        }
        // SAFETY: as above.
        unsafe { self.load_components(area, &header, rfbm) }?;
        self.modified = !rfbm;
        self.restored_from = Some(RestoreInfo {
            xcomp_bv: header.xcomp_bv,
            ..self.restore_info(area)
        });
        self.events.restores += 1;
        Ok(())
    }

    unsafe fn load_components(
        &mut self,
        area: NonNull<u8>,
        header: &Header,
        rfbm: u64,
    ) -> Result<(), Fault> {
        let is_compacted = header.xcomp_bv & COMPACTED != 0;
        let places = self.model.compacted(header.xcomp_bv & !COMPACTED).0;
        for number in numbers(rfbm) {
            let bit = 1 << number;
            if header.xstate_bv & bit == 0 {
                self.initialise(bit);
                continue;
            }
            match number {
                // SAFETY: the caller's area is long enough.
                0 => unsafe { self.load_x87(area) }?,
                // SAFETY: as above.
                1 => unsafe { self.load_xmm(area) }?,
                _ => {
                    let component = self.model.component(number);
                    let offset = if is_compacted {
                        let place = places.iter().find(|(n, _)| *n == number);
                        place.expect("checked: XSTATE_BV is within XCOMP_BV").1
                    } else {
                        component.offset
                    };
                    let mut bytes = vec![0; component.bytes];
                    // SAFETY: as above.
                    unsafe { self.memory.load(area, offset, &mut bytes) }?;
                    self.registers.extended_mut(number).copy_from_slice(&bytes);
                }
            }
            self.touched |= bit;
        }
        Ok(())
    }

    /// Gives components their initial state. A processor that leaves the x87 pointers out leaves them here too.
    fn initialise(&mut self, components: u64) {
        let x87 = &self.registers.x87;
        let pointers = (x87.fop, x87.fip, x87.fdp);
        self.registers.initialise(components);
        self.touched &= !components;
        if components & X87 != 0 && self.model.error_pointers == ErrorPointers::LeftOut {
            let x87 = &mut self.registers.x87;
            (x87.fop, x87.fip, x87.fdp) = pointers;
        }
    }

    /// Reads the header and refuses a bad one.
    unsafe fn load_header(&mut self, restore: Restore, area: NonNull<u8>) -> Result<Header, Fault> {
        let counted = self.memory.loaded;
        let mut bytes = [0; 64];
        // SAFETY: the header is part of every XSAVE area.
        unsafe { self.memory.load(area, HEADER, &mut bytes) }?;
        self.memory.loaded = counted;
        let header = Header {
            xstate_bv: long(&bytes[..8]),
            xcomp_bv: long(&bytes[8..16]),
        };
        let is_zero = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == 0);
        let has_compaction = self.model.extensions & EAX_XSAVEC != 0;
        let wrong = if header.xcomp_bv & COMPACTED != 0
            && (has_compaction || restore == Restore::Xrstors)
        {
            let supervisor = if restore == Restore::Xrstors {
                self.xss
            } else {
                0
            };
            let components = header.xcomp_bv & !COMPACTED;
            if components & !(self.xcr0 | supervisor) != 0 {
                "XCOMP_BV has a component that is not enabled"
            } else if header.xstate_bv & !components != 0 {
                "XSTATE_BV has a component that XCOMP_BV has not"
            } else if !is_zero(16..64) {
                "bytes 16 to 63 of a compacted header are not 0"
            } else {
                return Ok(header);
            }
        } else if restore == Restore::Xrstors {
            "XRSTORS from an area that is not compacted"
        } else {
            let reserved = match self.model.header_check {
                HeaderCheck::Bytes8To23 => 8..24,
                HeaderCheck::Bytes8To63 => 8..64,
            };
            if header.xstate_bv & !self.xcr0 != 0 {
                "XSTATE_BV has a component that is not enabled"
            } else if !is_zero(reserved) {
                "reserved bytes of the header are not 0"
            } else {
                return Ok(header);
            }
        };
        Err(Fault::GeneralProtection(wrong))
    }

    /// `MXCSR` in an area, if it is a value that the register can have.
    unsafe fn load_mxcsr(&mut self, area: NonNull<u8>) -> Result<u32, Fault> {
        let mut bytes = [0; 4];
        // SAFETY: the caller's area is long enough.
        unsafe { self.memory.load(area, 24, &mut bytes) }?;
        self.check_mxcsr(u32::from_le_bytes(bytes))
    }

    /// Is it a value that `MXCSR` can have? Intel SDM, volume 1, "Guidelines for Writing to the MXCSR Register".
    pub(crate) fn check_mxcsr(&self, value: u32) -> Result<u32, Fault> {
        if value & !self.model.mxcsr_mask == 0 {
            Ok(value)
        } else {
            Err(Fault::GeneralProtection("a reserved bit of MXCSR"))
        }
    }

    unsafe fn load_xmm(&mut self, area: NonNull<u8>) -> Result<(), Fault> {
        let mut xmm = [0; 256];
        // SAFETY: the caller's area is long enough.
        unsafe { self.memory.load(area, 160, &mut xmm) }?;
        self.registers.xmm = xmm;
        Ok(())
    }

    /// x87, without its pointers where the processor leaves them out: by the *loaded* status word.
    unsafe fn load_x87(&mut self, area: NonNull<u8>) -> Result<(), Fault> {
        let (mut control, mut stack) = ([0; 24], [0; 128]);
        // SAFETY: the caller's area is long enough.
        unsafe { self.memory.load(area, 0, &mut control) }?;
        // SAFETY: as above.
        unsafe { self.memory.load(area, 32, &mut stack) }?;
        let mut loaded = X87Registers::from_image(&control, &stack);
        if self.model.error_pointers == ErrorPointers::LeftOut && !loaded.is_pending() {
            let old = &self.registers.x87;
            (loaded.fop, loaded.fip, loaded.fdp) = (old.fop, old.fip, old.fdp);
        }
        self.registers.x87 = loaded;
        Ok(())
    }
}
