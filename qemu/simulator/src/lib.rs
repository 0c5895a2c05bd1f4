//! The simulator behind `cargo simulate`: what each policy would have cost on the same sequence of slices.
//!
//! | step | modules |
//! |---|---|
//! | what ran where: [`Slice`], [`Workload`], from a file or made up | `workload`, [`trace`], [`synthetic`] |
//! | who decides: the crate's own code on a machine of counters, and models of other kernels | `replay`, `machine`, `models` |
//! | what it comes to: [`Counts`], [`Table`], and what nobody can go below | `cost`, `clairvoyant` |
//! | the whole grid, and what the design promises of it | [`sweep`] |
//! | its results as charts and as the README's table | [`plot`] |
//!
//! Nothing here imitates the crate: its policies run as [`Pcu`](pcu9::pcu::Pcu) itself, under a kernel whose unit is a counter. The
//! machine checks, at each use, that the registers hold what the LWP left.
#![cfg(not(target_os = "none"))]

mod clairvoyant;
mod cost;
mod machine;
mod models;
pub mod plot;
mod replay;
pub mod sweep;
pub mod synthetic;
pub mod trace;
mod workload;

pub use clairvoyant::optimum;
pub use cost::{Counts, Table};
pub use replay::{Contender, Leak, replay};
pub use workload::{Slice, Workload};
