//! What is refused, with what error.

use fastrand::Rng;
use pcu9::pcu::{LoadError, Policy, StateError};
use pcu9::x86_64::fpu::foreign::{Form, ImageError, UserImage};
use pcu9::x86_64::fpu::{FPU, Fpu, FpuFeatures};
use pcu9_mock::component::{AVX, PKRU, SSE, X87};
use pcu9_mock::{HeaderCheck, Mock, Model, models};

use super::super::models::all;
use super::super::world::World;
use super::{check, components, compute_in, export, import, long, world};

/// A good image of a state that fills everything.
fn full(world: &World<Mock>, form: Form) -> Vec<u8> {
    world.switch(0, Some(0));
    let all = components();
    let done = world.compute(0, |cpu| compute_in(cpu, all, &mut Rng::with_seed(3)));
    done.unwrap();
    export(world, form)
}

fn refusal(form: Form, image: &[u8]) -> ImageError {
    UserImage::<Mock>::check(form, image, components()).expect_err("it is a bad image")
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// V1 to V4, in both forms, on every model: each wrong byte has its error, and takes no good image with it.
#[test]
fn each_corruption_of_an_image_has_its_error() {
    for model in all() {
        let world = world(model, Policy::Lazy);
        for form in super::FORMS {
            let good = full(&world, form);
            check(form, &good);
            for bit in 0..32 {
                let mut image = good.clone();
                image[24 + bit / 8] |= 1 << (bit % 8);
                let is_reserved = Fpu::<Mock>::mxcsr_mask() & 1 << bit == 0;
                let result = UserImage::<Mock>::check(form, &image, components());
                let expected = if is_reserved {
                    Err(ImageError::Mxcsr(1 << bit))
                } else {
                    Ok(())
                };
                assert_eq!(result.map(|_| ()), expected, "{}", model.name);
            }
            if model.has_xsave() {
                corrupt_header(model, form, &good);
            }
        }
    }
}

fn corrupt_header(model: &Model, form: Form, good: &[u8]) {
    for bit in 0..64 {
        let mut image = good.to_vec();
        image[512 + bit / 8] |= 1 << (bit % 8);
        let result = UserImage::<Mock>::check(form, &image, components());
        let expected = match 1 << bit {
            bit if components() & bit == 0 => Err(ImageError::Forbidden(bit)),
            _ => Ok(()),
        };
        assert_eq!(result.map(|_| ()), expected, "{}", model.name);
        let mut image = good.to_vec();
        image[520 + bit / 8] |= 1 << (bit % 8);
        assert_eq!(refusal(form, &image), ImageError::Compacted(1 << bit));
    }
    for at in 528..576 {
        let mut image = good.to_vec();
        image[at] = 0x80;
        assert_eq!(refusal(form, &image), ImageError::Reserved { at });
    }
}

/// V4. XRSTOR takes `MXCSR` from a standard image whatever `XSTATE_BV` says, so it is looked at with the SSE bit clear too.
#[test]
fn mxcsr_is_checked_without_the_sse_bit() {
    for model in all().iter().filter(|model| model.has_xsave()) {
        let world = world(model, Policy::Lazy);
        let mut image = full(&world, Form::Regset);
        for xstate_bv in [0, X87, AVX & components()] {
            put(&mut image, 512, &xstate_bv.to_le_bytes());
            put(&mut image, 24, &0x0080_0000_u32.to_le_bytes());
            let error = refusal(Form::Regset, &image);
            assert_eq!(error, ImageError::Mxcsr(0x0080_0000), "{}", model.name);
        }
    }
}

/// V1. What this LWP may not use it does not get by an image, although the machine has it.
#[test]
fn an_image_gives_no_component_that_is_not_permitted() {
    let world = world(&models::SKYLAKE_X, Policy::Lazy);
    let image = full(&world, Form::Regset);
    let result = UserImage::<Mock>::check(Form::Regset, &image, AVX);
    assert_eq!(result.unwrap_err(), ImageError::Forbidden(0xe0));
    // Nor by the kernel's mistake: the machine's components are the limit.
    let mut image = image;
    let with_pkru = long(&image, 512) | PKRU;
    put(&mut image, 512, &with_pkru.to_le_bytes());
    let result = UserImage::<Mock>::check(Form::Regset, &image, u64::MAX);
    assert_eq!(result.unwrap_err(), ImageError::Forbidden(PKRU));
}

/// V5. The sizes and magics of a frame.
#[test]
fn each_corruption_of_a_frame_has_its_error() {
    for model in all().iter().filter(|model| model.has_xsave()) {
        let world = world(model, Policy::Lazy);
        let good = full(&world, Form::SignalFrame);
        let size = good.len() - 4;
        let whole = u32::try_from(size).unwrap();
        let max = size;
        let claimed = |claimed: u32| ImageError::XstateSize {
            max,
            claimed: claimed as usize,
        };
        let extended = |claimed| ImageError::ExtendedSize {
            min: size + 4,
            claimed,
        };
        let magic2 = |found| ImageError::Magic2 { at: size, found };
        for (at, word, expected) in [
            (464, 0x4650_5845, ImageError::Magic1(0x4650_5845)),
            (464, 1, ImageError::Magic1(1)),
            (480, 0, claimed(0)),
            (480, 575, claimed(575)),
            (480, whole + 1, claimed(whole + 1)),
            (480, u32::MAX, claimed(u32::MAX)),
            (468, 0, extended(0)),
            (468, whole + 3, extended(size + 3)),
            (size, 0, magic2(0)),
            (size, 0x4650_5853, magic2(0x4650_5853)),
        ] {
            let mut image = good.clone();
            put(&mut image, at, &u32::to_le_bytes(word));
            let error = refusal(Form::SignalFrame, &image);
            assert_eq!(error, expected, "{}: byte {at}", model.name);
        }
    }
}

/// V5. Images of every wrong length: never read past the end, never taken for a shorter one.
#[test]
fn each_wrong_length_is_refused() {
    for model in all() {
        let world = world(model, Policy::Lazy);
        for form in super::FORMS {
            let good = full(&world, form);
            for got in 0..good.len() {
                let needed = match form {
                    Form::SignalFrame if got < 512 => 512,
                    _ => good.len(),
                };
                let error = refusal(form, &good[..got]);
                assert_eq!(error, ImageError::Length { needed, got }, "{}", model.name);
            }
        }
        let mut long = full(&world, Form::Regset);
        let needed = long.len();
        long.push(0);
        let error = refusal(Form::Regset, &long);
        let got = needed + 1;
        assert_eq!(error, ImageError::Length { needed, got });
    }
}

/// V5. A frame of a program that knows fewer components is one, as long as what it names lies in it.
#[test]
fn a_frame_may_be_shorter_than_the_machines() {
    for model in all().iter().filter(|model| model.has_xsave()) {
        let world = world(model, Policy::Lazy);
        let mut image = full(&world, Form::SignalFrame);
        put(&mut image, 480, &576_u32.to_le_bytes());
        put(&mut image, 576, &0x4650_5845_u32.to_le_bytes());
        image.truncate(580);
        let behind = components() & !(X87 | SSE);
        if behind != 0 {
            let error = refusal(Form::SignalFrame, &image);
            assert_eq!(error, ImageError::CutOff(behind), "{}", model.name);
        }
        put(&mut image, 512, &(X87 | SSE).to_le_bytes());
        let mut registers = world.lwp(0).registers.borrow().clone();
        import(&world, &check(Form::SignalFrame, &image)).unwrap();
        for component in model.components {
            registers.extended_mut(component.number).fill(0);
        }
        world.note(0, registers);
        world.compute(0, |_| Ok(())).unwrap();
    }
}

/// Each error says in one line what is wrong, and where.
#[test]
fn errors_say_what_and_where() {
    for (error, text) in [
        (
            ImageError::Length {
                needed: 836,
                got: 12,
            },
            "the image has 12 bytes where 836 are needed",
        ),
        (
            ImageError::Magic1(1),
            "the frame's first magic, at byte 464, is 0x1",
        ),
        (
            ImageError::Magic2 { at: 832, found: 2 },
            "the frame's second magic, at byte 832, is 0x2",
        ),
        (
            ImageError::Forbidden(0x200),
            "XSTATE_BV, at byte 512, names components 0x200, which the lwp may not use",
        ),
        (
            ImageError::Reserved { at: 540 },
            "byte 540 of the header, reserved, is not 0",
        ),
        (
            ImageError::Mxcsr(0x1_0000),
            "MXCSR, at byte 24, has the bits 0x10000, which the processor does not have",
        ),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

/// The bug of the unvalidated image at sigreturn (Asterinas #3920, `StelluxOS` #166): the frame's bytes, copied into the area, are
/// what the kernel faults on, in the middle of a switch. Checked, they are an error to sigreturn, and the LWP's state is what it was.
#[test]
fn the_unvalidated_image_at_sigreturn() {
    for model in [&models::K8, &models::SANDY_BRIDGE, &models::SKYLAKE_X] {
        for policy in Policy::ALL {
            let world = world(model, policy);
            let mut frame = full(&world, Form::SignalFrame);
            put(&mut frame, 24, &u32::MAX.to_le_bytes());
            let error = refusal(Form::SignalFrame, &frame);
            assert!(matches!(error, ImageError::Mxcsr(_)), "{error}");
            world.compute(0, |_| Ok(())).unwrap();
            let lwp = world.lwp(0);
            let raw = world.pcu.replace(&mut world.current(0), FPU, |_| {
                lwp.write(24, &u32::MAX.to_le_bytes());
                if model.has_xsave() {
                    lwp.write(512, &[3]);
                }
                Ok::<(), pcu9::kernel::NoAnswer>(())
            });
            assert_eq!(raw, Ok(()));
            let result = world.compute(0, |_| Ok(()));
            let fault = LoadError::State(StateError::BadImage);
            assert_eq!(result, Err(fault), "{}: this is the bug", model.name);
        }
    }
}

/// V3. A processor that looks at all reserved bytes refuses no accepted image; one that looks at few would let bad ones pass.
#[test]
fn no_processor_is_relied_on_for_the_header() {
    let strict: &'static Model = Box::leak(Box::new(Model {
        header_check: HeaderCheck::Bytes8To63,
        ..models::SANDY_BRIDGE
    }));
    for model in [&models::SANDY_BRIDGE, strict] {
        let world = world(model, Policy::Lazy);
        let mut image = full(&world, Form::Regset);
        import(&world, &check(Form::Regset, &image)).unwrap();
        world.compute(0, |_| Ok(())).unwrap();
        image[575] = 1;
        let error = refusal(Form::Regset, &image);
        assert_eq!(error, ImageError::Reserved { at: 575 });
        assert_ne!(FpuFeatures::of::<Mock>().xcr0(), 0);
    }
}
