//! A cross-call takes the level's token: behind the wait the CPU may be another one.

use pcu9::kernel::{CpuId, IplPcu, Kernel};

fn ask<K: Kernel<1>>(kernel: &K, ipl: IplPcu<'_, K, 1>, cpu: CpuId) {
    kernel.cross_call(ipl, cpu, &|_| ()).unwrap();
    let _ = kernel.this_cpu_pcu(&ipl);
}

fn main() {}
