//! What counts as a holder is the crate's to say.

use core::ptr::NonNull;

use pcu9::kernel::{Held, Kernel};

struct Running<'k, K: Kernel<1>>(&'k K, NonNull<K::Lwp>);

impl<K: Kernel<1>> Held<K, 1> for Running<'_, K> {
    fn kernel(&self) -> &K {
        self.0
    }
    fn lwp(&self) -> NonNull<K::Lwp> {
        self.1
    }
}

fn main() {}
