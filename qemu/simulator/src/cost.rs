//! What happened, and what that costs on which machine.

use std::fmt;
use std::fs;
use std::str::FromStr;

use pcu9::pcu::Costs;
use serde::{Deserialize, Serialize};

/// What a policy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Uses with the gate closed.
    pub traps: u64,
    /// States brought in, initial ones too.
    pub restores: u64,
    /// States saved.
    pub saves: u64,
    /// Changes of the gate, other than by a trap.
    pub toggles: u64,
    /// States asked for from another CPU.
    pub cross_calls: u64,
    /// Registers wiped, so that another domain sees nothing.
    pub wipes: u64,
}

/// A machine's costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// What the crate is told.
    pub costs: Costs,
    /// What a wipe takes, where vectors alone are in use.
    pub wipe: u32,
}

impl Table {
    /// Zen 3, Skylake, a machine where traps are cheap, and one whose states are as large as AMX's.
    pub fn all() -> Vec<Self> {
        [
            ("milan", [1500, 288, 100, 150, 3000], 40),
            ("skylake", [1128, 262, 120, 150, 2500], 40),
            ("risc", [150, 120, 120, 20, 1500], 120),
            ("amx", [1500, 2000, 1500, 150, 3000], 40),
        ]
        .map(|(name, [t, r, s, x, i], wipe)| Self::from_figures(name, [t, r, s, x, i, wipe]))
        .to_vec()
    }

    /// A machine with these costs: T, R, S, X, I and a wipe.
    pub fn from_figures(
        name: &str,
        [trap, restore, save, toggle, cross_call, wipe]: [u32; 6],
    ) -> Self {
        Self {
            name: name.to_owned(),
            costs: Costs {
                trap,
                restore,
                save,
                toggle,
                cross_call,
            },
            wipe,
        }
    }

    /// The machine of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|table| table.name == name)
    }

    /// The machine that the program runs on: R and S as `cargo bench` measured them; what takes a kernel to measure is Zen 3's.
    ///
    /// # Errors
    ///
    /// When `cargo bench` left no figures.
    pub fn here() -> Result<Self, String> {
        const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/pcu9/costs.json");
        #[derive(Deserialize)]
        struct Measured {
            restore: u32,
            save: u32,
        }
        let wrong = |error: &dyn fmt::Display| {
            format!("{FILE}: {error}; `cargo bench --bench fpu` writes it")
        };
        let text = fs::read_to_string(FILE).map_err(|error| wrong(&error))?;
        let Measured { restore, save } =
            serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        let costs = Costs {
            restore,
            save,
            ..Costs::ZEN3
        };
        Ok(Self {
            name: "here".to_owned(),
            costs,
            wipe: 40,
        })
    }

    /// What `counts` come to, in cycles.
    pub fn cost(&self, counts: &Counts) -> u64 {
        let Costs {
            trap,
            restore,
            save,
            toggle,
            cross_call,
        } = self.costs;
        [
            (counts.traps, trap),
            (counts.restores, restore),
            (counts.saves, save),
            (counts.toggles, toggle),
            (counts.cross_calls, cross_call),
            (counts.wipes, self.wipe),
        ]
        .iter()
        .map(|&(n, cost)| n * u64::from(cost))
        .sum()
    }
}

/// `NAME`, or figures in place of some of its: `NAME,t=1200,wipe=60`.
impl FromStr for Table {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        let name = words.next().unwrap_or_default();
        let known = || {
            Self::all()
                .iter()
                .map(|table| table.name.clone())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let mut table = match name {
            "here" => Self::here()?,
            name => Self::named(name)
                .ok_or_else(|| format!("no machine `{name}`: there are {}, here", known()))?,
        };
        for word in words {
            let figure = word
                .split_once('=')
                .and_then(|(key, value)| Some((key, value.parse().ok()?)));
            let place = match figure {
                Some(("t", value)) => (&mut table.costs.trap, value),
                Some(("r", value)) => (&mut table.costs.restore, value),
                Some(("s", value)) => (&mut table.costs.save, value),
                Some(("x", value)) => (&mut table.costs.toggle, value),
                Some(("i", value)) => (&mut table.costs.cross_call, value),
                Some(("wipe", value)) => (&mut table.wipe, value),
                _ => {
                    return Err(format!(
                        "`{word}` is not one of t=, r=, s=, x=, i=, wipe= and a number of cycles"
                    ));
                }
            };
            *place.0 = place.1;
        }
        if text.contains(',') {
            text.clone_into(&mut table.name);
        }
        Ok(table)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Costs {
            trap,
            restore,
            save,
            toggle,
            cross_call,
        } = self.costs;
        write!(
            f,
            "T={trap} R={restore} S={save} X={toggle} I={cross_call} wipe={}",
            self.wipe
        )
    }
}
