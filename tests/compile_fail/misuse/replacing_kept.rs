//! Memory is the state, to be written, inside of `replace` alone.

use pcu9::kernel::{Held, Kernel};
use pcu9::pcu::{Pcu, UnitId};

fn keep<K: Kernel<1, Lwp: 'static>>(pcu: &Pcu<K, 1>, lwp: &mut impl Held<K, 1>, fpu: UnitId) {
    let mut kept = None;
    pcu.replace(lwp, fpu, |replacing| {
        kept = Some(replacing);
        Ok::<(), pcu9::kernel::NoAnswer>(())
    })
    .unwrap();
    let _ = kept;
}

fn main() {}
