//! The random operations, and the preemption that comes between.

use pcu9::kernel::{Held, NoAnswer};
use pcu9::pcu::{CoreDump, LeakRule, Policy, PolicyError, UnitId, Validity, WriteBackAtIdle};
use pcu9_fake::{INITIAL, TRUSTING, UNITS, World, cpu_id, value};

use super::oracle::{any_unit, check, expect, expected, oracle, units};

/// What kernel threads write, so that a user LWP that sees it is noticed.
const KERNEL: u64 = u32::MAX as u64;

/// An LWP that runs nowhere and is in the middle of nothing.
fn any_stopped(world: &World) -> Option<usize> {
    let is_free = |lwp: &usize| world.cpu_of(*lwp).is_none() && oracle(|o| !o.busy.contains(lwp));
    fastrand::choice((0..world.n_lwps()).filter(is_free).collect::<Vec<_>>())
}

fn switch(world: &World) {
    let next = if fastrand::u8(..5) == 0 {
        None
    } else {
        any_stopped(world)
    };
    world.switch(fastrand::usize(..world.cpus.len()), next);
}

/// A new value of the LWP that runs on `cpu`.
fn fresh(world: &World, lwp: usize) -> u64 {
    let domain = match world.lwp(lwp).domain.get() {
        0 => KERNEL,
        domain => domain,
    };
    value(
        domain,
        oracle(|oracle| {
            oracle.writes += 1;
            oracle.writes
        }),
    )
}

/// The level was lowered: let somebody else run, let others do something, come back anywhere.
pub(crate) fn preempt(world: &World) {
    check(world);
    if oracle(|oracle| oracle.depth) >= 2 || fastrand::u8(..3) == 0 {
        return;
    }
    let cpu = world.here.get();
    let Some(lwp) = world.current_on(cpu) else {
        return;
    };
    oracle(|oracle| {
        oracle.busy.push(lwp);
        oracle.depth += 1;
    });
    world.on_lowering(preempt);
    world.switch(cpu, any_stopped(world));
    for _ in 0..fastrand::u8(..4) {
        act(world);
    }
    let back_on = fastrand::usize(..world.cpus.len());
    world.switch(back_on, Some(lwp));
    oracle(|oracle| {
        assert_eq!(oracle.busy.pop(), Some(lwp));
        oracle.depth -= 1;
    });
}

/// One random operation of an LWP that runs somewhere.
pub(crate) fn act(world: &World) {
    let cpu = fastrand::usize(..world.cpus.len());
    let Some(lwp) = world.current_on(cpu) else {
        return switch(world);
    };
    let unit = any_unit();
    match fastrand::u8(..25) {
        0..4 => switch(world),
        4..10 => use_unit(world, cpu, lwp, unit),
        // Something closed the hardware's gate behind the core's back: firmware, or a "bouncing" instruction.
        10 if world.traps(unit) && world.cpus[cpu].pcu.owner(unit) == Some(world.pointer(lwp)) => {
            world.cpus[cpu].open[unit.index()].set(false);
            world.trap(cpu, unit).unwrap();
        }
        11 => {
            let _ = world.pcu.load(&mut world.current(cpu), unit);
        }
        12 => drop(world.pcu.save(&mut world.current(cpu), unit)),
        13 => drop(world.pcu.save_all(&mut world.current(cpu), any_dump())),
        14 => replace_image(world, lwp, unit, &mut world.current(cpu)),
        15 => discard(world, lwp, unit, &mut world.current(cpu)),
        16 => {
            let result = world.pcu.discard_all(&mut world.current(cpu));
            after_discard_all(world, lwp, result);
        }
        17 => {
            world.here.set(cpu);
            world.pcu.save_all_on_cpu(&world.raise());
        }
        18 => fork(world, cpu, lwp),
        19 => exec(world, cpu, lwp),
        20 => exit(world, cpu, lwp),
        21 => on_stopped(world, cpu, unit),
        22 if oracle(|oracle| oracle.depth == 0 && !oracle.steady) => disturb(world, lwp, unit),
        10 => {}
        23 if oracle(|oracle| !oracle.steady) => change_rules(world, cpu, lwp, unit),
        _ => world.return_to_user(lwp),
    }
}

fn any_dump() -> CoreDump {
    if fastrand::bool() {
        CoreDump::Yes
    } else {
        CoreDump::No
    }
}

