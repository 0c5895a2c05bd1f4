//! What code with registers of its own does: the instructions that change registers, past the gate.

use crate::component::{AVX, SSE, TILECFG, TILEDATA, X87, ZMM_HI256};
use crate::cpu::{Cpu, Instruction};
use crate::fault::Fault;
use crate::registers::X87Registers;

/// The kernel's own x87 instruction leaves these: nobody else's.
pub const KERNEL_POINTERS: (u16, u64, u64) = (0x5d8, 0xffff_ffff_8000_1000, 0xffff_ffff_8000_2000);

impl Cpu {
    /// x87 instructions leave these registers.
    ///
    /// # Errors
    ///
    /// What an x87 instruction raises.
    pub fn write_x87(&mut self, x87: X87Registers) -> Result<(), Fault> {
        self.check(Instruction::X87)?;
        self.registers.x87 = x87;
        self.touch(X87);
        Ok(())
    }

    /// FWAIT, and every x87 instruction that waits: a pending exception is raised. Intel SDM, volume 1, "x87 FPU Exception
    /// Handling".
    ///
    /// # Errors
    ///
    /// `#NM`, `#MF`.
    pub fn fwait(&self) -> Result<(), Fault> {
        self.check(Instruction::Fwait)?;
        if self.registers.x87.is_pending() {
            Err(Fault::Math)
        } else {
            Ok(())
        }
    }

    /// FNINIT: not a reset, the registers keep what they hold.
    ///
    /// # Errors
    ///
    /// What an x87 instruction raises.
    pub fn fninit(&mut self) -> Result<(), Fault> {
        self.check(Instruction::X87)?;
        self.registers.x87.fninit();
        self.touch(X87);
        Ok(())
    }

    /// An MMX instruction writes `MMn`: the x87 register's lower 64 bits, ones above, all tags valid and TOP 0. Intel SDM, volume
    /// 1, "Effect of MMX Instructions on the x87 Floating-Point State".
    ///
    /// # Errors
    ///
    /// What an MMX instruction raises.
    pub fn write_mm(&mut self, n: usize, value: u64) -> Result<(), Fault> {
        self.check(Instruction::Mmx)?;
        let x87 = &mut self.registers.x87;
        x87.physical[n][..8].copy_from_slice(&value.to_le_bytes());
        x87.physical[n][8..].fill(0xff);
        x87.occupied = 0xff;
        x87.fsw &= !(7 << 11);
        self.touch(X87);
        Ok(())
    }

    /// SSE instructions leave these registers.
    ///
    /// # Errors
    ///
    /// What an SSE instruction raises.
    pub fn write_xmm(&mut self, xmm: [u8; 256]) -> Result<(), Fault> {
        self.check(Instruction::Sse)?;
        self.registers.xmm = xmm;
        self.touch(SSE);
        Ok(())
    }

    /// LDMXCSR.
    ///
    /// # Errors
    ///
    /// What an SSE instruction raises; `#GP` for a reserved bit.
    pub fn ldmxcsr(&mut self, value: u32) -> Result<(), Fault> {
        self.check(Instruction::Sse)?;
        self.registers.mxcsr = self.check_mxcsr(value)?;
        self.modified |= SSE;
        Ok(())
    }

    /// Instructions of the component's own set leave these contents in it, for components from 2 up.
    ///
    /// # Errors
    ///
    /// What such an instruction raises. `#NM` by `IA32_XFD` sets `IA32_XFD_ERR`; one by TS does not. Intel SDM, volume 1,
    /// "Extended Feature Disable (XFD)".
    pub fn write_extended(&mut self, number: u32, bytes: &[u8]) -> Result<(), Fault> {
        let bit = 1 << number;
        match bit {
            AVX => self.check(Instruction::Avx)?,
            _ if bit & crate::component::AVX512 != 0 => self.check(Instruction::Avx512)?,
            TILECFG | TILEDATA => self.check(Instruction::Tile)?,
            _ => {}
        }
        if self.xfd & bit != 0 {
            self.xfd_err |= bit;
            return Err(Fault::DeviceNotAvailable);
        }
        if bit == TILECFG {
            // LDTILECFG zeroes the tiles, which IA32_XFD does not stop. Intel SDM, volume 2A, "LDTILECFG".
            self.registers.initialise(TILEDATA);
            self.modified |= TILEDATA;
        }
        self.registers.extended_mut(number).copy_from_slice(bytes);
        self.touch(bit);
        Ok(())
    }

    /// VZEROALL: registers 0 to 15 at their full length. By history they stay in use. Intel SDM, volume 2C, "VZEROALL".
    pub(crate) fn vzeroall(&mut self) -> Result<(), Fault> {
        self.check(Instruction::Avx)?;
        let wide = ZMM_HI256 & self.model.user_components();
        self.registers.initialise(SSE | AVX | wide);
        self.modified |= SSE | AVX | wide;
        Ok(())
    }

    /// FNCLEX, FFREE ST(7), FILD of a zero, FSTP ST(0).
    pub(crate) fn wipe_x87_pointers(&mut self) -> Result<(), Fault> {
        self.check(Instruction::X87)?;
        let x87 = &mut self.registers.x87;
        x87.fsw &= 0x7f00;
        let below_top = usize::from((x87.fsw >> 11).wrapping_sub(1) & 7);
        x87.physical[below_top] = [0; 10];
        x87.occupied &= !(1 << below_top);
        (x87.fop, x87.fip, x87.fdp) = KERNEL_POINTERS;
        self.touch(X87);
        Ok(())
    }

    /// TILERELEASE. Intel SDM, volume 2B, "TILERELEASE": the tiles are in their initial state, and known to be.
    pub(crate) fn tile_release(&mut self) -> Result<(), Fault> {
        self.check(Instruction::Tile)?;
        self.registers.initialise(TILECFG | TILEDATA);
        self.touched &= !(TILECFG | TILEDATA);
        self.modified |= TILECFG | TILEDATA;
        Ok(())
    }
}
