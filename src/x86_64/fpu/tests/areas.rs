//! Which memory can be an area.

extern crate std;

use core::ptr::NonNull;

use super::super::{AREA_ALIGN, Area, AreaError, FpuFeatures};
use super::{Lwp, on_each_variant};
use crate::x86_64::machine::{Machine, Native};

on_each_variant! { memory_is_checked_before_it_is_an_area }

fn slice(lwp: &mut Lwp, from: usize, bytes: usize) -> NonNull<[u8]> {
    NonNull::from(&mut lwp.0[from..from + bytes])
}

fn memory_is_checked_before_it_is_an_area<M: Machine>() {
    let mut lwp = std::boxed::Box::new(Lwp([0xa5; 4096]));
    let needed = Area::<M>::layout().size();
    assert_eq!(needed, FpuFeatures::of::<M>().area_bytes());
    assert_eq!(Area::<M>::layout().align(), AREA_ALIGN);
    for (from, bytes, error) in [
        (16, needed, AreaError::Misaligned),
        (64, needed - 1, AreaError::TooShort { needed }),
        (0, 0, AreaError::TooShort { needed }),
    ] {
        // SAFETY: memory of the box's, which nobody else uses.
        let area = unsafe { Area::<M>::new(slice(&mut lwp, from, bytes)) };
        assert_eq!(area.err(), Some(error));
        assert!(lwp.0.iter().all(|&byte| byte == 0xa5), "nothing is written");
    }
    // SAFETY: as above.
    let area = unsafe { Area::<M>::new(slice(&mut lwp, 64, needed)) }.unwrap();
    assert_eq!(area.pointer().as_ptr(), &raw mut lwp.0[64]);
    assert_eq!((lwp.0[63], lwp.0[64 + needed]), (0xa5, 0xa5));
    assert_eq!(lwp.0[64..66], 0x037f_u16.to_le_bytes());
}

#[test]
fn an_area_is_the_native_machines_where_nothing_else_is_said() {
    assert_eq!(
        <Area>::layout().size(),
        FpuFeatures::of::<Native>().area_bytes()
    );
}
