//! It is not the caller's to forget, so a section always ends.

use pcu9::kernel::{Current, Kernel};
use pcu9::pcu::{Pcu, UnitId};

fn forget<K: Kernel<1>>(pcu: &Pcu<K, 1>, lwp: &mut Current<'_, K, 1>, fpu: UnitId) {
    pcu.section(lwp, fpu, |section| core::mem::forget(*section))
        .unwrap();
}

fn main() {}
