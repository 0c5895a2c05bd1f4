//! Save, discard, fork, exit: registers and memory.

use pcu9::kernel::NoAnswer;
use pcu9::pcu::{CoreDump, LeakRule, LoadError, Policy, UnitStats, Validity};
use pcu9_fake::{INITIAL, Memory, TRUSTING, UNITS, World, cpu_id, unit};

use super::{DSP, FPU, count, write};

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

#[test]
fn inspect_brings_memory_up_to_date_and_takes_nothing_away() {
    let world = World::with_policy(2, 2, 1, TRUSTING, Policy::Deferred);
    world.switch(0, Some(0));
    let look = || {
        let state = world.pcu.inspect(&mut world.current(0), FPU);
        (state, world.lwp(0).memory[0].get())
    };
    assert_eq!(look(), (Ok(Validity::Invalid), INITIAL));
    write(&world, 0, 7);
    assert_eq!(look(), (Ok(Validity::Valid), 7));
    assert!(world.cpus[0].open[0].get(), "the registers stay");
    write(&world, 0, 8);
    world.switch(0, None);
    // A debugger on another CPU: the clean link holds, so nothing is moved, neither for it nor for the LWP afterwards.
    world.switch(1, Some(1));
    let mut stopped = world.stopped(0);
    assert_eq!(world.pcu.inspect(&mut stopped, FPU), Ok(Validity::Valid));
    assert_eq!(world.lwp(0).memory[0].get(), 8);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 9), 8);
    assert_eq!((count(&world, "xcall"), count(&world, "load")), (0, 1));
}

/// A debugger that sets one register set keeps the others.
#[test]
fn edit_starts_from_the_newest_state_wherever_it_is() {
    for policy in [Policy::Lazy, Policy::Deferred] {
        let world = World::with_policy(2, 2, 1, TRUSTING, policy);
        world.switch(0, Some(0));
        write(&world, 0, 7);
        world.switch(0, None);
        world.here.set(1);
        let mut stopped = world.stopped(0);
        let memory = &world.lwp(0).memory[0];
        let edited: Result<(), NoAnswer> = world.pcu.edit(&mut stopped, FPU, |editing, had| {
            assert_eq!((had, memory.get()), (Validity::Valid, 7));
            assert_eq!((editing.lwp(), editing.unit()), (world.pointer(0), FPU));
            assert!(!world.lwp(0).pcu.valid_p(FPU), "half an image is no state");
            memory.set(memory.get() + 1);
            Ok(())
        });
        edited.unwrap();
        world.switch(0, Some(0));
        assert_eq!(write(&world, 0, 9), 8);
    }
}

#[test]
fn edit_says_where_there_is_no_image_and_a_failed_one_leaves_no_state() {
    let world = World::new(2, 1, 1, TRUSTING);
    let mut stopped = world.stopped(0);
    world.lwp(0).memory[0].set(70);
    let edit = |stopped: &mut _, result| {
        world.pcu.edit(stopped, FPU, |_, had| {
            assert_eq!(had, Validity::Invalid);
            result
        })
    };
    let silent = NoAnswer(cpu_id(1));
    assert_eq!(edit(&mut stopped, Err(silent)), Err(silent));
    assert!(!world.lwp(0).pcu.valid_p(FPU));
    assert_eq!(edit(&mut stopped, Ok(())), Ok(()));
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 7), 70);
    // Where the holder does not answer nothing has changed.
    world.switch(0, None);
    world.here.set(1);
    world.deaf.set(1);
    let mut stopped = world.stopped(0);
    let answer = world
        .pcu
        .edit(&mut stopped, FPU, |_, _| -> Result<(), NoAnswer> {
            panic!("nothing is to be changed")
        });
    assert_eq!(answer, Err(NoAnswer(cpu_id(0))));
    world.deaf.set(0);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), 7);
}

#[test]
fn inspect_asks_the_cpu_that_holds_the_registers_and_leaves_them_there() {
    let world = World::new(2, 2, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.here.set(1);
    world.deaf.set(1);
    let mut stopped = world.stopped(0);
    let silent = NoAnswer(cpu_id(0));
    assert_eq!(world.pcu.inspect(&mut stopped, FPU), Err(silent));
    world.deaf.set(0);
    assert_eq!(world.pcu.inspect(&mut stopped, FPU), Ok(Validity::Valid));
    assert_eq!(world.lwp(0).memory[0].get(), 7);
    assert_eq!(world.cpus[0].pcu.owner(FPU), Some(world.pointer(0)));
    assert_eq!(
        world.pcu.inspect(&mut stopped, DSP),
        Ok(Validity::Invalid),
        "an empty slot holds no state"
    );
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

/// One unit's state is copied, the other's holder does not answer: half a copy is none.
#[test]
fn a_fork_that_fails_leaves_a_child_without_state() {
    let world = World::new(2, 2, 2, TRUSTING);
    world.switch(0, Some(0));
    world.use_unit(0, DSP, 70).unwrap();
    world.switch(0, None);
    world.switch(1, Some(0));
    write(&world, 1, 7);
    world.deaf.set(1);
    let mut child = world.stopped(1);
    let silent = NoAnswer(cpu_id(0));
    assert_eq!(
        world.pcu.fork(&mut world.current(1), &mut child),
        Err(silent)
    );
    assert!(!world.lwp(1).pcu.valid_p(FPU) && !world.lwp(1).pcu.valid_p(DSP));
    world.deaf.set(0);
    assert_eq!(write(&world, 1, 8), 7, "the parent has lost nothing");
    assert_eq!(world.use_unit(1, DSP, 80), Ok(70));
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
    world.replace(0, Memory::Reused);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), INITIAL);
}

