//! A unit whose use cannot be detected: whatever takes it from an LWP, it is in place whenever user code runs.

use pcu9::pcu::{Policy, UnitId};
use pcu9_fake::{INITIAL, TRUSTING, World, unit};

/// The only one of the fake kernel's units whose use does not trap.
const LAST: UnitId = unit(2);

/// A machine on whose CPU 0 LWP 0 has written 7.
fn world() -> Box<World> {
    let world = World::with_untrappable_unit(2, 2, TRUSTING);
    world.switch(0, Some(0));
    world.return_to_user(0);
    assert_eq!(world.use_unit(0, LAST, 7), Ok(INITIAL));
    world
}

#[test]
fn it_follows_its_lwp_to_a_cpu_that_holds_nothing() {
    let world = world();
    world.switch(0, None);
    world.switch(1, Some(0));
    assert_eq!(world.use_unit(1, LAST, 8), Ok(7));
}

#[test]
fn it_is_brought_in_again_before_user_mode_when_an_operation_took_it() {
    let world = world();
    world.pcu.save(&mut world.current(0), LAST).unwrap();
    world.lwp(0).memory[2].set(70);
    world.return_to_user(0);
    assert_eq!(world.use_unit(0, LAST, 8), Ok(70));
}

#[test]
fn it_is_brought_in_again_by_a_switch_when_an_operation_took_it() {
    let world = world();
    world.pcu.save(&mut world.current(0), LAST).unwrap();
    world.lwp(0).memory[2].set(70);
    world.switch(0, None);
    world.switch(0, Some(0));
    assert_eq!(world.use_unit(0, LAST, 8), Ok(70));
}

/// Under Lazy it would stay live behind the LWP, which no trap would tell.
#[test]
fn a_policy_of_an_lwps_own_that_needs_traps_leaves_it_to_its_units() {
    let world = world();
    let mut lwp = world.current(0);
    let own = Some(Policy::Lazy);
    world.pcu.set_lwp_policy(&mut lwp, own).unwrap();
    world.return_to_user(0);
    assert_eq!(world.use_unit(0, LAST, 8), Ok(7));
    world.switch(0, None);
    world.switch(1, Some(0));
    assert_eq!(world.use_unit(1, LAST, 9), Ok(8));
}

#[test]
fn a_policy_of_an_lwps_own_that_needs_no_traps_wins_here_too() {
    let world = world();
    let mut lwp = world.current(0);
    let own = Some(Policy::Eager);
    world.pcu.set_lwp_policy(&mut lwp, own).unwrap();
    world.return_to_user(0);
    for next in [None, Some(0)] {
        world.switch(0, next);
    }
    assert_eq!(world.use_unit(0, LAST, 8), Ok(7));
    let elided = world.cpus[0].pcu.stats(LAST).elided_restores;
    assert_eq!(elided, 0, "Eager drops the link");
}
