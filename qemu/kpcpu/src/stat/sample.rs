//! All CPUs at one moment: one row a CPU and unit.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::layout::{Column, Layout};
use super::page::Page;
use crate::error::Result;
use crate::handle::Kpcpu;
use crate::percpu::CpuState;
use crate::units::{Owner, Place};

/// What the table shows of each unit: a heading, and the counters that it sums; the most important first.
const COLUMNS: [(&str, &[&str]); 8] = [
    ("TRAPS", &["traps"]),
    ("LOADS", &["inits", "restores"]),
    (
        "REENABLES",
        &["reenables_trap", "reenables_load", "reenables_switch"],
    ),
    ("SAVES", &["saves"]),
    ("ELIDED", &["elided_restores", "elided_saves"]),
    ("WIPES", &["wipes"]),
    ("XCALLS", &["xcalls"]),
    ("FAILED", &["failed"]),
];

/// What all CPUs do at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// What ids are below.
    pub max_cpus: u32,
    /// How many CPUs are started.
    pub started: u32,
    /// Those that are present.
    pub cpus: Vec<Cpu>,
}

/// A CPU.
#[derive(Clone, Debug, Serialize)]
pub struct Cpu {
    /// Its id.
    #[serde(rename = "cpu")]
    pub number: u32,
    /// What it is doing.
    pub state: CpuState,
    /// What runs on it.
    pub lwp: String,
    /// Is that its idle LWP?
    pub idle: bool,
    /// What it knows of its units.
    pub units: Vec<Unit>,
}

/// A unit of a CPU.
#[derive(Clone, Debug, Serialize)]
pub struct Unit {
    /// Its name.
    #[serde(rename = "unit")]
    pub name: String,
    /// Who has the registers.
    pub owner: Owner,
    /// The same for people.
    pub owner_name: String,
    /// Does a use not trap?
    pub gate_open: bool,
    /// The domain whose bits the registers hold.
    pub residue: u64,
    /// The counters by their names.
    pub counters: BTreeMap<String, u64>,
}

/// An earlier sample, and how long ago it was taken.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// What was then.
    pub sample: &'a Sample,
    /// Since then.
    pub elapsed: Duration,
}

impl Sample {
    /// Takes one; of a kernel that runs, all of it is of one set of CPUs.
    ///
    /// # Errors
    ///
    /// As [`Kpcpu::consistent`].
    pub fn take(kernel: &Kpcpu) -> Result<Self> {
        kernel.consistent(Self::read)
    }

    fn read(kernel: &Kpcpu) -> Result<Self> {
        let names = kernel.counter_names()?;
        let mut cpus = Vec::new();
        for cpu in kernel.present()? {
            let Some(block) = kernel.getpcpu(cpu)? else {
                continue;
            };
            let units = kernel.units(cpu)?.into_iter().enumerate();
            let units = units.map(|(index, unit)| Unit {
                owner_name: owner_name(kernel, unit.owner, (cpu, index)),
                name: unit.name,
                owner: unit.owner,
                gate_open: unit.is_enabled,
                residue: unit.residue,
                counters: names.iter().cloned().zip(unit.counters).collect(),
            });
            cpus.push(Cpu {
                number: cpu,
                state: block.state,
                lwp: lwp_name(kernel, block.current_lwp),
                idle: block.current_lwp == block.idle_lwp && block.idle_lwp != 0,
                units: units.collect(),
            });
        }
        Ok(Self {
            max_cpus: kernel.getmaxcpu()?,
            started: kernel.getncpus()?,
            cpus,
        })
    }

    /// Adds a line on the whole and a table to `page`: counters as they are, or since `before` as rates per second. A row whose owner
    /// has changed since is bold.
    ///
    /// Counters that are 0 on every CPU are left out, so that what matters fits into 80 columns.
    pub fn add_to(&self, page: &mut Page, before: Option<Before<'_>>) {
        let (started, n_present, max) = (self.started, self.cpus.len(), self.max_cpus);
        let since = before.map_or(String::new(), |before| {
            let seconds = before.elapsed.as_secs_f64();
            format!("; counts per second, over the last {seconds:.1} s")
        });
        page.wrapped(&format!(
            "{started} of {n_present} CPUs started, ids below {max}{since}"
        ));
        page.line("");
        let units = || self.cpus.iter().flat_map(|cpu| &cpu.units);
        let is_shown = |names: &[&str]| units().any(|unit| unit.sum(names) > 0);
        let columns = COLUMNS.iter().filter(|(_, names)| is_shown(names));
        let columns: Vec<_> = columns.collect();
        let head = [
            Column::text("CPU"),
            Column::text("STATE").rank(20),
            Column::text("LWP").rank(1),
            Column::text("UNIT"),
            Column::text("OWNER"),
            Column::text("GATE").rank(2),
        ];
        let ranks = (3..).zip(&columns);
        let counts = ranks.map(|(rank, (name, _))| Column::number(*name).rank(rank));
        let mut layout = Layout::new(head.into_iter().chain(counts));
        for cpu in &self.cpus {
            let lwp = if cpu.idle { "idle" } else { &cpu.lwp };
            let first = [cpu.number.to_string(), state(cpu.state).into(), lwp.into()];
            if cpu.units.is_empty() {
                layout.row(first.clone());
            }
            for unit in &cpu.units {
                let gate = if unit.gate_open { "open" } else { "closed" };
                let middle = [unit.name.clone(), unit.owner_name.clone(), gate.into()];
                let old = before.and_then(|before| before.sample.unit(cpu.number, &unit.name));
                let numbers = columns.iter().map(|(_, names)| match (before, old) {
                    (None, _) => unit.sum(names).to_string(),
                    (Some(_), None) => "-".into(),
                    (Some(before), Some(old)) => {
                        let events = unit.sum(names).wrapping_sub(old.sum(names));
                        rate(events, before.elapsed)
                    }
                });
                layout.row(first.iter().cloned().chain(middle).chain(numbers));
                if old.is_some_and(|old| old.owner != unit.owner) {
                    layout.mark();
                }
            }
        }
        layout.add_to(page);
    }

