//! One CPU: its control registers, and which instructions they let pass.

use std::arch::x86_64::CpuidResult;

use crate::component::{AVX, AVX512, CAN_BE_DISABLED, SSE, TILECFG, TILEDATA, X87};
use crate::fault::Fault;
use crate::memory::Memory;
use crate::model::{
    Controls, EAX_XFD, EAX_XGETBV1, EAX_XSAVES, ErrorPointers, InUse, Model, Vendor,
};
use crate::registers::{MXCSR_INITIAL, Registers};

/// Bits of `CR0`. Intel SDM, volume 3A, "Control Registers".
pub const CR0_MP: u64 = 1 << 1;
/// Emulation: there is no FPU.
pub const CR0_EM: u64 = 1 << 2;
/// Task switched: the gate.
pub const CR0_TS: u64 = 1 << 3;
/// Bits of `CR4`, same source.
pub const CR4_OSFXSR: u64 = 1 << 9;
/// The XSAVE family and XGETBV are enabled.
pub const CR4_OSXSAVE: u64 = 1 << 18;
/// Protection keys are enabled.
pub const CR4_PKE: u64 = 1 << 22;
/// FXSAVE in ring 0 leaves XMM out. AMD APM, volume 2, "Extended Feature Enable Register (EFER)".
pub const EFER_FFXSR: u64 = 1 << 14;

const IA32_XFD: u32 = 0x1c4;
const IA32_XFD_ERR: u32 = 0x1c5;
const IA32_XSS: u32 = 0xda0;

/// The kinds of instructions that differ in what they ask of the control registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Any x87 instruction but the waits.
    X87,
    /// FWAIT.
    Fwait,
    /// MMX.
    Mmx,
    /// SSE with a legacy encoding, LDMXCSR and STMXCSR among them.
    Sse,
    /// VEX-encoded.
    Avx,
    /// EVEX-encoded, and those of the opmasks.
    Avx512,
    /// AMX on tile data.
    Tile,
    /// FXSAVE, FXRSTOR.
    Fxsave,
    /// XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS.
    Xsave,
    /// XGETBV.
    Xgetbv,
}

/// How often a CPU did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// FXSAVE, XSAVE, XSAVEOPT, XSAVEC, XSAVES.
    pub saves: u64,
    /// FXRSTOR, XRSTOR, XRSTORS that loaded all they were asked for.
    pub restores: u64,
    /// CLTS, and writes of `CR0` that changed TS or were made to.
    pub ts_writes: u64,
    /// Of these, the ones that wrote what was there.
    pub redundant_ts_writes: u64,
    /// CPUID.
    pub cpuids: u64,
    /// Components that a save left out because they were unmodified.
    pub elided_unmodified: u64,
    /// Components that a save left out because they were not in use.
    pub elided_initial: u64,
}

/// What the last restore noted for the modified optimisation. Intel SDM, volume 1, "Processor Tracking of XSAVE-Managed State":
/// the 4-tuple `XRSTOR_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RestoreInfo {
    pub(crate) cpl: u8,
    pub(crate) in_guest: bool,
    pub(crate) address: usize,
    pub(crate) xcomp_bv: u64,
}

/// A CPU.
#[derive(Debug)]
pub struct Cpu {
    pub(crate) model: &'static Model,
    /// `CR0`; a test that writes it plays something behind the kernel's back.
    pub cr0: u64,
    /// `CR4`.
    pub cr4: u64,
    /// `IA32_EFER`.
    pub efer: u64,
    /// `XCR0`.
    pub xcr0: u64,
    /// `IA32_XSS`.
    pub xss: u64,
    /// `IA32_XFD`.
    pub xfd: u64,
    /// `IA32_XFD_ERR`.
    pub xfd_err: u64,
    /// The privilege level, for XSAVES and for the modified optimisation.
    pub cpl: u8,
    /// VMX non-root operation, for the modified optimisation.
    pub in_guest: bool,
    /// The register file; a test that writes it plays something behind the kernel's back.
    pub registers: Registers,
    /// By history: what was written since it was last initialised.
    pub(crate) touched: u64,
    /// `XMODIFIED`.
    pub(crate) modified: u64,
    pub(crate) restored_from: Option<RestoreInfo>,
    /// What it can reach, and how much it moved.
    pub memory: Memory,
    /// How often it did what.
    pub events: Events,
}

