//! The grid: what all policies cost over use probability, run length, number of LWPs, migration, phases and mixtures; and what
//! the design promises of `Adaptive` there.
//!
//! The results are one JSON file, and [`Results::check`] looks at nothing else.

mod bounds;
mod grid;
mod summary;

use std::collections::BTreeMap;

use pcu9::pcu::Policy;
use serde::{Deserialize, Serialize};

use super::{Contender, Counts, Leak, Table, optimum, replay};

pub use bounds::{Regret, Violation};
pub use grid::{Kind, grid};

/// One workload, and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// What varies in it.
    pub kind: Kind,
    /// The rule that the crate's policies obeyed: `trusting` or `domain`.
    pub leak: String,
    /// LWPs for each CPU.
    pub lwps: u32,
    /// The share of slices that use the unit, of an LWP or on average.
    pub p: f64,
    /// The mean run of slices that do; 0 where phases, or several habits, say so otherwise.
    pub run: f64,
    /// With which probability an LWP that is about to run goes to another CPU.
    pub migration: f64,
    /// With which probability it stays on the CPU, with a kernel thread or idleness between.
    pub stay: f64,
    /// Its slices, kernel threads' included.
    pub slices: u64,
    /// The fewest restores and saves.
    pub optimum: Counts,
    /// What each policy did, by its name; `adaptive` by its name and the machine's, as `adaptive@milan`.
    pub counts: BTreeMap<String, Counts>,
}

/// All cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The machines' names and costs, T, R, S, X, I and a wipe.
    pub machines: BTreeMap<String, [u32; 6]>,
    /// The cells.
    pub cells: Vec<Cell>,
}

impl Cell {
    /// What a policy did on a machine.
    pub fn counts_of(&self, contender: &str, machine: &str) -> Option<&Counts> {
        let adapted = || self.counts.get(&format!("{contender}@{machine}"));
        self.counts.get(contender).or_else(adapted)
    }
}

impl Results {
    /// Replays each `step`-th cell of the grid; `note` is told how many of how many are done.
    ///
    /// # Panics
    ///
    /// If `step` is 0.
    pub fn compute(step: usize, mut note: impl FnMut(usize, usize)) -> Self {
        let tables = Table::all();
        let grid: Vec<_> = grid().into_iter().step_by(step).collect();
        let n_cells = grid.len();
        let mut cells = Vec::with_capacity(n_cells);
        for (done, (kind, leak, made)) in grid.into_iter().enumerate() {
            note(done, n_cells);
            let workload = made.make();
            let mut counts = BTreeMap::new();
            let contenders =
                Contender::ALL
                    .into_iter()
                    .filter(|contender| match (leak, contender) {
                        (_, Contender::Pcu9(Policy::AdaptiveWriteThrough)) => false,
                        (Leak::Domain, contender) => matches!(contender, Contender::Pcu9(_)),
                        (Leak::Trusting, _) => true,
                    });
            for contender in contenders {
                if contender.is_adaptive() {
                    for table in &tables {
                        let name = format!("{}@{}", contender.name(), table.name);
                        counts.insert(name, replay(&workload, contender, leak, table));
                    }
                } else {
                    counts.insert(
                        contender.name().to_owned(),
                        replay(&workload, contender, leak, &tables[0]),
                    );
                }
            }
            let (p, run) = made.shape();
            cells.push(Cell {
                kind,
                leak: leak.word().to_owned(),
                lwps: made.n_lwps / u32::from(made.n_cpus),
                p,
                run,
                migration: made.migration,
                stay: made.stay,
                slices: workload.slices.len() as u64,
                optimum: optimum(&workload),
                counts,
            });
        }
        let figures = |table: &Table| {
            let costs = table.costs;
            [
                costs.trap,
                costs.restore,
                costs.save,
                costs.toggle,
                costs.cross_call,
                table.wipe,
            ]
        };
        Self {
            machines: tables
                .iter()
                .map(|table| (table.name.clone(), figures(table)))
                .collect(),
            cells,
        }
    }
}
