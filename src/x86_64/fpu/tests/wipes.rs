//! What a wipe leaves, on the machine that the test runs on.

use core::arch::asm;

use super::super::{FpuFeatures, SaveInstruction, wipe};
use super::variants::Only;
use super::{Lwp, has, say_not_run};

/// This machine, saved by XSAVE: the wipe is the same for all instructions.
type Machine = Only<{ SaveInstruction::Xsave as u8 }>;

/// Fills XMM3 or, with `x87`, an x87 register, wipes, and saves; in one block but for the wipe, which is called from it.
fn wipe_after(x87: bool, to: &mut Lwp) {
    extern "C" fn call_wipe() {
        // SAFETY: user mode has no gate, and the test has saved nothing that it needs.
        unsafe { wipe::<Machine>() };
    }
    let mask = u32::try_from(FpuFeatures::of::<Machine>().xcr0()).unwrap();
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
        let mut lwp = Lwp::boxed::<Machine>();
        lwp.0[160..416].fill(0x77);
        wipe_after(x87, &mut lwp);
        let is_initial = lwp.is_initial::<Machine>();
        let untouched = lwp.0[160..416] == [0x77; 256];
        let zero = lwp.0[160..416] == [0; 256];
        assert!(untouched || zero, "XMM after a wipe");
        // A processor whose XINUSE goes by history calls zeroed vectors in use all the same.
        assert!(is_initial || zero, "neither initial nor zero; x87 {x87}");
        assert_eq!(lwp.0[512] & 1, 0, "x87 is initial after a wipe; x87 {x87}");
    }
}
