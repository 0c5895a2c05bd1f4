//! The end of a domain's turn: nothing is left in the registers, and nothing is lost.

use pcu9::pcu::{LeakRule, Policy, UnitStats};
use pcu9_fake::{INITIAL, Memory, TRUSTING, World};

use super::{FPU, sum, write};

/// Flushes the CPU that the thread plays; `stand_in` is an LWP that never runs.
fn flush(world: &World, stand_in: usize) {
    let ipl = world.raise();
    world.pcu.flush(&ipl, &mut world.stopped(stand_in));
}

fn assert_empty(world: &World) {
    let cpu = &world.cpus[0];
    assert_eq!(
        (cpu.registers[0].get(), cpu.open[0].get()),
        (INITIAL, false)
    );
    assert_eq!(world.cpus[0].pcu.owner(FPU), None);
}

#[test]
fn a_live_state_is_saved_and_comes_back() {
    for rule in [TRUSTING, LeakRule::DomainAware] {
        let world = World::new(1, 2, 1, rule);
        world.switch(0, Some(0));
        write(&world, 0, 7);
        flush(&world, 1);
        assert_empty(&world);
        world.switch(0, Some(0));
        assert_eq!(write(&world, 0, 8), 7);
        let UnitStats {
            saves,
            releases,
            wipes,
            restores,
            ..
        } = sum(&world);
        assert_eq!((saves, releases, wipes, restores), (1, 1, 1, 1));
    }
}

#[test]
fn where_nothing_is_live_the_stand_in_takes_the_registers_and_has_no_state() {
    let world = World::new(1, 2, 1, TRUSTING);
    world.switch(0, Some(0));
    flush(&world, 1);
    assert_empty(&world);
    assert!(!world.lwp(1).pcu.valid_p(FPU));
    let UnitStats {
        saves, releases, ..
    } = sum(&world);
    assert_eq!((saves, releases), (0, 0));
}

/// Written through, the registers are clean and still linked: after the flush the link must not hold.
#[test]
fn a_clean_link_does_not_survive_a_flush() {
    let world = World::with_policy(1, 3, 1, TRUSTING, Policy::Deferred);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, Some(1));
    flush(&world, 2);
    assert_empty(&world);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), 7);
    assert_eq!(sum(&world).elided_restores, 0);
}

/// Another domain's switch-in after a flush has nothing to wipe: the flush has done it.
#[test]
fn after_a_flush_another_domain_wipes_nothing() {
    let world = World::new(1, 3, 1, LeakRule::DomainAware);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    flush(&world, 2);
    world.switch(0, Some(1));
    assert_eq!(sum(&world).wipes, 1, "the flush's own");
}

/// The CPU went on naming an LWP that had ended, whose memory was then another's (seL4, commit 7d91ce8e; KAOS, commit 7cb2060).
#[test]
fn shared_bug_stale_owner_at_exit() {
    let world = World::new(2, 2, 1, TRUSTING);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.pcu.exit(world.current(0)).unwrap();
    assert_eq!(world.cpus[0].pcu.owner(FPU), None);
    // The next LWP has the same address, as memory that was freed and given out again has.
    world.switch(0, None);
    world.replace(0, Memory::New);
    world.switch(0, Some(0));
    assert_eq!(write(&world, 0, 8), INITIAL, "not the dead one's registers");
    world.switch(0, Some(1));
    assert_eq!(write(&world, 0, 9), INITIAL);
    let UnitStats { saves, inits, .. } = sum(&world);
    assert_eq!((saves, inits), (1, 3), "nothing was saved for the dead one");
}
