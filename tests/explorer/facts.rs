//! A state as the explorer sees it: what the key is made of and what the invariants speak of.

use pcu9::kernel::CpuId;
use pcu9::pcu::{Location, Registers, Residue, Validity};

use super::unit::{INITIAL, domain_of};
use super::world::{CPUS, LWPS, UNITS, World, unit_id};

/// One unit of an LWP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LwpUnit {
    pub(crate) place: Place,
    pub(crate) is_used: bool,
    pub(crate) is_known_initial: bool,
}

/// Where an LWP's state is. A clean link that does not hold never will again, since a serial is never given twice, so it says no
/// more than `Memory`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Nothing,
    Memory,
    Live(usize),
    Linked(usize),
}

/// One unit of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CpuUnit {
    pub(crate) owner: Option<usize>,
    pub(crate) serial: u64,
    pub(crate) residue: Residue,
    pub(crate) is_enabled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) lwps: [[LwpUnit; UNITS]; LWPS],
    pub(crate) serials: [[u64; UNITS]; LWPS],
    pub(crate) cpus: [[CpuUnit; UNITS]; CPUS],
    /// Per CPU, the note of a switch-in that found nothing to do: the LWP, and the mask of its units.
    pub(crate) settled: [Option<(usize, u32)>; CPUS],
}

impl Facts {
    pub(crate) fn of(world: &World) -> Self {
        let cpus: [[CpuUnit; UNITS]; CPUS] =
            std::array::from_fn(|cpu| std::array::from_fn(|unit| cpu_unit(world, cpu, unit)));
        let mut serials = [[0; UNITS]; LWPS];
        let lwps = std::array::from_fn(|lwp| {
            std::array::from_fn(|unit| {
                let view = world.lwp_state(lwp).view(unit_id(unit)).expect("a unit");
                let place = match (view.location, view.validity) {
                    (Location::Live(cpu, serial), _) => {
                        serials[lwp][unit] = serial;
                        Place::Live(cpu.index())
                    }
                    (_, Validity::Invalid) => Place::Nothing,
                    (Location::Clean(cpu, serial), _) if holds(&cpus, cpu, unit, serial) => {
                        Place::Linked(cpu.index())
                    }
                    _ => Place::Memory,
                };
                LwpUnit {
                    place,
                    is_used: view.is_used,
                    is_known_initial: view.is_known_initial,
                }
            })
        });
        let settled = std::array::from_fn(|cpu| {
            let (lwp, units) = world.cpu_state(cpu).settled()?;
            let lwp = (0..LWPS).find(|number| world.pointer(*number) == lwp);
            Some((lwp.expect("a settled LWP is alive"), units))
        });
        Self {
            lwps,
            serials,
            cpus,
            settled,
        }
    }
}

fn cpu_unit(world: &World, cpu: usize, unit: usize) -> CpuUnit {
    let view = world.cpu_state(cpu).view(unit_id(unit)).expect("a unit");
    let (owner, serial) = match view.registers {
        Registers::Live(owner, serial) => {
            let lwp = (0..LWPS).find(|lwp| world.pointer(*lwp) == owner);
            (Some(lwp.expect("I7: a live owner is alive")), serial)
        }
        Registers::Clean(serial) => (None, serial),
        _ => (None, 0),
    };
    CpuUnit {
        owner,
        serial,
        residue: view.residue,
        is_enabled: view.is_enabled,
    }
}

fn holds(cpus: &[[CpuUnit; UNITS]; CPUS], cpu: CpuId, unit: usize, serial: u64) -> bool {
    let entry = &cpus[cpu.index()][unit];
    entry.owner.is_none() && entry.serial == serial && serial != 0
}

/// Whose colours the registers have, under the numbers that `class` gives to domains.
pub(crate) fn colour(content: u64, class: impl Fn(u64) -> u8) -> u8 {
    if content == INITIAL {
        0
    } else {
        class(domain_of(content))
    }
}