fn use_unit(world: &World, cpu: usize, lwp: usize, unit: UnitId) {
    let write = fresh(world, lwp);
    // Over a kernel thread without a state the gate stays as it is: it asks for one before it uses the unit.
    let must_ask = world.lwp(lwp).domain.get() == 0 && !world.lwp(lwp).pcu.valid_p(unit);
    if must_ask && world.pcu.load(&mut world.current(cpu), unit).is_err() {
        return;
    }
    if !world.traps(unit) || oracle(|oracle| oracle.steady) || fastrand::bool() {
        world.return_to_user(lwp);
    }
    let cpu = world.cpu_of(lwp).unwrap();
    if !world.traps(unit) && world.cpus[cpu].pcu.owner(unit) != Some(world.pointer(lwp)) {
        // Its area was refused or its image bad: a kernel would end it here.
        return;
    }
    if let Ok(seen) = world.use_unit(cpu, unit, write) {
        assert_eq!(
            seen,
            expected(lwp, unit),
            "lwp {lwp} reads unit {}",
            unit.index()
        );
        expect(lwp, unit, write);
    }
}

/// The manner of ptrace and sigreturn: throw the registers away, then write memory.
fn replace_image(world: &World, lwp: usize, unit: UnitId, held: &mut impl Held<World, UNITS>) {
    // In the middle of it there is no state: what was there is gone, what comes is not there yet.
    let image = fresh(world, lwp);
    let write = || {
        world.lwp(lwp).memory[unit.index()].set(image);
        expect(lwp, unit, image);
        Ok::<(), NoAnswer>(())
    };
    if world.pcu.replace(held, unit, write).is_err() {
        // Nothing was written, or it was written and another CPU holds the registers: neither happens to a trapping unit.
        assert_ne!(expected(lwp, unit), image);
    }
}

fn discard(world: &World, lwp: usize, unit: UnitId, held: &mut impl Held<World, UNITS>) {
    if world.pcu.discard(held, unit, Validity::Invalid).is_ok() {
        expect(lwp, unit, INITIAL);
    }
}

fn after_discard_all(world: &World, lwp: usize, result: Result<(), NoAnswer>) {
    for unit in units() {
        // A unit whose use does not trap may have its initial state again already.
        let valid = world.lwp(lwp).pcu.valid_p(unit);
        if result.is_ok() || !valid {
            expect(lwp, unit, INITIAL);
        }
        assert!(
            result.is_err() || !valid || !world.traps(unit),
            "valid after discard_all"
        );
    }
}

fn fork(world: &World, cpu: usize, parent: usize) {
    let Some(child) = any_stopped(world) else {
        return;
    };
    oracle(|oracle| oracle.busy.push(child));
    world.here.set(cpu);
    if bury(world, child) {
        let domain = if fastrand::bool() {
            world.lwp(parent).domain.get()
        } else {
            world.new_domain()
        };
        world.lwp(child).domain.set(domain);
        let mut token = world.stopped(child);
        let forked = world.pcu.fork(&mut world.running(parent), &mut token);
        for unit in units() {
            let memory = &world.lwp(child).memory[unit.index()];
            let valid = world.lwp(child).pcu.valid_p(unit);
            if forked.is_ok() {
                let inherited = if valid { memory.get() } else { INITIAL };
                assert_eq!(
                    inherited,
                    expected(parent, unit),
                    "the child's unit {}",
                    unit.index()
                );
            }
            // From here on the copy is the child's own, and in its colours.
            if valid {
                memory.set(fresh(world, child));
            }
            expect(child, unit, if valid { memory.get() } else { INITIAL });
        }
        if forked.is_err() {
            assert!(bury(world, child), "a child that never ran is live nowhere");
        }
    }
    oracle(|oracle| oracle.busy.retain(|busy| *busy != child));
}

/// Ends an LWP that runs nowhere and reuses its memory; says whether that could be done.
fn bury(world: &World, lwp: usize) -> bool {
    let result = world.pcu.discard_all(&mut world.stopped(lwp));
    after_discard_all(world, lwp, result);
    if result.is_ok() {
        let domain = world.lwp(lwp).domain.get();
        world.replace(lwp);
        if domain == 0 {
            world.lwp(lwp).domain.set(0);
        }
    }
    result.is_ok()
}

