//! A token is branded with its kernel.

use pcu9::kernel::{Current, Kernel};
use pcu9::pcu::{Pcu, UnitId};

fn mix<K: Kernel<1>, Other: Kernel<1>>(
    pcu: &Pcu<K, 1>,
    lwp: &mut Current<'_, Other, 1>,
    fpu: UnitId,
) {
    let _ = pcu.load(lwp, fpu);
}

fn main() {}
