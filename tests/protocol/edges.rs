//! Edges that a review found: each of these tests failed once, or kills a mutant that the others let live.

use pcu9::kernel::IplPcu;
use pcu9::pcu::{LeakRule, LoadError, Policy, StateError, Validity, WriteBackAtIdle};
use pcu9_fake::{INITIAL, TRUSTING, World, cpu_id, unit};

use super::{DSP, FPU, sum, write};

#[test]
fn fork_onto_an_lwp_that_owns_registers_makes_it_give_them_up() {
    let world = World::new(2, 2, 1, TRUSTING);
    world.switch(1, Some(1));
    write(&world, 1, 9);
    world.switch(1, None);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world
        .pcu
        .fork(&mut world.current(0), &mut world.stopped(1))
        .unwrap();
    assert_eq!(world.cpus[1].pcu.owner(FPU), None, "I3");
    world.switch(1, Some(1));
    assert_eq!(write(&world, 1, 8), 7);
}

#[test]
fn a_kernel_thread_that_becomes_a_user_lwp_does_not_inherit_an_open_gate() {
    let world = World::new(1, 2, 1, LeakRule::DomainAware);
    world.lwp(1).domain.set(0);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    world.lwp(1).domain.set(world.lwp(0).domain.get());
    world.return_to_user(1);
    assert_eq!(write(&world, 0, 9), INITIAL);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), 7);
}

#[test]
fn a_cpu_that_missed_a_change_of_the_leak_rule_wipes_at_its_next_switch() {
    let world = World::new(2, 4, 1, TRUSTING);
    world.switch(1, Some(0));
    write(&world, 1, 7);
    world.switch(1, Some(1));
    world.switch(0, Some(3));
    world.deaf.set(2);
    let all = [cpu_id(0), cpu_id(1)];
    let rule = LeakRule::DomainAware;
    assert!(
        world
            .pcu
            .set_leak_rule(&mut world.current(0), all, rule)
            .is_err()
    );
    world.switch(1, Some(2));
    assert_eq!(world.cpus[1].registers[0].get(), INITIAL, "I5");
}

#[test]
fn before_user_brings_a_state_in_that_it_had_to_wipe() {
    let world = World::with_policy(1, 1, 1, LeakRule::DomainAware, Policy::Deferred);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.lwp(0).domain.set(world.new_domain());
    world.return_to_user(0);
    assert!(world.cpus[0].open[0].get());
    assert_eq!(write(&world, 0, 8), 7);
}

#[test]
fn a_trap_whose_token_may_not_wait_is_an_error_and_no_dead_lock() {
    let world = World::new(2, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.switch(1, Some(0));
    let outer = world.raise();
    // SAFETY: `outer` keeps the level up.
    let ipl = unsafe { IplPcu::assume(&*world) };
    let result = world.pcu.trap(ipl, &mut world.current(1), FPU);
    assert_eq!(result, Err(LoadError::NoAnswer(cpu_id(0))));
    drop(outer);
    assert_eq!(write(&world, 1, 8), 7);
}

#[test]
fn memory_written_after_a_save_is_the_state_whatever_was_known_of_it() {
    for before in [7, INITIAL] {
        let world = World::with_policy(1, 1, 1, TRUSTING, Policy::Deferred);
        world.switch(0, Some(0));
        write(&world, 0, before);
        world.switch(0, None);
        world.pcu.save(&mut world.stopped(0), FPU).unwrap();
        world.lwp(0).memory[0].set(70);
        world.switch(0, Some(0));
        assert_eq!(write(&world, 0, 8), 70);
    }
}

#[test]
fn save_all_on_cpu_breaks_clean_links_too() {
    let world = World::with_policy(1, 1, 1, TRUSTING, Policy::Deferred);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.pcu.save_all_on_cpu(&world.raise());
    world.cpus[0].registers[0].set(0xbad);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), 7);
}

#[test]
fn registers_that_were_saved_in_their_initial_state_need_no_wipe() {
    let world = World::with_policy(1, 2, 1, LeakRule::DomainAware, Policy::Deferred);
    world.switch(0, Some(0));
    write(&world, 0, INITIAL);
    world.switch(0, Some(1));
    assert_eq!(sum(&world).wipes, 0);
}

