//! There is one token for the current LWP: who has given it away, at its exit for instance, has none.

use pcu9::kernel::{Current, Kernel};
use pcu9::pcu::{Pcu, UnitId};

fn after_its_end<K: Kernel<1>>(pcu: &Pcu<K, 1>, mut lwp: Current<'_, K, 1>, fpu: UnitId) {
    pcu.exit(lwp).unwrap();
    let _ = pcu.load(&mut lwp, fpu);
}

fn main() {}
