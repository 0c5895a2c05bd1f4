//! What waits for another CPU needs the LWP's token, which the section keeps.

use pcu9::kernel::{Current, Kernel};
use pcu9::pcu::{Pcu, UnitId};

fn wait<K: Kernel<1>>(pcu: &Pcu<K, 1>, lwp: &mut Current<'_, K, 1>, fpu: UnitId) {
    pcu.section(lwp, fpu, |_| pcu.load(lwp, fpu))
        .unwrap()
        .unwrap();
}

fn main() {}
