//! Unit 1: one set of registers, many who want it.
//!
//! A CPU has one FPU, and a thousand LWPs may have numbers in it. An *eager* kernel saves and restores them at every switch, 800 bytes
//! or 2,700, whether the next LWP computes or not. pcu(9) asks another question: whose registers are these *now*? It moves them when
//! somebody else needs the place, and not before.
//!
//! The answer is kept on both sides. Each CPU has an *owner* for each unit ([`CpuPcu::owner`](crate::pcu::CpuPcu::owner)); each LWP has
//! a word that says where its newest state is ([`LwpPcu::live_cpu`](crate::pcu::LwpPcu::live_cpu)). The two must agree: the CPU names an
//! LWP as its live owner if and only if that LWP's word names the CPU (invariant I3 of [`pcu`](crate::pcu#invariants)). Neither side is
//! locked. Instead each has *one writer*: a CPU's entry is written by that CPU alone, with interrupts off (I1), and an LWP becomes live
//! by itself alone, while it runs (I2). Whoever wants something of another CPU's registers must ask that CPU to do it.
//!
//! How does the kernel learn that an LWP needs the unit? By the *gate*: as long as it is closed (`CR0.TS` on x86), a use traps, and
//! [`Pcu::trap`](crate::pcu::Pcu::trap) loads the LWP's state, which makes it the owner and opens the gate. At a switch the gate is
//! all that may have to move: open for the owner, closed for everybody else ([`Pcu::switchpoint`](crate::pcu::Pcu::switchpoint)).
//!
//! So a load has three parts. *Open the gate*: or the load would trap itself. *Make room*: what the last owner has in the registers is
//! newer than its memory, so it is saved, and given up. *Fill the registers*: from memory, or with the initial state.
//!
//! # Exercise
//!
//! In `Local::acquire` (`src/pcu/local.rs`) one line makes room. LWP 0 computes 7 on CPU 0 and migrates to CPU 1 without using the unit
//! there; LWP 1 uses it on CPU 0; LWP 0 uses it on CPU 1. What does LWP 0 find without that line, and who is asked for it?
//!
//! The test is `tests/protocol/switching.rs::a_thief_saves_the_owner_who_runs_elsewhere`, the solution `tests/course/1-ownership.patch`.
//!
//! # Sources
//!
//! NetBSD, `share/man/man9/pcu.9` and the comment at the head of `sys/kern/subr_pcu.c`: "concurrency notes". Intel SDM, volume 3A,
//! "Interrupt 7 - Device Not Available Exception (#NM)".
