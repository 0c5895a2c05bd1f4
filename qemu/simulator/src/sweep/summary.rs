//! The results as a table for people: what is promised, and beside it what is not.

use super::bounds::quantile;
use super::{Cell, Kind, Results};
use crate::{Contender, Leak};

impl Results {
    /// How `Adaptive` compares over the grid: a row for each machine and what it is compared with.
    pub fn summary(&self) -> Vec<Vec<String>> {
        let head = [
            "cost of adaptive to that of",
            "cells",
            "median",
            "90 %",
            "95 %",
            "99 %",
            "worst",
        ];
        let mut rows = vec![head.map(String::from).to_vec()];
        let trusting = |cell: &Cell| cell.leak == Leak::Trusting.word();
        let is_long = |cell: &Cell| cell.kind != Kind::Short;
        for machine in self.machines.keys() {
            let best = |cell: &Cell| self.best_fixed(cell, machine);
            let long = |cell: &Cell| trusting(cell) && is_long(cell);
            let safe = |cell: &Cell| !trusting(cell);
            let mixed = |cell: &Cell| trusting(cell) && cell.kind == Kind::Mixed;
            let short = |cell: &Cell| trusting(cell) && !is_long(cell);
            rows.extend(self.row(machine, "the best fixed policy", long, best));
            rows.extend(self.row(machine, "the same, mixed populations", mixed, best));
            rows.extend(self.row(machine, "the same, both LazyFP-safe", safe, best));
            rows.extend(self.row(machine, "the same, short lives", short, best));
            for other in [
                Contender::Sel4,
                Contender::LinuxLazy,
                Contender::NetbsdQuiet,
            ] {
                let cost = |cell: &Cell| self.cost(cell, other.name(), machine);
                rows.extend(self.row(machine, other.name(), long, cost));
            }
        }
        rows
    }

    /// The ratios of the cells that are kept, as a row; none without any.
    fn row(
        &self,
        machine: &str,
        name: &str,
        keep: impl Fn(&Cell) -> bool,
        other: impl Fn(&Cell) -> Option<f64>,
    ) -> Option<Vec<String>> {
        let kept = self.cells.iter().filter(|cell| keep(cell));
        let ratio = |cell: &Cell| self.ratio(cell, machine, other(cell)?);
        let mut ratios: Vec<f64> = kept.filter_map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        if ratios.is_empty() {
            return None;
        }
        let mut row = vec![format!("{machine}: {name}"), ratios.len().to_string()];
        row.extend(
            [0.5, 0.9, 0.95, 0.99, 1.0].map(|part| format!("{:.2}", quantile(&ratios, part))),
        );
        Some(row)
    }
}
