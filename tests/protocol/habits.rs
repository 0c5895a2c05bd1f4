//! What Adaptive learns of LWPs that it preloads.

use pcu9::pcu::Policy;
use pcu9_fake::{TRUSTING, World, cpu_id};

use super::{FPU, sum, write};

/// Two LWPs that always compute on CPU 0, until both are preloaded.
fn with_two_preloaded() -> Box<World> {
    let world = World::with_policy(2, 3, 1, TRUSTING, Policy::Adaptive);
    for turn in 0..10 {
        for lwp in 0..2 {
            world.switch(0, Some(lwp));
            write(&world, 0, turn);
        }
    }
    let traps = sum(&world).traps;
    world.switch(0, Some(0));
    write(&world, 0, 7);
    assert_eq!(sum(&world).traps, traps, "preloaded");
    world
}

#[test]
fn adaptive_does_not_write_through_for_a_preloaded_lwp_that_is_evicted() {
    let world = with_two_preloaded();
    world.switch(0, None);
    assert_eq!(world.cpus[0].pcu.owner(FPU), Some(world.pointer(0)), "live");
}

/// Each migration counts, though it takes no trap; so one return to the registers is not enough to give the writing up.
#[test]
fn adaptive_counts_the_migrations_of_a_preloaded_lwp() {
    let world = with_two_preloaded();
    world.switch(0, None);
    world.switch(1, Some(0));
    assert_eq!(write(&world, 1, 8), 7);
    for (cpu, next) in [(1, None), (0, Some(0))] {
        world.switch(cpu, next);
    }
    assert_eq!(write(&world, 0, 9), 8);
    world.switch(0, None);
    world.switch(0, Some(0));
    write(&world, 0, 10);
    let saves = sum(&world).saves;
    world.switch(0, None);
    assert_eq!(sum(&world).saves, saves + 1);
}

/// A state that is fetched counts once, so one return to the registers is enough.
#[test]
fn adaptive_counts_a_fetch_once() {
    let world = with_two_preloaded();
    world.switch(0, None);
    for (value, saves_at_the_end) in [(8, 1), (9, 0)] {
        world.switch(1, Some(0));
        write(&world, 1, value);
        let saves = sum(&world).saves;
        world.switch(1, None);
        assert_eq!(sum(&world).saves, saves + saves_at_the_end);
    }
}

/// `Lazy` keeps no account: who was fetched under it is no migrant for an `Adaptive` that comes after it.
#[test]
fn adaptive_begins_to_learn_with_its_own_time() {
    let world = World::with_policy(2, 1, 1, TRUSTING, Policy::Lazy);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world.switch(0, None);
    world.switch(1, Some(0));
    assert_eq!(write(&world, 1, 8), 7);
    assert_eq!(sum(&world).xcalls, 1);
    let cpus = [0, 1].map(cpu_id);
    let mut lwp = world.current(1);
    world
        .pcu
        .set_policy(&mut lwp, cpus, FPU, Policy::Adaptive)
        .unwrap();
    write(&world, 1, 9);
    let saves = sum(&world).saves;
    world.switch(1, None);
    assert_eq!(sum(&world).saves, saves, "not written through");
}
