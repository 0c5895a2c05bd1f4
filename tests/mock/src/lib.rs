//! An x86 processor in software, as far as FXSAVE, XSAVE, `CR0.TS` and XFD go, for host tests of the units' own code.
//!
//! Emulators leave out what matters here: QEMU has no `#NM` for XSAVE and XRSTOR, no init and no modified optimisation, no
//! compaction; Bochs no XFD and no modified optimisation. This model has them all, as the manuals say it, and where they leave a
//! choice, [`Model`] names it: how a component in use is told, what XSAVEOPT leaves out, whether the x87 pointers are moved, which
//! reserved bytes are looked at. A test runs against the choice that is worst for it.
//!
//! - [`Mock`]: the thread's CPUs behind [`Machine`](pcu9::x86_64::machine::Machine).
//! - [`Cpu`]: one of them: registers, control registers, and what a program does with them.
//! - [`models`]: processors by name.
//!
//! Not modelled: 32-bit modes and their layouts (FCS, FDS), `FDP_EXCPTN_ONLY`, PT's side effects, VMX but for its part in the
//! modified optimisation, arithmetic.

#![cfg(target_arch = "x86_64")]

pub mod component;
mod cpu;
mod fault;
mod host;
mod machine;
mod memory;
mod model;
pub mod models;
mod program;
mod registers;
mod restore;
mod save;

pub use cpu::{
    CR0_EM, CR0_MP, CR0_TS, CR4_OSFXSR, CR4_OSXSAVE, CR4_PKE, Cpu, EFER_FFXSR, Events, Instruction,
};
pub use fault::Fault;
pub use machine::{Aside, Mock};
pub use memory::Memory;
pub use model::{
    EAX_XFD, EAX_XGETBV1, EAX_XSAVEC, EAX_XSAVEOPT, EAX_XSAVES, EBX_AVX512F, EBX_MPX,
    EBX_RSTR_FP_ERR_PTRS, ECX_AVX, ECX_CET_SS, ECX_PKU, ECX_XSAVE, EDX_AMX_TILE, ErrorPointers,
    HeaderCheck, InUse, Model, ModifiedOptimisation, Vendor,
};
pub use program::KERNEL_POINTERS;
pub use registers::{FCW_INITIAL, FSW_BUSY, FSW_ES, MXCSR_INITIAL, Registers, X87Registers};
