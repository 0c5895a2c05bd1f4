//! A short course: six units, each a page and an exercise.
//!
//! 1. [`ownership`]: one set of registers, many who want it.
//! 2. [`validity`]: where a state is, and whether there is one.
//! 3. [`reenable`]: not every trap is a load.
//! 4. [`stealing`]: two CPUs, and a request that comes too late.
//! 5. [`race_of_2017`]: the bug that lived in NetBSD until 2017.
//! 6. [`lazy_fp`]: what a closed gate does not keep out.
//!
//! # How an exercise goes
//!
//! Each asks you to change **one line** of `src/pcu` so that a named test fails, and to say why before you run it:
//!
//! ```text
//! cargo test --test protocol NAME_OF_THE_TEST
//! ```
//!
//! The tests of `tests/protocol` play the protocol in a simulated kernel: `world.switch(cpu, Some(lwp))` is a switch, and
//! `world.use_unit(cpu, unit, value)` a use of the unit, trap included, that gives what was in the register and leaves `value` there. When
//! the core takes registers from an LWP, the simulated unit overwrites them, so that a state that was not saved is not there by luck.
//!
//! One solution of each lies in `tests/course` as a patch (`patch -p1 < tests/course/1-ownership.patch` puts it in). `cargo test` checks that
//! each still applies and changes one line, and `cargo verify --only course` that its test fails with it, for the reason given here.
//! Undo a solution by `git checkout src/pcu`.

pub mod lazy_fp;
pub mod ownership;
pub mod race_of_2017;
pub mod reenable;
pub mod stealing;
pub mod validity;
