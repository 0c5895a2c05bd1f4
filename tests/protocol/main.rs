//! One named test for each rule of pcu(9), on the fake kernel. The scenarios' letters are those of the collected experience
//! with NetBSD's implementation: what went wrong there once has a test here.
//!
//! Leak rule: each test names its own.

mod cpus;
mod edges;
mod flush;
mod habits;
mod leaks;
mod memory;
mod own_policies;
mod policies;
mod sections;
mod switching;
mod tokens;
mod untrappable;
mod views;

use pcu9::pcu::{UnitId, UnitStats};
use pcu9_fake::{World, unit};

pub(crate) const FPU: UnitId = unit(0);
pub(crate) const DSP: UnitId = unit(1);

/// What the callbacks and cross-calls were since the last question.
pub(crate) fn log(world: &World) -> Vec<String> {
    world.log.take()
}

pub(crate) fn count(world: &World, callback: &str) -> usize {
    let log = world.log.borrow();
    log.iter().filter(|line| line.starts_with(callback)).count()
}

pub(crate) fn sum(world: &World) -> UnitStats {
    let mut sum = UnitStats::default();
    world.cpus.iter().for_each(|cpu| sum += cpu.pcu.stats(FPU));
    sum
}

/// Writes `value` from user mode on `cpu`, and says what was there.
pub(crate) fn write(world: &World, cpu: usize, value: u64) -> u64 {
    world.use_unit(cpu, FPU, value).unwrap()
}
