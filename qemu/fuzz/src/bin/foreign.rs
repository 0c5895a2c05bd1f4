//! Images of the FPU from outside, on mock processors: checked, stored, exported, in the standard format and in the compacted one.
//!
//! An input is a processor (1 byte), what the rest is (1 byte: bit 0 the form, bits 1 and 2 the kind), what the LWP may use (1 byte,
//! components 0 to 7; bit 3 of the byte before stands for all others), and the rest. Kind 0: an image as it is. Kind 1: changes to
//! a good image that fills every component. Others: changes to the initial one. A change is a place (2 bytes), a length (1 byte,
//! below 16), and bytes; at a place from 61440 on there is a new length of the image instead.
//!
//! What must hold is in the tests' `play`; here it must hold with XSAVE and with the best save instruction of the processor, whose
//! areas are compacted, and the exported images must be the same.

#![no_main]

#[path = "../../../../tests/fpu_mock/contents.rs"]
#[expect(dead_code, reason = "the tests' own, of which this is a part")]
mod contents;
#[path = "../../../../tests/fpu_mock/lwp.rs"]
#[expect(dead_code, reason = "the tests' own, of which this is a part")]
mod lwp;
#[path = "../../../../tests/fpu_mock/models.rs"]
#[expect(dead_code, reason = "the tests' own, of which this is a part")]
mod models;
#[path = "../../../../tests/fpu_mock/foreign/play.rs"]
mod play;
#[path = "../../../../tests/fpu_mock/world.rs"]
#[expect(dead_code, reason = "the tests' own, of which this is a part")]
mod world;

/// The tests let interrupts into kernel sections; here there are none.
mod sections {
    use pcu9::x86_64::machine::Machine;

    use super::world::World;

    pub(crate) fn may_interrupt<M: Machine>(_: &World<M>) {}
}

use std::cell::RefCell;

use fastrand::Rng;
use libfuzzer_sys::fuzz_target;
use pcu9::pcu::{LeakRule, Policy};
use pcu9_mock::{Aside, Mock, Model, models as processors};
use play::{FORMS, components, compute_in, export, play};
use world::World;

thread_local! {
    /// Each processor with all its save instructions, and with XSAVE alone.
    static MACHINES: RefCell<Vec<Vec<Machine>>> = RefCell::new(processors::ALL.map(variants).into());
}

fn variants(model: &'static Model) -> Vec<Machine> {
    let mut models = vec![model];
    if model.extensions != 0 {
        models.push(models::with_extensions(model, 0));
    }
    let machines: Vec<_> = models.into_iter().map(Machine::new).collect();
    let good = &machines[0].good;
    assert!(machines.iter().all(|machine| machine.good == *good));
    machines
}

/// A machine that is switched on once, and put aside when it is not used.
struct Machine {
    cpus: Aside,
    world: Box<World<Mock>>,
    /// Good images in each form: of a state that fills every component, and of the initial one.
    good: [[Vec<u8>; 2]; 2],
}

impl Machine {
    fn new(model: &'static Model) -> Self {
        let (strict, rule) = (models::strict(model), LeakRule::DomainAware);
        let world = World::new(strict, 2, 2, Policy::Lazy, rule);
        world.switch(0, Some(0));
        let initial = FORMS.map(|form| export(&world, form));
        let (mut rng, all) = (Rng::with_seed(1), components());
        let computed = world.compute(0, |cpu| compute_in(cpu, all, &mut rng));
        assert_eq!(computed, Ok(()));
        let full = FORMS.map(|form| export(&world, form));
        let mut machine = Self {
            cpus: Aside::default(),
            world,
            good: [full, initial],
        };
        Mock::exchange(&mut machine.cpus);
        machine
    }

    /// Does something while this machine is the thread's.
    fn with<R>(&mut self, f: impl FnOnce(&World<Mock>) -> R) -> R {
        Mock::exchange(&mut self.cpus);
        let result = f(&self.world);
        Mock::exchange(&mut self.cpus);
        result
    }
}

fuzz_target!(|data: &[u8]| {
    let [processor, what, permitted, rest @ ..] = data else {
        return;
    };
    let form = usize::from(what & 1);
    let above = if what & 8 == 0 { 0 } else { !0xff };
    let permitted = u64::from(*permitted) | above;
    MACHINES.with_borrow_mut(|machines| {
        let processor = usize::from(*processor) % machines.len();
        let machines = &mut machines[processor];
        let image = match what >> 1 & 3 {
            0 => rest.to_vec(),
            kind => changed(&machines[0].good[usize::from(kind >> 1)][form], rest),
        };
        let mut results = machines
            .iter_mut()
            .map(|machine| machine.with(|world| play(world, FORMS[form], &image, permitted)));
        let first = results.next().expect("a processor");
        for other in results {
            assert!(other == first, "the formats of areas make a difference");
        }
    });
});

fn changed(good: &[u8], mut changes: &[u8]) -> Vec<u8> {
    let mut image = good.to_vec();
    while let [low, high, length, rest @ ..] = changes {
        changes = rest;
        let at = usize::from(u16::from_le_bytes([*low, *high]));
        if at >= 0xf000 {
            image.resize(at & 0xfff, 0);
        } else if !image.is_empty() {
            let at = at % image.len();
            let n = usize::from(length % 16)
                .min(rest.len())
                .min(image.len() - at);
            image[at..at + n].copy_from_slice(&rest[..n]);
            changes = &rest[n..];
        }
    }
    image
}
