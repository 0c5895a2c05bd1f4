//! Policies of LWPs' own beside those of units, and what each change of either leaves to `Lazy`.

use pcu9::pcu::{Policy, UnitStats};
use pcu9_fake::cpu_id;

use super::policies::world;
use super::{FPU, sum, write};

#[test]
fn an_lwps_own_policy_wins_over_its_units() {
    let world = world(Policy::Lazy);
    world.switch(0, Some(0));
    write(&world, 0, 7);
    world
        .pcu
        .set_lwp_policy(&mut world.current(0), Some(Policy::Deferred))
        .unwrap();
    world.return_to_user(0);
    assert!(world.cpus[0].open[0].get(), "in place again without a trap");
    world.switch(0, None);
    world.switch(1, Some(0));
    assert_eq!(write(&world, 1, 8), 7);
    let UnitStats { traps, xcalls, .. } = sum(&world);
    assert_eq!((traps, xcalls), (1, 0));
}

#[test]
fn an_lwps_own_policy_outlasts_a_change_of_its_units() {
    let world = world(Policy::Lazy);
    world.switch(0, Some(0));
    world
        .pcu
        .set_lwp_policy(&mut world.current(0), Some(Policy::Deferred))
        .unwrap();
    for policy in [Policy::Eager, Policy::Lazy] {
        world
            .pcu
            .set_policy(&mut world.current(0), [], FPU, policy)
            .unwrap();
    }
    write(&world, 0, 7);
    world.switch(0, None);
    assert_eq!(sum(&world).saves, 1, "written through");
}

/// The note of a switch-in that found nothing to do is `Lazy`'s alone, and says which way was gone.
#[test]
fn lazy_has_its_short_ways_again_after_another_policy() {
    let world = world(Policy::Lazy);
    world.switch(0, Some(0));
    for (policy, has_note) in [
        (Policy::Deferred, false),
        (Policy::Eager, false),
        (Policy::Lazy, true),
        (Policy::Adaptive, false),
        (Policy::Lazy, true),
    ] {
        world
            .pcu
            .set_policy(&mut world.current(0), [cpu_id(0)], FPU, policy)
            .unwrap();
        write(&world, 0, 7);
        for _ in 0..2 {
            world.switch(0, None);
            world.switch(0, Some(0));
        }
        let note = world.cpus[0].pcu.settled();
        let expected = has_note.then_some((world.pointer(0), 1));
        assert_eq!(note, expected, "{policy:?}");
    }
    // `Lazy` as an LWP's own changes nothing, and any other policy does for all and for good.
    let own = [(Some(Policy::Lazy), true), (Some(Policy::Eager), false)];
    for (policy, has_note) in own.into_iter().chain([(None, false)]) {
        world
            .pcu
            .set_lwp_policy(&mut world.current(0), policy)
            .unwrap();
        write(&world, 0, 7);
        for _ in 0..2 {
            world.switch(0, None);
            world.switch(0, Some(0));
        }
        assert_eq!(
            world.cpus[0].pcu.settled().is_some(),
            has_note,
            "{policy:?}"
        );
    }
}
