//! Images from outside and for outside, on every processor of the mock's. Rows V1 to V14 of the list, but for V9.
//!
//! Leak rule: `DomainAware`.

mod corruptions;
mod kernels;
#[cfg(target_os = "linux")]
mod linux;
mod play;
mod random;
mod round_trips;

use pcu9::pcu::{LeakRule, Policy};
use pcu9::x86_64::fpu::Fpu;
use pcu9::x86_64::fpu::foreign::{Form, UserImage};
use pcu9_mock::{MXCSR_INITIAL, Mock, Model};

use self::play::{FORMS, components, compute_in, export, import, long, mxcsr};
use super::world::World;

pub(super) fn world(model: &'static Model, policy: Policy) -> Box<World<Mock>> {
    World::new(model, 2, 3, policy, LeakRule::DomainAware)
}

/// The subsets of a bitmap.
pub(super) fn subsets(of: u64) -> impl Iterator<Item = u64> {
    (0..=of).filter(move |subset| subset & !of == 0)
}

pub(super) fn check(form: Form, bytes: &[u8]) -> UserImage<'_, Mock> {
    UserImage::check(form, bytes, components()).expect("the image is a good one")
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
