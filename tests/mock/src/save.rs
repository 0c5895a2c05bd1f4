//! FXSAVE and the four saves of the XSAVE family.

use std::ptr::NonNull;

use crate::component::{AVX, SSE, numbers};
use crate::cpu::{CR4_OSFXSR, Cpu, EFER_FFXSR, Instruction, RestoreInfo};
use crate::fault::Fault;
use crate::model::{
    EAX_XSAVEC, EAX_XSAVEOPT, EAX_XSAVES, ErrorPointers, ModifiedOptimisation, Vendor,
};
use crate::registers::long;

/// Where the header lies. Intel SDM, volume 1, "XSAVE Header".
pub(crate) const HEADER: usize = 512;
/// `XCOMP_BV`: the area is compacted.
pub(crate) const COMPACTED: u64 = 1 << 63;

/// The saves of the family. Intel SDM, volume 1, "Operation of XSAVE", "Operation of XSAVEOPT", "Operation of XSAVEC", "Operation
/// of XSAVES".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Save {
    /// XSAVE.
    Xsave,
    /// XSAVEOPT.
    Xsaveopt,
    /// XSAVEC.
    Xsavec,
    /// XSAVES.
    Xsaves,
}

impl Save {
    fn is_compacted(self) -> bool {
        matches!(self, Self::Xsavec | Self::Xsaves)
    }
}

impl Cpu {
    /// FXSAVE64. Intel SDM, volume 2A, "FXSAVE"; AMD APM, volume 5, "FXSAVE".
    ///
    /// # Safety
    ///
    /// `area` is 512 writable bytes.
    pub(crate) unsafe fn fxsave(&mut self, area: NonNull<u8>) -> Result<(), Fault> {
        self.check(Instruction::Fxsave)?;
        Self::check_alignment(area.addr().get(), 16)?;
        self.events.saves += 1;
        // SAFETY: the area is long enough.
        unsafe { self.store_x87(area) }?;
        // SAFETY: as above.
        unsafe { self.store_mxcsr(area) }?;
        if self.moves_xmm() {
            // SAFETY: as above.
            unsafe { self.memory.store(area, 160, &self.registers.xmm) }?;
        }
        Ok(())
    }

    /// Do FXSAVE and FXRSTOR move XMM?
    pub(crate) fn moves_xmm(&self) -> bool {
        let is_fast = self.model.vendor != Vendor::Intel && self.efer & EFER_FFXSR != 0;
        self.cr4 & CR4_OSFXSR != 0 && !(is_fast && self.cpl == 0)
    }

    /// The saves of the XSAVE family.
    ///
    /// # Safety
    ///
    /// `area` is writable, and long enough for what `mask` and the control registers ask for.
    pub(crate) unsafe fn xsave(
        &mut self,
        save: Save,
        area: NonNull<u8>,
        mask: u64,
    ) -> Result<(), Fault> {
        let needed = match save {
            Save::Xsave => 0,
            Save::Xsaveopt => EAX_XSAVEOPT,
            Save::Xsavec => EAX_XSAVEC,
            Save::Xsaves => EAX_XSAVES,
        };
        if self.model.extensions & needed != needed {
            return Err(Fault::InvalidOpcode);
        }
        self.check(Instruction::Xsave)?;
        if save == Save::Xsaves && self.cpl != 0 {
            return Err(Fault::GeneralProtection("XSAVES outside ring 0"));
        }
        Self::check_alignment(area.addr().get(), 64)?;
        self.events.saves += 1;
        let supervisor = if save == Save::Xsaves { self.xss } else { 0 };
        let rfbm = mask & (self.xcr0 | supervisor);
        let mut in_use = self.xinuse() & rfbm;
        if save.is_compacted() && self.has_mxcsr() {
            in_use |= SSE & rfbm;
        }
        let unmodified = self.unmodified(save, area, rfbm) & in_use;
        let stored = match save {
            Save::Xsave => rfbm,
            _ => in_use & !unmodified,
        };
        self.events.elided_unmodified += u64::from(unmodified.count_ones());
        self.events.elided_initial += u64::from((rfbm & !in_use & !stored).count_ones());
        // SAFETY: the area is long enough for all of `rfbm`.
        unsafe { self.store_components(save, area, rfbm, stored) }?;
        // SAFETY: as above.
        unsafe { self.store_header(save, area, rfbm, in_use) }
    }

