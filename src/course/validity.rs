//! Unit 2: where a state is, and whether there is one.
//!
//! "Where is the state?" and "is there a state?" are two questions. An LWP that never computed has none: its first use must find the
//! *initial* state (control words as after a reset, all registers empty), and not whatever its area happens to hold. An LWP that was
//! saved has one, in memory. An LWP whose state was thrown away ([`Pcu::discard`](crate::pcu::Pcu::discard)) has none again, though its
//! area still holds old numbers.
//!
//! | | in the registers of a CPU | in memory alone |
//! |---|---|---|
//! | *valid* | live: memory is old | the next load restores |
//! | *invalid* | cannot be | the next load gives the initial state |
//!
//! Hence the second flag, [`Validity`](crate::pcu::Validity), asked by [`LwpPcu::valid_p`](crate::pcu::LwpPcu::valid_p). It travels: a
//! child inherits its parent's state *and* its validity. In NetBSD a fork copied the area and not the flag for seven years, until
//! February 2020, so that on most ports a child began with the initial state instead of its parent's numbers.
//!
//! Both answers stand in one word, and change by one store (I6). If they were two words, somebody could look between the two stores and
//! see a state that never was: valid, and nowhere.
//!
//! What is the flag for, if an area could simply be made initial instead? Three things: nothing has to be written for an LWP that never
//! computes; a debugger that writes a state can say "from now on memory is right" without loading it
//! ([`Pcu::replace`](crate::pcu::Pcu::replace)); and a discard costs a store.
//!
//! # Exercise
//!
//! `Local::acquire` (`src/pcu/local.rs`) decides between a restore and the initial state. Make it believe in memory whatever the word
//! says. An LWP computes 7, is saved, and throws its state away. What does it find at its next use?
//!
//! The test is `tests/protocol/memory.rs::discarded_state_that_was_only_saved_stays_discarded`, the solution
//! `tests/course/2-validity.patch`.
//!
//! # Sources
//!
//! NetBSD, `sys/sys/pcu.h` 1.12 (2014-05-16), where validity became a word of its own; `sys/kern/kern_lwp.c` 1.224 (2020-02-11) and
//! `tests/kernel/h_fpufork.c` of the same day. Intel SDM, volume 3A, "Processor State After Reset", for the initial state.
