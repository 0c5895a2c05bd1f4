//! Random images. What is accepted does not fault, and is the state that the processor itself makes of those bytes: the judge is
//! the mock's XRSTOR, or FXRSTOR, of the image as it came. The fuzzer does the same with more of them.

use pcu9::pcu::Policy;
use pcu9::x86_64::fpu::Fpu;
use pcu9::x86_64::fpu::foreign::Form;
use pcu9_mock::{Mock, Model};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestRunner};

use super::super::models::{all, strict};
use super::play::play;
use super::{components, world};

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
        let played = play(&world, form, &image(form, &plan), components());
        accepted.set(accepted.get() + u32::from(played.is_some()));
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
            let accepted = run(strict(model), form, CASES);
            assert!(
                accepted >= CASES / 8,
                "{}, {form:?}: {accepted} of {CASES} accepted",
                model.name
            );
        }
    }
}