    /// The components that the modified optimisation leaves out.
    fn unmodified(&self, save: Save, area: NonNull<u8>, rfbm: u64) -> u64 {
        let xcomp_bv = match save {
            Save::Xsaveopt => 0,
            Save::Xsaves => rfbm | COMPACTED,
            Save::Xsave | Save::Xsavec => return 0,
        };
        let info = RestoreInfo {
            xcomp_bv,
            ..self.restore_info(area)
        };
        if self.model.modified_optimisation == ModifiedOptimisation::Full
            && self.restored_from == Some(info)
        {
            !self.modified
        } else {
            0
        }
    }

    /// What a restore from the area would note, but for `XCOMP_BV`.
    pub(crate) fn restore_info(&self, area: NonNull<u8>) -> RestoreInfo {
        RestoreInfo {
            cpl: self.cpl,
            in_guest: self.in_guest,
            address: area.addr().get(),
            xcomp_bv: 0,
        }
    }

    unsafe fn store_components(
        &mut self,
        save: Save,
        area: NonNull<u8>,
        rfbm: u64,
        stored: u64,
    ) -> Result<(), Fault> {
        let has_mxcsr = if save.is_compacted() {
            stored & SSE != 0
        } else {
            rfbm & (SSE | AVX) != 0
        };
        if has_mxcsr {
            // SAFETY: the caller's area is long enough.
            unsafe { self.store_mxcsr(area) }?;
        }
        let places = self.model.compacted(rfbm).0;
        for number in numbers(stored) {
            match number {
                // SAFETY: as above.
                0 => unsafe { self.store_x87(area) }?,
                // SAFETY: as above.
                1 => unsafe { self.memory.store(area, 160, &self.registers.xmm) }?,
                _ => {
                    let offset = if save.is_compacted() {
                        let place = places.iter().find(|(n, _)| *n == number);
                        place.expect("a component of the bitmap").1
                    } else {
                        self.model.component(number).offset
                    };
                    let bytes = self.registers.extended(number);
                    // What `IA32_XFD` arms is saved as its initial state.
                    let zeros = vec![0; bytes.len()];
                    let is_armed = self.xfd & (1 << number) != 0;
                    let bytes = if is_armed { &zeros } else { bytes };
                    // SAFETY: as above.
                    unsafe { self.memory.store(area, offset, bytes) }?;
                }
            }
        }
        Ok(())
    }

    /// The header: what was not asked for keeps its bit in the standard format.
    unsafe fn store_header(
        &mut self,
        save: Save,
        area: NonNull<u8>,
        rfbm: u64,
        in_use: u64,
    ) -> Result<(), Fault> {
        let counted = (self.memory.stored, self.memory.loaded);
        let mut old = [0; 8];
        // SAFETY: the header is part of every XSAVE area.
        unsafe { self.memory.load(area, HEADER, &mut old) }?;
        let kept = if save.is_compacted() {
            0
        } else {
            long(&old) & !rfbm
        };
        let xstate_bv = (kept | in_use).to_le_bytes();
        // SAFETY: as above.
        unsafe { self.memory.store(area, HEADER, &xstate_bv) }?;
        if save.is_compacted() {
            let xcomp_bv = (rfbm | COMPACTED).to_le_bytes();
            // SAFETY: as above.
            unsafe { self.memory.store(area, HEADER + 8, &xcomp_bv) }?;
        }
        (self.memory.stored, self.memory.loaded) = counted;
        Ok(())
    }

    unsafe fn store_x87(&mut self, area: NonNull<u8>) -> Result<(), Fault> {
        let (mut control, stack) = self.registers.x87.to_bytes();
        let control = match self.model.error_pointers {
            ErrorPointers::LeftOut if !self.registers.x87.is_pending() => &control[..6],
            ErrorPointers::ZeroedInMemory if !self.registers.x87.is_pending() => {
                control[6..].fill(0);
                &control[..]
            }
            _ => &control[..],
        };
        // SAFETY: the caller's area is long enough.
        unsafe { self.memory.store(area, 0, control) }?;
        // SAFETY: as above.
        unsafe { self.memory.store(area, 32, &stack) }
    }

    unsafe fn store_mxcsr(&mut self, area: NonNull<u8>) -> Result<(), Fault> {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.registers.mxcsr.to_le_bytes());
        bytes[4..].copy_from_slice(&self.model.mxcsr_mask.to_le_bytes());
        // SAFETY: the caller's area is long enough.
        unsafe { self.memory.store(area, 24, &bytes) }
    }
}
