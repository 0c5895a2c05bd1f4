//! What was exported is accepted, and is the same state.

use fastrand::Rng;
use pcu9::pcu::{Policy, Validity};
use pcu9::x86_64::fpu::foreign::{Form, Snapshot, StoreError, TooShort};
use pcu9::x86_64::fpu::{FPU, FpuFeatures};
use pcu9_mock::component::{SSE, X87};
use pcu9_mock::{ErrorPointers, Fault, MXCSR_INITIAL, Mock, models};

use super::super::models::all;
use super::super::world::World;
use super::{FORMS, check, components, compute_in, export, import, long, mxcsr, subsets, world};

/// LWP 0 computes in some components, from initial registers on.
fn compute_subset(world: &World<Mock>, subset: u64, rng: &mut Rng) {
    let discarded = world
        .pcu
        .discard(&mut world.current(0), FPU, Validity::Invalid);
    discarded.unwrap();
    world.starts_over(0);
    let done = world.compute(0, |cpu| compute_in(cpu, subset, rng));
    done.unwrap();
}

/// LWP 1 gets the state that LWP 0 was exported with, and finds it in its registers, now and after a switch.
fn hand_over(world: &World<Mock>, form: Form, image: &[u8]) {
    let registers = world.lwp(0).registers.borrow().clone();
    world.switch(0, Some(1));
    import(world, &check(form, image)).unwrap();
    world.note(1, registers);
    assert_eq!(export(world, form), image, "stored, and exported again");
    world
        .compute(0, |_| Ok(()))
        .expect("what was accepted does not fault");
    world.switch(0, Some(2));
    world.switch(0, Some(1));
    world.compute(0, |_| Ok(())).unwrap();
    world.switch(0, Some(0));
}

/// V7, V8, V10. Every model, with each of its save instructions, and every subset of its components in use.
#[test]
fn every_subset_survives_export_and_import() {
    let (mut rng, mut n) = (Rng::with_seed(7), 0);
    for model in all() {
        let world = world(model, Policy::Lazy);
        world.switch(0, Some(0));
        for subset in subsets(components()) {
            compute_subset(&world, subset, &mut rng);
            for form in FORMS {
                let image = export(&world, form);
                check_contents(&world, subset, &image);
                hand_over(&world, form, &image);
                n += 1;
            }
        }
        world.check_end();
    }
    // 4 subsets or 8 or 64 a model, in two forms.
    assert!(n > 1000, "{n} round trips");
}

/// What the image says, read by the model's own offsets.
fn check_contents(world: &World<Mock>, subset: u64, image: &[u8]) {
    let registers = world.lwp(0).registers.borrow();
    let model = world.model;
    assert_eq!(mxcsr(image), registers.mxcsr, "{}", model.name);
    assert_eq!(image[160..416], registers.xmm, "{}", model.name);
    if subset & X87 == 0 {
        assert_eq!(image[..24], super::initial_control(), "{}", model.name);
    }
    for component in model.components {
        if components() & component.bit() != 0 {
            let place = component.offset..component.offset + component.bytes;
            assert_eq!(
                &image[place],
                registers.extended(component.number),
                "{}: component {}",
                model.name,
                component.number
            );
        }
    }
    if model.has_xsave() {
        assert_eq!(long(image, 512) & !components(), 0);
        assert_eq!(
            registers.not_initial() & subset & !X87 & !long(image, 512),
            0,
            "{}: a component left out",
            model.name
        );
        assert!(image[520..576].iter().all(|byte| *byte == 0));
        if mxcsr(image) != MXCSR_INITIAL {
            assert_ne!(long(image, 512) & SSE, 0, "{}", model.name);
        }
    }
}

/// V12, V13. Under no policy do registers, or a save that leaves out what is unmodified, win over an image that was stored: not
/// even where the LWP had the same area loaded a moment before.
#[test]
fn an_import_wins_over_registers_and_optimisations() {
    let mut rng = Rng::with_seed(8);
    for policy in Policy::ALL {
        for model in all() {
            let world = world(model, policy);
            world.switch(0, Some(0));
            let all = components();
            world
                .compute(0, |cpu| compute_in(cpu, all, &mut rng))
                .unwrap();
            let (image, registers) = (
                export(&world, Form::SignalFrame),
                world.lwp(0).registers.borrow().clone(),
            );
            for rest in [None, Some(1), None] {
                // A signal handler's registers are its own.
                world
                    .compute(0, |cpu| compute_in(cpu, all, &mut rng))
                    .unwrap();
                world.switch(0, rest);
                world.switch(0, Some(0));
                world.compute(0, |_| Ok(())).unwrap();
                import(&world, &check(Form::SignalFrame, &image)).unwrap();
                world.note(0, registers.clone());
                world.return_to_user(0);
                world.compute(0, |_| Ok(())).unwrap();
                world.switch(0, rest);
                world.switch(0, Some(0));
                world.compute(0, |_| Ok(())).unwrap();
            }
            world.check_end();
        }
    }
}

