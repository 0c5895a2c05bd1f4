//! Who owns the unit, and what moves when it is used elsewhere.

use pcu9::pcu::{LeakRule, Policy, UnitStats};
use pcu9_fake::{INITIAL, TRUSTING, World, cpu_id};

use super::{DSP, FPU, log, sum, write};

#[test]
fn first_use_traps_once_and_gives_the_initial_state() {
    let world = World::new(1, 1, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 7), INITIAL);
    assert_eq!(write(&world, 0, 8), 7);
    let UnitStats { traps, inits, .. } = sum(&world);
    assert_eq!((traps, inits), (1, 1));
}

#[test]
fn an_lwp_that_never_uses_the_unit_never_traps_and_finds_the_gate_closed() {
    let world = World::new(1, 2, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    assert!(!world.cpus[0].open[0].get());
    assert_eq!(log(&world), ["load unit=0 lwp=0 cpu=0 flags=none"]);
}

#[test]
fn back_unstolen_is_reenabled_without_a_trap_or_a_reload() {
    let world = World::new(2, 2, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    // To another CPU, where it does not use the unit, and back: registers are newer than memory.
    world.switch(0, Some(1));
    world.switch(1, Some(0));
    world.switch(1, None);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), 7);
    assert_eq!(world.lwp(0).memory[0].get(), INITIAL, "nothing was saved");
    let UnitStats {
        traps,
        reenables_switch,
        restores,
        saves,
        xcalls,
        ..
    } = sum(&world);
    assert_eq!(
        (traps, reenables_switch, restores, saves, xcalls),
        (1, 1, 0, 0, 0)
    );
}

