//! What sleeps switches, and a switch takes the LWP's token.

use pcu9::kernel::{Current, IplPcu, Kernel};
use pcu9::pcu::{Pcu, UnitId};

fn sleep<K: Kernel<1>>(
    pcu: &Pcu<K, 1>,
    lwp: &mut Current<'_, K, 1>,
    fpu: UnitId,
    scheduler: &IplPcu<'_, K, 1>,
) {
    pcu.section(lwp, fpu, |_| pcu.switch_out(scheduler, lwp))
        .unwrap();
}

fn main() {}
