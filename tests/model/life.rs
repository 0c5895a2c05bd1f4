//! Fork, exec, exit, and the memory that LWPs leave; CPUs that stop and start.

use pcu9::kernel::Current;
use pcu9_fake::{INITIAL, Memory, UNITS, World};

use super::case::{ChildDomain, Fate, Hook, Restart};
use super::held::discard_all;
use super::invariants::newest;
use super::operations::assert_silent;
use super::run::{run, switch, units};

pub(crate) fn fork(
    world: &World,
    cpu: usize,
    parent: usize,
    child: usize,
    memory: Option<Memory>,
    domain: ChildDomain,
    fate: Fate,
) {
    world.here.set(cpu);
    if memory.is_some_and(|memory| !bury(world, child, memory)) {
        return;
    }
    if memory.is_some() && domain == ChildDomain::Parents {
        let parents = world.lwp(parent).domain.get();
        world.lwp(child).domain.set(parents);
    }
    let childs = world.lwp(child).domain.get();
    let states: Vec<_> = units()
        .map(|unit| run(|run| run.oracle.state(parent, unit)))
        .collect();
    for (unit, state) in units().zip(&states) {
        run(|run| {
            run.oracle.may_have(child, unit, INITIAL);
            run.oracle.may_have(child, unit, *state);
            run.add_viewer(*state, childs);
        });
    }
    let result = world
        .pcu
        .fork(&mut world.running(parent), &mut world.stopped(child));
    if let Err(error) = result {
        assert_silent(world, error);
    }
    for (unit, state) in units().zip(states) {
        let inherited = newest(world, child, unit);
        run(|run| {
            // A child that did not get everything has nothing; but one that has run may be live on a CPU that does not answer.
            let whole = match result {
                Ok(()) => state,
                Err(_) if memory.is_some() => INITIAL,
                Err(_) => inherited,
            };
            run.oracle.has(child, unit, whole);
            run.oracle.reads(child, unit, inherited);
        });
    }
    if result.is_err() || fate == Fate::NeverRuns {
        let is_buried = bury(world, child, memory.unwrap_or(Memory::Reused));
        let has_run = memory.is_none();
        assert!(
            is_buried || has_run,
            "a child that never ran is live nowhere"
        );
    }
}

/// Ends a held LWP and reuses its number and, perhaps, its memory; says whether that could be done.
fn bury(world: &World, lwp: usize, memory: Memory) -> bool {
    let mut result = Ok(());
    discard_all(world, lwp, |world| {
        result = world.pcu.discard_all(&mut world.stopped(lwp));
        result
    });
    if result.is_ok() {
        succeed(world, lwp, memory);
    }
    result.is_ok()
}

/// A new LWP takes the place of one that has ended. Kernel threads are followed by kernel threads.
fn succeed(world: &World, lwp: usize, memory: Memory) {
    let is_kernel_thread = world.lwp(lwp).domain.get() == 0;
    world.replace(lwp, memory);
    if is_kernel_thread {
        world.lwp(lwp).domain.set(0);
    }
    run(|run| run.seen.forget(world, lwp));
}

/// Kernel threads become processes by it.
pub(crate) fn exec(world: &World, cpu: usize, lwp: usize) {
    let change_domain = || {
        world.lwp(lwp).domain.set(world.new_domain());
        // Its areas are part of what it had.
        world
            .lwp(lwp)
            .memory
            .iter()
            .for_each(|memory| memory.set(INITIAL));
    };
    let mut current = world.current(cpu);
    discard_all(world, lwp, |world| {
        world.pcu.exec(&mut current, change_domain)
    });
}

pub(crate) fn exit(world: &World, cpu: usize, lwp: usize, memory: Memory) {
    let current: Current<'_, World, UNITS> = world.current(cpu);
    let mut result = Ok(());
    discard_all(world, lwp, |world| {
        result = world.pcu.exit(current);
        result
    });
    if result.is_ok() {
        let cpu = world.cpu_of(lwp).expect("it goes on somewhere");
        switch(world, cpu, None, Hook::Called);
        succeed(world, lwp, memory);
    }
}

/// The hardware of a CPU starts over, as firmware and `init_cpu` leave it. A CPU that was not told to stop takes what was live on
/// it along: that happens while nobody is in the middle of anything.
pub(crate) fn restart(world: &World, cpu: usize, how: Restart) {
    if how == Restart::Untold && !run(|run| run.busy.is_empty()) {
        return;
    }
    world.here.set(cpu);
    let ipl = world.raise();
    let machine = &world.cpus[cpu];
    if how == Restart::Told {
        world.pcu.cpu_offline(&ipl);
    }
    let owners: Vec<_> = units()
        .filter_map(|unit| Some((machine.pcu.owner(unit)?, unit)))
        .collect();
    for unit in units() {
        assert!(how == Restart::Untold || !machine.open[unit.index()].get());
        machine.registers[unit.index()].set(INITIAL);
        machine.open[unit.index()].set(false);
    }
    let mut lost = Vec::new();
    world
        .pcu
        .cpu_online(&ipl, |lwp, unit| lost.push((lwp, unit)));
    assert_eq!(lost, owners, "each loss is told, and nothing else");
    assert!(lost.is_empty() || how == Restart::Untold);
    for (lwp, unit) in lost {
        // SAFETY: LWPs live as long as the world.
        let number = unsafe { lwp.as_ref() }.number;
        run(|run| run.oracle.has(number, unit, INITIAL));
    }
    drop(ipl);
}