fn exec(world: &World, cpu: usize, lwp: usize) {
    if world.lwp(lwp).domain.get() == 0 {
        return;
    }
    let change_domain = || world.lwp(lwp).domain.set(world.new_domain());
    let result = world.pcu.exec(&mut world.current(cpu), change_domain);
    after_discard_all(world, lwp, result);
}

fn exit(world: &World, cpu: usize, lwp: usize) {
    if world.pcu.exit(world.current(cpu)).is_err() {
        return after_discard_all(world, lwp, Err(NoAnswer(cpu_id(0))));
    }
    after_discard_all(world, lwp, Ok(()));
    world.switch(world.cpu_of(lwp).unwrap(), None);
    if oracle(|oracle| !oracle.busy.contains(&lwp)) {
        world.replace(lwp);
    }
}

/// What ptrace and a debugger do to a stopped LWP, whose state may be live on any CPU.
fn on_stopped(world: &World, cpu: usize, unit: UnitId) {
    let Some(lwp) = any_stopped(world) else {
        return;
    };
    oracle(|oracle| oracle.busy.push(lwp));
    world.here.set(cpu);
    let mut stopped = world.stopped(lwp);
    match fastrand::u8(..4) {
        0 => discard(world, lwp, unit, &mut stopped),
        1 => replace_image(world, lwp, unit, &mut stopped),
        2 => {
            if world.pcu.save(&mut stopped, unit).is_ok() && world.lwp(lwp).pcu.valid_p(unit) {
                assert_eq!(
                    world.lwp(lwp).memory[unit.index()].get(),
                    expected(lwp, unit),
                    "saved"
                );
            }
        }
        _ => {
            if world.pcu.save_all(&mut stopped, any_dump()).is_ok() {
                for unit in units().filter(|unit| world.lwp(lwp).pcu.valid_p(*unit)) {
                    assert_eq!(
                        world.lwp(lwp).memory[unit.index()].get(),
                        expected(lwp, unit),
                        "saved"
                    );
                }
            }
        }
    }
    oracle(|oracle| oracle.busy.retain(|busy| *busy != lwp));
}

/// CPUs that fall silent, areas that are refused, images that the processor refuses.
fn disturb(world: &World, lwp: usize, unit: UnitId) {
    let flip = |cell: &std::cell::Cell<bool>| cell.set(!cell.get());
    match fastrand::u8(..3) {
        0 => world.deaf.set(if world.deaf.get() == 0 {
            1 << fastrand::u8(..4)
        } else {
            0
        }),
        1 => flip(&world.lwp(lwp).bad_image),
        _ if world.lwp(lwp).pcu.valid_p(unit) => {}
        _ => flip(&world.lwp(lwp).refuses_area),
    }
}

/// Another policy for a unit or an LWP, another leak rule, another option.
fn change_rules(world: &World, cpu: usize, lwp: usize, unit: UnitId) {
    let deaf = world.deaf.replace(0);
    let all = (0..world.cpus.len()).map(cpu_id);
    let policy = fastrand::choice(Policy::ALL).unwrap();
    match fastrand::u8(..8) {
        0 => {
            let rule = if fastrand::bool() {
                TRUSTING
            } else {
                LeakRule::DomainAware
            };
            world
                .pcu
                .set_leak_rule(&mut world.current(cpu), all, rule)
                .unwrap();
        }
        1..3 => set_policy(world, cpu, unit, policy),
        3..5 => {
            let own = fastrand::bool().then_some(policy);
            world
                .pcu
                .set_lwp_policy(&mut world.running(lwp), own)
                .unwrap();
        }
        5 => {
            let wanted = if fastrand::bool() {
                WriteBackAtIdle::On
            } else {
                WriteBackAtIdle::Off
            };
            world.pcu.set_write_back_at_idle(wanted);
        }
        _ => {}
    }
    world.deaf.set(deaf);
}

fn set_policy(world: &World, cpu: usize, unit: UnitId, policy: Policy) {
    let all = (0..world.cpus.len()).map(cpu_id);
    let result = world
        .pcu
        .set_policy(&mut world.current(cpu), all, unit, policy);
    let needs_traps = policy.needs_traps() && !world.traps(unit);
    let expected = if needs_traps {
        Err(PolicyError::NeedsTraps(unit))
    } else {
        Ok(())
    };
    assert_eq!(result, expected);
}
