//! The FPU unit's own code, through the core, on a processor in software: what emulators cannot show.
//!
//! After every switch the whole register file under user mode is looked at: through an open gate an LWP finds its own registers,
//! behind a closed one nothing but its domain's or initial bits. An instruction that the gate should have stopped is a panic.
//!
//! Leak rule: each test names its own.

#![cfg(target_arch = "x86_64")]

mod amx;
mod contents;
mod everything;
mod faults;
mod foreign;
mod lwp;
mod models;
mod optimisations;
mod pointers;
mod rows;
mod sections;
mod seeded;
mod world;

use pcu9::pcu::{AcceptLazyFp, LeakRule};

pub(crate) const TRUSTING: LeakRule = LeakRule::Trusting(AcceptLazyFp);
