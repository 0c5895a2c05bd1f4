//! What every LWP must see, and the checks against it between any two steps.

use std::cell::RefCell;

use pcu9::pcu::{LeakRule, UnitId, UnitStats};
use pcu9_fake::{INITIAL, UNITS, World, cpu_id, domain_of, unit};

thread_local! {
    pub(crate) static ORACLE: RefCell<Oracle> = RefCell::default();
}

/// What every LWP must see, and which LWPs are in the middle of something.
#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) expected: Vec<[u64; UNITS]>,
    pub(crate) busy: Vec<usize>,
    pub(crate) depth: usize,
    pub(crate) writes: u32,
    /// No policy is changed, nothing fails, and every return to user mode calls its hook.
    pub(crate) steady: bool,
}

pub(crate) fn oracle<R>(f: impl FnOnce(&mut Oracle) -> R) -> R {
    ORACLE.with_borrow_mut(f)
}

pub(crate) fn expect(lwp: usize, unit: UnitId, value: u64) {
    oracle(|oracle| oracle.expected[lwp][unit.index()] = value);
}

pub(crate) fn expected(lwp: usize, unit: UnitId) -> u64 {
    oracle(|oracle| oracle.expected[lwp][unit.index()])
}

pub(crate) fn units() -> impl Iterator<Item = UnitId> {
    (0..UNITS).map(|index| unit(u8::try_from(index).unwrap()))
}

pub(crate) fn any_unit() -> UnitId {
    unit(fastrand::u8(..u8::try_from(UNITS).unwrap()))
}

/// I3, I4, I5 and the gates, everywhere, between any two operations.
pub(crate) fn check(world: &World) {
    for lwp in 0..world.n_lwps() {
        for unit in units() {
            let memory = world.lwp(lwp).memory[unit.index()].get();
            let pcu = &world.lwp(lwp).pcu;
            let newest = match pcu.live_cpu(unit) {
                Some(cpu) => {
                    assert_eq!(
                        world.cpus[cpu.index()].pcu.owner(unit),
                        Some(world.pointer(lwp)),
                        "I3"
                    );
                    world.cpus[cpu.index()].registers[unit.index()].get()
                }
                None if pcu.valid_p(unit) => memory,
                None => INITIAL,
            };
            let in_the_middle = oracle(|oracle| oracle.busy.contains(&lwp))
                || world.cpu_of(lwp) == Some(world.here.get());
            if !in_the_middle {
                assert_eq!(
                    newest,
                    expected(lwp, unit),
                    "I4: lwp {lwp} unit {}: {pcu:?}",
                    unit.index()
                );
            }
        }
    }
    for (number, cpu) in world.cpus.iter().enumerate() {
        let current = cpu.current.get();
        for unit in units() {
            let owner = cpu.pcu.owner(unit);
            if let Some(owner) = owner {
                let lwp = (0..world.n_lwps())
                    .find(|lwp| world.pointer(*lwp) == owner)
                    .expect("I7: a live owner is alive");
                assert_eq!(
                    world.lwp(lwp).pcu.live_cpu(unit),
                    Some(cpu_id(number)),
                    "I3"
                );
            }
            let open = cpu.open[unit.index()].get();
            assert_eq!(open, cpu.pcu.is_enabled(unit), "the shadow of the gate");
            let Some(lwp) = current else { continue };
            let is_owner = owner == Some(world.pointer(lwp));
            assert!(
                !open || is_owner || world.lwp(lwp).domain.get() == 0,
                "open for lwp {lwp}"
            );
        }
    }
}

/// I5, where an attacker would look: the registers under every LWP that could be in user mode now.
pub(crate) fn check_leaks(world: &World) {
    if world.pcu.leak_rule() != LeakRule::DomainAware {
        return;
    }
    for cpu in &world.cpus {
        let Some(lwp) = cpu.current.get() else {
            continue;
        };
        let domain = world.lwp(lwp).domain.get();
        for unit in units() {
            let seen = cpu.registers[unit.index()].get();
            let own = seen == INITIAL || domain_of(seen) == domain || seen == expected(lwp, unit);
            assert!(
                own || domain == 0,
                "I5: lwp {lwp} of domain {domain} runs over {seen:#x}"
            );
        }
    }
}

/// The identities of `pcu::UnitStats`.
pub(crate) fn check_stats(world: &World) {
    for unit in units() {
        let mut sum = UnitStats::default();
        world.cpus.iter().for_each(|cpu| sum += cpu.pcu.stats(unit));
        let owners = world
            .cpus
            .iter()
            .filter(|cpu| cpu.pcu.owner(unit).is_some())
            .count();
        let served = sum.inits
            + sum.restores
            + sum.reenables_trap
            + sum.reenables_load
            + sum.spurious
            + sum.failed;
        assert_eq!(sum.traps + sum.loads + sum.preloads, served, "{sum:?}");
        let gained = sum.inits + sum.restores + sum.elided_restores;
        assert_eq!(gained, sum.releases + owners as u64, "{sum:?}");
        assert!(sum.saves + sum.discards >= sum.releases, "{sum:?}");
        assert!(sum.xcalls >= sum.xcalls_raced, "{sum:?}");
    }
}
