//! What kernels do with images besides: a debugger's LWP is live somewhere, the user's memory changes, programs of 32 bits.

use fastrand::Rng;
use pcu9::pcu::Policy;
use pcu9::x86_64::fpu::foreign::{Form, StoreError};
use pcu9_mock::component::{AVX, X87};
use pcu9_mock::{ErrorPointers, Mock, X87Registers, models};

use super::super::models::all;
use super::super::world::World;
use super::play::{export_of, import_into};
use super::{FORMS, check, components, compute_in, export, import, world};

/// LWP 0 computes in all components on CPU 0 and stops; under Lazy its registers stay live there. LWP 2 is the debugger, on CPU 1.
fn stop_lwp_0(world: &World<Mock>, rng: &mut Rng) {
    let all = components();
    world.switch(0, Some(0));
    let computed = world.compute(0, |cpu| compute_in(cpu, all, rng));
    computed.unwrap();
    world.switch(0, None);
    world.switch(1, Some(2));
}

/// V12. A debugger reads the newest state of an LWP that is stopped, and what it writes is the state, although the LWP's registers
/// are live on a CPU: on that one afterwards, and on another.
#[test]
fn a_debugger_reads_and_writes_a_stopped_lwp() {
    let mut rng = Rng::with_seed(12);
    for policy in Policy::ALL {
        for model in [&models::K8, &models::SANDY_BRIDGE, &models::SAPPHIRE_RAPIDS] {
            for next in [0, 1] {
                let world = world(model, policy);
                stop_lwp_0(&world, &mut rng);
                let registers = world.lwp(0).registers.borrow().clone();
                world.go_to(1);
                let mut image = export_of(&world, 0, &mut world.stopped(0), Form::Regset);
                assert_eq!(image[160..416], registers.xmm, "{}", model.name);
                image[160..416].fill(0x3e);
                let checked = check(Form::Regset, &image);
                let result = import_into(&world, 0, &mut world.stopped(0), &checked);
                assert_eq!(result, Ok(()));
                let mut edited = registers;
                edited.xmm = [0x3e; 256];
                world.note(0, edited);
                let shown = export_of(&world, 0, &mut world.stopped(0), Form::Regset);
                assert_eq!(shown, image, "{}, {policy:?}", model.name);
                world.switch(next, Some(0));
                assert_eq!(world.compute(next, |_| Ok(())), Ok(()));
                world.check_end();
            }
        }
    }
}

/// V6. The user changes its memory as soon as the kernel has copied it: what was checked is what is stored and loaded. (That
/// the copy itself cannot change in between is a compile-fail test of the module's.)
#[test]
fn what_was_checked_is_what_is_loaded() {
    for model in all() {
        let world = world(model, Policy::Lazy);
        world.switch(0, Some(0));
        let all = components();
        let computed = world.compute(0, |cpu| compute_in(cpu, all, &mut Rng::with_seed(6)));
        computed.unwrap();
        for form in FORMS {
            let mut of_user = export(&world, form);
            let copy = of_user.clone();
            let checked = check(form, &copy);
            of_user.fill(0xff);
            assert_eq!(import(&world, &checked), Ok(()));
            assert_eq!(world.compute(0, |_| Ok(())), Ok(()), "{}", model.name);
            let image = &of_user;
            let result = pcu9::x86_64::fpu::foreign::UserImage::<Mock>::check(form, image, all);
            assert!(result.is_err(), "{}", model.name);
        }
    }
}

/// V11. The pointers are those of 64-bit mode, all 64 bits of them, out and in. Nothing is compared by them: where a processor
/// does not keep them, or knows no selectors, they are zeros.
#[test]
fn x87_pointers_have_64_bits() {
    let (fip, fdp) = (0x7fff_1234_5678_9abc, 0x7ffe_dcba_9876_5432);
    let mut n = 0;
    for model in all() {
        let world = world(model, Policy::Lazy);
        world.switch(0, Some(0));
        for is_pending in [false, true] {
            let computed = world.compute(0, |cpu| {
                let mut control = [0; 24];
                control[..2].copy_from_slice(&0x037b_u16.to_le_bytes());
                control[2] = if is_pending { 4 } else { 0 };
                control[8..16].copy_from_slice(&u64::to_le_bytes(fip));
                control[16..].copy_from_slice(&u64::to_le_bytes(fdp));
                cpu.write_x87(X87Registers::from_image(&control, &[0x11; 128]))
            });
            computed.unwrap();
            let image = export(&world, Form::Regset);
            let are_kept = is_pending || model.error_pointers == ErrorPointers::Moved;
            let expected = if are_kept { [fip, fdp] } else { [0, 0] };
            let shown = [8, 16].map(|at| super::long(&image, at));
            assert_eq!(shown, expected, "{}, pending: {is_pending}", model.name);
            import(&world, &check(Form::Regset, &image)).unwrap();
            assert_eq!(export(&world, Form::Regset), image, "{}", model.name);
            n += u32::from(are_kept);
        }
    }
    assert!(n > 20, "{n} times kept");
}

/// A refused area is an error of the store; a good image is stored as soon as there is one.
#[test]
fn an_area_that_is_refused_may_be_there_later() {
    let world = world(&models::SANDY_BRIDGE, Policy::Lazy);
    world.switch(0, Some(0));
    let computed = world.compute(0, |cpu| compute_in(cpu, X87 | AVX, &mut Rng::with_seed(2)));
    computed.unwrap();
    let registers = world.lwp(0).registers.borrow().clone();
    let image = export(&world, Form::SignalFrame);
    let checked = check(Form::SignalFrame, &image);
    world.lwp(0).refuses_area.set(true);
    assert_eq!(import(&world, &checked), Err(StoreError::Refused));
    world.starts_over(0);
    world.lwp(0).refuses_area.set(false);
    assert_eq!(world.compute(0, |_| Ok(())), Ok(()), "the initial state");
    assert_eq!(import(&world, &checked), Ok(()));
    world.note(0, registers);
    assert_eq!(world.compute(0, |_| Ok(())), Ok(()));
}
