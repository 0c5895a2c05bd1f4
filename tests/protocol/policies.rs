//! What the policies besides Lazy move, and when; and how they are chosen.

use pcu9::kernel::{IplPcu, NoAnswer};
use pcu9::pcu::{Costs, LeakRule, Policy, PolicyError, UnitStats, WriteBackAtIdle};
use pcu9_fake::{INITIAL, TRUSTING, World, cpu_id, unit};

use super::{DSP, FPU, count, log, sum, write};

pub(crate) fn world(policy: Policy) -> Box<World> {
    World::with_policy(2, 3, 1, TRUSTING, policy)
}

#[test]
fn deferred_restores_at_the_switch_and_never_traps_again() {
    let world = world(Policy::Deferred);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    write(&world, 0, 9);
    world.switch(0, Some(0));
    assert!(world.cpus[0].open[0].get());
    assert_eq!(write(&world, 0, 8), 7);
    let UnitStats {
        traps,
        preloads,
        restores,
        ..
    } = sum(&world);
    assert_eq!((traps, preloads, restores), (2, 1, 1));
}

#[test]
fn deferred_skips_the_restore_while_the_link_holds() {
    let world = world(Policy::Deferred);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    // Idle, and an LWP that never uses the unit, leave the registers alone.
    for next in [None, Some(1), Some(0)] {
        world.switch(0, next);
    }
    assert_eq!(write(&world, 0, 8), 7);
    let UnitStats {
        traps,
        restores,
        elided_restores,
        saves,
        ..
    } = sum(&world);
    assert_eq!((traps, restores, elided_restores, saves), (1, 0, 1, 1));
}

#[test]
fn deferred_migrates_by_memory_and_a_stale_link_does_not_hold() {
    let world = world(Policy::Deferred);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.switch(1, Some(0));
    assert_eq!(write(&world, 1, 8), 7);
    world.switch(1, None);
    // The registers of CPU 0 hold 7 still; the word names CPU 1.
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 9), 8);
    assert_eq!(count(&world, "xcall"), 0);
}

#[test]
fn eager_takes_nobodys_registers_for_its_own() {
    let world = world(Policy::Eager);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), 7);
    let UnitStats {
        traps,
        restores,
        elided_restores,
        ..
    } = sum(&world);
    assert_eq!((traps, restores, elided_restores), (1, 1, 0));
}

#[test]
fn a_state_known_to_be_initial_is_neither_restored_nor_saved_again() {
    let world = world(Policy::Deferred);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    write(&world, 0, INITIAL);
    world.switch(0, Some(1));
    write(&world, 0, 9);
    log(&world);
    world.switch(0, Some(0));
    world.switch(0, Some(2));
    assert_eq!(
        (count(&world, "load"), count(&world, "save unit=0 lwp=0")),
        (0, 0)
    );
    assert_eq!(sum(&world).elided_saves, 1);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), INITIAL);
    world.switch(0, Some(1));
    assert_eq!(write(&world, 0, 9), 9);
}

#[test]
fn probe_sees_every_slices_first_use() {
    let world = world(Policy::Probe);
    for slice in 0..5 {
        world.switch(0, Some(0));
        assert_eq!(write(&world, 0, slice + 1), slice);
        write(&world, 0, slice + 1);
        world.switch(0, None);
    }
    let UnitStats {
        traps,
        inits,
        reenables_trap,
        probes,
        restores,
        ..
    } = sum(&world);
    assert_eq!(
        (traps, inits, reenables_trap, probes, restores),
        (5, 1, 4, 4, 0)
    );
}

#[test]
fn adaptive_learns_to_preload_who_always_computes_and_leaves_the_others_alone() {
    let world = World::with_policy(1, 3, 1, TRUSTING, Policy::Adaptive);
    for round in 0..300 {
        for lwp in 0..3 {
            world.switch(0, Some(lwp));
            if lwp < 2 {
                write(&world, 0, round);
            }
        }
    }
    let UnitStats {
        traps, preloads, ..
    } = sum(&world);
    assert!(
        traps < 30 && preloads > 560,
        "{traps} traps, {preloads} preloads"
    );
    assert!(!world.lwp(2).pcu.valid_p(FPU));
}

#[test]
fn adaptive_that_writes_through_is_never_asked() {
    let world = world(Policy::AdaptiveWriteThrough);
    for turn in 0..100 {
        let cpu = turn % 2;
        world.switch(cpu, Some(0));
        assert_eq!(write(&world, cpu, turn as u64 + 1), turn as u64);
        world.switch(cpu, None);
    }
    assert_eq!(sum(&world).xcalls, 0);
}

#[test]
fn a_state_that_is_live_elsewhere_when_the_policy_changes_is_fetched_before_user_mode() {
    let world = World::with_policy(2, 1, 1, LeakRule::DomainAware, Policy::Lazy);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.switch(1, Some(0));
    // Only the asker's own CPU is flushed: the other one has not heard of it yet.
    world
        .pcu
        .set_policy(&mut world.current(1), [cpu_id(1)], FPU, Policy::Deferred)
        .unwrap();
    world.return_to_user(0);
    assert!(world.cpus[1].open[0].get());
    assert_eq!(write(&world, 1, 8), 7);
    let UnitStats { traps, xcalls, .. } = sum(&world);
    assert_eq!((traps, xcalls), (1, 1));
}

