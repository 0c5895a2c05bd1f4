//! An LWP is in one section of a unit at a time: only an interrupt nests, with a slot.

use pcu9::kernel::{Current, Kernel};
use pcu9::pcu::{Pcu, UnitId};

fn nest<K: Kernel<1>>(pcu: &Pcu<K, 1>, lwp: &mut Current<'_, K, 1>, fpu: UnitId) {
    pcu.section(lwp, fpu, |_| pcu.section(lwp, fpu, |_| ()))
        .unwrap()
        .unwrap();
}

fn main() {}
