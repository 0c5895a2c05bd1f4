//! The host's Linux as the judge: images go through `PTRACE_SETREGSET` and `PTRACE_GETREGSET` of a child, and through the frame of
//! a real signal. pcu9's side runs on the mock, with the host's CPUID.
//!
//! Components that Linux has and the unit has not (PKRU, AMX) stay as the child's are.

mod child;
mod frame;

use fastrand::Rng;
use pcu9::pcu::Policy;
use pcu9::x86_64::fpu::foreign::{Form, ImageError, UserImage};
use pcu9_mock::component::X87;
use pcu9_mock::{Mock, models};

use self::child::Child;
use super::super::world::World;
use super::{check, components, compute_in, export, import, long, subsets, world};

fn host() -> Box<World<Mock>> {
    let world = world(models::this_machine(), Policy::Lazy);
    world.switch(0, Some(0));
    world
}

/// Says something past libtest, which shows what a passed test prints to nobody.
fn say(what: &str) {
    use std::io::Write;
    let line = format!("{what}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// pcu9's image in the place of Linux's, which may be longer and name more.
fn for_linux(image: &[u8], linux: &[u8]) -> Vec<u8> {
    let mut all = linux.to_vec();
    all[..464].copy_from_slice(&image[..464]);
    let theirs = long(linux, 512) & !components();
    all[512..520].copy_from_slice(&(long(image, 512) | theirs).to_le_bytes());
    for component in models::this_machine().components {
        if components() & component.bit() != 0 {
            let place = component.offset..component.offset + component.bytes;
            all[place.clone()].copy_from_slice(&image[place]);
        }
    }
    all
}

/// What pcu9 has of Linux's image.
fn for_pcu9(linux: &[u8]) -> Vec<u8> {
    let mut image = linux[..Form::Regset.bytes_on::<Mock>()].to_vec();
    let ours = long(linux, 512) & components();
    image[512..520].copy_from_slice(&ours.to_le_bytes());
    image
}

/// Every subset of the host's components: Linux takes the image, gives the same bytes back, and the processor, which has loaded and
/// saved them in between, does too.
#[test]
fn an_exported_image_is_accepted_and_read_back_equal() {
    let (world, child) = (host(), Child::start());
    let mut rng = Rng::with_seed(9);
    let base = child.regset();
    let mut n = 0;
    for _ in 0..8 {
        for subset in subsets(components()) {
            let invalid = pcu9::pcu::Validity::Invalid;
            let mut current = world.current(0);
            world
                .pcu
                .discard(&mut current, pcu9::x86_64::fpu::FPU, invalid)
                .unwrap();
            world.starts_over(0);
            world
                .compute(0, |cpu| compute_in(cpu, subset, &mut rng))
                .unwrap();
            let image = export(&world, Form::Regset);
            let sent = for_linux(&image, &base);
            assert_eq!(child.set_regset(&sent, sent.len()), Ok(()));
            let back = child.regset();
            assert_eq!(first_difference(&back, &sent, &[]), None, "{subset:#x}");
            // By content, and without the pointers where the processor saves none, the same after it was in the registers.
            child.run();
            let back = child.regset();
            let unlike = [6..24, 512..520];
            let difference = first_difference(&back, &sent, &unlike);
            assert_eq!(difference, None, "{subset:#x}, after a run");
            check(Form::Regset, &for_pcu9(&back));
            n += 1;
        }
    }
    assert!(n >= 32, "{n} images");
}

/// The first byte that differs, outside of some ranges.
fn first_difference(
    left: &[u8],
    right: &[u8],
    unlike: &[std::ops::Range<usize>],
) -> Option<(usize, u8, u8)> {
    assert_eq!(left.len(), right.len());
    (0..left.len())
        .filter(|at| !unlike.iter().any(|range| range.contains(at)))
        .find(|at| left[*at] != right[*at])
        .map(|at| (at, left[at], right[at]))
}

/// What Linux shows of a program that computed is accepted, stored, and exported again as the same bytes.
#[test]
fn an_image_of_linux_is_accepted() {
    let (world, child) = (host(), Child::start());
    let linux = child.regset();
    assert_ne!(long(&linux, 512) & X87, 0, "the child has computed");
    assert_eq!(super::mxcsr(&linux), 0x9fc0, "the child has computed");
    let image = for_pcu9(&linux);
    import(&world, &check(Form::Regset, &image)).unwrap();
    let mut expected = image;
    expected[464..472].copy_from_slice(&components().to_le_bytes());
    assert_eq!(export(&world, Form::Regset), expected);
}

/// What Linux refuses, pcu9 refuses. (The reverse is not so: Linux clips an image that is too long, and does not look at `MXCSR`
/// if neither SSE nor AVX is named.)
#[test]
fn what_linux_refuses_is_refused() {
    let (world, child) = (host(), Child::start());
    world
        .compute(0, |cpu| compute_in(cpu, 7, &mut Rng::with_seed(4)))
        .unwrap();
    let base = child.regset();
    let good = export(&world, Form::Regset);
    let is_good = |child: &Child| {
        let sent = for_linux(&good, &base);
        assert_eq!(child.set_regset(&sent, sent.len()), Ok(()));
        check(Form::Regset, &good);
    };
    is_good(&child);
    let mut n = 0;
    let mut both_refuse = |what: &str, bytes: &[(usize, u8)], ours: fn(ImageError) -> bool| {
        let mut image = good.clone();
        let mut sent = for_linux(&good, &base);
        for (at, bits) in bytes {
            image[*at] |= bits;
            sent[*at] |= bits;
        }
        let linux = child.set_regset(&sent, sent.len());
        assert_eq!(linux, Err(libc::EINVAL), "{what}: {bytes:x?}");
        let error = UserImage::<Mock>::check(Form::Regset, &image, components()).unwrap_err();
        assert!(ours(error), "{what}: {error}");
        n += 1;
    };
    let has = long(&base, 464);
    for bit in (0..64).filter(|bit| has & 1 << bit == 0) {
        both_refuse("XSTATE_BV", &[(512 + bit / 8, 1 << (bit % 8))], |error| {
            matches!(error, ImageError::Forbidden(_))
        });
    }
    for bit in 0..64 {
        both_refuse("XCOMP_BV", &[(520 + bit / 8, 1 << (bit % 8))], |error| {
            matches!(error, ImageError::Compacted(_))
        });
    }
    for at in 528..576 {
        both_refuse("reserved", &[(at, 0x10)], |error| {
            matches!(error, ImageError::Reserved { .. })
        });
    }
    let mask = models::this_machine().mxcsr_mask;
    for bit in (0..32).filter(|bit| mask & 1 << bit == 0) {
        both_refuse("MXCSR", &[(24 + bit / 8, 1 << (bit % 8))], |error| {
            matches!(error, ImageError::Mxcsr(_))
        });
    }
    let sent = for_linux(&good, &base);
    for length in (0..sent.len()).step_by(8) {
        assert!(child.set_regset(&sent, length).is_err(), "{length} bytes");
        let ours = &good[..length.min(good.len() - 1)];
        let error = UserImage::<Mock>::check(Form::Regset, ours, components()).unwrap_err();
        assert!(matches!(error, ImageError::Length { .. }), "{error}");
        n += 1;
    }
    assert!(n >= 61 - 8 + 64 + 48 + 14 + 72, "{n} corruptions");
    is_good(&child);
}