#[test]
fn a_write_back_at_idle_leaves_a_closed_gate_closed() {
    let world = World::new(1, 2, 1, TRUSTING);
    world.pcu.set_write_back_at_idle(WriteBackAtIdle::On);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    world.switch(0, None);
    assert_eq!(sum(&world).saves, 1);
    assert!(!world.cpus[0].open[0].get());
}

#[test]
fn an_lwp_that_discarded_everything_is_not_looked_at_again() {
    let world = World::with_policy(1, 1, 1, TRUSTING, Policy::Deferred);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.pcu.discard_all(&mut world.current(0)).unwrap();
    world.switch(0, None);
    assert_eq!(sum(&world).elided_saves, 0);
}

#[test]
fn an_lwp_that_gets_its_own_policy_gives_up_what_it_has_elsewhere() {
    let world = World::new(2, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.switch(1, Some(0));
    world
        .pcu
        .set_lwp_policy(&mut world.current(1), Some(Policy::Deferred))
        .unwrap();
    assert_eq!(world.lwp(0).pcu.live_cpu(FPU), None);
    assert_eq!(write(&world, 1, 8), 7);
}

#[test]
fn an_lwp_keeps_its_own_policy_when_it_uses_the_unit() {
    let world = World::new(1, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    world
        .pcu
        .set_lwp_policy(&mut world.current(0), Some(Policy::Deferred))
        .unwrap();
    write(&world, 0, 7);
    world.switch(0, None);
    assert_eq!(sum(&world).saves, 1);
}

#[test]
fn what_a_kernel_thread_left_is_wiped_before_any_user_runs() {
    let world = World::new(1, 2, 1, LeakRule::DomainAware);
    world.lwp(0).domain.set(0);
    world.switch(0, Some(0));
    world.pcu.load(&mut world.current(0), FPU).unwrap();
    write(&world, 0, 7);
    world.switch(0, Some(1));
    assert_eq!(world.cpus[0].registers[0].get(), INITIAL);
}

#[test]
fn one_domains_own_residue_does_not_hide_anothers() {
    let world = World::new(2, 5, 2, TRUSTING);
    world.lwp(2).domain.set(world.lwp(1).domain.get());
    world.switch(1, Some(0));
    write(&world, 1, 7);
    world.switch(1, Some(1));
    world.use_unit(1, DSP, 9).unwrap();
    world.switch(1, Some(3));
    world.switch(0, Some(4));
    world.deaf.set(2);
    let all = [cpu_id(0), cpu_id(1)];
    let mut current = world.current(0);
    let result = world
        .pcu
        .set_leak_rule(&mut current, all, LeakRule::DomainAware);
    assert!(result.is_err());
    world.switch(1, Some(2));
    assert_eq!(world.cpus[1].registers[0].get(), INITIAL, "I5");
}

#[test]
fn a_refused_reenable_leaves_the_owner_its_registers_and_the_gate_as_it_was() {
    let world = World::with_policy(1, 1, 1, TRUSTING, Policy::Probe);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    let refused = LoadError::State(StateError::Refused);
    world.lwp(0).fails_reenable.set(true);
    assert_eq!(world.pcu.load(&mut world.current(0), FPU), Err(refused));
    assert!(world.cpus[0].open[0].get(), "it was open");
    world.switch(0, None);
    world.switch(0, Some(0));
    assert_eq!(world.use_unit(0, FPU, 8), Err(refused));
    assert!(!world.cpus[0].open[0].get(), "it was closed");
    assert_eq!(sum(&world).failed, 2);
    world.lwp(0).fails_reenable.set(false);
    assert_eq!(write(&world, 0, 8), 7);
}

/// The gate stands open over the kernel thread, and the registers behind it are not its own.
#[test]
fn a_kernel_threads_load_over_anothers_open_gate_takes_the_registers() {
    let world = World::new(1, 2, 1, TRUSTING);
    world.lwp(1).domain.set(0);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    assert!(world.cpus[0].open[0].get());
    world.pcu.load(&mut world.current(0), FPU).unwrap();
    assert_eq!(world.cpus[0].pcu.owner(FPU), Some(world.pointer(1)));
    assert_eq!(write(&world, 0, 9), INITIAL);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), 7);
}

