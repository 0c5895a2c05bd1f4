//! What needs no ring 0: XSAVE and its kin are unprivileged, so the images are made by the machine that the test runs on.

extern crate std;

use core::arch::asm;
use core::ptr::NonNull;
use std::boxed::Box;
use std::io::Write;

use super::{AREA_ALIGN, Fpu, FpuArea, Refused, SaveInstruction, features, prepare, restore, wipe};
use crate::pcu::PcuOps;
use crate::x86_64::machine::Native;

static MXCSR_INITIAL: u32 = 0x1f80;

/// An LWP that is nothing but an area.
#[repr(C, align(64))]
struct Lwp([u8; 4096]);

impl Lwp {
    fn boxed() -> Box<Self> {
        let mut lwp = Box::new(Self([0xa5; 4096]));
        assert!(features().area_bytes() <= 4096);
        // SAFETY: the box holds as many bytes, and nobody else knows it.
        unsafe { prepare(lwp.area()) };
        lwp
    }

    fn area(&mut self) -> NonNull<u8> {
        NonNull::from(self).cast()
    }
}

// SAFETY: the LWP is the area, long and aligned enough; `boxed` prepares it.
unsafe impl FpuArea for Lwp {
    unsafe fn area(lwp: NonNull<Self>) -> Result<NonNull<u8>, Refused> {
        Ok(lwp.cast())
    }
}

/// Loads the image at `from` and saves the registers to `to`, in one block: Rust's own code between may use XMM.
fn restore_and_save(from: &mut Lwp, to: &mut Lwp) {
    let (from, to) = (from.area().as_ptr(), to.area().as_ptr());
    let mask = u32::try_from(features().xcr0()).unwrap();
    // No clobber names MXCSR and the x87 control word, so they are put back.
    let mxcsr = &raw const MXCSR_INITIAL;
    match features().save_instruction() {
        // SAFETY: both areas are long enough; the clobbers name all registers that the image holds.
        SaveInstruction::Fxsave => unsafe {
            asm!(
                "fxrstor64 [rsi]", "fxsave64 [rdi]", "fninit", "ldmxcsr [rcx]",
                in("rsi") from, in("rdi") to, in("rcx") mxcsr, clobber_abi("C"),
            );
        },
        // SAFETY: as above.
        SaveInstruction::Xsave | SaveInstruction::Xsaveopt => unsafe {
            asm!(
                "xrstor64 [rsi]", "xsave64 [rdi]", "fninit", "ldmxcsr [rcx]",
                in("rsi") from, in("rdi") to, in("rcx") mxcsr, in("eax") mask, in("edx") 0,
                clobber_abi("C"),
            );
        },
    }
}

#[test]
fn areas_are_long_and_aligned_as_cpuid_says() {
    assert_eq!(align_of::<Lwp>(), AREA_ALIGN);
    let components = features().xcr0();
    assert!(
        components == 0 || components & 0x3 == 0x3,
        "XSAVE without x87 and SSE: {components:#x}"
    );
    let expected = match components {
        0 => 512,
        0x3 => 576,
        _ => 832,
    };
    assert_eq!(features().area_bytes(), expected);
}

#[test]
fn a_prepared_area_is_the_initial_state() {
    let mut lwp = Lwp::boxed();
    // SAFETY: a prepared area is the state.
    assert!(unsafe { <Fpu>::is_initial(NonNull::from(&mut *lwp)) });
    assert_eq!(&lwp.0[..2], &0x037f_u16.to_le_bytes(), "x87 control word");
    assert_eq!(lwp.0[4], 0, "the abridged tag word: 0 is empty");
    assert_eq!(&lwp.0[24..28], &MXCSR_INITIAL.to_le_bytes(), "MXCSR");
    assert_eq!(
        lwp.0[features().area_bytes()],
        0xa5,
        "written past the area"
    );
}

