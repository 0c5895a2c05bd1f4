//! A section's proof is only lent: it does not outlive the section.

use pcu9::kernel::{Current, Kernel};
use pcu9::pcu::{Pcu, Section, UnitId};

fn leak<'a, K: Kernel<1>>(
    pcu: &Pcu<K, 1>,
    lwp: &mut Current<'_, K, 1>,
    fpu: UnitId,
) -> &'a Section<'a, K, 1> {
    pcu.section(lwp, fpu, |section| section).unwrap()
}

fn main() {}