/// An owner that finds its gate closed, and asks by a call, finds it open afterwards.
#[test]
fn an_owners_load_through_a_closed_gate_opens_it() {
    let world = World::with_policy(1, 2, 1, TRUSTING, Policy::Probe);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    world.switch(0, Some(0));
    assert!(!world.cpus[0].open[0].get());
    world.pcu.load(&mut world.current(0), FPU).unwrap();
    assert!(world.cpus[0].open[0].get());
    assert_eq!(world.cpus[0].registers[0].get(), 7);
}

#[test]
fn a_units_policy_that_is_set_at_run_time_is_its_own_alone() {
    let world = World::new(1, 2, 2, TRUSTING);
    world.switch(0, Some(0));
    let set = |unit, policy| {
        let result = world
            .pcu
            .set_policy(&mut world.current(0), [cpu_id(0)], unit, policy);
        assert_eq!(result, Ok(()));
    };
    set(FPU, Policy::Deferred);
    set(DSP, Policy::Deferred);
    set(FPU, Policy::Lazy);
    // Each unit alone: which one it is decides the whole switch.
    for (unit, comes_along) in [(DSP, true), (FPU, false)] {
        for lwp in [0, 1] {
            world.switch(0, Some(lwp));
            world.pcu.discard_all(&mut world.current(0)).unwrap();
            world.use_unit(0, unit, 7).unwrap();
        }
        world.switch(0, Some(0));
        assert_eq!(world.cpus[0].open[unit.index()].get(), comes_along);
    }
}

/// Trusting lets an LWP run over another domain's registers in a unit that it does not use; a change of the rule must find it at its
/// next switch, so it is not settled.
#[test]
fn who_runs_over_anothers_registers_is_looked_at_each_time() {
    let world = World::new(1, 2, 2, TRUSTING);
    world.switch(0, Some(1));
    world.use_unit(0, DSP, 9).unwrap();
    world.switch(0, Some(0));
    write(&world, 0, 7);
    for next in [None, Some(0), None, Some(0)] {
        world.switch(0, next);
    }
    assert_eq!(write(&world, 0, 8), 7);
    let rule = LeakRule::DomainAware;
    let result = world.pcu.set_leak_rule(&mut world.current(0), [], rule);
    assert_eq!(result, Ok(()));
    world.switch(0, None);
    world.switch(0, Some(0));
    assert_eq!(world.cpus[0].registers[1].get(), INITIAL, "I5");
    assert_eq!(write(&world, 0, 6), 8);
}

/// Over an LWP of its domain that has used nothing, the owner's gates are shut and opened again, all of them and no others: its holder
/// may have given it a state of another unit meanwhile, which lies in memory.
#[test]
fn who_comes_back_over_a_stranger_to_the_units_finds_its_own_gates_open() {
    let world = World::new(1, 2, 3, LeakRule::DomainAware);
    world.lwp(1).domain.set(world.lwp(0).domain.get());
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.use_unit(0, DSP, 9).unwrap();
    for next in [None, Some(0)] {
        world.switch(0, next);
    }
    let open = || world.cpus[0].open.each_ref().map(std::cell::Cell::get);
    let counted = sum(&world);
    for _ in 0..2 {
        world.switch(0, Some(1));
        let note = world.cpus[0].pcu.settled();
        assert_eq!(note, Some((world.pointer(0), 0b11)));
        assert_eq!(open(), [false; 3]);
        world.switch(0, Some(0));
        assert_eq!(open(), [true, true, false]);
    }
    assert_eq!(sum(&world).reenables_switch, counted.reenables_switch + 2);
    world.switch(0, Some(1));
    let third = unit(2);
    let result = world
        .pcu
        .discard(&mut world.stopped(0), third, Validity::Valid);
    assert_eq!(result, Ok(()));
    world.switch(0, Some(0));
    assert_eq!(open(), [true, true, false], "a state in memory alone");
    assert_eq!(write(&world, 0, 8), 7);
    assert_eq!(sum(&world).traps, counted.traps);
}