#[test]
#[should_panic(expected = "dropped while its registers are live")]
fn dropping_an_owner_panics() {
    let world = World::new(1, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.replace(0, Memory::Reused);
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
fn an_empty_slot_is_an_error_to_load_and_nothing_to_save() {
    let world = World::new(1, 1, 1, TRUSTING);
    world.switch(0, Some(0));
    assert_eq!(
        world.pcu.load(&mut world.current(0), DSP),
        Err(LoadError::NoSuchUnit(DSP))
    );
    assert_eq!(world.pcu.save(&mut world.current(0), DSP), Ok(()));
    for beyond in [3, 31].map(unit) {
        let lwp = &world.lwp(0).pcu;
        assert_eq!((lwp.valid_p(beyond), lwp.live_cpu(beyond)), (false, None));
        let cpu = &world.cpus[0].pcu;
        assert_eq!(
            (cpu.owner(beyond), cpu.stats(beyond)),
            (None, UnitStats::default())
        );
    }
}

#[test]
fn save_all_on_cpu_leaves_the_cpu_without_an_owner() {
    let world = World::new(1, 1, UNITS, TRUSTING);
    world.switch(0, Some(0));
    world.use_unit(0, FPU, 7).unwrap();
    world.use_unit(0, DSP, 70).unwrap();
    world.pcu.save_all_on_cpu(&world.raise());
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

/// NetBSD/mips: `process_write_fpregs` discarded as invalid, and the next load zeroed what the debugger had written.
#[test]
fn what_replace_writes_is_the_state_wherever_the_old_one_was() {
    for live_on in [0, 1] {
        let world = World::new(2, 1, 1, TRUSTING);
        world.switch(live_on, Some(0));
        write(&world, live_on, 7);
        world.switch(live_on, None);
        let during = || {
            let lwp = world.lwp(0);
            assert!(!lwp.pcu.valid_p(FPU), "a half-written image is no state");
            lwp.memory[0].set(70);
            Ok::<(), NoAnswer>(())
        };
        let mut stopped = world.stopped(0);
        world.pcu.replace(&mut stopped, FPU, |_| during()).unwrap();
        world.switch(0, Some(0));
        assert_eq!(write(&world, 0, 8), 70, "live on {live_on}");
    }
}

#[test]
fn a_child_of_a_deferred_parent_finds_all_its_units_in_place_at_its_first_run() {
    // On a CPU that holds nothing yet, only what the child is said to have used makes the switch look.
    for first_run_on in [0, 1] {
        let world = World::with_policy(2, 2, 2, LeakRule::DomainAware, Policy::Deferred);
        world.switch(0, Some(0));
        world.use_unit(0, FPU, 7).unwrap();
        world.use_unit(0, DSP, 70).unwrap();
        let mut child = world.stopped(1);
        world.pcu.fork(&mut world.current(0), &mut child).unwrap();
        world.switch(first_run_on, Some(1));
        let open = &world.cpus[first_run_on].open;
        assert!(open[0].get() && open[1].get());
        assert_eq!(world.use_unit(first_run_on, FPU, 8), Ok(7));
        assert_eq!(world.use_unit(first_run_on, DSP, 80), Ok(70));
    }
}

/// A unit whose use does not trap has its initial state before user mode again, and not before.
#[test]
fn a_switch_in_the_middle_of_a_discard_of_all_brings_nothing_in() {
    let world = World::with_untrappable_unit(1, 1, TRUSTING);
    world.switch(0, Some(0));
    world.on_lowering(|world| {
        if world.here().current.get() == Some(0) {
            world.switch(0, None);
            world.switch(0, Some(0));
        }
    });
    world.pcu.discard_all(&mut world.current(0)).unwrap();
    let last = unit(2);
    assert!(!world.lwp(0).pcu.valid_p(last));
    world.on_lowering(|_| {});
    world.return_to_user(0);
    world.use_unit(0, last, 7).unwrap();
    world.switch(0, None);
    assert_eq!(world.lwp(0).memory[2].get(), 7);
}

/// Over a kernel thread without a state the gate stays as the last user LWP had it.
#[test]
fn a_kernel_thread_that_is_given_a_state_does_not_go_on_over_anothers() {
    let world = World::new(1, 2, 1, TRUSTING);
    world.lwp(1).domain.set(0);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    let image = || {
        world.lwp(1).memory[0].set(70);
        Ok::<(), NoAnswer>(())
    };
    let mut thread = world.current(0);
    world.pcu.replace(&mut thread, FPU, |_| image()).unwrap();
    assert_eq!(write(&world, 0, 71), 70);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), 7);
}
