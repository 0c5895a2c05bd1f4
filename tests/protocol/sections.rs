//! The kernel's own use of a unit: nothing lost, nothing leaked, in LWPs and in interrupts.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pcu9::pcu::{LeakRule, Policy, SectionError, UnitId};
use pcu9_fake::{INITIAL, TRUSTING, World, cpu_id, unit};

use super::{DSP, FPU, sum, write};

/// What the kernel leaves in the registers of the CPU that executes.
const KERNEL: u64 = 0xdead;

fn clobber(world: &World, unit: UnitId) {
    assert!(world.here().open[unit.index()].get(), "the gate is closed");
    world.here().registers[unit.index()].set(KERNEL);
}

#[test]
fn the_lwps_own_state_survives_and_its_next_use_traps() {
    let world = World::new(1, 1, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    let seen = world.pcu.section(&mut world.current(0), FPU, |section| {
        assert_eq!(section.unit(), FPU);
        let seen = world.here().registers[0].get();
        clobber(&world, FPU);
        seen
    });
    assert_eq!(seen, Ok(INITIAL));
    let cpu = world.here();
    assert_eq!(
        (cpu.registers[0].get(), cpu.open[0].get()),
        (INITIAL, false)
    );
    assert_eq!(write(&world, 0, 8), 7);
    assert_eq!((sum(&world).sections, sum(&world).traps), (1, 2));
}

#[test]
fn a_foreign_owner_keeps_its_state() {
    for rule in [LeakRule::DomainAware, TRUSTING] {
        let world = World::new(2, 2, 1, rule);
        world.switch(0, Some(0));
        write(&world, 0, 7);
        world.lwp(1).domain.set(0);
        world.switch(0, Some(1));
        let inside = || clobber(&world, FPU);
        world
            .pcu
            .section(&mut world.current(0), FPU, |_| inside())
            .unwrap();
        assert_eq!(world.lwp(0).pcu.live_cpu(FPU), None, "{rule:?}");
        world.switch(1, Some(0));
        assert_eq!(write(&world, 1, 8), 7);
    }
}

#[test]
fn policies_that_preload_bring_the_state_back_before_user_mode() {
    for policy in [Policy::Deferred, Policy::Eager] {
        let world = World::with_policy(1, 1, 1, LeakRule::DomainAware, policy);
        world.switch(0, Some(0));
        write(&world, 0, 7);
        let traps = sum(&world).traps;
        let inside = || clobber(&world, FPU);
        world
            .pcu
            .section(&mut world.current(0), FPU, |_| inside())
            .unwrap();
        world.return_to_user(0);
        assert_eq!(write(&world, 0, 8), 7);
        assert_eq!(sum(&world).traps, traps);
    }
}

#[test]
fn an_interrupt_inside_a_section_is_refused_without_a_slot_and_served_with_one() {
    let world = World::new(1, 2, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world
        .pcu
        .section(&mut world.current(0), FPU, |_| {
            clobber(&world, FPU);
            let refused = world.pcu.section_in_interrupt(&*world, FPU, None, |_| ());
            assert_eq!(refused, Err(SectionError::Nested(FPU)));
            let mut slot = world.slot();
            let inner = || {
                assert_eq!(world.here().registers[0].get(), INITIAL);
                world.here().registers[0].set(1);
            };
            world
                .pcu
                .section_in_interrupt(&*world, FPU, Some(&mut slot), |_| inner())
                .unwrap();
            assert_eq!(world.here().registers[0].get(), KERNEL, "the outer one's");
            assert!(world.here().pcu.in_section());
        })
        .unwrap();
    assert!(!world.here().pcu.in_section());
    assert_eq!(write(&world, 0, 8), 7);
}

#[test]
fn an_interrupt_outside_any_section_needs_no_slot() {
    let world = World::new(1, 2, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world
        .pcu
        .section_in_interrupt(&*world, FPU, None, |_| clobber(&world, FPU))
        .unwrap();
    assert_eq!(write(&world, 0, 8), 7);
}

#[test]
fn another_units_section_leaves_this_one_alone() {
    let world = World::new(1, 1, 2, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    let nested = || {
        clobber(&world, DSP);
        world
            .pcu
            .section_in_interrupt(&*world, FPU, None, |_| clobber(&world, FPU))
    };
    world
        .pcu
        .section(&mut world.current(0), DSP, |_| nested())
        .unwrap()
        .unwrap();
    assert_eq!(write(&world, 0, 8), 7);
    assert!(!world.here().open[DSP.index()].get());
}

/// A cross-call inside finds another owner, which is success, and leaves the section its registers and its gate.
#[test]
fn what_other_cpus_ask_for_is_served_inside() {
    let world = World::new(2, 2, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    world.switch(1, Some(0));
    let fetch = || {
        clobber(&world, FPU);
        assert_eq!(write(&world, 1, 8), 7);
        world.here.set(0);
        world.pcu.save_all_on_cpu(&world.raise());
        let all = [cpu_id(0)];
        let rule = world
            .pcu
            .set_leak_rule(&mut world.current(1), all, LeakRule::DomainAware);
        rule.unwrap();
        world.here.set(0);
        assert_eq!(world.here().registers[0].get(), KERNEL);
        assert!(world.here().open[0].get());
    };
    world
        .pcu
        .section(&mut world.current(0), FPU, |_| fetch())
        .unwrap();
    assert_eq!(
        (
            world.cpus[0].registers[0].get(),
            world.cpus[0].open[0].get()
        ),
        (INITIAL, false)
    );
}

#[test]
fn a_section_that_unwinds_is_left() {
    let world = World::new(1, 1, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    let unwinds = AssertUnwindSafe(|| {
        let _ = world
            .pcu
            .section(&mut world.current(0), FPU, |_| panic!("inside"));
    });
    assert!(catch_unwind(unwinds).is_err());
    assert!(!world.here().pcu.in_section());
    assert_eq!(write(&world, 0, 8), 7);
}

/// To an LWP of this domain.
fn switch_inside(rule: LeakRule, domain: u64) {
    let world = World::new(1, 2, 1, rule);
    world.lwp(1).domain.set(domain);
    world.switch(0, Some(0));
    let switch = || world.switch(0, Some(1));
    let _ = world.pcu.section(&mut world.current(0), FPU, |_| switch());
}

#[test]
#[should_panic(expected = "a switch inside a kernel section")]
fn a_switch_inside_is_refused() {
    switch_inside(LeakRule::DomainAware, 2);
}

#[test]
#[should_panic(expected = "a switch inside a kernel section")]
fn a_switch_inside_is_refused_where_all_trust_each_other() {
    switch_inside(TRUSTING, 2);
}

#[test]
#[should_panic(expected = "a switch inside a kernel section")]
fn a_switch_inside_to_a_kernel_thread_is_refused() {
    switch_inside(LeakRule::DomainAware, 0);
}

#[test]
fn a_unit_that_the_table_lacks_is_an_error() {
    let world = World::new(1, 1, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    let missing = unit(2);
    let result = world.pcu.section(&mut world.current(0), missing, |_| ());
    assert_eq!(result, Err(SectionError::NoSuchUnit(missing)));
    assert_eq!(
        result.unwrap_err().to_string(),
        "no unit 2 in the kernel's table"
    );
}
