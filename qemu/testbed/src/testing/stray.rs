//! A kernel bug on demand: an SSE instruction where the kernel may not use the FPU.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static IS_EXPECTED: AtomicBool = AtomicBool::new(false);
static REPORTED: AtomicU64 = AtomicU64::new(0);

/// An SSE instruction of the kernel's own, and nothing else.
#[unsafe(naked)]
#[unsafe(link_section = ".text.fpu")]
extern "C" fn use_sse() {
    naked_asm!("movups xmm0, [rdi]", "ret");
}

/// Where a reported use goes on: the return address is on the stack, as at the fault.
#[unsafe(naked)]
extern "C" fn resume() {
    naked_asm!("ret");
}

/// Executes the instruction; gives its address, and the one that the handler of `#NM` reported, if it came to that.
///
/// On this CPU alone, one call at a time.
pub fn stray_use() -> (u64, Option<u64>) {
    static OPERAND: u128 = 0;
    REPORTED.store(0, Ordering::Relaxed);
    IS_EXPECTED.store(true, Ordering::Relaxed);
    // SAFETY: the function reads 16 bytes at RDI, and changes XMM0, which compiled code does not have.
    unsafe {
        core::arch::asm!("call {}", sym use_sse, in("rdi") &raw const OPERAND, clobber_abi("C"));
    }
    IS_EXPECTED.store(false, Ordering::Relaxed);
    let reported = REPORTED.load(Ordering::Relaxed);
    (
        (use_sse as *const ()).addr() as u64,
        (reported != 0).then_some(reported),
    )
}

/// The kernel used the FPU at `rip`: where it goes on if a test asked for it, else the run ends.
pub(crate) fn caught(rip: u64) -> Option<u64> {
    let is_expected = IS_EXPECTED.swap(false, Ordering::Relaxed);
    is_expected.then(|| {
        REPORTED.store(rip, Ordering::Relaxed);
        (resume as *const ()).addr() as u64
    })
}
