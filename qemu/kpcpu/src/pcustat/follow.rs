//! An LWP that is followed: a line each time that it, or its state of a unit, is elsewhere.

use std::time::{Duration, Instant};

use pcu9_kpcpu::{Kpcpu, Place};
use serde_json::json;

use crate::screen::Screen;
use crate::{Result, wait_until};

/// Where an LWP is.
#[derive(Clone, PartialEq, Eq)]
struct Whereabouts {
    name: String,
    /// The CPU that it runs on.
    cpu: Option<u32>,
    units: Vec<(String, Place)>,
}

/// Follows LWP `number` until it ends, the guest ends, or there were as many lines as asked for.
pub(crate) fn follow(
    kernel: &Kpcpu,
    number: u64,
    (interval, mut count): (Duration, u64),
    screen: &Screen,
) -> Result<()> {
    let begun = Instant::now();
    let mut last = None;
    let mut looks = 0;
    while count > 0 {
        let now = kernel.consistent(|kernel| look(kernel, number))?;
        let seconds = begun.elapsed().as_secs_f64();
        let Some(now) = now else {
            if last.is_none() {
                return Err(format!("no LWP has the number {number}").into());
            }
            let json = json!({ "seconds": seconds, "ended": true });
            return screen.line(&format!("{seconds:8.2} s  LWP {number} has ended"), &json);
        };
        if last.as_ref() != Some(&now) {
            write(&now, (seconds, number), screen)?;
            last = Some(now);
            count -= 1;
        }
        looks += 1;
        wait_until(kernel, begun + interval.saturating_mul(looks))?;
    }
    Ok(())
}

fn look(kernel: &Kpcpu, number: u64) -> pcu9_kpcpu::Result<Option<Whereabouts>> {
    let lwps = kernel.lwps()?;
    let Some(lwp) = lwps.into_iter().find(|lwp| lwp.number == Some(number)) else {
        return Ok(None);
    };
    let mut cpu = None;
    for id in kernel.present()? {
        let block = kernel.getpcpu(id)?;
        if block.is_some_and(|block| block.current_lwp == lwp.address) {
            cpu = Some(id);
        }
    }
    Ok(Some(Whereabouts {
        name: lwp.name.unwrap_or_default(),
        cpu,
        units: kernel.unit_names()?.into_iter().zip(lwp.units).collect(),
    }))
}

fn write(now: &Whereabouts, (seconds, number): (f64, u64), screen: &Screen) -> Result<()> {
    let runs = match now.cpu {
        Some(cpu) => format!("on CPU {cpu}"),
        None => "waits".into(),
    };
    let name = format!("{number} {}", now.name);
    let places = now.units.iter();
    let places = places.map(|(unit, place)| format!("  {unit}: {}", in_words(*place)));
    let (name, places) = (name.trim_end(), places.collect::<String>());
    let line = format!("{seconds:8.2} s  {name}  {runs:<8}{places}");
    let units: Vec<_> = now.units.iter().map(|(_, place)| place).collect();
    let json = json!({ "seconds": seconds, "name": now.name, "cpu": now.cpu, "units": units });
    screen.line(&line, &json)
}

/// Where the newest state is.
pub(crate) fn in_words(place: Place) -> String {
    match place {
        Place::None => "none: the next use begins with the initial state".into(),
        Place::Memory => "in memory".into(),
        Place::Live(cpu) => format!("in the registers of CPU {cpu}"),
        Place::Linked(cpu) => format!("in memory, and the registers of CPU {cpu} equal it"),
    }
}
