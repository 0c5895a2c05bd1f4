//! What may lie in the registers under whom, and what happens when a load fails.

use pcu9::pcu::{LeakRule, LoadError, StateError, UnitStats};
use pcu9_fake::{INITIAL, TRUSTING, World, cpu_id};

use super::{FPU, sum, write};

#[test]
fn exec_starts_over_and_leaves_nothing_of_the_old_domain() {
    let world = World::new(2, 1, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    let change_domain = || world.lwp(0).domain.set(world.new_domain());
    world
        .pcu
        .exec(&mut world.current(0), change_domain)
        .unwrap();
    assert_eq!(
        (
            world.cpus[0].registers[0].get(),
            world.cpus[0].open[0].get()
        ),
        (INITIAL, false)
    );
    assert_eq!(write(&world, 0, 8), INITIAL);
}

#[test]
fn another_domain_finds_the_registers_wiped_and_the_owner_loses_nothing() {
    let world = World::new(1, 2, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    assert_eq!(world.cpus[0].registers[0].get(), INITIAL);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), 7);
    assert_eq!(sum(&world).wipes, 1);
}

#[test]
fn a_wipe_is_not_needed_within_a_domain_or_over_kernel_threads_and_idle() {
    let world = World::new(1, 3, 1, LeakRule::DomainAware);
    world.lwp(1).domain.set(world.lwp(0).domain.get());
    world.lwp(2).domain.set(0);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    for next in [Some(1), Some(2), None, Some(0)] {
        world.switch(0, next);
    }
    assert_eq!(write(&world, 0, 8), 7);
    let UnitStats {
        wipes,
        saves,
        traps,
        ..
    } = sum(&world);
    assert_eq!((wipes, saves, traps), (0, 0, 1));
}

#[test]
fn over_kernel_threads_and_idle_the_gate_stays_as_it_is() {
    let world = World::new(1, 2, 1, LeakRule::DomainAware);
    world.lwp(1).domain.set(0);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    for next in [Some(1), None, Some(1), Some(0)] {
        world.switch(0, next);
        assert!(world.cpus[0].open[0].get(), "{next:?}");
    }
    assert_eq!(sum(&world).reenables_switch, 0);
}

/// Registers outlive owners: exit and discard leave what another domain must not see.
#[test]
fn what_an_exited_lwp_left_is_wiped_before_another_domain_runs() {
    let world = World::new(1, 2, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.pcu.exit(world.current(0)).unwrap();
    assert_eq!(world.cpus[0].registers[0].get(), 7, "left behind");
    world.switch(0, Some(1));
    assert_eq!(world.cpus[0].registers[0].get(), INITIAL);
}

#[test]
fn before_user_finds_a_domain_that_changed_without_a_switch() {
    let world = World::new(1, 1, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.lwp(0).domain.set(world.new_domain());
    let mut current = world.current(0);
    drop(world.pcu.before_user(world.raise(), &mut current));
    assert_eq!(world.cpus[0].registers[0].get(), INITIAL);
}

#[test]
fn a_changed_leak_rule_holds_on_every_cpu_at_once() {
    let world = World::new(2, 4, 1, TRUSTING);
    for cpu in 0..2 {
        world.switch(cpu, Some(cpu));
        write(&world, cpu, 7);
        world.switch(cpu, Some(cpu + 2));
        assert_eq!(world.cpus[cpu].registers[0].get(), 7, "trusting leaves it");
    }
    let all = [cpu_id(0), cpu_id(1)];
    world
        .pcu
        .set_leak_rule(&mut world.current(0), all, LeakRule::DomainAware)
        .unwrap();
    for cpu in &world.cpus {
        assert_eq!(
            (cpu.registers[0].get(), cpu.open[0].get()),
            (INITIAL, false)
        );
    }
    assert_eq!(world.pcu.leak_rule(), LeakRule::DomainAware);
}

#[test]
fn a_refused_area_and_a_bad_image_are_errors_that_leak_nothing() {
    let world = World::new(1, 2, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    world.lwp(1).refuses_area.set(true);
    assert_eq!(
        world.use_unit(0, FPU, 9),
        Err(LoadError::State(StateError::Refused))
    );
    assert_eq!(
        (
            world.cpus[0].registers[0].get(),
            world.cpus[0].open[0].get()
        ),
        (INITIAL, false)
    );
    world.lwp(0).bad_image.set(true);
    world.switch(0, Some(0));
    assert_eq!(
        world.use_unit(0, FPU, 9),
        Err(LoadError::State(StateError::BadImage))
    );
    assert_eq!(
        (
            world.cpus[0].registers[0].get(),
            world.cpus[0].pcu.owner(FPU)
        ),
        (INITIAL, None)
    );
    world.lwp(0).bad_image.set(false);
    assert_eq!(write(&world, 0, 8), 7, "the saved state is still there");
    assert_eq!(sum(&world).failed, 2);
}

/// Whoever opened the gate keeps it: the owner's registers are still its own.
#[test]
fn a_failing_reenable_leaves_the_gate_as_it_was() {
    let world = World::new(1, 2, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.lwp(0).fails_reenable.set(true);
    let refused = Err(LoadError::State(StateError::Refused));
    assert_eq!(world.pcu.load(&mut world.current(0), FPU), refused);
    assert!(world.cpus[0].open[0].get(), "it was open");
    world.pcu.save(&mut world.current(0), FPU).unwrap();
    world.lwp(0).fails_reenable.set(false);
    write(&world, 0, 8);
    // Firmware closes the hardware's gate: the trap's shadow is closed then, and stays so.
    world.cpus[0].open[0].set(false);
    world.lwp(0).fails_reenable.set(true);
    assert_eq!(world.trap(0, FPU), refused);
    assert!(!world.cpus[0].open[0].get(), "it was closed");
    world.lwp(0).fails_reenable.set(false);
    assert_eq!(write(&world, 0, 9), 8, "the registers are still its own");
    assert_eq!(sum(&world).failed, 2);
}
