//! One CPU's level is not another's.

use pcu9::kernel::{IplPcu, Kernel};

fn on_another_cpu(_: impl FnOnce() + Send) {}

fn send<K: Kernel<1, Saved = bool> + Sync>(ipl: IplPcu<'_, K, 1>) {
    on_another_cpu(move || drop(ipl));
}

fn main() {}
