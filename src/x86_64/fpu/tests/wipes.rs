//! What a wipe leaves, on the machine that the test runs on.

use core::arch::asm;

use super::super::{FpuFeatures, SaveInstruction, wipe};
use super::variants::Only;
use super::{Lwp, has, say_not_run};
use crate::x86_64::machine::{Machine as _, Native};

/// This machine, saved by XSAVE: the wipe is the same for all instructions.
type Xsave = Only<{ SaveInstruction::Xsave as u8 }>;

/// Fills XMM3 or, with `x87`, an x87 register, wipes, and saves; in one block but for the wipe, which is called from it.
fn wipe_after(x87: bool, to: &mut Lwp) {
    extern "C" fn call_wipe() {
        // SAFETY: user mode has no gate, and the test has saved nothing that it needs.
        unsafe { wipe::<Xsave>() };
    }
    let mask = u32::try_from(FpuFeatures::of::<Xsave>().xcr0()).unwrap();
    let to = to.area().as_ptr();
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
    if !has(SaveInstruction::Xsave) {
        return say_not_run("a_wipe_leaves_the_initial_state", "XSAVE to look with");
    }
    for x87 in [false, true] {
        let mut lwp = Lwp::boxed::<Xsave>();
        lwp.0[160..416].fill(0x77);
        wipe_after(x87, &mut lwp);
        let is_initial = lwp.is_initial::<Xsave>();
        let untouched = lwp.0[160..416] == [0x77; 256];
        let zero = lwp.0[160..416] == [0; 256];
        assert!(untouched || zero, "XMM after a wipe");
        // A processor whose XINUSE goes by history calls zeroed vectors in use all the same.
        assert!(is_initial || zero, "neither initial nor zero; x87 {x87}");
        assert_eq!(lwp.0[512] & 1, 0, "x87 is initial after a wipe; x87 {x87}");
    }
}

/// Executes the x87 instructions, wipes the pointers that they left, and saves; with the image in `before` too.
macro_rules! wipe_pointers_after {
    ($text:literal, $before:expr, $after:expr) => {{
        extern "C" fn wipe_pointers() {
            // SAFETY: user mode has no gate, and the test keeps nothing in x87 registers.
            unsafe { Native::wipe_x87_pointers() };
        }
        // SAFETY: the areas are long enough; the clobbers name what is changed; the stack is aligned for the call by `r12`. FCW
        // is put back.
        unsafe {
            asm!(
                "mov r12, rsp", "and rsp, -64", "sub rsp, 64",
                "fninit",
                $text,
                "fxsave64 [r13]", "call {wipe}", "fxsave64 [r14]", "fninit",
                "mov rsp, r12",
                wipe = sym wipe_pointers,
                out("r12") _, in("r13") $before.area().as_ptr(), in("r14") $after.area().as_ptr(),
                clobber_abi("C"),
            );
        }
    }};
}

/// FOP, FIP and FDP as FXSAVE writes them.
fn pointers(lwp: &Lwp) -> [u64; 3] {
    [lwp.u64_at(0) >> 48, lwp.u64_at(8), lwp.u64_at(16)]
}

#[test]
fn the_wipe_of_x87_pointers_leaves_an_initial_state_but_for_them() {
    let (mut before, mut after) = (Lwp::boxed::<Xsave>(), Lwp::boxed::<Xsave>());
    wipe_pointers_after!("fldz\nfstp qword ptr [rsp]", before, after);
    assert_eq!(after.0[..6], [0x7f, 3, 0, 0, 0, 0], "FCW, FSW, FTW");
    assert!(
        (32..160)
            .step_by(16)
            .all(|st| after.0[st..st + 10] == [0; 10])
    );
    // AMD's processors of today show pointers with a pending error alone.
    assert!(pointers(&before)[1] == 0 || pointers(&before)[1] != pointers(&after)[1]);
}

/// An error that is pending when another LWP's registers are wiped must not be raised in the kernel.
#[test]
fn a_pending_x87_error_is_cleared_and_not_raised() {
    let (mut before, mut after) = (Lwp::boxed::<Xsave>(), Lwp::boxed::<Xsave>());
    // Division by zero is unmasked; FWAIT or a waiting instruction would raise the error.
    wipe_pointers_after!(
        "mov dword ptr [rsp], 0x037b\nfldcw [rsp]\nfld1\nfldz\nfdivp",
        before,
        after
    );
    assert_ne!(before.0[2] & 0x80, 0, "ES: an error is pending");
    assert_eq!(after.0[2], 0, "no error any more");
    assert_ne!(pointers(&before)[1], pointers(&after)[1]);
}
