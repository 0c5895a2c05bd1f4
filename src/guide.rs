//! From a kernel without an FPU to one that switches it: what to add, in which order, and how to see that it is right.
//!
//! 1. [`one_cpu`]: four steps, from an empty kernel to registers that survive, under 100 lines of glue.
//! 2. [`more_cpus`]: two more, to LWPs that compute on any CPU, under 160.
//! 3. [`wrong`]: what is seen when something is missing, why, and the test that shows it.
//!
//! Each step is a patch. A test applies one after the other to `qemu/embed/src/empty.rs`, which yields `qemu/embed/src/main.rs` after
//! the fourth and `qemu/embed/src/smp.rs` after the last; `cargo verify --only guide` compiles each step and boots it. So a step can be
//! tried by itself, and what is shown here is what boots. The other files of `qemu/embed` (the way from QEMU to `main`, the serial
//! line, the start of other CPUs) stand for the kernel that you already have.
//!
//! # The hooks, and what is lost without one
//!
//! | hook | where | without it |
//! |---|---|---|
//! | [`init_cpu`](crate::x86_64::fpu::init_cpu) | each CPU, before it runs an LWP | the gate stands open, and the first user runs untracked over whatever the loader left; without `CR4.OSFXSR` its first SSE instruction is `#UD` |
//! | [`switchpoint`](crate::pcu::Pcu::switchpoint) | the scheduler, the LWP that arrives | the gate is still the last LWP's: this one computes in its registers, and both are wrong from then on |
//! | [`switch_out`](crate::pcu::Pcu::switch_out) | the scheduler, the LWP that leaves, before another CPU can take it | nothing under `Lazy`; under the policies that save at a switch cross-calls come back, and a unit whose use does not trap stays behind |
//! | [`trap`](crate::pcu::Pcu::trap) | `#NM` | the first use of every LWP ends it |
//! | [`before_user`](crate::pcu::Pcu::before_user) | the way to user mode | a trap for each state that was taken while the LWP was in the kernel; a unit whose use does not trap is not there |
//! | [`exit`](crate::pcu::Pcu::exit) | the end of an LWP | a CPU names an owner that is freed; dropping its `LwpPcu` panics before that does harm |
//! | [`fork`](crate::pcu::Pcu::fork) | the making of a child | the child begins with the initial state, and not with its parent's |
//! | [`exec`](crate::pcu::Pcu::exec) | a new program | it begins with the old one's registers |
//! | [`fixup`](crate::x86_64::fixup) | `#GP`, `#PF` in the kernel | an image that the processor refuses stops the kernel, and not only its LWP |
//! | [`cross_call`](crate::kernel::Kernel::cross_call) | the interrupt of another CPU | an LWP that migrated cannot get its registers |
//! | [`cpu_offline`](crate::pcu::Pcu::cpu_offline), [`cpu_online`](crate::pcu::Pcu::cpu_online) | a CPU that leaves, and comes back | it takes the newest state of its owners along |
//!
//! # Which policy
//!
//! Begin with [`LazyFp::recommended_policy`](crate::x86_64::LazyFp::recommended_policy): `Deferred` where registers can be read
//! speculatively through a closed gate or nothing is known of the CPU, `Adaptive` elsewhere. One word changes it, per unit or per LWP,
//! on a running system, so measure rather than guess: the counters ([`CpuPcu::stats`](crate::pcu::CpuPcu::stats)) say how many traps,
//! saves and restores a policy costs your programs, and [`Costs`](crate::pcu::Costs), measured at the start, what each of them takes.
//!
//! - Most programs compute in every slice: `Deferred`. A trap before each restore would be pure loss.
//! - Few compute, and they stay on their CPUs: `Lazy`. Switches to all the others cost a test and a return.
//! - A CPU must never be asked by another, for the sake of latency: `Deferred`, `Eager` or `AdaptiveWriteThrough`.
//! - Nothing may stay in registers of a CPU that is not running their LWP: `Eager`, and [`flush`](crate::pcu::Pcu::flush) between domains.
//! - A unit whose use no processor tells ([`debug`](crate::x86_64::debug)) has `Deferred` and `Eager` to choose from.
//!
//! The leak rule is not a matter of speed first: leave it at [`DomainAware`](crate::pcu::LeakRule::DomainAware) unless all LWPs trust
//! each other.

pub mod more_cpus;
pub mod one_cpu;
pub mod wrong;
