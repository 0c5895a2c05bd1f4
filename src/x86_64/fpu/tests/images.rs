//! What is in an image, and which is the initial state.

use super::super::{Format, FpuFeatures, restore};
use super::variants::restore_and_save;
use super::{Lwp, on_each_variant};
use crate::x86_64::machine::Machine;

on_each_variant! {
    a_prepared_area_is_the_initial_state,
    what_is_restored_is_what_is_saved,
    a_saved_image_of_zeroed_registers_restores_zeros,
    mxcsr_alone_makes_a_state_of_its_own,
    a_good_image_is_no_fault,
    an_image_with_fewer_components_is_good,
}

fn a_prepared_area_is_the_initial_state<M: Machine>() {
    let mut lwp = Lwp::boxed::<M>();
    assert!(lwp.is_initial::<M>());
    let features = FpuFeatures::of::<M>();
    assert_eq!(lwp.0[features.area_bytes()], 0xa5, "written past the area");
    if features.save_instruction().format() == Format::Compacted {
        assert_eq!(lwp.u64_at(520), 1 << 63 | features.xcr0(), "XCOMP_BV");
    }
}

/// Gives the vector registers of an image contents; says which components it has then.
fn fill(lwp: &mut Lwp, features: &FpuFeatures) -> u64 {
    let components = features.xcr0() & 0b110;
    lwp.0[24..28].copy_from_slice(&0x7f80_u32.to_le_bytes());
    lwp.0[160..416].fill(0x5a);
    if features.xcr0() != 0 {
        lwp.0[512..520].copy_from_slice(&components.to_le_bytes());
    }
    if components & 4 != 0 {
        // AVX is the first component behind the header in every format.
        lwp.0[576..832].fill(0x3c);
    }
    components
}

fn what_is_restored_is_what_is_saved<M: Machine>() {
    let (mut from, mut to) = (Lwp::boxed::<M>(), Lwp::boxed::<M>());
    let components = fill(&mut from, FpuFeatures::of::<M>());
    restore_and_save::<M>(&mut from, &mut to);
    assert!(!to.is_initial::<M>());
    assert_eq!(to.0[24..28], from.0[24..28], "MXCSR");
    assert_eq!(to.0[160..416], from.0[160..416], "XMM");
    if components & 4 != 0 {
        assert_eq!(to.0[576..832], from.0[576..832], "the upper halves of YMM");
    }
}

/// The pattern that finds what is wrong with components left out: a processor that goes by contents calls zeros initial, and
/// does not write them.
fn a_saved_image_of_zeroed_registers_restores_zeros<M: Machine>() {
    let (mut from, mut to, mut again) = (Lwp::boxed::<M>(), Lwp::boxed::<M>(), Lwp::boxed::<M>());
    let features = FpuFeatures::of::<M>();
    fill(&mut from, features);
    from.0[160..416].fill(0);
    if features.xcr0() & 4 != 0 {
        from.0[576..832].fill(0);
    }
    fill(&mut to, features);
    restore_and_save::<M>(&mut from, &mut to);
    restore_and_save::<M>(&mut to, &mut again);
    let is_sse_left_out = features.xcr0() != 0 && again.xstate_bv() & 2 == 0;
    assert!(is_sse_left_out || again.0[160..416] == [0; 256], "XMM");
    assert_eq!(to.is_initial::<M>(), again.is_initial::<M>());
}

fn mxcsr_alone_makes_a_state_of_its_own<M: Machine>() {
    let (mut from, mut to) = (Lwp::boxed::<M>(), Lwp::boxed::<M>());
    from.0[24..28].copy_from_slice(&0x9f80_u32.to_le_bytes());
    if FpuFeatures::of::<M>().save_instruction().format() == Format::Compacted {
        // In this format MXCSR goes with SSE.
        from.0[512] = 2;
    }
    restore_and_save::<M>(&mut from, &mut to);
    assert_eq!(to.0[24..28], 0x9f80_u32.to_le_bytes());
    assert!(!to.is_initial::<M>());
}

fn a_good_image_is_no_fault<M: Machine>() {
    let mut lwp = Lwp::boxed::<M>();
    // SAFETY: user mode has no gate, and the image is the initial one.
    assert_eq!(unsafe { restore::<M>(lwp.area()) }, Ok(()));
}

/// An image that was saved when `XCR0` was smaller: what it has not, is initial, and not what was in the registers.
fn an_image_with_fewer_components_is_good<M: Machine>() {
    let features = FpuFeatures::of::<M>();
    if features.xcr0() & 4 == 0 {
        return;
    }
    let (mut old, mut to) = (Lwp::boxed::<M>(), Lwp::boxed::<M>());
    fill(&mut old, features);
    old.0[512] = 2;
    old.0[576..832].fill(0x99);
    if features.save_instruction().format() == Format::Compacted {
        old.0[520..528].copy_from_slice(&(1_u64 << 63 | 3).to_le_bytes());
    }
    restore_and_save::<M>(&mut old, &mut to);
    assert_eq!(to.0[160..416], old.0[160..416], "XMM");
    let is_avx_left_out = to.xstate_bv() & 4 == 0;
    assert!(
        is_avx_left_out || to.0[576..832] == [0; 256],
        "the upper halves of YMM"
    );
}

#[test]
fn only_the_restores_are_fixed_up() {
    assert_eq!(crate::x86_64::fixup(0), None);
    let rip = only_the_restores_are_fixed_up as *const ();
    assert_eq!(crate::x86_64::fixup(rip as u64), None);
}
