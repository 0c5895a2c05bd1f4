//! The table of all CPUs: one row a CPU and unit.

use std::collections::BTreeMap;

use comfy_table::Table;
use pcu9_kpcpu::{CpuState, Error, Kpcpu, Owner, Place};
use serde::Serialize;

use crate::show::{Output, table};

/// What the table shows of each unit: a heading, and the counters that it sums.
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

#[derive(Serialize)]
struct Answer {
    max_cpus: u32,
    started: u32,
    cpus: Vec<Cpu>,
}

#[derive(Serialize)]
struct Cpu {
    #[serde(rename = "cpu")]
    number: u32,
    state: CpuState,
    lwp: String,
    idle: bool,
    units: Vec<Unit>,
}

#[derive(Serialize)]
struct Unit {
    #[serde(rename = "unit")]
    name: String,
    owner: Owner,
    owner_name: String,
    gate_open: bool,
    residue: u64,
    counters: BTreeMap<String, u64>,
}

pub(crate) fn show(kernel: &Kpcpu, output: &Output) -> Result<(), Box<dyn std::error::Error>> {
    let names = kernel.counter_names()?;
    let mut cpus = Vec::new();
    for cpu in kernel.present()? {
        let Some(block) = kernel.getpcpu(cpu)? else {
            continue;
        };
        let units = kernel
            .units(cpu)?
            .into_iter()
            .enumerate()
            .map(|(index, unit)| {
                Ok(Unit {
                    owner_name: owner_name(kernel, unit.owner, (cpu, index)),
                    name: unit.name,
                    owner: unit.owner,
                    gate_open: unit.is_enabled,
                    residue: unit.residue,
                    counters: names.iter().cloned().zip(unit.counters).collect(),
                })
            });
        cpus.push(Cpu {
            number: cpu,
            state: block.state,
            lwp: lwp_name(kernel, block.current_lwp),
            idle: block.current_lwp == block.idle_lwp && block.idle_lwp != 0,
            units: units.collect::<Result<_, Error>>()?,
        });
    }
    let answer = Answer {
        max_cpus: kernel.getmaxcpu()?,
        started: kernel.getncpus()?,
        cpus,
    };
    let n_present = answer.cpus.len();
    let (started, max) = (answer.started, answer.max_cpus);
    output.heading(&format!(
        "{started} of {n_present} CPUs started, ids below {max}"
    ))?;
    output.write(&answer, |answer| vec![of_cpus(answer)])
}

/// Counters that are 0 on every CPU are left out, so that what matters fits into 80 columns.
fn of_cpus(answer: &Answer) -> Table {
    let units = || answer.cpus.iter().flat_map(|cpu| &cpu.units);
    let is_shown = |names: &[&str]| units().any(|unit| unit.sum(names) > 0);
    let columns = COLUMNS.iter().filter(|(_, names)| is_shown(names));
    let columns: Vec<_> = columns.collect();
    let head = ["CPU", "STATE", "LWP", "UNIT", "OWNER", "GATE"];
    let names = columns.iter().map(|(name, _)| *name);
    let mut table = table(head.into_iter().chain(names), head.len());
    for cpu in &answer.cpus {
        let state = match cpu.state {
            CpuState::Present => "present",
            CpuState::Started => "started",
            CpuState::Offline => "offline",
        };
        let lwp = if cpu.idle { "idle" } else { &cpu.lwp };
        let first = [cpu.number.to_string(), state.into(), lwp.into()];
        if cpu.units.is_empty() {
            table.add_row(first.clone());
        }
        for unit in &cpu.units {
            let gate = if unit.gate_open { "open" } else { "closed" };
            let middle = [unit.name.clone(), unit.owner_name.clone(), gate.into()];
            let numbers = columns.iter().map(|(_, names)| unit.sum(names).to_string());
            table.add_row(first.iter().cloned().chain(middle).chain(numbers));
        }
    }
    table
}

impl Unit {
    fn sum(&self, names: &[&str]) -> u64 {
        let counters = names.iter().filter_map(|&name| self.counters.get(name));
        counters.fold(0, |sum, counter| sum.wrapping_add(*counter))
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
pub(crate) fn lwp_name(kernel: &Kpcpu, address: u64) -> String {
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
