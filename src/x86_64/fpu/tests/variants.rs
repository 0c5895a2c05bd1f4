//! This machine, as one that has fewer save instructions; and the four bugs that independent kernels share, each by name.

extern crate std;

use core::arch::asm;
use core::arch::x86_64::CpuidResult;
use core::ptr::NonNull;

use super::super::{Detected, FpuFeatures, SaveInstruction, mxcsr_mask};
use super::{Lwp, MXCSR_INITIAL, on_each_variant};
use crate::x86_64::machine::{Faulted, Machine, Native};

/// This machine without the save instructions behind `LAST`, which is one of [`SaveInstruction`] as a number.
pub(super) enum Only<const LAST: u8> {}

macro_rules! as_native {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)+) => {
        $(unsafe fn $name($($argument: $type),*) $(-> $result)? {
            // SAFETY: the same promises.
            unsafe { Native::$name($($argument),*) }
        })+
    };
}

// SAFETY: the machine that the test runs on, with CPUID bits cleared; each has its own place for its features.
unsafe impl<const LAST: u8> Machine for Only<LAST> {
    fn detected() -> &'static Detected {
        static DETECTED: [Detected; 5] = [const { Detected::new() }; 5];
        &DETECTED[usize::from(LAST)]
    }

    fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
        let mut result = Native::cpuid(leaf, subleaf);
        match (leaf, subleaf) {
            (1, _) if LAST == SaveInstruction::Fxsave as u8 => result.ecx &= !(1 << 26),
            (0xd, 1) if LAST < SaveInstruction::Xsaveopt as u8 => result.eax &= !0b1011,
            (0xd, 1) if LAST < SaveInstruction::Xsavec as u8 => result.eax &= !0b1010,
            (0xd, 1) if LAST < SaveInstruction::Xsaves as u8 => result.eax &= !0b1000,
            _ => {}
        }
        result
    }

    as_native! {
        read_cr0() -> u64;
        write_cr0(value: u64);
        read_cr4() -> u64;
        write_cr4(value: u64);
        read_efer() -> u64;
        write_efer(value: u64);
        xgetbv0() -> u64;
        xsetbv0(value: u64);
        rdmsr(register: u32) -> u64;
        wrmsr(register: u32, value: u64);
        clts();
        stts();
        fxsave(area: NonNull<u8>);
        xsave(area: NonNull<u8>, mask: u64);
        xsaveopt(area: NonNull<u8>, mask: u64);
        xsavec(area: NonNull<u8>, mask: u64);
        xsaves(area: NonNull<u8>, mask: u64);
        fxrstor(area: NonNull<u8>) -> Result<(), Faulted>;
        xrstor(area: NonNull<u8>, mask: u64) -> Result<(), Faulted>;
        xrstors(area: NonNull<u8>, mask: u64) -> Result<(), Faulted>;
        xinuse() -> u64;
        zero_vectors(mxcsr: u32);
        wipe_x87_pointers();
        tile_release();
    }
}

macro_rules! restore_then_save {
    ($restore:literal, $save:literal, $from:expr, $to:expr, $mask:expr) => {
        // SAFETY: both areas are long enough, and the first holds an image; the clobbers name all registers that it holds but
        // MXCSR and the x87 control word, which are put back.
        unsafe {
            asm!(
                concat!($restore, " [rsi]"), concat!($save, " [rdi]"), "fninit", "ldmxcsr [rcx]",
                in("rsi") $from, in("rdi") $to, in("rcx") &MXCSR_INITIAL,
                inout("eax") $mask => _, inout("edx") 0 => _, clobber_abi("C"),
            )
        }
    };
}

/// Loads the image at `from` and saves the registers to `to`, in one block: Rust's own code between may use XMM.
pub(super) fn restore_and_save<M: Machine>(from: &mut Lwp, to: &mut Lwp) {
    let features = FpuFeatures::of::<M>();
    let (from, to) = (from.area().as_ptr(), to.area().as_ptr());
    let mask = u32::try_from(features.xcr0()).unwrap();
    match features.save_instruction() {
        SaveInstruction::Fxsave => restore_then_save!("fxrstor64", "fxsave64", from, to, mask),
        SaveInstruction::Xsave => restore_then_save!("xrstor64", "xsave64", from, to, mask),
        SaveInstruction::Xsaveopt => restore_then_save!("xrstor64", "xsaveopt64", from, to, mask),
        SaveInstruction::Xsavec => restore_then_save!("xrstor64", "xsavec64", from, to, mask),
        SaveInstruction::Xsaves => unreachable!("user mode has no XSAVES"),
    }
}

