//! What needs no ring 0: XSAVE and its kin are unprivileged, so the images are made by the machine that the test runs on, by each
//! save instruction that it has but XSAVES.

extern crate std;

mod areas;
mod cpuid;
mod images;
mod variants;
mod wipes;

use core::ptr::NonNull;
use std::boxed::Box;
use std::format;
use std::io::Write;

use self::variants::Only;
use super::{Fpu, FpuArea, FpuFeatures, Refused, SaveInstruction};
use crate::x86_64::machine::{Machine, Native};

const MXCSR_INITIAL: u32 = 0x1f80;

/// An LWP that is nothing but an area.
#[repr(C, align(64))]
struct Lwp([u8; 4096]);

impl Lwp {
    /// One whose area is prepared, in memory that was not zero.
    fn boxed<M: Machine>() -> Box<Self> {
        let mut lwp = Box::new(Self([0xa5; 4096]));
        assert!(FpuFeatures::of::<M>().area_bytes() <= 4096);
        // SAFETY: the box holds as many bytes, and nobody else knows it.
        unsafe { Fpu::<M>::prepare(lwp.area()) };
        lwp
    }

    fn area(&mut self) -> NonNull<u8> {
        NonNull::from(self).cast()
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.0[at..].first_chunk().unwrap())
    }

    fn xstate_bv(&self) -> u64 {
        self.u64_at(512)
    }

    fn is_initial<M: Machine>(&mut self) -> bool {
        // SAFETY: the image in memory is the state.
        unsafe { super::image::is_initial(self.area(), FpuFeatures::of::<M>()) }
    }
}

// SAFETY: the LWP is the area, long and aligned enough; `boxed` prepares it.
unsafe impl FpuArea for Lwp {
    unsafe fn area(lwp: NonNull<Self>) -> Result<NonNull<u8>, Refused> {
        Ok(lwp.cast())
    }
}

/// Past libtest, which shows what a passed test prints to nobody.
fn say_not_run(test: &str, why: &str) {
    let line = format!("NOT RUN: {test}: this machine has no {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Has this machine the instruction, so that a test of it can run in user mode?
fn has(instruction: SaveInstruction) -> bool {
    FpuFeatures::of::<Native>().save_instruction() >= instruction
}

/// Makes tests of generic functions: one for each save instruction of this machine but XSAVES, which user mode may not use.
macro_rules! on_each_variant {
    ($($test:ident),+ $(,)?) => {
        $crate::x86_64::fpu::tests::on_each_variant! { @ fxsave Fxsave: $($test),+ }
        $crate::x86_64::fpu::tests::on_each_variant! { @ xsave Xsave: $($test),+ }
        $crate::x86_64::fpu::tests::on_each_variant! { @ xsaveopt Xsaveopt: $($test),+ }
        $crate::x86_64::fpu::tests::on_each_variant! { @ xsavec Xsavec: $($test),+ }
    };
    (@ $module:ident $instruction:ident: $($test:ident),+) => {
        mod $module {
            use $crate::x86_64::fpu::SaveInstruction::$instruction;
            use $crate::x86_64::fpu::tests::{Only, has, say_not_run};
            $(
                #[test]
                fn $test() {
                    if has($instruction) {
                        super::$test::<Only<{ $instruction as u8 }>>();
                    } else {
                        say_not_run(stringify!($test), stringify!($instruction));
                    }
                }
            )+
        }
    };
}
use on_each_variant;
