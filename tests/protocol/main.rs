//! One named test for each rule of pcu(9), on the fake kernel. The scenarios' letters are those of the collected experience
//! with NetBSD's implementation: what went wrong there once has a test here.
//!
//! Leak rule: each test names its own.

use pcu9::kernel::{IplPcu, NoAnswer};
use pcu9::pcu::{CoreDump, LeakRule, LoadError, StateError, UnitStats, Validity};
use pcu9_fake::{INITIAL, TRUSTING, UNITS, World, cpu_id, unit};

const FPU: pcu9::pcu::UnitId = unit(0);
const DSP: pcu9::pcu::UnitId = unit(1);

/// What the callbacks and cross-calls were since the last question.
fn log(world: &World) -> Vec<String> {
    world.log.take()
}

fn count(world: &World, callback: &str) -> usize {
    let log = world.log.borrow();
    log.iter().filter(|line| line.starts_with(callback)).count()
}

fn sum(world: &World) -> UnitStats {
    let mut sum = UnitStats::default();
    world.cpus.iter().for_each(|cpu| sum += cpu.pcu.stats(FPU));
    sum
}

/// Writes `value` from user mode on `cpu`, and says what was there.
fn write(world: &World, cpu: usize, value: u64) -> u64 {
    world.use_unit(cpu, FPU, value).unwrap()
}

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
fn save_gives_the_registers_up_and_the_next_use_traps() {
    let world = World::new(1, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.pcu.save(&mut world.current(0), FPU).unwrap();
    assert!(!world.cpus[0].open[0].get());
    world.lwp(0).memory[0].set(70); // callers write memory next
    assert_eq!(write(&world, 0, 8), 70);
}

#[test]
fn save_all_keeps_the_registers_unless_a_core_is_dumped() {
    let world = World::new(1, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world
        .pcu
        .save_all(&mut world.current(0), CoreDump::No)
        .unwrap();
    assert_eq!(
        (world.lwp(0).memory[0].get(), world.cpus[0].open[0].get()),
        (7, true)
    );
    world
        .pcu
        .save_all(&mut world.current(0), CoreDump::Yes)
        .unwrap();
    assert_eq!(world.cpus[0].pcu.owner(FPU), None);
    assert!(!world.cpus[0].open[0].get());
}

/// Before 2013 NetBSD's discard returned early when nothing was loaded, and the state came back later.
#[test]
fn discarded_state_that_was_only_saved_stays_discarded() {
    let world = World::new(1, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.pcu.save(&mut world.current(0), FPU).unwrap();
    world
        .pcu
        .discard(&mut world.current(0), FPU, Validity::Invalid)
        .unwrap();
    assert!(!world.lwp(0).pcu.valid_p(FPU));
    assert_eq!(write(&world, 0, 8), INITIAL);
}

/// NetBSD/mips: discard(false) before writing memory; the next load then zeroed what was written.
#[test]
fn a_replaced_image_is_what_the_next_use_sees() {
    for live_on in [0, 1] {
        let world = World::new(2, 2, 1, TRUSTING);
        world.switch(live_on, Some(0));
        write(&world, live_on, 7);
        world.switch(live_on, None);
        world.switch(0, Some(1));
        world
            .pcu
            .discard(&mut world.stopped(0), FPU, Validity::Valid)
            .unwrap();
        world.lwp(0).memory[0].set(70);
        world.switch(1, Some(0));
        assert_eq!(write(&world, 1, 8), 70, "live on {live_on}");
    }
}

#[test]
fn a_child_starts_with_the_parents_state_and_owns_nothing() {
    for migrated in [false, true] {
        let world = World::new(2, 2, 1, LeakRule::DomainAware);
        world.switch(0, Some(0));
        write(&world, 0, 7);
        if migrated {
            world.switch(0, None);
            world.switch(1, Some(0));
        }
        world
            .pcu
            .fork(&mut world.running(0), &mut world.stopped(1))
            .unwrap();
        let cpu = world.cpu_of(0).unwrap();
        assert_eq!(write(&world, cpu, 8), 7, "the parent keeps its state");
        assert_eq!(world.lwp(1).pcu.live_cpu(FPU), None);
        world.switch(cpu, Some(1));
        assert_eq!(
            write(&world, cpu, 9),
            7,
            "the value at the fork, not the parent's later one"
        );
        world.switch(cpu, Some(0));
        assert_eq!(write(&world, cpu, 10), 8);
    }
}

#[test]
fn fork_of_an_lwp_without_state_gives_a_child_without_state() {
    let world = World::new(1, 2, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    world
        .pcu
        .fork(&mut world.current(0), &mut world.stopped(1))
        .unwrap();
    assert!(!world.lwp(1).pcu.valid_p(FPU));
}

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
fn exit_gives_up_and_the_memory_may_be_reused() {
    let world = World::new(2, 2, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.switch(1, Some(0));
    world.pcu.exit(world.current(1)).unwrap();
    assert_eq!(world.cpus[0].pcu.owner(FPU), None, "the other CPU was told");
    world.switch(1, None);
    world.replace(0);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), INITIAL);
}

#[test]
#[should_panic(expected = "dropped while its registers are live")]
fn dropping_an_owner_panics() {
    let world = World::new(1, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.replace(0);
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
    drop(world.pcu.before_user(IplPcu::raise(&*world), &mut current));
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

#[test]
fn a_cpu_that_does_not_answer_is_an_error_and_changes_nothing() {
    let world = World::new(2, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.switch(1, Some(0));
    world.deaf.set(1);
    let silent = NoAnswer(cpu_id(0));
    assert_eq!(
        world.use_unit(1, FPU, 8),
        Err(LoadError::NoAnswer(cpu_id(0)))
    );
    assert_eq!(world.pcu.save(&mut world.current(1), FPU), Err(silent));
    assert_eq!(
        world
            .pcu
            .discard(&mut world.current(1), FPU, Validity::Invalid),
        Err(silent)
    );
    assert_eq!(world.pcu.discard_all(&mut world.current(1)), Err(silent));
    world.deaf.set(0);
    assert_eq!(write(&world, 1, 8), 7);
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

#[test]
fn an_empty_slot_is_an_error_to_load_and_nothing_to_save() {
    let world = World::new(1, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    assert_eq!(
        world.pcu.load(&mut world.current(0), DSP),
        Err(LoadError::NoSuchUnit(DSP))
    );
    assert_eq!(world.pcu.save(&mut world.current(0), DSP), Ok(()));
    assert!(!world.lwp(0).pcu.valid_p(unit(31)));
}

#[test]
fn save_all_on_cpu_leaves_the_cpu_without_an_owner() {
    let world = World::new(1, 1, UNITS, TRUSTING);
    world.switch(0, Some(0));
    world.use_unit(0, FPU, 7).unwrap();
    world.use_unit(0, DSP, 70).unwrap();
    world.pcu.save_all_on_cpu(&IplPcu::raise(&*world));
    assert_eq!(count(&world, "save"), 2);
    for unit in [FPU, DSP] {
        assert_eq!(
            (
                world.cpus[0].pcu.owner(unit),
                world.cpus[0].pcu.is_enabled(unit)
            ),
            (None, false)
        );
    }
    assert_eq!(world.use_unit(0, FPU, 8), Ok(7));
}
