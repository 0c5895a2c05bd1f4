//! A pointer to an LWP that runs elsewhere is no proof that it is stopped.

use core::ptr::NonNull;

use pcu9::kernel::Kernel;
use pcu9::pcu::{Pcu, UnitId};

fn peek<K: Kernel<1>>(pcu: &Pcu<K, 1>, running: &mut NonNull<K::Lwp>, fpu: UnitId) {
    let _ = pcu.save(running, fpu);
}

fn main() {}
