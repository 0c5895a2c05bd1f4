//! Nor is it kept in a variable outside.

use pcu9::kernel::{Current, Kernel};
use pcu9::pcu::{Pcu, UnitId};

fn keep<K: Kernel<1>>(pcu: &Pcu<K, 1>, lwp: &mut Current<'_, K, 1>, fpu: UnitId) {
    let mut kept = None;
    pcu.section(lwp, fpu, |section| kept = Some(section))
        .unwrap();
    let _ = kept;
}

fn main() {}
