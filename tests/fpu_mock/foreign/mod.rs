//! Images from outside and for outside, on every processor of the mock's. Rows V1 to V10, V13 and V14 of the list.
//!
//! Leak rule: `DomainAware`.

mod corruptions;
#[cfg(target_os = "linux")]
mod linux;
mod random;
mod round_trips;

use fastrand::Rng;
use pcu9::pcu::{LeakRule, Policy, Validity};
use pcu9::x86_64::fpu::foreign::{Form, Snapshot, StoreError, UserImage};
use pcu9::x86_64::fpu::{FPU, Fpu, FpuFeatures};
use pcu9_mock::component::{SSE, X87};
use pcu9_mock::{Cpu, Fault, MXCSR_INITIAL, Mock, Model};

use super::contents::random_x87;
use super::world::World;

pub(super) const FORMS: [Form; 2] = [Form::Regset, Form::SignalFrame];

pub(super) fn world(model: &'static Model, policy: Policy) -> Box<World<Mock>> {
    World::new(model, 2, 3, policy, LeakRule::DomainAware)
}

/// The components that the unit moves on this model.
pub(super) fn components() -> u64 {
    match FpuFeatures::of::<Mock>().xcr0() {
        0 => X87 | SSE,
        xcr0 => xcr0,
    }
}

/// The subsets of a bitmap.
pub(super) fn subsets(of: u64) -> impl Iterator<Item = u64> {
    (0..=of).filter(move |subset| subset & !of == 0)
}

/// A program leaves random contents in the components of a bitmap and touches no other; `MXCSR` goes with SSE here.
pub(super) fn compute_in(cpu: &mut Cpu, components: u64, rng: &mut Rng) -> Result<(), Fault> {
    if components & X87 != 0 {
        cpu.write_x87(random_x87(rng))?;
    }
    if components & SSE != 0 {
        let mut xmm = [0; 256];
        rng.fill(&mut xmm);
        cpu.write_xmm(xmm)?;
        cpu.ldmxcsr(rng.u32(..) & cpu.model().mxcsr_mask)?;
    }
    for component in cpu.model().components {
        if components & component.bit() != 0 {
            let mut bytes = vec![0; component.bytes];
            rng.fill(&mut bytes);
            cpu.write_extended(component.number, &bytes)?;
        }
    }
    Ok(())
}

/// What a debugger, or a signal handler, is shown of an LWP that is current on CPU 0.
pub(super) fn export(world: &World<Mock>, form: Form) -> Vec<u8> {
    let lwp = world.current_on(0).expect("somebody runs there");
    let validity = world.pcu.inspect(&mut world.current(0), FPU).unwrap();
    let snapshot = match validity {
        Validity::Invalid => Snapshot::<Mock>::initial(),
        // SAFETY: the area of an LWP that does not run before the export is done.
        Validity::Valid => unsafe { Snapshot::of_area(world.lwp(lwp).area()) },
    };
    let bytes = form.bytes_on::<Mock>();
    // Whatever lay in the buffer, nothing of it is left, and nothing behind the image is touched.
    let [image, other] = [0x5a, 0xa5].map(|poison| {
        let mut buffer = vec![poison; bytes + 64];
        assert_eq!(snapshot.export(form, &mut buffer), Ok(bytes));
        assert_eq!(buffer.split_off(bytes), [poison; 64]);
        buffer
    });
    let poison = image.iter().zip(&other).position(|(a, b)| a != b);
    assert_eq!(poison, None, "a byte that nobody wrote");
    image
}

/// What sigreturn does with a good image.
pub(super) fn import(world: &World<Mock>, image: &UserImage<'_, Mock>) -> Result<(), StoreError> {
    let mut current = world.current(0);
    world
        .pcu
        .replace(&mut current, FPU, |replacing| image.store(replacing))
}

pub(super) fn check(form: Form, bytes: &[u8]) -> UserImage<'_, Mock> {
    UserImage::check(form, bytes, components()).expect("the image is a good one")
}

/// `MXCSR` of an image.
pub(super) fn mxcsr(image: &[u8]) -> u32 {
    u32::from_le_bytes(*image[24..].first_chunk().unwrap())
}

/// Eight bytes of an image, 0 behind its end.
pub(super) fn long(image: &[u8], at: usize) -> u64 {
    let chunk = image.get(at..).and_then(<[u8]>::first_chunk);
    chunk.map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// V10, V7: an LWP that never used the FPU is shown the initial state.
#[test]
fn an_unused_fpu_is_shown_initial() {
    for model in super::models::all() {
        let world = world(model, Policy::Lazy);
        world.switch(0, Some(0));
        for form in FORMS {
            let image = export(&world, form);
            assert_eq!(image[..24], initial_control(), "{}", model.name);
            assert_eq!(mxcsr(&image), MXCSR_INITIAL);
            assert_eq!(
                image[28..32],
                Fpu::<Mock>::mxcsr_mask().to_le_bytes(),
                "{}",
                model.name
            );
            assert!(image[32..464].iter().all(|byte| *byte == 0));
            assert!(image.get(576..600).is_none_or(|bytes| bytes == [0; 24]));
        }
        world.check_end();
    }
}

fn initial_control() -> [u8; 24] {
    let mut control = [0; 24];
    control[..2].copy_from_slice(&0x37f_u16.to_le_bytes());
    control
}
