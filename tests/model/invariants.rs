//! I1-I7, as far as they show from outside, at the end of every stretch at `IPL_PCU`: this is where they must hold, and what one
//! CPU did in the stretch is what has changed since the last one.

use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};

use pcu9::kernel::CpuId;
use pcu9::pcu::{LeakRule, UnitId, UnitStats};
use pcu9_fake::{INITIAL, UNITS, World, cpu_id};

use super::run::{nth_unit, run, units};

/// What was to be seen at the end of the last stretch.
#[derive(Debug)]
pub(crate) struct Seen {
    cpus: Vec<CpuEntries>,
    lwps: Vec<[Place; UNITS]>,
}

/// A CPU's entries, all of them.
#[derive(Debug, PartialEq, Eq)]
struct CpuEntries {
    debug: u64,
    counters: [UnitStats; UNITS],
}

/// Where an LWP's state of a unit is.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    live: Option<usize>,
    word: u64,
}

/// Hashes what is written into it: nothing here needs the text.
#[derive(Default)]
struct Digest(DefaultHasher);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

fn digest(what: &impl fmt::Debug) -> u64 {
    let mut digest = Digest::default();
    write!(digest, "{what:?}").expect("a hash takes everything");
    digest.0.finish()
}

fn entries(world: &World, cpu: usize) -> CpuEntries {
    let pcu = &world.cpus[cpu].pcu;
    CpuEntries {
        debug: digest(pcu),
        counters: std::array::from_fn(|index| pcu.stats(nth_unit(index))),
    }
}

fn places(world: &World, lwp: usize) -> [Place; UNITS] {
    let pcu = &world.lwp(lwp).pcu;
    // One word a unit, as a list.
    let words = format!("{pcu:?}");
    let mut words = words.split(", ");
    std::array::from_fn(|index| Place {
        live: pcu.live_cpu(nth_unit(index)).map(CpuId::index),
        word: digest(&words.next()),
    })
}

impl Seen {
    pub(crate) fn new(world: &World) -> Self {
        Self {
            cpus: (0..world.cpus.len())
                .map(|cpu| entries(world, cpu))
                .collect(),
            lwps: (0..world.n_lwps()).map(|lwp| places(world, lwp)).collect(),
        }
    }

    /// The LWP is another one now.
    pub(crate) fn forget(&mut self, world: &World, lwp: usize) {
        self.lwps[lwp] = places(world, lwp);
    }
}

/// Everything, at the end of a stretch at `IPL_PCU` on `here`.
pub(crate) fn check(world: &World, here: usize) {
    check_writers(world, here);
    if let Some((cpu, unit)) = run(|run| run.keeps.take()) {
        let is_open = world.cpus[cpu].open[unit.index()].get();
        assert!(
            is_open,
            "cpu {cpu}: the owner asked for its unit, and lost it"
        );
    }
    for lwp in 0..world.n_lwps() {
        for unit in units() {
            check_state(world, lwp, unit);
        }
    }
    for cpu in 0..world.cpus.len() {
        for unit in units() {
            check_owner(world, cpu, unit);
            check_gate(world, cpu, unit);
        }
        check_registers(world, cpu);
        check_settled(world, cpu);
    }
}

/// What the note of a switch-in that found nothing to do says, is so.
fn check_settled(world: &World, cpu: usize) {
    let pcu = &world.cpus[cpu].pcu;
    let Some((lwp, settled)) = pcu.settled() else {
        return;
    };
    let mask = |holds: &dyn Fn(UnitId) -> bool| {
        let units = units().filter(|unit| holds(*unit));
        units.fold(0, |mask, unit| mask | 1 << unit.index())
    };
    let owned = mask(&|unit| pcu.owner(unit) == Some(lwp));
    assert!(owned != 0 && owned == settled, "cpu {cpu}: {pcu:?}");
    let open = mask(&|unit| pcu.is_enabled(unit));
    assert!(open == 0 || open == settled, "cpu {cpu}: {pcu:?}");
    assert!(!pcu.in_section(), "cpu {cpu}: {pcu:?}");
}

/// I1 and I2: what has changed was this CPU's to change.
fn check_writers(world: &World, here: usize) {
    for cpu in 0..world.cpus.len() {
        let now = entries(world, cpu);
        let was = run(|run| std::mem::replace(&mut run.seen.cpus[cpu], now));
        let is_same = run(|run| run.seen.cpus[cpu] == was);
        let debug = &world.cpus[cpu].pcu;
        assert!(
            cpu == here || is_same,
            "I1: cpu {here} wrote to cpu {cpu}'s entries: {debug:?}"
        );
    }
    for lwp in 0..world.n_lwps() {
        let now = places(world, lwp);
        let was = run(|run| std::mem::replace(&mut run.seen.lwps[lwp], now));
        let now = places(world, lwp);
        let is_current = world.current_on(here) == Some(lwp);
        let is_held = run(|run| run.held.contains(&lwp));
        for (was, now) in was.iter().zip(&now) {
            if was == now {
                continue;
            }
            let pcu = &world.lwp(lwp).pcu;
            let what = format!("by cpu {here}, lwp {lwp}: {pcu:?}");
            if let Some(now) = now.live {
                assert!(now == here && is_current, "I2: set {what}");
            }
            match was.live {
                Some(was) => assert_eq!(was, here, "I2: cleared {what}"),
                None => assert!(is_current || is_held, "I2: a stranger's changed {what}"),
            }
        }
    }
}

