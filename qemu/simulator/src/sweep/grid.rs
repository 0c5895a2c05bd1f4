//! Which workloads are in the grid.

use serde::{Deserialize, Serialize};

use crate::Leak;
use crate::synthetic::{Habit, Synthetic};

/// What varies in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// How often, and in what runs, all LWPs use the unit.
    Uses,
    /// All LWPs have phases with use and without.
    Phases,
    /// LWPs of several kinds.
    Mixed,
    /// LWPs that end before they were learnt.
    Short,
}

/// The cells, with the leak rule of each.
pub fn grid() -> Vec<(Kind, Leak, Synthetic)> {
    let mut cells = Vec::new();
    for lwps in [2, 4, 16, 64] {
        for migration in [0.0, 0.02, 0.2] {
            for stay in [0.0, 0.5] {
                let corner = Corner {
                    lwps,
                    migration,
                    stay,
                };
                corner.add(&mut cells);
            }
        }
    }
    // The same under the crate's default rule, but for the lives that are short.
    let domain = |(kind, _, made): &(Kind, Leak, Synthetic)| (*kind, Leak::Domain, made.clone());
    let long = cells.iter().filter(|(kind, ..)| *kind != Kind::Short);
    let long: Vec<_> = long.map(domain).collect();
    cells.extend(long);
    cells
}

/// What the scheduler does, and with how many LWPs a CPU.
#[derive(Clone, Copy)]
struct Corner {
    lwps: u32,
    migration: f64,
    stay: f64,
}

impl Corner {
    /// How often an LWP comes to a CPU: enough to be learnt, and more where there are few.
    fn life(self) -> u32 {
        (30_000 / self.lwps).clamp(450, 3_000)
    }

    fn add(self, cells: &mut Vec<(Kind, Leak, Synthetic)>) {
        let mut add = |kind, habits: &[Habit], life| {
            cells.push((kind, Leak::Trusting, self.make(habits, life)));
        };
        let shares = [
            0.0, 0.01, 0.02, 0.05, 0.1, 0.16, 0.25, 0.4, 0.6, 0.8, 0.96, 1.0,
        ];
        for p in shares {
            let always_or_never = p <= 0.0 || p >= 1.0;
            for run in if always_or_never {
                &[1.0][..]
            } else {
                &[1.0, 8.0, 64.0]
            } {
                add(Kind::Uses, &[Habit::Uses { p, run: *run }], self.life());
            }
            for life in [10, 50, 150] {
                if p > 0.0 && self.stay <= 0.0 {
                    add(Kind::Short, &[Habit::Uses { p, run: 1.0 }], life);
                }
            }
        }
        for (on, off) in [(100, 100), (400, 400), (100, 1000), (1000, 100)] {
            add(Kind::Phases, &[Habit::Phases { on, off }], 2 * self.life());
        }
        let computes = Habit::Uses { p: 0.98, run: 1.0 };
        let seldom = Habit::Uses { p: 0.01, run: 1.0 };
        let phased = Habit::Phases { on: 200, off: 200 };
        let mixtures = [
            &[computes, seldom][..],
            &[computes, seldom, seldom, seldom],
            &[computes, computes, computes, seldom],
            &[computes, seldom, phased, seldom],
        ];
        for habits in mixtures.into_iter().filter(|_| self.lwps >= 4) {
            add(Kind::Mixed, habits, 2 * self.life());
            add(Kind::Short, habits, 150);
            add(Kind::Short, habits, 450);
        }
    }

    fn make(self, habits: &[Habit], life: u32) -> Synthetic {
        let n_cpus = if self.migration > 0.0 { 2 } else { 1 };
        let n_lwps = self.lwps * u32::from(n_cpus);
        let slices = f64::from(life * n_lwps) / (1.0 - self.stay);
        Synthetic {
            n_cpus,
            n_lwps,
            habits: habits.to_vec(),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number of slices"
            )]
            n_slices: slices as usize,
            migration: self.migration,
            stay: self.stay,
            seed: 9,
        }
    }
}