impl Cpu {
    /// A CPU as firmware hands it over: protected mode, FPU on, and every register full of what was done before.
    pub(crate) fn after_firmware(model: &'static Model) -> Self {
        let mut registers = Registers::initial(model);
        registers.x87.physical = [[0xf1; 10]; 8];
        registers.x87.occupied = 0xff;
        (registers.x87.fop, registers.x87.fip, registers.x87.fdp) =
            (0x1f1, 0xf1f1_f1f1, 0xf2f2_f2f2);
        registers.xmm = [0xf1; 256];
        for component in model.components {
            registers.extended_mut(component.number).fill(0xf1);
        }
        Self {
            model,
            cr0: 0x8000_0011,
            cr4: 0x20,
            efer: 0xd00,
            xcr0: 1,
            xss: 0,
            xfd: 0,
            xfd_err: 0,
            cpl: 0,
            in_guest: false,
            registers,
            touched: u64::MAX,
            modified: u64::MAX,
            restored_from: None,
            memory: Memory::default(),
            events: Events::default(),
        }
    }

    /// The processor that it is one of.
    pub fn model(&self) -> &'static Model {
        self.model
    }

    /// Would an instruction of this kind be executed? Intel SDM, volume 3A, "Action Taken By x87 FPU Instructions for Different
    /// Combinations of EM, MP, and TS", "Action Taken for Combinations of EM, MP and TS" (SSE); volume 2A, "SIMD Instructions
    /// Exception Classes"; AMX has no word of TS ("Intel AMX Instruction Exception Classes"), and Bochs has none either.
    ///
    /// # Errors
    ///
    /// The exception that it raises instead.
    pub fn check(&self, instruction: Instruction) -> Result<(), Fault> {
        let has = |bit| self.cr0 & bit != 0;
        let undefined = match instruction {
            Instruction::X87 | Instruction::Fwait => false,
            Instruction::Mmx => has(CR0_EM),
            // #UD on Intel, #NM on AMD: AMD APM, volume 5, "FXSAVE".
            Instruction::Fxsave => has(CR0_EM) && self.model.vendor == Vendor::Intel,
            Instruction::Sse => has(CR0_EM) || self.cr4 & CR4_OSFXSR == 0,
            Instruction::Avx => !self.enables(SSE | AVX),
            Instruction::Avx512 => !self.enables(SSE | AVX | AVX512),
            Instruction::Tile => !self.enables(TILECFG | TILEDATA),
            Instruction::Xsave | Instruction::Xgetbv => !self.enables(X87),
        };
        if undefined {
            return Err(Fault::InvalidOpcode);
        }
        let gated = match instruction {
            Instruction::X87 | Instruction::Fxsave => has(CR0_EM) || has(CR0_TS),
            Instruction::Fwait => has(CR0_MP) && has(CR0_TS),
            Instruction::Mmx
            | Instruction::Sse
            | Instruction::Avx
            | Instruction::Avx512
            | Instruction::Xsave => has(CR0_TS),
            Instruction::Tile | Instruction::Xgetbv => false,
        };
        if gated {
            return Err(Fault::DeviceNotAvailable);
        }
        Ok(())
    }

    fn enables(&self, components: u64) -> bool {
        self.model.has_xsave()
            && self.cr4 & CR4_OSXSAVE != 0
            && self.xcr0 & components == components
    }

    /// Is the area where the instruction can work on it?
    pub(crate) fn check_alignment(address: usize, align: usize) -> Result<(), Fault> {
        if address.is_multiple_of(align) {
            Ok(())
        } else {
            Err(Fault::GeneralProtection("the area is not aligned"))
        }
    }

    /// `XINUSE`. Intel SDM, volume 1, "Processor Tracking of XSAVE-Managed State"; components that `IA32_XFD` arms count as
    /// initial, "Extended Feature Disable (XFD)".
    pub(crate) fn xinuse(&self) -> u64 {
        let content = self.registers.not_initial();
        let in_use = match self.model.in_use {
            InUse::ByHistory => self.touched | content,
            InUse::ByContent => content & !self.pointers_alone(),
        };
        in_use & !self.xfd
    }

    /// The bit of x87 where nothing but its pointers is set, which AMD's processors do not count after a restore (measured on Zen 3,
    /// which counts x87 as in use from its first instruction to the next FNINIT or restore; here it never does, which is worse
    /// for a kernel): what they tell of the last user's instructions outlives a state that counts as initial.
    fn pointers_alone(&self) -> u64 {
        let mut x87 = self.registers.x87.clone();
        (x87.fop, x87.fip, x87.fdp) = (0, 0, 0);
        let is_initial = x87 == crate::registers::X87Registers::INITIAL;
        if is_initial && self.model.error_pointers != ErrorPointers::Moved {
            X87
        } else {
            0
        }
    }

    /// XGETBV with ECX = 1. Bit 1 says what XSAVEC would say: `MXCSR` counts too. Intel SDM, volume 2C, "XGETBV".
    pub(crate) fn xgetbv1(&self) -> Result<u64, Fault> {
        if self.model.extensions & EAX_XGETBV1 == 0 {
            return Err(Fault::GeneralProtection("XGETBV has no register 1 here"));
        }
        self.check(Instruction::Xgetbv)?;
        let mxcsr = if self.has_mxcsr() { SSE } else { 0 };
        Ok(self.xcr0 & (self.xinuse() | mxcsr))
    }

    /// Does `MXCSR` hold another value than after a reset?
    pub(crate) fn has_mxcsr(&self) -> bool {
        self.registers.mxcsr != MXCSR_INITIAL
    }

    /// Notes that these components were written.
    pub(crate) fn touch(&mut self, components: u64) {
        self.touched |= components;
        self.modified |= components;
    }

    pub(crate) fn cpuid(&mut self, leaf: u32, subleaf: u32) -> CpuidResult {
        self.events.cpuids += 1;
        let controls = Controls {
            cr4: self.cr4,
            xcr0: self.xcr0,
            xss: self.xss,
        };
        self.model.cpuid(leaf, subleaf, controls)
    }

    pub(crate) fn write_ts(&mut self, cr0: u64) {
        self.events.ts_writes += 1;
        if (self.cr0 ^ cr0) & CR0_TS == 0 {
            self.events.redundant_ts_writes += 1;
        }
        self.cr0 = cr0;
    }

    pub(crate) fn write_cr4(&mut self, value: u64) -> Result<(), Fault> {
        if value & CR4_OSXSAVE != 0 && !self.model.has_xsave() {
            return Err(Fault::GeneralProtection("CR4.OSXSAVE without XSAVE"));
        }
        self.cr4 = value;
        Ok(())
    }

    /// XSETBV with ECX = 0. Intel SDM, volume 1, "Enabling the XSAVE Feature Set and XSAVE-Enabled Features"; volume 2C,
    /// "XSETBV".
    pub(crate) fn xsetbv(&mut self, value: u64) -> Result<(), Fault> {
        if self.cr4 & CR4_OSXSAVE == 0 {
            return Err(Fault::InvalidOpcode);
        }
        let all_or_none = |bits: u64| value & bits == 0 || value & bits == bits;
        let wrong = if self.cpl != 0 {
            "XSETBV outside ring 0"
        } else if value & !self.model.user_components() != 0 {
            "XCR0 with a component that CPUID does not show"
        } else if value & X87 == 0 {
            "XCR0 without x87"
        } else if value & AVX != 0 && value & SSE == 0 {
            "XCR0 with AVX and without SSE"
        } else if !all_or_none(AVX512) || value & AVX512 != 0 && value & AVX == 0 {
            "XCR0 with a part of AVX-512, or without AVX"
        } else if !all_or_none(crate::component::MPX) {
            "XCR0 with a part of MPX"
        } else if !all_or_none(TILECFG | TILEDATA) {
            "XCR0 with a part of AMX"
        } else {
            self.xcr0 = value;
            return Ok(());
        };
        Err(Fault::GeneralProtection(wrong))
    }

    pub(crate) fn rdmsr(&self, register: u32) -> Result<u64, Fault> {
        self.check_msr(register)?;
        Ok(match register {
            IA32_XSS => self.xss,
            IA32_XFD => self.xfd,
            _ => self.xfd_err,
        })
    }

    /// WRMSR. Intel SDM, volume 1, "Enabling the XSAVE Feature Set" (`IA32_XSS`), "Extended Feature Disable (XFD)".
    pub(crate) fn wrmsr(&mut self, register: u32, value: u64) -> Result<(), Fault> {
        let allowed = self.check_msr(register)?;
        if value & !allowed != 0 {
            return Err(Fault::GeneralProtection("WRMSR with a reserved bit"));
        }
        match register {
            IA32_XSS => self.xss = value,
            IA32_XFD => self.xfd = value,
            _ => self.xfd_err = value,
        }
        Ok(())
    }

    /// The bits that the register has.
    fn check_msr(&self, register: u32) -> Result<u64, Fault> {
        let has = |bit| self.model.extensions & bit != 0;
        match register {
            IA32_XSS if has(EAX_XSAVES) => Ok(self.model.supervisor_components()),
            IA32_XFD | IA32_XFD_ERR if has(EAX_XFD) => Ok(self
                .model
                .sum(|component| component.flags & CAN_BE_DISABLED != 0)),
            _ => Err(Fault::GeneralProtection("no such model-specific register")),
        }
    }
}