#[test]
fn what_is_restored_is_what_is_saved() {
    let (mut from, mut to) = (Lwp::boxed(), Lwp::boxed());
    from.0[24..28].copy_from_slice(&0x7f80_u32.to_le_bytes());
    from.0[160..416].fill(0x5a);
    let avx = features().xcr0() & 4 != 0;
    if features().xcr0() != 0 {
        from.0[512] = if avx { 6 } else { 2 };
    }
    if avx {
        from.0[576..832].fill(0x3c);
    }
    restore_and_save(&mut from, &mut to);
    // SAFETY: the image was just saved.
    assert!(!unsafe { <Fpu>::is_initial(NonNull::from(&mut *to)) });
    assert_eq!(to.0[24..28], from.0[24..28], "MXCSR");
    assert_eq!(to.0[160..416], from.0[160..416], "XMM");
    if avx {
        assert_eq!(to.0[576..832], from.0[576..832], "the upper halves of YMM");
    }
}

#[test]
fn mxcsr_alone_makes_a_state_of_its_own() {
    let mut lwp = Lwp::boxed();
    lwp.0[24..28].copy_from_slice(&0x9f80_u32.to_le_bytes());
    // SAFETY: the image in memory is the state.
    assert!(!unsafe { <Fpu>::is_initial(NonNull::from(&mut *lwp)) });
}

#[test]
fn a_good_image_is_no_fault() {
    let mut lwp = Lwp::boxed();
    // SAFETY: user mode has no gate, and the image is the initial one.
    assert_eq!(unsafe { restore::<Native>(lwp.area()) }, Ok(()));
}

#[test]
fn only_the_restores_are_fixed_up() {
    assert_eq!(crate::x86_64::fixup(0), None);
    assert_eq!(
        crate::x86_64::fixup(only_the_restores_are_fixed_up as *const () as u64),
        None
    );
}

/// Fills XMM3 or, with `x87`, an x87 register, wipes, and saves; in one block but for the wipe, which is called from it.
fn wipe_after(x87: bool, to: &mut Lwp) {
    extern "C" fn call_wipe() {
        // SAFETY: user mode has no gate, and the test has saved nothing that it needs.
        unsafe { wipe::<Native>() };
    }
    let (to, mask) = (
        to.area().as_ptr(),
        u32::try_from(features().xcr0()).unwrap(),
    );
    let pattern = 0x5a5a_5a5a_5a5a_5a5a_u64;
    // SAFETY: the area is long enough; the clobbers name what is changed; the stack is aligned for the call by `r12`.
    unsafe {
        asm!(
            "mov r12, rsp",
            "and rsp, -16",
            "movq xmm3, {pattern}",
            "test {x87:l}, {x87:l}",
            "jz 2f",
            "fld1",
            "2: call {wipe}",
            "mov rsp, r12",
            "mov rdi, r13",
            "mov eax, r14d",
            "xor edx, edx",
            "xsave64 [rdi]",
            x87 = in(reg_abcd) u64::from(x87),
            pattern = in(reg) pattern,
            wipe = sym call_wipe,
            out("r12") _,
            in("r13") to,
            in("r14") mask,
            clobber_abi("C"),
        );
    }
}

#[test]
fn a_wipe_leaves_the_initial_state() {
    if features().save_instruction() == SaveInstruction::Fxsave {
        // Past libtest, which shows what a passed test prints to nobody.
        let line =
            "NOT RUN: a_wipe_leaves_the_initial_state: this machine has no XSAVE to look with\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    for x87 in [false, true] {
        let mut lwp = Lwp::boxed();
        lwp.0[160..416].fill(0x77);
        wipe_after(x87, &mut lwp);
        // SAFETY: the image was just saved.
        let is_initial = unsafe { <Fpu>::is_initial(NonNull::from(&mut *lwp)) };
        let untouched = lwp.0[160..416] == [0x77; 256];
        let zero = lwp.0[160..416] == [0; 256];
        assert!(untouched || zero, "XMM after a wipe");
        // A processor whose XINUSE goes by history calls zeroed vectors in use all the same.
        assert!(is_initial || zero, "neither initial nor zero; x87 {x87}");
        assert_eq!(lwp.0[512] & 1, 0, "x87 is initial after a wipe; x87 {x87}");
    }
}