/// I3, seen from the LWP, and I4 and I6.
fn check_state(world: &World, lwp: usize, unit: UnitId) {
    let pcu = &world.lwp(lwp).pcu;
    if let Some(cpu) = pcu.live_cpu(unit) {
        let owner = world.cpus[cpu.index()].pcu.owner(unit);
        assert_eq!(owner, Some(world.pointer(lwp)), "I3: lwp {lwp}: {pcu:?}");
        assert!(pcu.valid_p(unit), "I6: lwp {lwp} is live and has no state");
    }
    let newest = newest(world, lwp, unit);
    assert!(
        run(|run| run.oracle.allows(lwp, unit, newest)),
        "I4: lwp {lwp} unit {} has {newest:#x}, not {:x?}: {pcu:?}",
        unit.index(),
        run(|run| format!("{:x?}", run.oracle)),
    );
}

/// The state of an LWP, found where its word says (I4).
pub(crate) fn newest(world: &World, lwp: usize, unit: UnitId) -> u64 {
    let index = unit.index();
    let pcu = &world.lwp(lwp).pcu;
    match pcu.live_cpu(unit) {
        Some(cpu) => world.cpus[cpu.index()].registers[index].get(),
        None if pcu.valid_p(unit) => world.lwp(lwp).memory[index].get(),
        None => INITIAL,
    }
}

/// I3, seen from the CPU, and I7.
fn check_owner(world: &World, cpu: usize, unit: UnitId) {
    let Some(owner) = world.cpus[cpu].pcu.owner(unit) else {
        return;
    };
    let lwp = (0..world.n_lwps()).find(|lwp| world.pointer(*lwp) == owner);
    let lwp = lwp.expect("I7: a live owner has exited");
    let pcu = &world.lwp(lwp).pcu;
    assert_eq!(
        pcu.live_cpu(unit),
        Some(cpu_id(cpu)),
        "I3: cpu {cpu}: lwp {lwp}: {pcu:?}"
    );
}

/// The gate is as its shadow says, and open over nobody's registers but the LWP's own.
fn check_gate(world: &World, cpu: usize, unit: UnitId) {
    let machine = &world.cpus[cpu];
    let is_open = machine.open[unit.index()].get();
    assert_eq!(
        is_open,
        machine.pcu.is_enabled(unit),
        "cpu {cpu}: the shadow of the gate"
    );
    let Some(lwp) = machine.current.get() else {
        return;
    };
    let is_owner = machine.pcu.owner(unit) == Some(world.pointer(lwp));
    if machine.pcu.in_section() {
        return; // The LWP is not in user mode; the section looks after its unit itself.
    }
    // Over a kernel thread without a state the gate stays as the last user left it.
    let asks_first = world.lwp(lwp).domain.get() == 0 && !world.lwp(lwp).pcu.valid_p(unit);
    assert!(
        !is_open || is_owner || asks_first,
        "cpu {cpu} unit {}: the gate is open over lwp {lwp}: {:?}",
        unit.index(),
        world.lwp(lwp).pcu
    );
}

/// I5, where an attacker would look: the registers under a user LWP.
fn check_registers(world: &World, cpu: usize) {
    let machine = &world.cpus[cpu];
    let Some(lwp) = machine.current.get() else {
        return;
    };
    if machine.pcu.in_section() {
        return;
    }
    let domain = world.lwp(lwp).domain.get();
    if world.pcu.leak_rule() != LeakRule::DomainAware || domain == 0 {
        return;
    }
    let mut seen = machine.registers.iter().map(std::cell::Cell::get);
    let leaked = seen.find(|seen| run(|run| !run.may_see(domain, *seen)));
    match leaked {
        None => run(|run| run.excused[cpu] = false),
        Some(leaked) => assert!(
            run(|run| run.excused[cpu]),
            "I5: cpu {cpu}: lwp {lwp} of domain {domain} runs over {leaked:#x}"
        ),
    }
}

/// The identities of `pcu::UnitStats`, while no operation is under way.
pub(crate) fn check_counters(world: &World) {
    for unit in units() {
        let sum = sum(world, unit);
        let has_owner = |cpu: &&pcu9_fake::Cpu| cpu.pcu.owner(unit).is_some();
        let n_owners = world.cpus.iter().filter(has_owner).count();
        let asked = sum.traps + sum.loads + sum.preloads;
        let reenabled = sum.reenables_trap + sum.reenables_load + sum.spurious;
        assert_eq!(
            asked,
            sum.inits + sum.restores + reenabled + sum.failed,
            "{sum:?}"
        );
        let gained = sum.inits + sum.restores + sum.elided_restores;
        assert_eq!(gained, sum.releases + n_owners as u64, "{sum:?}");
        assert!(sum.saves + sum.discards >= sum.releases, "{sum:?}");
        assert!(sum.xcalls >= sum.xcalls_raced, "{sum:?}");
    }
}

/// What happened to a unit on all CPUs.
pub(crate) fn sum(world: &World, unit: UnitId) -> UnitStats {
    let mut sum = UnitStats::default();
    world.cpus.iter().for_each(|cpu| sum += cpu.pcu.stats(unit));
    sum
}
