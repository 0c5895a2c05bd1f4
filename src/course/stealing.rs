//! Unit 4: two CPUs, and a request that comes too late.
//!
//! LWP A computes on CPU 0 and migrates to CPU 1. Its newest registers are CPU 0's, and no instruction reads another CPU's registers.
//! A's first use on CPU 1 traps, and CPU 1 *asks*: a cross-call (an interrupt to CPU 0), whose handler saves A's registers to memory and
//! gives them up; CPU 1 waits, then loads from memory. Under `Lazy` that is the only time when CPUs talk to each other. A switch never
//! asks: [`Pcu::switchpoint`](crate::pcu::Pcu::switchpoint) closes the gate and leaves the question to the trap.
//!
//! Meanwhile CPU 0 does not stand still. LWP B may use its FPU there, find A's registers in the way, and save them itself. B *steals*:
//! it saves A's registers, makes them nobody's, and loads its own. Then the request arrives. "Save and give up what you hold" would
//! take B's fresh registers away and report success; NetBSD's did so until 2014. So a request *names* the owner that it means, and the
//! handler compares. **A mismatch is success**: if A is not the owner any more, somebody saved it, and memory is right. The asker reads
//! the word again, sees "not live", and loads.
//!
//! The rules for the asker follow from the same thought:
//!
//! - The request is *published* with interrupts off: up to that moment the word it acts on cannot change under it.
//! - It *waits* with interrupts on: two CPUs that ask each other would wait for ever otherwise.
//! - After the wait *everything is read anew*. While A waited it could be preempted and moved, even to CPU 0.
//!   Linux 5.2 believed the owner that it had read before such a sleep, where a compiler kept it: registers of other threads, in
//!   programs written in Go, for three releases.
//! - The holder stores the word with *Release* after the save, and the loader reads it with *Acquire* before the load. Otherwise CPU 1
//!   may see "in memory" before it sees the memory. No test on x86 shows that; a model checker does (`tests/loom`).
//!
//! # Exercise
//!
//! In `Request::serve` (`src/pcu/ops.rs`) let the handler serve whoever owns the registers when the request arrives. Which assertion
//! notices it first, and what would happen without assertions?
//!
//! The test is `tests/protocol/switching.rs::a_request_that_comes_too_late_does_not_touch_the_thiefs_state`, the solution
//! `tests/course/4-stealing.patch`.
//!
//! # Sources
//!
//! NetBSD, `sys/kern/subr_pcu.c` 1.18 (2014-05-16): the message names the owner. Linux, "x86/fpu: Don't cache access to
//! `fpu_fpregs_owner_ctx`" (2019), and golang/go issue 35777.
