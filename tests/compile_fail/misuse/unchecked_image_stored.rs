//! Bytes from outside are no image before they were checked.

use pcu9::kernel::{Held, Kernel};
use pcu9::pcu::Pcu;
use pcu9::x86_64::fpu::FPU;
use pcu9::x86_64::fpu::foreign::StoreError;

fn sigreturn<K: Kernel<1>>(pcu: &Pcu<K, 1>, lwp: &mut impl Held<K, 1>, copy: &[u8]) {
    let _: Result<(), StoreError> = pcu.replace(lwp, FPU, |replacing| copy.store(replacing));
}

fn main() {}
