//! What a level guards ends with it.

use pcu9::kernel::{IplPcu, Kernel};

fn leak<'k, K: Kernel<1>>(kernel: &'k K) -> &'k IplPcu<'k, K, 1> {
    IplPcu::with(kernel, |ipl| ipl)
}

fn main() {}
