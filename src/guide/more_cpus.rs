//! More CPUs, in two steps.
//!
//! What changes in a kernel's own code is its scheduler's business, and the longer part of the first patch: a number for each CPU, a
//! current LWP for each, and an LWP that is taken by one CPU at a time until its registers lie on its stack. That last point is
//! `pcu9`'s only wish: [`switch_out`](crate::pcu::Pcu::switch_out) comes before another CPU can take the LWP.
//!
//! # 5. More CPUs
//!
//! Each CPU has its own [`CpuPcu`](crate::pcu::CpuPcu) and starts its own FPU, and promises P2 and P3 are about numbers now. LWPs that
//! use the FPU stay on the first CPU, so nobody has to ask another yet: `cross_call` refuses.
//!
//! ```diff
#![doc = include_str!("steps/05-more-cpus.patch")]
//! ```
//!
//! # 6. One CPU asks another
//!
//! An LWP arrives on a CPU while its newest registers are in another's. Promise P6 is how they come over: publish the request with
//! interrupts off, turn them on, wait. Waiting with interrupts off would be the end of two CPUs that ask each other. The list has room
//! for every asker, since a request lies on the stack of who waits for it; whoever serves it says so last, and touches it no more.
//!
//! An interrupt may now come at any time, which is why the gates of the IDT turn interrupts off: between `#NM` and the call of
//! [`trap`](crate::pcu::Pcu::trap) nothing may take registers or close a gate.
//!
//! A CPU that does not answer is waited for forever here. A kernel that takes CPUs away bounds the wait and takes the request back by
//! compare-exchange: `qemu/testbed/src/cpu/crosscall.rs`.
//!
//! ```diff
#![doc = include_str!("steps/06-one-cpu-asks-another.patch")]
//! ```
