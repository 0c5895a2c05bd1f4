//! Unit 3: not every trap is a load.
//!
//! LWP A computes; an LWP without floating point runs for a while; A comes back to the same CPU. Nobody touched the registers. They are
//! still A's, and they are *newer than A's memory*: under `Lazy` nothing was saved when A left. All that may be missing is the open gate.
//!
//! To open it and do nothing else is to *re-enable*. It has its own flag, `PCU_REENABLE`, beside `PCU_VALID`
//! ([`PcuFlags`](crate::pcu::PcuFlags)), since a unit's load callback must be told which of three things is wanted:
//! the initial state, the state from memory, or hands off ([`LoadFlags`](crate::pcu::LoadFlags) can be built in these three ways only).
//! Confusing the last two is the worst bug of lazy switching. Nothing crashes: the LWP goes on with numbers of some
//! milliseconds ago.
//!
//! When is it a re-enable? When the word says *live here*. The gate does not say it: it may be closed over an owner (a save that keeps
//! the registers, a policy that wants to see each slice's first use) and open over somebody else (a kernel thread that left it as it
//! was). "The gate was open, so the registers must be mine" is a guess, and was wrong in NetBSD/arm until 2017.
//!
//! The idea goes further. Under [`Policy::Deferred`](crate::pcu::Policy) the state *is* saved when A leaves, and the registers equal
//! memory as long as nobody else loads. The word then says *clean*, with a serial number, and the CPU's tag has the same number: a
//! two-way link. If it holds when A is back, A is the owner again without a restore. Linux keeps the same pair, `last_cpu` and
//! `fpu_fpregs_owner_ctx`. One half is not enough: the CPU may have had another guest, A may have had another CPU.
//!
//! # Exercise
//!
//! The owner asks for its registers by [`Pcu::load`](crate::pcu::Pcu::load) while the gate is open: `Local::reenable_in_place`
//! (`src/pcu/local.rs`). Change one word, so that it gets what memory holds. Before you run the test, say what the LWP's memory holds if
//! it was never saved.
//!
//! The test is `tests/protocol/switching.rs::load_by_the_owner_reenables_and_never_reloads`, the solution
//! `tests/course/3-reenable.patch`.
//!
//! # Sources
//!
//! NetBSD, `sys/arch/arm/vfp/vfp_init.c` 1.54 (2017-10-16), and the load callbacks of its mips port, which look at `PCU_VALID` alone (as
//! of January 2025). Linux, commit 7e16838d94b5, "i387: support lazy restore of FPU state" (2012).
