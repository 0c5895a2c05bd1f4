//! One LWP: where its state of each unit is, and its saved FPU registers.

use comfy_table::Table;
use pcu9_kpcpu::{FpuRegisters, Kpcpu, Lwp, Place};
use serde::Serialize;

use crate::show::{Output, table};

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    lwp: Lwp,
    unit_names: Vec<String>,
    fpu: Option<FpuRegisters>,
    fpu_is_older: bool,
}

pub(crate) fn show(
    kernel: &Kpcpu,
    number: u64,
    output: &Output,
) -> Result<(), Box<dyn std::error::Error>> {
    let lwps = kernel.lwps()?;
    let Some(lwp) = lwps.into_iter().find(|lwp| lwp.number == Some(number)) else {
        return Err(format!("no LWP has the number {number}").into());
    };
    let answer = Answer {
        unit_names: kernel.unit_names()?,
        fpu: kernel.fpu(&lwp)?,
        fpu_is_older: matches!(lwp.units.get(kernel.fpu_unit()?), Some(Place::Live(_))),
        lwp,
    };
    output.write(&answer, |answer| vec![places(answer), registers(answer)])
}

fn places(answer: &Answer) -> Table {
    let name = answer.lwp.name.as_deref().unwrap_or_default();
    let title = format!("LWP {} {name}", answer.lwp.number.unwrap_or_default());
    let mut table = table([title.trim_end(), "newest state"], 2);
    for (unit, place) in answer.unit_names.iter().zip(&answer.lwp.units) {
        let place = match place {
            Place::None => "none: the next use begins with the initial state".into(),
            Place::Memory => "in memory".into(),
            Place::Live(cpu) => format!("in the registers of CPU {cpu}"),
            Place::Linked(cpu) => format!("in memory, and the registers of CPU {cpu} equal it"),
        };
        table.add_row([unit.clone(), place]);
    }
    table
}

fn registers(answer: &Answer) -> Table {
    let head = match (&answer.fpu, answer.fpu_is_older) {
        (None, _) => "no FPU registers in memory",
        (Some(_), true) => "FPU registers in memory (an older copy: the newest are in the CPU)",
        (Some(_), false) => "FPU registers in memory",
    };
    let mut table = table([head, ""], 2);
    let Some(fpu) = &answer.fpu else { return table };
    table.add_row([
        "fcw fsw ftw".into(),
        format!("{:04x} {:04x} {:02x}", fpu.fcw, fpu.fsw, fpu.ftw),
    ]);
    table.add_row(["mxcsr".into(), format!("{:08x}", fpu.mxcsr)]);
    for (number, st) in fpu.st.iter().enumerate() {
        table.add_row([format!("st{number}"), format!("{st:020x}")]);
    }
    for (number, xmm) in fpu.xmm.iter().enumerate() {
        let (name, upper) = match &fpu.ymm_hi {
            Some(upper) => ("ymm", format!("{:032x}", upper[number])),
            None => ("xmm", String::new()),
        };
        table.add_row([format!("{name}{number}"), format!("{upper}{xmm:032x}")]);
    }
    table
}
