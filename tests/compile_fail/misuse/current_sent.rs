//! Who is current is so on one CPU.

use pcu9::kernel::{Current, Kernel};
use pcu9::pcu::{Pcu, UnitId};

fn on_another_cpu(_: impl FnOnce() + Send) {}

fn send<K: Kernel<1> + Sync>(pcu: &'static Pcu<K, 1>, lwp: &mut Current<'_, K, 1>, fpu: UnitId) {
    on_another_cpu(|| pcu.load(lwp, fpu).unwrap());
}

fn main() {}
