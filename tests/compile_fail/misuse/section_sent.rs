//! A section is one CPU's: its proof goes to no other.

use pcu9::kernel::{Current, Kernel};
use pcu9::pcu::{Pcu, UnitId};

fn on_another_cpu(_: impl FnOnce() + Send) {}

fn send<K: Kernel<1> + Sync>(pcu: &Pcu<K, 1>, lwp: &mut Current<'_, K, 1>, fpu: UnitId) {
    pcu.section(lwp, fpu, |section| on_another_cpu(|| drop(section.unit())))
        .unwrap();
}

fn main() {}
