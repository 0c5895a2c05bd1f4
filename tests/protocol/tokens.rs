//! What a token does to the level.

use pcu9::kernel::{CpuId, Domain, IplPcu};
use pcu9_fake::{TRUSTING, World};

#[test]
fn a_token_that_is_kept_lowers_nothing() {
    let world = World::new(1, 1, 1, TRUSTING);
    world.raise().keep();
    assert!(world.is_raised());
    // SAFETY: the level is up, and the one before it was the lowest.
    drop(unsafe { IplPcu::adopt(&*world, false) });
    assert!(!world.is_raised());
}

#[test]
fn numbers_that_the_crate_uses_itself_are_refused() {
    assert_eq!(CpuId::new(CpuId::LIMIT), None);
    assert_eq!(CpuId::new(CpuId::LIMIT - 1).map(CpuId::index), Some(16382));
    for refused in [0, u64::MAX - 1, u64::MAX] {
        assert_eq!(Domain::new(refused), None);
    }
    assert_eq!(
        Domain::new(u64::MAX - 2).map(Domain::get),
        Some(u64::MAX - 2)
    );
}