/// V7. Memory of a component that is in its initial state may hold what it held before, an exec ago: it is not shown.
#[test]
fn stale_bytes_of_an_area_are_not_shown() {
    for model in all().iter().filter(|model| model.has_xsave()) {
        let world = world(model, Policy::Lazy);
        let lwp = world.lwp(0);
        let bytes = FpuFeatures::of::<Mock>().area_bytes();
        let xcomp_bv: [u8; 8] = lwp.read(520);
        lwp.write(0, &vec![0xee; bytes]);
        lwp.write(24, &MXCSR_INITIAL.to_le_bytes());
        lwp.write(512, &[0; 64]);
        lwp.write(520, &xcomp_bv);
        for form in FORMS {
            // SAFETY: an area that nobody else uses.
            let snapshot = unsafe { Snapshot::<Mock>::of_area(lwp.area()) };
            let [mut stale, mut initial] = [(); 2].map(|()| vec![0; form.bytes_on::<Mock>()]);
            snapshot.export(form, &mut stale).unwrap();
            Snapshot::<Mock>::initial()
                .export(form, &mut initial)
                .unwrap();
            assert_eq!(stale, initial, "{}", model.name);
        }
    }
}

/// V10. AMD's processors that leave the x87 pointers out of a save leave those of an earlier program in the area: not shown, unless
/// an exception is pending, which they say something of.
#[test]
fn old_x87_pointers_are_not_shown() {
    let mut n = 0;
    for model in all() {
        if model.error_pointers != ErrorPointers::LeftOut {
            continue;
        }
        for pending in [0, 4] {
            let world = world(model, Policy::Lazy);
            let lwp = world.lwp(0);
            lwp.write(0, &[0x7b, 0x03, pending, 0, 0, 0]);
            lwp.write(6, &[0xee; 18]);
            if model.has_xsave() {
                lwp.write(512, &[1]);
            }
            let mut image = vec![0; Form::Regset.bytes_on::<Mock>()];
            // SAFETY: an area that nobody else uses.
            let snapshot = unsafe { Snapshot::<Mock>::of_area(lwp.area()) };
            snapshot.export(Form::Regset, &mut image).unwrap();
            let expected = if pending == 0 { 0 } else { 0xee };
            assert_eq!(image[6..24], [expected; 18], "{}", model.name);
            n += 1;
        }
    }
    assert!(n >= 4, "{n} models");
}

/// V14. An exception that is pending in an image is legal; it is the LWP's, at its next instruction, and not the kernel's.
#[test]
fn a_pending_exception_is_handed_over() {
    for model in all() {
        let world = world(model, Policy::Lazy);
        world.switch(0, Some(0));
        world
            .compute(0, |cpu| compute_in(cpu, X87, &mut Rng::with_seed(1)))
            .unwrap();
        let mut image = export(&world, Form::Regset);
        // Zero divide, unmasked.
        (image[0], image[2]) = (0x7b, 4);
        import(&world, &check(Form::Regset, &image)).unwrap();
        world.pcu.load(&mut world.current(0), FPU).unwrap();
        let raises = || Mock::with(|cpu| cpu.fwait());
        assert_eq!(raises(), Err(Fault::Math), "{}", model.name);
        world.note(0, Mock::with(|cpu| cpu.registers.clone()));
        // The switch does not raise it, nobody else inherits it, and it is there when its LWP is back.
        world.switch(0, Some(1));
        assert_eq!(world.compute(0, |cpu| cpu.fwait()), Ok(()));
        world.switch(0, Some(0));
        world.pcu.load(&mut world.current(0), FPU).unwrap();
        assert_eq!(raises(), Err(Fault::Math), "{}", model.name);
    }
}

/// V5. Nothing is written past a buffer, nor into one that is too short.
#[test]
fn a_short_buffer_is_refused() {
    for model in all() {
        let _world = world(model, Policy::Lazy);
        for form in FORMS {
            let needed = form.bytes_on::<Mock>();
            let mut buffer = vec![0x5a; needed - 1];
            let result = Snapshot::<Mock>::initial().export(form, &mut buffer);
            assert_eq!(result, Err(TooShort { needed }), "{}", model.name);
            assert_eq!(buffer, vec![0x5a; needed - 1]);
        }
    }
}

/// An image of the FPU is not stored for another unit, nor where there is no area.
#[test]
fn an_image_goes_into_its_own_units_area_alone() {
    use pcu9::x86_64::amx::AMX;
    let rule = pcu9::pcu::LeakRule::DomainAware;
    let world = World::<Mock>::with_amx(&models::SAPPHIRE_RAPIDS, 1, 1, rule);
    world.switch(0, Some(0));
    let image = export(&world, Form::Regset);
    let image = check(Form::Regset, &image);
    let mut current = world.current(0);
    let result = world
        .pcu
        .replace(&mut current, AMX, |replacing| image.store(replacing));
    assert_eq!(result, Err(StoreError::OtherUnit(AMX)));
    world.lwp(0).refuses_area.set(true);
    assert_eq!(import(&world, &image), Err(StoreError::Refused));
}
