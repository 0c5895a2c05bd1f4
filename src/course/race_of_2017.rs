//! Unit 5: the bug that lived in NetBSD until 2017.
//!
//! You have all that is needed to find it. This is what `pcu_switchpoint` of `sys/kern/subr_pcu.c` did, in the words of this crate:
//!
//! > An LWP arrives on this CPU. If its state is live *here*, leave the gate as it is. If it is live on *another* CPU, close the gate. If
//! > it is live *nowhere*, do nothing.
//!
//! The last sentence is wrong: a state is nowhere also when it was just *stolen*, and what closes the gate then comes too late. On a kernel that keeps an LWP's "enabled" bit with the
//! LWP (in its trap frame, as NetBSD's ports do) this is the course of events:
//!
//! | CPU 0 | CPU 1 |
//! |---|---|
//! | A computes: live on CPU 0, A's bit is set | |
//! | B arrives; A goes to the queue | |
//! | B uses the unit and steals: saves A | A is picked, and its switch-in reads A's bit |
//! | A's word: nowhere. A's bit is cleared | `pcu_switchpoint`: nowhere, so nothing to do |
//! | | A runs on, its gate *open*, over whatever CPU 1's registers hold |
//!
//! Nothing traps, nothing crashes: A computes with another LWP's numbers, and writes over them. It took PR port-arm/52603, "FPU register
//! corruption on ARM SMP", to find that "nowhere" must be treated as "elsewhere": close the gate, and let the next use load.
//!
//! pcu9 keeps that, and goes one step further: there is no enabled bit with the LWP at all. Whether the gate is to be open is *derived*,
//! at the end of each section with interrupts off, from the word and the CPU's owner, and compared with what the hardware has
//! ([`CpuPcu::is_enabled`](crate::pcu::CpuPcu::is_enabled)). What is not stored cannot be stale, and no CPU ever writes another's LWP.
//!
//! # Exercise
//!
//! Put the bug back: `Pcu::arrive_lazily` (`src/pcu/switch.rs`) closes the gate for every LWP that has used the unit and has not its
//! registers here. Change that line so that it closes only where the word says "live", which means elsewhere. NetBSD's bug took two
//! CPUs, and a moment; here one CPU is enough, and every time. Why?
//!
//! The test is `tests/protocol/switching.rs::a_switch_to_an_lwp_whose_state_was_stolen_closes_the_gate`, the solution
//! `tests/course/5-race.patch`.
//!
//! # Sources
//!
//! NetBSD, `sys/kern/subr_pcu.c` 1.21 (2017-10-16, bouyer), with `sys/arch/arm/vfp/vfp_init.c` 1.54 and 1.55 of the same day, pulled up
//! to netbsd-8 by ticket 326; PR port-arm/52603.