    fn unit(&self, cpu: u32, name: &str) -> Option<&Unit> {
        let cpu = self.cpus.iter().find(|other| other.number == cpu)?;
        cpu.units.iter().find(|unit| unit.name == name)
    }

    /// The rates per second since `before`, for programs: by CPU, unit and counter.
    pub fn rates(
        &self,
        before: Before<'_>,
    ) -> BTreeMap<u32, BTreeMap<String, BTreeMap<String, f64>>> {
        let of_unit = |cpu: &Cpu, unit: &Unit| {
            let old = before.sample.unit(cpu.number, &unit.name)?;
            let counters = unit.counters.iter().map(|(name, now)| {
                let then = old.counters.get(name).copied().unwrap_or(0);
                (
                    name.clone(),
                    per_second(now.wrapping_sub(then), before.elapsed),
                )
            });
            Some((unit.name.clone(), counters.collect()))
        };
        let of_cpu = |cpu: &Cpu| {
            let units = cpu.units.iter().filter_map(|unit| of_unit(cpu, unit));
            (cpu.number, units.collect())
        };
        self.cpus.iter().map(of_cpu).collect()
    }
}

impl Unit {
    fn sum(&self, names: &[&str]) -> u64 {
        let counters = names.iter().filter_map(|&name| self.counters.get(name));
        counters.fold(0, |sum, counter| sum.wrapping_add(*counter))
    }
}

fn state(state: CpuState) -> &'static str {
    match state {
        CpuState::Present => "present",
        CpuState::Started => "started",
        CpuState::Offline => "offline",
    }
}

/// How many events a second that is.
#[expect(
    clippy::cast_precision_loss,
    reason = "nobody counts 2^53 events between two samples"
)]
pub fn per_second(events: u64, elapsed: Duration) -> f64 {
    events as f64 / elapsed.as_secs_f64().max(1e-9)
}

/// The same for people: a digit after the point where there is no other.
pub fn rate(events: u64, elapsed: Duration) -> String {
    match per_second(events, elapsed) {
        _ if events == 0 => "0".into(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// A live owner by its name. A clean one, of unit `unit` of CPU `cpu`, in parentheses: by its name if an LWP on the kernel's list says
/// that it is linked there; else by its address alone, since it may be gone.
fn owner_name(kernel: &Kpcpu, owner: Owner, (cpu, unit): (u32, usize)) -> String {
    match owner {
        Owner::None => "-".into(),
        Owner::Section => "kernel".into(),
        Owner::Live(lwp) => lwp_name(kernel, lwp),
        Owner::Clean(address) => {
            let lwps = kernel.lwps().unwrap_or_default();
            let lwp = lwps.iter().find(|lwp| lwp.address == address);
            let place = lwp.and_then(|lwp| lwp.units.get(unit));
            if place == Some(&Place::Linked(cpu)) {
                format!("({})", lwp_name(kernel, address))
            } else {
                format!("({address:#x})")
            }
        }
    }
}

/// What an LWP is called: its number and name, as far as the kernel says, else its address.
pub fn lwp_name(kernel: &Kpcpu, address: u64) -> String {
    if address == 0 {
        return "-".into();
    }
    match kernel.lwp(address) {
        Ok(lwp) => match (lwp.number, lwp.name) {
            (Some(number), Some(name)) => format!("{number} {name}"),
            (Some(number), None) => number.to_string(),
            (None, Some(name)) => name,
            (None, None) => format!("{address:#x}"),
        },
        Err(_) => format!("{address:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::rate;
    use std::time::Duration;

    #[test]
    fn rates_have_as_many_digits_as_they_need() {
        let in_ms = |events, ms| rate(events, Duration::from_millis(ms));
        assert_eq!(in_ms(0, 1000), "0");
        assert_eq!(in_ms(1, 2000), "0.5");
        assert_eq!(in_ms(99, 10_000), "9.9");
        assert_eq!(in_ms(996, 100_000), "10");
        assert_eq!(in_ms(5_000, 500), "10000");
        assert_eq!(in_ms(5, 0), "5000000000");
    }
}
