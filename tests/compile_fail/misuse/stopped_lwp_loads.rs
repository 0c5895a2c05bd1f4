//! Only who runs has registers to load.

use pcu9::kernel::{Kernel, Stopped};
use pcu9::pcu::{Pcu, UnitId};

fn load<K: Kernel<1>>(pcu: &Pcu<K, 1>, stopped: &mut Stopped<'_, K, 1>, fpu: UnitId) {
    let _ = pcu.load(stopped, fpu);
}

fn main() {}