#[test]
fn a_policy_that_needs_traps_is_refused_where_there_are_none() {
    let world = World::with_untrappable_unit(1, 1, TRUSTING);
    world.switch(0, Some(0));
    let set = |index, policy| {
        world
            .pcu
            .set_policy(&mut world.current(0), [], unit(index), policy)
    };
    assert_eq!(
        set(2, Policy::Adaptive),
        Err(PolicyError::NeedsTraps(unit(2)))
    );
    assert_eq!(set(2, Policy::Eager), Ok(()));
    assert_eq!(set(3, Policy::Eager), Err(PolicyError::NoSuchUnit(unit(3))));
    assert_eq!(world.pcu.policy(unit(2)), Some(Policy::Eager));
}

#[test]
fn a_cpu_that_goes_idle_may_write_back_and_keeps_the_link() {
    let world = world(Policy::Lazy);
    world.pcu.set_write_back_at_idle(WriteBackAtIdle::On);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    assert_eq!(
        (world.lwp(0).memory[0].get(), world.cpus[0].pcu.owner(FPU)),
        (7, None)
    );
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), 7);
    world.switch(0, None);
    world.switch(1, Some(0));
    assert_eq!(write(&world, 1, 9), 8);
    let UnitStats {
        elided_restores,
        restores,
        xcalls,
        ..
    } = sum(&world);
    assert_eq!((elided_restores, restores, xcalls), (1, 1, 0));
}

/// A switch that brought the initial state in would save it again at the next one, over what is being written.
#[test]
fn an_image_that_is_written_with_sleeps_between_is_the_state_whether_its_use_traps_or_not() {
    let world = World::with_untrappable_unit(1, 2, TRUSTING);
    for unit in [unit(0), unit(2)] {
        world.switch(0, Some(0));
        world.return_to_user(0);
        assert_eq!(world.use_unit(0, unit, 7), Ok(INITIAL));
        let sleep = || {
            world.switch(0, Some(1));
            world.switch(0, Some(0));
        };
        let write = || {
            sleep();
            world.lwp(0).memory[unit.index()].set(70);
            sleep();
            Ok::<(), NoAnswer>(())
        };
        let mut current = world.current(0);
        world.pcu.replace(&mut current, unit, |_| write()).unwrap();
        world.return_to_user(0);
        assert_eq!(world.use_unit(0, unit, 8), Ok(70));
    }
}
#[test]
fn adaptive_writes_through_for_who_migrates() {
    let world = world(Policy::Adaptive);
    for turn in 0..20 {
        let cpu = turn % 2;
        world.switch(cpu, Some(0));
        assert_eq!(write(&world, cpu, turn as u64 + 1), turn as u64);
        world.switch(cpu, None);
    }
    assert_eq!(sum(&world).xcalls, 1, "the first migration");
}

#[test]
fn adaptive_does_not_write_through_for_who_is_evicted_where_it_is() {
    let world = world(Policy::Adaptive);
    for turn in 0..4 {
        for lwp in 0..2 {
            world.switch(0, Some(lwp));
            write(&world, 0, turn + 1);
        }
    }
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    assert_eq!(world.cpus[0].pcu.owner(FPU), Some(world.pointer(0)), "live");
}

#[test]
fn adaptive_learns_nothing_of_an_lwp_that_has_no_state() {
    for rule in [TRUSTING, LeakRule::DomainAware] {
        let world = World::with_policy(1, 3, 1, rule, Policy::Adaptive);
        world.lwp(2).domain.set(world.lwp(0).domain.get());
        let compute = |lwp| {
            world.switch(0, Some(lwp));
            write(&world, 0, 1);
        };
        for _ in 0..20 {
            [0, 1].into_iter().for_each(compute);
        }
        compute(0);
        world.pcu.discard_all(&mut world.current(0)).unwrap();
        for _ in 0..200 {
            world.switch(0, Some(2));
            world.switch(0, Some(0));
        }
        [0, 1].into_iter().for_each(compute);
        world.switch(0, Some(0));
        assert!(world.cpus[0].open[0].get(), "it is preloaded as before");
    }
}

#[test]
fn a_switch_away_does_not_look_at_units_that_were_not_used() {
    let world = World::with_policy(1, 1, 2, TRUSTING, Policy::Deferred);
    world.switch(0, Some(0));
    world.use_unit(0, DSP, 70).unwrap();
    world.switch(0, None);
    let elided = [FPU, DSP].map(|unit| world.cpus[0].pcu.stats(unit).elided_saves);
    assert_eq!((elided, world.lwp(0).memory[1].get()), ([0, 0], 70));
}

