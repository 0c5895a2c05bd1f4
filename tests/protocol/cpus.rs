//! A CPU goes offline and comes back, or is lost with what was live on it. Where nothing else is said: plain pcu(9).

use corosensei::{Coroutine, Yielder};
use pcu9::pcu::{LeakRule, Policy, UnitStats};
use pcu9_fake::{INITIAL, TRUSTING, UNITS, World, unit};

use super::{DSP, FPU, sum, write};

fn offline(world: &World, cpu: usize) {
    world.here.set(cpu);
    world.pcu.cpu_offline(&world.raise());
}

/// What firmware and `init_cpu` do: all gates closed, all registers initial. Then the crate is told; who lost which unit?
fn reset_and_online(world: &World, cpu: usize) -> Vec<(usize, usize)> {
    let machine = &world.cpus[cpu];
    for index in 0..UNITS {
        machine.registers[index].set(INITIAL);
        machine.open[index].set(false);
    }
    world.here.set(cpu);
    let mut lost = Vec::new();
    world.pcu.cpu_online(&world.raise(), |lwp, unit| {
        // SAFETY: valid until this returns.
        lost.push((unsafe { lwp.as_ref() }.number, unit.index()));
    });
    lost
}

#[test]
fn offline_leaves_nothing_and_everybody_keeps_their_state() {
    for rule in [TRUSTING, LeakRule::DomainAware] {
        let world = World::new(2, 2, 2, rule);
        world.switch(0, Some(0));
        write(&world, 0, 7);
        world.use_unit(0, DSP, 70).unwrap();
        offline(&world, 0);
        let cpu = &world.cpus[0];
        for index in 0..2 {
            assert_eq!(cpu.pcu.owner(unit(index)), None);
            assert!(!cpu.open[usize::from(index)].get());
            assert_eq!(cpu.registers[usize::from(index)].get(), INITIAL);
        }
        // The LWP that was current there goes on elsewhere, without asking a CPU that is gone.
        cpu.current.set(None);
        world.deaf.set(1);
        world.switch(1, Some(0));
        assert_eq!(write(&world, 1, 8), 7);
        assert_eq!(world.use_unit(1, DSP, 80), Ok(70));
        assert_eq!(sum(&world).xcalls, 0);
    }
}

/// Exit leaves registers that are nobody's, and a CPU that is offline does not run the LWP that would have them wiped.
#[test]
fn offline_wipes_what_nobody_owns() {
    let world = World::new(1, 1, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.pcu.discard_all(&mut world.current(0)).unwrap();
    assert_eq!(world.cpus[0].registers[0].get(), 7);
    offline(&world, 0);
    assert_eq!(world.cpus[0].registers[0].get(), INITIAL);
    let UnitStats { saves, .. } = sum(&world);
    assert_eq!(saves, 0);
}

#[test]
fn after_online_the_first_use_traps_and_nobody_has_lost_anything() {
    let world = World::new(1, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    offline(&world, 0);
    assert_eq!(reset_and_online(&world, 0), []);
    world.switch(0, Some(0));
    assert!(!world.cpus[0].open[0].get());
    assert_eq!(write(&world, 0, 8), 7);
}

/// A word that still names this CPU and an old serial must not fit what is loaded after the return.
#[test]
fn clean_links_do_not_survive_and_serials_go_on() {
    for is_told in [true, false] {
        let world = World::with_policy(1, 2, 1, TRUSTING, Policy::Deferred);
        world.switch(0, Some(0));
        write(&world, 0, 7);
        world.switch(0, None);
        if is_told {
            offline(&world, 0);
        }
        assert_eq!(reset_and_online(&world, 0), [], "clean: memory has it");
        world.switch(0, Some(1));
        assert_eq!(write(&world, 0, 9), INITIAL);
        world.switch(0, Some(0));
        assert_eq!(write(&world, 0, 8), 7);
    }
}

#[test]
fn what_was_live_on_a_cpu_that_is_lost_is_named_and_initial() {
    let world = World::new(2, 2, 2, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.use_unit(0, DSP, 70).unwrap();
    world.switch(0, Some(1));
    write(&world, 0, 9);
    world.switch(0, None);
    world.deaf.set(1);
    world.switch(1, Some(0));
    assert!(world.use_unit(1, DSP, 80).is_err(), "it does not answer");
    world.switch(1, None);
    world.deaf.set(0);
    assert_eq!(reset_and_online(&world, 0), [(1, 0), (0, 1)]);
    // The first LWP's other unit was saved when the second took it.
    world.switch(1, Some(0));
    assert_eq!(write(&world, 1, 8), 7);
    assert_eq!(world.use_unit(1, DSP, 80), Ok(INITIAL));
    world.switch(1, Some(1));
    assert_eq!(write(&world, 1, 10), INITIAL);
    let UnitStats {
        releases,
        discards,
        saves,
        ..
    } = sum(&world);
    assert!(releases <= saves + discards);
    assert_eq!(discards, 1);
}

/// The shadow of the gate is the old hardware's, and so is a section that was under way.
#[test]
fn what_was_known_of_the_hardware_is_forgotten() {
    let world: &'static World = Box::leak(World::new(1, 2, 1, LeakRule::DomainAware));
    world.switch(0, Some(0));
    write(world, 0, 7);
    assert!(world.cpus[0].pcu.is_enabled(FPU));
    assert_eq!(reset_and_online(world, 0), [(0, 0)]);
    assert!(!world.cpus[0].pcu.is_enabled(FPU));
    let wipes = sum(world).wipes;
    world.switch(0, Some(1));
    assert_eq!(sum(world).wipes, wipes, "nobody's bits are left");

    // Nobody comes back to the end of a section that was under way: its stack is of no use any more.
    let mut section = Coroutine::new(move |yielder: &Yielder<(), ()>, ()| {
        let mut lwp = world.current(0);
        let _ = world.pcu.section(&mut lwp, FPU, |_| yielder.suspend(()));
    });
    section.resume(());
    assert!(world.cpus[0].pcu.in_section());
    world.cpus[0].registers[0].set(0xfeed);
    std::mem::forget(section);
    assert_eq!(reset_and_online(world, 0), []);
    assert!(!world.cpus[0].pcu.in_section());
    world.switch(0, Some(0));
    assert_eq!(write(world, 0, 8), INITIAL);
    assert_eq!(write(world, 0, 9), 8);
}
