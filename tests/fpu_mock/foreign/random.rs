//! Random images. What is accepted does not fault, and is the state that the processor itself makes of those bytes: the judge is
//! the mock's XRSTOR, or FXRSTOR, of the image as it came.

use std::ptr::NonNull;

use pcu9::pcu::{LoadError, Policy};
use pcu9::x86_64::fpu::foreign::{Form, UserImage};
use pcu9::x86_64::fpu::{Fpu, FpuFeatures};
use pcu9::x86_64::machine::Machine;
use pcu9_mock::{CR0_TS, Mock, Model, Registers};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestRunner};

use super::super::models::all;
use super::super::world::World;
use super::{components, export, import, long, world};

/// As long as any image, at a multiple of 64.
#[repr(align(64))]
struct Aligned([u8; 4096]);

/// A byte that is set to another value, at a place where it matters.
fn mutation() -> impl Strategy<Value = (usize, u8)> {
    let place = prop_oneof![
        4 => 512_usize..536,
        4 => 464_usize..488,
        2 => 24_usize..28,
        1 => 536_usize..576,
        1 => 0_usize..4096,
    ];
    (place, any::<u8>())
}

/// Contents, what the header names, and what is wrong with it.
fn plan() -> impl Strategy<Value = (Vec<u8>, u64, Vec<(usize, u8)>)> {
    let contents = prop_oneof![vec(any::<u8>(), 4096), Just(vec![0; 4096])];
    (contents, any::<u64>(), vec(mutation(), 0..3))
}

/// An image that is good but for the mutations, and whether there is none.
fn image(form: Form, (contents, named, mutations): &(Vec<u8>, u64, Vec<(usize, u8)>)) -> Vec<u8> {
    let n = form.bytes_on::<Mock>();
    let mut image = contents[..n].to_vec();
    let mxcsr = super::mxcsr(&image) & Fpu::<Mock>::mxcsr_mask();
    image[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    let mut good = vec![0; n];
    pcu9::x86_64::fpu::foreign::Snapshot::<Mock>::initial()
        .export(form, &mut good)
        .unwrap();
    image[464..512].copy_from_slice(&good[464..512]);
    if n > 512 {
        image[512..576].fill(0);
        image[512..520].copy_from_slice(&(named & components()).to_le_bytes());
        if form == Form::SignalFrame {
            image[n - 4..].copy_from_slice(&good[n - 4..]);
        }
    }
    for (at, byte) in mutations {
        if let Some(place) = image.get_mut(*at) {
            *place = *byte;
        }
    }
    image
}

/// What CPU 1's registers are when they are restored from the image itself, as Linux does it with a signal frame.
fn judge(world: &World<Mock>, form: Form, image: &[u8]) -> Registers {
    let mut aligned = Aligned([0; 4096]);
    let claimed = match form {
        _ if !world.model.has_xsave() => 512,
        Form::SignalFrame if long(image, 464) & 0xffff_ffff != 0 => long(image, 480) & 0xffff_ffff,
        Form::SignalFrame => 512,
        Form::Regset => image.len() as u64,
    };
    let n = usize::try_from(claimed).unwrap().min(image.len());
    aligned.0[..n].copy_from_slice(&image[..n]);
    let area = NonNull::from(&mut aligned).cast();
    let is_legacy = !world.model.has_xsave() || n == 512;
    let rfbm = match form {
        Form::SignalFrame => long(image, 472),
        Form::Regset => u64::MAX,
    };
    world.go_to(1);
    Mock::with(|cpu| {
        cpu.cr0 &= !CR0_TS;
        cpu.registers = Registers::initial(cpu.model());
    });
    let result = if is_legacy {
        // SAFETY: so many bytes, aligned.
        unsafe { Mock::fxrstor(area) }
    } else {
        // SAFETY: as above.
        unsafe { Mock::xrstor(area, rfbm & FpuFeatures::of::<Mock>().xcr0()) }
    };
    let registers = Mock::with(|cpu| {
        cpu.cr0 |= CR0_TS;
        cpu.registers.clone()
    });
    world.go_to(0);
    assert_eq!(
        result,
        Ok(()),
        "the processor refuses what {form:?} accepted"
    );
    registers
}

fn play(world: &World<Mock>, form: Form, image: &[u8]) -> bool {
    let Ok(checked) = UserImage::<Mock>::check(form, image, components()) else {
        return false;
    };
    let registers = judge(world, form, image);
    import(world, &checked).unwrap();
    world.note(0, registers);
    // Exported and imported again, it is still the same.
    let exported = export(world, form);
    let again = UserImage::<Mock>::check(form, &exported, components()).unwrap();
    let result: Result<(), LoadError> = world.compute(0, |_| Ok(()));
    assert_eq!(result, Ok(()), "an accepted image faults");
    import(world, &again).unwrap();
    assert_eq!(world.compute(0, |_| Ok(())), Ok(()));
    true
}

fn run(model: &'static Model, form: Form, cases: u32) -> u32 {
    let world = world(model, Policy::Lazy);
    world.switch(0, Some(0));
    let accepted = std::cell::Cell::new(0);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&plan(), |plan| {
        accepted.set(accepted.get() + u32::from(play(&world, form, &image(form, &plan))));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{}, {form:?}: {error}", model.name);
    }
    accepted.get()
}

#[test]
fn accepted_images_do_not_fault_and_are_what_the_processor_takes_them_for() {
    const CASES: u32 = 100;
    for model in all() {
        for form in super::FORMS {
            let accepted = run(model, form, CASES);
            assert!(
                accepted >= CASES / 8,
                "{}, {form:?}: {accepted} of {CASES} accepted",
                model.name
            );
        }
    }
}
