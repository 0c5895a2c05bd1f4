//! One CPU, in four steps.
//!
//! The kernel to begin with, `qemu/embed/src/empty.rs`, boots, has exceptions, LWPs with stacks of their own, and a scheduler that
//! takes turns. It is compiled for `x86_64-unknown-none`, so its own code uses no FPU register. Its LWPs stand for processes.
//!
//! # 1. The seam
//!
//! What `pcu9` knows lies where the kernel keeps it: a [`CpuPcu`](crate::pcu::CpuPcu) for the CPU, an [`LwpPcu`](crate::pcu::LwpPcu) in
//! each LWP, one [`Pcu`](crate::pcu::Pcu) with the table of units, which is empty for now. [`Kernel`](crate::kernel::Kernel) is the
//! only trait to implement, and its promises are what all the rest stands on: argue each by its number, as here, in your own kernel's
//! words. A domain is who may see whose registers: a process, as a rule.
//!
//! Nothing calls any of it yet. If this boots as before, go on.
//!
//! ```diff
#![doc = include_str!("steps/01-the-seam.patch")]
//! ```
//!
//! # 2. The unit
//!
//! [`init_cpu`](crate::x86_64::fpu::init_cpu) starts the FPU and closes its gate, `CR0.TS`. Each LWP gets an area, which
//! [`FpuArea`](crate::x86_64::fpu::FpuArea) finds and [`prepare`](crate::x86_64::fpu::prepare) makes ready: zeros are not an initial
//! state. How long it must be, the machine says; here the length is compared, a kernel with a heap asks
//! [`Area::layout`](crate::x86_64::fpu::Area::layout).
//!
//! What to see: every LWP finds the gate closed. A use would be `#NM`, which this kernel does not know yet.
//!
//! ```diff
#![doc = include_str!("steps/02-the-unit.patch")]
//! ```
//!
//! # 3. The hooks
//!
//! At each switch the LWP that leaves and the LWP that arrives are told, with interrupts off, on the old stack: tokens are gone before
//! it changes. `#NM` brings a state in, if it was an LWP's own code that trapped; its gate in the IDT turns interrupts off, so that the
//! CPU that trapped is the CPU that looks. The end of an LWP gives its registers up.
//!
//! What to see: LWPs of one domain and of two keep all their registers over hundreds of switches, the one without floating point
//! never traps, and in the end nobody owns the FPU. The counters say what was moved for that.
//!
//! ```diff
#![doc = include_str!("steps/03-the-hooks.patch")]
//! ```
//!
//! # 4. Images that fault
//!
//! A debugger or a signal frame writes an LWP's area, and XRSTOR faults on a bad image, in the kernel. Its handler asks
//! [`fixup`](crate::x86_64::fixup) and goes on where that says; the trap then returns an error, and the LWP alone ends. An image from
//! outside should not come that far: [`foreign`](crate::x86_64::fpu::foreign) checks it.
//!
//! What to see: a state that was never in registers is loaded from memory, a bad one ends its LWP, and the counters are those that the
//! schedule foretells, to the last one.
//!
//! ```diff
#![doc = include_str!("steps/04-images-that-fault.patch")]
//! ```