#[test]
fn a_migrant_fetches_its_state_when_it_uses_it() {
    let world = World::new(2, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.switch(1, Some(0));
    assert_eq!(sum(&world).xcalls, 0, "a switch never asks another CPU");
    assert_eq!(world.lwp(0).pcu.live_cpu(FPU), Some(cpu_id(0)));
    assert_eq!(write(&world, 1, 8), 7);
    let expected = [
        "load unit=0 lwp=0 cpu=0 flags=none",
        "release unit=0 lwp=0 cpu=1",
        "xcall from=1 to=0",
        "save unit=0 lwp=0 cpu=0",
        "release unit=0 lwp=0 cpu=0",
        "load unit=0 lwp=0 cpu=1 flags=VALID",
    ];
    assert_eq!(log(&world), expected);
    assert!(!world.cpus[0].open[0].get(), "the holder closes its gate");
}

#[test]
fn a_thief_saves_the_owner_who_runs_elsewhere() {
    let world = World::new(2, 2, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    world.switch(1, Some(0));
    write(&world, 0, 9);
    assert_eq!(world.lwp(0).memory[0].get(), 7);
    assert_eq!(write(&world, 1, 8), 7);
    assert_eq!(sum(&world).xcalls, 0, "the thief left it in memory");
}

/// NetBSD PR port-arm/52603: the gate must be closed when the location is nowhere, not only when it is elsewhere.
#[test]
fn a_switch_to_an_lwp_whose_state_was_stolen_closes_the_gate() {
    let world = World::new(1, 2, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    write(&world, 0, 9);
    world.switch(0, Some(0));
    assert!(!world.cpus[0].open[0].get());
    assert_eq!(write(&world, 0, 8), 7);
}

/// The hook lets a thief take the state after the request was published: the holder finds another owner, which is success.
#[test]
fn a_request_that_comes_too_late_does_not_touch_the_thiefs_state() {
    let world = World::new(2, 2, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    world.switch(1, Some(0));
    world.on_lowering(|world| {
        if sum(world).xcalls == 1 && sum(world).traps == 2 {
            assert_eq!(write(world, 0, 9), INITIAL);
            world.here.set(1);
        }
    });
    assert_eq!(write(&world, 1, 8), 7);
    assert_eq!(
        world.cpus[0].registers[0].get(),
        9,
        "the thief kept its own"
    );
    assert_eq!(sum(&world).xcalls_raced, 1);
}

/// Before 2014 NetBSD's request hit whoever was loaded when it arrived: here the thief's state would be thrown away.
#[test]
fn a_discard_that_comes_too_late_does_not_throw_the_thiefs_state_away() {
    let world = World::new(2, 2, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    world.switch(1, Some(0));
    world.on_lowering(|world| {
        if sum(world).xcalls == 1 && sum(world).traps == 1 {
            assert_eq!(write(world, 0, 9), INITIAL);
            world.here.set(1);
        }
    });
    world.pcu.exit(world.current(1)).unwrap();
    assert_eq!(write(&world, 0, 10), 9, "the thief's own");
}

#[test]
fn a_requester_that_migrates_to_the_holder_finds_its_state_in_memory() {
    let world = World::new(2, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.switch(1, Some(0));
    world.on_lowering(|world| {
        if world.current_on(1) == Some(0) && sum(world).xcalls == 1 {
            world.switch(1, None);
            world.switch(0, Some(0));
        }
    });
    assert_eq!(write(&world, 1, 8), 7);
    assert_eq!(
        world.cpus[0].pcu.owner(FPU),
        Some(world.pointer(0)),
        "it runs on the holder now"
    );
}

#[test]
fn load_by_the_owner_reenables_and_never_reloads() {
    let world = World::new(1, 1, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.pcu.load(&mut world.current(0), FPU).unwrap();
    assert_eq!(write(&world, 0, 8), 7);
    assert_eq!(
        log(&world)[1..],
        ["load unit=0 lwp=0 cpu=0 flags=VALID|REENABLE"]
    );
}

#[test]
fn a_trap_although_the_gate_is_open_is_spurious_and_served() {
    let world = World::new(1, 1, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.cpus[0].open[0].set(false);
    assert_eq!(write(&world, 0, 8), 7);
    assert_eq!(sum(&world).spurious, 1);
}

#[test]
fn two_units_of_one_lwp_do_not_disturb_each_other() {
    let world = World::new(2, 2, 2, TRUSTING);
    world.switch(0, Some(0));
    world.use_unit(0, FPU, 7).unwrap();
    world.use_unit(0, DSP, 70).unwrap();
    world.switch(0, Some(1));
    world.use_unit(0, DSP, 90).unwrap();
    world.switch(1, Some(0));
    assert_eq!(world.use_unit(1, DSP, 71), Ok(70));
    assert_eq!(world.cpus[0].pcu.owner(FPU), Some(world.pointer(0)));
    assert_eq!(world.use_unit(1, FPU, 8), Ok(7));
}

/// Each time that a request is published, a thief takes the state first, and the LWP's policy brings it in on a third CPU, which
/// the LWP leaves without `switch_out`.
#[test]
fn a_save_finds_a_state_that_moves_on_three_times_while_it_is_asked_for() {
    let world = World::with_policy(4, 2, 1, TRUSTING, Policy::Deferred);
    world.switch(1, Some(0));
    write(&world, 1, 7);
    world.switch_without_switch_out(1, None);
    world.switch(0, Some(0));
    world.on_lowering(|world| {
        let UnitStats {
            xcalls,
            xcalls_raced,
            ..
        } = sum(world);
        if world.current_on(0) != Some(0) || xcalls > 3 || xcalls == xcalls_raced {
            return;
        }
        let holder = world.lwp(0).pcu.live_cpu(FPU).unwrap().index();
        world.switch_without_switch_out(0, None);
        world.switch(holder, Some(1));
        write(world, holder, 9);
        world.switch(holder, None);
        let next = holder % 3 + 1;
        world.switch(next, Some(0));
        world.switch_without_switch_out(next, None);
        world.switch(0, Some(0));
    });
    world.pcu.save(&mut world.current(0), FPU).unwrap();
    assert_eq!(world.lwp(0).memory[0].get(), 7);
    assert_eq!(world.lwp(0).pcu.live_cpu(FPU), None);
    let UnitStats {
        xcalls,
        xcalls_raced,
        ..
    } = sum(&world);
    assert_eq!((xcalls, xcalls_raced), (4, 3));
}

#[test]
fn a_kernel_thread_with_a_state_comes_back_to_it() {
    let world = World::new(1, 2, 1, TRUSTING);
    world.lwp(1).domain.set(0);
    world.switch(0, Some(1));
    world.pcu.load(&mut world.current(0), FPU).unwrap();
    write(&world, 0, 7);
    world.switch(0, Some(0));
    assert!(!world.cpus[0].open[0].get());
    write(&world, 0, 9);
    world.switch(0, Some(1));
    assert!(!world.cpus[0].open[0].get());
    assert_eq!(write(&world, 0, 8), 7);
}

#[test]
fn the_way_to_user_mode_moves_nothing_under_lazy() {
    let world = World::new(2, 1, 2, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.use_unit(0, DSP, 70).unwrap();
    world.pcu.save(&mut world.current(0), DSP).unwrap();
    world.switch(0, None);
    world.switch(1, Some(0));
    world.return_to_user(0);
    let UnitStats {
        xcalls, preloads, ..
    } = sum(&world);
    assert_eq!((xcalls, preloads), (0, 0));
    assert_eq!(world.cpus[1].pcu.stats(DSP).preloads, 0);
    assert_eq!(
        (write(&world, 1, 8), world.use_unit(1, DSP, 80)),
        (7, Ok(70))
    );
}
