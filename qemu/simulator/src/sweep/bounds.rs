//! What the design promises of `Adaptive` over the grid, looked for in the results.

use std::collections::BTreeMap;
use std::fmt;

use super::{Cell, Kind, Results};
use crate::{Counts, Table};

/// Cycles a slice that do not count as a regret.
const SLACK: f64 = 5.0;
/// At most this part of the best fixed policy, in every cell.
const WORST: f64 = 1.30;
/// At most this part in 95 per cent of the cells.
const USUAL: f64 = 1.10;
/// Where registers of other domains are kept out of reach, in every cell.
const WORST_SAFE: f64 = 1.60;

/// The policies whose best is compared with.
const FIXED: [&str; 3] = ["lazy", "deferred", "eager"];

/// How `Adaptive` compares, on one machine and under one leak rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Regret {
    /// The machine's name.
    pub machine: String,
    /// The leak rule's word.
    pub leak: String,
    /// Its cost to the best fixed policy's, without the slack; sorted.
    pub ratios: Vec<f64>,
    /// The cell of the greatest one.
    pub worst: Cell,
    /// Mixed populations, and how many of them cost less than under any fixed policy.
    pub mixed: (usize, usize),
}

/// A promise that is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Results {
    /// The machine of that name, as the results were computed with.
    pub fn table(&self, machine: &str) -> Option<Table> {
        Some(Table::from_figures(machine, *self.machines.get(machine)?))
    }

    /// Cycles a slice of a policy in a cell; `optimum` is the clairvoyant's.
    pub fn cost(&self, cell: &Cell, contender: &str, machine: &str) -> Option<f64> {
        let counts: &Counts = match contender {
            "optimum" => &cell.optimum,
            _ => cell.counts_of(contender, machine)?,
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "cycles are shown with some digits"
        )]
        Some(self.table(machine)?.cost(counts) as f64 / cell.slices as f64)
    }

    /// Cycles a slice of the best of the fixed policies.
    pub fn best_fixed(&self, cell: &Cell, machine: &str) -> Option<f64> {
        let costs = FIXED.iter().map(|policy| self.cost(cell, policy, machine));
        costs
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .reduce(f64::min)
    }

    /// The cost of `Adaptive` in a cell, beyond the slack, to another one in the same cell.
    pub fn ratio(&self, cell: &Cell, machine: &str, other: f64) -> Option<f64> {
        let cost = self.cost(cell, "adaptive", machine)? - SLACK;
        Some(if cost <= 0.0 { 0.0 } else { cost / other })
    }

    /// The ratio to the best fixed policy.
    pub fn regret(&self, cell: &Cell, machine: &str) -> Option<f64> {
        self.ratio(cell, machine, self.best_fixed(cell, machine)?)
    }

    /// The regrets by machine and leak rule, lives that are short left out.
    ///
    /// # Panics
    ///
    /// Never: a group has at least the cell that it was made for.
    pub fn regrets(&self) -> Vec<Regret> {
        let mut groups: BTreeMap<(&str, &str), Vec<(f64, &Cell)>> = BTreeMap::new();
        for machine in self.machines.keys() {
            for cell in self.cells.iter().filter(|cell| cell.kind != Kind::Short) {
                let regret = self.regret(cell, machine).unwrap_or(f64::INFINITY);
                groups
                    .entry((machine, &cell.leak))
                    .or_default()
                    .push((regret, cell));
            }
        }
        let of_group = |((machine, leak), mut cells): ((&str, &str), Vec<(f64, &Cell)>)| {
            cells.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mixed: Vec<_> = cells
                .iter()
                .filter(|(_, cell)| cell.kind == Kind::Mixed)
                .collect();
            let is_below =
                |cell: &Cell| self.cost(cell, "adaptive", machine) < self.best_fixed(cell, machine);
            Regret {
                machine: machine.to_owned(),
                leak: leak.to_owned(),
                worst: cells.last().expect("a group has a cell").1.clone(),
                mixed: (
                    mixed.len(),
                    mixed.iter().filter(|(_, cell)| is_below(cell)).count(),
                ),
                ratios: cells.into_iter().map(|(regret, _)| regret).collect(),
            }
        };
        groups.into_iter().map(of_group).collect()
    }

    /// Every promise that the results do not keep.
    pub fn check(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for regret in self.regrets() {
            violations.extend(regret.check());
        }
        if violations.is_empty() && self.cells.is_empty() {
            violations.push(Violation("no cells".to_owned()));
        }
        violations
    }
}

/// The ratio that this part of the sorted ones does not exceed.
pub(super) fn quantile(ratios: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place among some hundreds"
    )]
    let place = ((ratios.len() as f64 * part).ceil() as usize).clamp(1, ratios.len());
    ratios[place - 1]
}

impl Regret {
    /// The ratio that this part of the cells does not exceed.
    pub fn quantile(&self, part: f64) -> f64 {
        quantile(&self.ratios, part)
    }

    fn check(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut must = |what: &str, seen: f64, bound: f64| {
            if seen > bound {
                let Self { machine, leak, .. } = self;
                violations.push(Violation(format!(
                    "{machine}, {leak}: {what}: {seen:.3}, at most {bound:.2} was promised"
                )));
            }
        };
        if self.leak == "trusting" {
            must("regret in the worst cell", self.quantile(1.0), WORST);
            must(
                "regret in 95 per cent of the cells",
                self.quantile(0.95),
                USUAL,
            );
            #[expect(clippy::cast_precision_loss, reason = "some cells")]
            let not_below = (self.mixed.0 - self.mixed.1) as f64;
            must(
                "mixed populations that cost more than under a fixed policy",
                not_below,
                0.0,
            );
        } else {
            must("regret in the worst cell", self.quantile(1.0), WORST_SAFE);
        }
        violations
    }
}