#[test]
fn before_user_leaves_a_state_elsewhere_when_its_token_may_not_wait() {
    let world = World::with_policy(2, 1, 1, TRUSTING, Policy::Lazy);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.switch(1, Some(0));
    let mut lwp = world.current(1);
    world
        .pcu
        .set_policy(&mut lwp, [], FPU, Policy::Deferred)
        .unwrap();
    let outer = world.raise();
    // SAFETY: `outer` keeps the level up.
    let ipl = unsafe { IplPcu::assume(&*world) };
    drop(world.pcu.before_user(ipl, &mut world.current(1)));
    assert_eq!(sum(&world).xcalls, 0);
    drop(outer);
    assert_eq!(write(&world, 1, 8), 7, "the trap fetches it");
}

#[test]
fn what_is_made_good_before_user_mode_is_not_what_was_never_used() {
    let world = World::with_policy(1, 1, 2, TRUSTING, Policy::Deferred);
    world.switch(0, Some(0));
    world.use_unit(0, DSP, 7).unwrap();
    world.pcu.save(&mut world.current(0), DSP).unwrap();
    world.return_to_user(0);
    let preloads = [FPU, DSP].map(|unit| world.cpus[0].pcu.stats(unit).preloads);
    assert_eq!(preloads, [0, 1]);
    assert!(!world.cpus[0].open[0].get());
}

/// Its use in this residency was seen, so nothing is to be learnt of it: the gate is opened as under `Lazy`.
#[test]
fn adaptive_lets_who_comes_back_to_its_registers_use_them_without_a_trap() {
    let world = world(Policy::Adaptive);
    world.switch(0, Some(0));
    write(&world, 0, 0);
    for turn in 0..100 {
        world.switch(0, Some(1));
        world.switch(0, Some(0));
        assert_eq!(write(&world, 0, turn + 1), turn);
    }
    let UnitStats {
        traps, preloads, ..
    } = sum(&world);
    assert_eq!((traps, preloads), (1, 0));
}

/// A migration alone takes nobody's time: the state is fetched when it is used.
#[test]
fn adaptive_does_not_write_through_for_who_migrates_and_never_computes_elsewhere() {
    let world = world(Policy::Adaptive);
    let saves = || sum(&world).saves;
    for turn in 0..20 {
        world.switch(0, Some(0));
        write(&world, 0, turn + 1);
        world.switch(0, None);
        world.switch(1, Some(0));
        world.switch(1, None);
        assert_eq!(saves(), 0);
    }
    world.switch(1, Some(0));
    write(&world, 1, 7);
    assert_eq!((sum(&world).xcalls, saves()), (1, 1));
    world.switch(1, None);
    assert_eq!(saves(), 2, "from the first fetch on it is written through");
}

/// What is written down for a machine, or measured on it, decides: with a trap that costs nothing, nobody is ever preloaded.
#[test]
fn adaptive_weighs_by_the_costs_that_it_was_told() {
    let preloads_with = |costs: Costs| {
        let world = world(Policy::Adaptive);
        world.pcu.set_costs(costs);
        for turn in 0..100 {
            for lwp in 0..2 {
                world.switch(0, Some(lwp));
                write(&world, 0, turn + 1);
            }
        }
        sum(&world).preloads
    };
    let trap_is = |trap| Costs {
        trap,
        ..Costs::ZEN3
    };
    assert_eq!(preloads_with(trap_is(1)), 0);
    let [as_it_is, dear] = [Costs::default(), trap_is(100_000)].map(preloads_with);
    assert!(as_it_is > 150 && dear > as_it_is, "{as_it_is} {dear}");
}

/// The gate was left open over the kernel thread, and the registers are the LWP's own: only a policy that looks at slices closes it.
#[test]
fn who_comes_back_from_a_kernel_thread_finds_its_gate_as_its_policy_wants() {
    for (of_unit, own, is_open) in [
        (Policy::Lazy, None, true),
        (Policy::Deferred, None, true),
        (Policy::Eager, None, true),
        (Policy::Adaptive, None, true),
        (Policy::Probe, None, false),
        (Policy::Lazy, Some(Policy::Probe), false),
        (Policy::Probe, Some(Policy::Lazy), true),
    ] {
        let world = world(of_unit);
        world.lwp(2).domain.set(0);
        world.switch(0, Some(0));
        world
            .pcu
            .set_lwp_policy(&mut world.current(0), own)
            .unwrap();
        write(&world, 0, 7);
        let opened = || world.cpus[0].pcu.stats(FPU).reenables_switch;
        for _ in 0..2 {
            // Without the hook at the way out nothing is saved: the registers stay live.
            world.switch_without_switch_out(0, Some(2));
            assert!(world.cpus[0].open[0].get(), "left alone");
            world.switch_without_switch_out(0, Some(0));
            assert_eq!(world.cpus[0].open[0].get(), is_open, "{of_unit:?} {own:?}");
            assert_eq!(opened(), 0, "nothing to be opened");
            assert_eq!(write(&world, 0, 7), 7);
        }
    }
}
