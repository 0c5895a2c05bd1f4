//! That an LWP is current is a promise: the token is not made without one.

use core::ptr::NonNull;

use pcu9::kernel::{Current, Kernel};

fn make<K: Kernel<1>>(kernel: &K, lwp: NonNull<K::Lwp>) -> Current<'_, K, 1> {
    Current::new(kernel, lwp)
}

fn main() {}