on_each_variant! {
    the_instruction_is_the_one_that_is_left,
    shared_bug_tag_word_of_the_initial_image,
    shared_bug_initial_image_of_zeros,
    shared_bug_xcr0_wider_than_what_is_saved,
}

fn the_instruction_is_the_one_that_is_left<M: Machine>() {
    let last = FpuFeatures::of::<M>().save_instruction() as u8;
    let name = std::any::type_name::<M>();
    assert!(name.contains(&std::format!("Only<{last}>")), "{name}");
    // Nobody has started this CPU here.
    assert_eq!(mxcsr_mask(), 0xffbf);
}

/// FXSAVE's tag word has a bit for each register that is *occupied*, so FNSTENV's 0xffff would be a full stack (Hermit; tgoskits,
/// pull request 1366).
/// The processor's own word after a load of the initial image is the judge.
fn shared_bug_tag_word_of_the_initial_image<M: Machine>() {
    let (mut initial, mut saved) = (Lwp::boxed::<M>(), Lwp::boxed::<M>());
    saved.0[4] = 0x77;
    restore_and_save::<M>(&mut initial, &mut saved);
    let is_written = FpuFeatures::of::<M>().save_instruction() <= SaveInstruction::Xsave;
    let is_elided = saved.xstate_bv() & 1 == 0 && saved.0[4] == 0x77;
    assert!(
        saved.0[4] == 0 || (is_elided && !is_written),
        "{:#x}",
        saved.0[4]
    );
    assert_eq!(initial.0[4..6], [0, 0]);
}

/// An area of zeros has MXCSR 0, every SSE exception unmasked, and FCW 0, the same for x87 (RIOT, pull request 2377; LK, pull
/// request 72).
fn shared_bug_initial_image_of_zeros<M: Machine>() {
    let (mut initial, mut saved) = (Lwp::boxed::<M>(), Lwp::boxed::<M>());
    assert_eq!(initial.0[..2], 0x037f_u16.to_le_bytes());
    assert_eq!(initial.0[24..28], MXCSR_INITIAL.to_le_bytes());
    saved.0[24..28].fill(0);
    saved.0[512..576].fill(0);
    restore_and_save::<M>(&mut initial, &mut saved);
    // XSAVEC leaves MXCSR out with SSE in its initial state; all others write what the registers have.
    if saved.xstate_bv() & 2 != 0
        || FpuFeatures::of::<M>().save_instruction() < SaveInstruction::Xsavec
    {
        assert_eq!(saved.0[24..28], MXCSR_INITIAL.to_le_bytes());
    }
    let mut again = Lwp::boxed::<M>();
    restore_and_save::<M>(&mut saved, &mut again);
    assert!(again.is_initial::<M>(), "saved, loaded and saved again");
}

/// User code has AVX, and FXSAVE saves it. What is enabled is what is saved and restored.
fn shared_bug_xcr0_wider_than_what_is_saved<M: Machine>() {
    let features = FpuFeatures::of::<M>();
    let area_bytes = features.area_bytes();
    let (mut from, mut to) = (Lwp::boxed::<M>(), Lwp::boxed::<M>());
    let in_use = features.xcr0() & !1;
    from.0[512..520].copy_from_slice(&in_use.to_le_bytes());
    from.0[160..416].fill(0x5a);
    if features.xcr0() == 0 {
        from.0[512..].fill(0xa5);
    } else {
        from.0[576..area_bytes].fill(0x3c);
    }
    restore_and_save::<M>(&mut from, &mut to);
    assert_eq!(to.0[160..416], from.0[160..416], "XMM");
    if features.xcr0() != 0 {
        assert_eq!(to.xstate_bv() & !1, in_use, "every enabled component");
        assert_eq!(
            to.0[576..832.min(area_bytes)],
            from.0[576..832.min(area_bytes)]
        );
    }
    assert_eq!(to.0[area_bytes], 0xa5, "written past the area");
}
