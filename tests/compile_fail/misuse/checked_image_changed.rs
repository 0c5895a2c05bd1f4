//! What was checked is what is stored: the copy is borrowed in between.

use pcu9::pcu::Replacing;
use pcu9::x86_64::fpu::FpuArea;
use pcu9::x86_64::fpu::foreign::{Form, UserImage};

fn change<L: FpuArea>(copy: &mut [u8], replacing: &mut Replacing<'_, L>) {
    let image = <UserImage>::check(Form::Regset, copy, 7).unwrap();
    copy[24] = 0xff;
    let _ = image.store(replacing);
}

fn main() {}
