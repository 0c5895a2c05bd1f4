//! The instructions that Rust has no words for: `CR0.TS`, the FXSAVE and XSAVE families, the debug registers, and accesses by `gs`.
//! The only assembly of the crate.
//!
//! What each is and asks of its caller stands at [`Machine`](super::machine::Machine), whose functions these are.
//!
//! None of them is `nomem`: each reads or writes memory, or decides whether a later access to registers traps, and so must
//! stay where it is among the accesses around it. None is `preserves_flags` where it changes them.
//!
//! Those that move or change FPU registers are never inlined, so that a disassembly finds them under their names and nowhere
//! else.

use core::arch::{asm, naked_asm};
use core::ptr::NonNull;

use x86_64::registers::control::{Cr0, Cr0Flags};

use super::machine::Faulted;

/// [`Machine::clts`](super::machine::Machine::clts).
///
/// # Safety
///
/// As there.
pub(super) unsafe fn clts() {
    // SAFETY: ring 0 is promised. Not `nomem`: accesses to areas must not move above it.
    unsafe { asm!("clts", options(nostack, preserves_flags)) };
}

/// [`Machine::stts`](super::machine::Machine::stts).
///
/// # Safety
///
/// As there.
pub(super) unsafe fn stts() {
    let cr0 = Cr0::read_raw() | Cr0Flags::TASK_SWITCHED.bits();
    // SAFETY: ring 0 is promised; TS alone changes, and soft-float code does not notice it.
    unsafe { Cr0::write_raw(cr0) };
}

/// [`Machine::fxsave`](super::machine::Machine::fxsave).
///
/// # Safety
///
/// As there.
#[inline(never)]
pub(super) unsafe fn fxsave(area: NonNull<u8>) {
    // SAFETY: the caller promises the area.
    unsafe { asm!("fxsave64 [{}]", in(reg) area.as_ptr(), options(nostack, preserves_flags)) };
}

/// [`Machine::xsave`](super::machine::Machine::xsave).
///
/// # Safety
///
/// As there.
#[inline(never)]
pub(super) unsafe fn xsave(area: NonNull<u8>, mask: u64) {
    let (low, high) = halves(mask);
    // SAFETY: the caller promises the area and the mode.
    unsafe {
        asm!("xsave64 [{}]", in(reg) area.as_ptr(), in("eax") low, in("edx") high, options(nostack, preserves_flags));
    }
}

/// [`Machine::xsaveopt`](super::machine::Machine::xsaveopt).
///
/// # Safety
///
/// As there.
#[inline(never)]
pub(super) unsafe fn xsaveopt(area: NonNull<u8>, mask: u64) {
    let (low, high) = halves(mask);
    // SAFETY: the caller promises the area and the mode.
    unsafe {
        asm!("xsaveopt64 [{}]", in(reg) area.as_ptr(), in("eax") low, in("edx") high, options(nostack, preserves_flags));
    }
}

/// [`Machine::xsavec`](super::machine::Machine::xsavec).
///
/// # Safety
///
/// As there.
#[inline(never)]
pub(super) unsafe fn xsavec(area: NonNull<u8>, mask: u64) {
    let (low, high) = halves(mask);
    // SAFETY: the caller promises the area and the mode.
    unsafe {
        asm!("xsavec64 [{}]", in(reg) area.as_ptr(), in("eax") low, in("edx") high, options(nostack, preserves_flags));
    }
}

/// [`Machine::xsaves`](super::machine::Machine::xsaves).
///
/// # Safety
///
/// As there.
#[inline(never)]
pub(super) unsafe fn xsaves(area: NonNull<u8>, mask: u64) {
    let (low, high) = halves(mask);
    // SAFETY: the caller promises the area and the mode.
    unsafe {
        asm!("xsaves64 [{}]", in(reg) area.as_ptr(), in("eax") low, in("edx") high, options(nostack, preserves_flags));
    }
}

/// [`Machine::xinuse`](super::machine::Machine::xinuse).
///
/// # Safety
///
/// As there.
pub(super) unsafe fn xinuse() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller promises the instruction. Not `nomem`: the answer changes with every restore.
    unsafe {
        asm!("xgetbv", in("ecx") 1, out("eax") low, out("edx") high, options(nostack, preserves_flags));
    }
    u64::from(low) | u64::from(high) << 32
}

/// [`Machine::zero_vectors`](super::machine::Machine::zero_vectors).
///
/// # Safety
///
/// As there.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "a call takes half as long again as the wipe: `cargo bench`"
)]
pub(super) unsafe fn zero_vectors(mxcsr: u32) {
    let mut now = core::mem::MaybeUninit::<u32>::uninit();
    // VZEROUPPER and sixteen zero idioms take half as long as VZEROALL, and a look at MXCSR less than its load: `cargo bench`.
    // SAFETY: the caller promises the mode; the clobbers name the registers.
    unsafe {
        asm!(
            "vzeroupper",
            "vpxor xmm0, xmm0, xmm0", "vpxor xmm1, xmm1, xmm1",
            "vpxor xmm2, xmm2, xmm2", "vpxor xmm3, xmm3, xmm3",
            "vpxor xmm4, xmm4, xmm4", "vpxor xmm5, xmm5, xmm5",
            "vpxor xmm6, xmm6, xmm6", "vpxor xmm7, xmm7, xmm7",
            "vpxor xmm8, xmm8, xmm8", "vpxor xmm9, xmm9, xmm9",
            "vpxor xmm10, xmm10, xmm10", "vpxor xmm11, xmm11, xmm11",
            "vpxor xmm12, xmm12, xmm12", "vpxor xmm13, xmm13, xmm13",
            "vpxor xmm14, xmm14, xmm14", "vpxor xmm15, xmm15, xmm15",
            "stmxcsr [{now}]", "cmp dword ptr [{now}], {mxcsr:e}", "je 2f", "mov [{now}], {mxcsr:e}", "ldmxcsr [{now}]", "2:",
            now = in(reg) now.as_mut_ptr(), mxcsr = in(reg) mxcsr, clobber_abi("C"),
        );
    }
}

/// [`Machine::wipe_x87_pointers`](super::machine::Machine::wipe_x87_pointers).
///
/// # Safety
///
/// As there.
#[inline(never)]
pub(super) unsafe fn wipe_x87_pointers() {
    static ZERO: u32 = 0;
    // SAFETY: the caller promises the mode; the clobbers name the registers. FFREE would raise a pending error, so it is cleared
    // first, without a look whether there is one: a flush between domains takes no branch on what is in registers. A full
    // stack would be an error of FILD's, so its place is freed. What FILD and FSTP leave is a zero, marked empty.
    unsafe {
        asm!(
            "fnclex", "ffree st(7)", "fild dword ptr [{}]", "fstp st(0)",
            in(reg) &raw const ZERO, clobber_abi("C"), options(nostack),
        );
    }
}

/// [`Machine::tile_release`](super::machine::Machine::tile_release).
///
/// # Safety
///
/// As there.
#[inline(never)]
pub(super) unsafe fn tile_release() {
    // SAFETY: the caller promises the mode; compiled code has nothing in tiles.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
}

/// Reads `DR0` to `DR3`, `DR6` and `DR7`.
///
/// # Safety
///
/// In ring 0.
pub(super) unsafe fn read_debug_registers() -> [u64; 6] {
    let (a0, a1, a2, a3, status, control): (u64, u64, u64, u64, u64, u64);
    // SAFETY: ring 0 is promised. Not `nomem`: an access before it may change the status.
    unsafe {
        asm!(
            "mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", "mov {}, dr6", "mov {}, dr7",
            out(reg) a0, out(reg) a1, out(reg) a2, out(reg) a3, out(reg) status, out(reg) control,
            options(nostack, preserves_flags),
        );
    }
    [a0, a1, a2, a3, status, control]
}

/// Writes `DR0` to `DR3`.
///
/// # Safety
///
/// In ring 0, with nothing enabled in `DR7`.
pub(super) unsafe fn write_debug_addresses([a0, a1, a2, a3]: [u64; 4]) {
    // SAFETY: ring 0 is promised.
    unsafe {
        asm!(
            "mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
            in(reg) a0, in(reg) a1, in(reg) a2, in(reg) a3, options(nostack, preserves_flags),
        );
    }
}

/// Writes `DR6`.
///
/// # Safety
///
/// In ring 0; the upper half is 0.
pub(super) unsafe fn write_dr6(status: u64) {
    // SAFETY: ring 0 is promised.
    unsafe { asm!("mov dr6, {}", in(reg) status, options(nostack, preserves_flags)) };
}

/// Writes `DR7`.
///
/// # Safety
///
/// In ring 0; the upper half is 0, and what is enabled is no address of the kernel's.
pub(super) unsafe fn write_dr7(control: u64) {
    // SAFETY: ring 0 is promised. Not `nomem`: an access after it may be met.
    unsafe { asm!("mov dr7, {}", in(reg) control, options(nostack, preserves_flags)) };
}

/// [`Machine::fxrstor`](super::machine::Machine::fxrstor).
///
/// # Safety
///
/// As there.
pub(super) unsafe fn fxrstor(area: NonNull<u8>) -> Result<(), Faulted> {
    // SAFETY: the caller promises what FXRSTOR needs, which takes no mask.
    unsafe { restore(fxrstor_at, area, 0) }
}

/// [`Machine::xrstor`](super::machine::Machine::xrstor).
///
/// # Safety
///
/// As there.
pub(super) unsafe fn xrstor(area: NonNull<u8>, mask: u64) -> Result<(), Faulted> {
    // SAFETY: the caller promises what XRSTOR needs.
    unsafe { restore(xrstor_at, area, mask) }
}

/// [`Machine::xrstors`](super::machine::Machine::xrstors).
///
/// # Safety
///
/// As there.
pub(super) unsafe fn xrstors(area: NonNull<u8>, mask: u64) -> Result<(), Faulted> {
    // SAFETY: the caller promises what XRSTORS needs.
    unsafe { restore(xrstors_at, area, mask) }
}

/// Calls `at`, one of the restores below.
///
/// # Safety
///
/// As its instruction asks.
#[inline]
unsafe fn restore(at: extern "C" fn(), area: NonNull<u8>, mask: u64) -> Result<(), Faulted> {
    let (low, high) = halves(mask);
    let failed: u32;
    // SAFETY: the restores take the area in RDI and the mask in EDX:EAX; the clobbers name all that they change.
    unsafe {
        asm!(
            "call {at}", at = in(reg) at,
            in("rdi") area.as_ptr(), inlateout("eax") low => failed, in("edx") high,
            clobber_abi("C"),
        );
    }
    if failed == 0 { Ok(()) } else { Err(Faulted) }
}

fn halves(mask: u64) -> (u32, u32) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is what is wanted"
    )]
    (mask as u32, (mask >> 32) as u32)
}

/// The time stamp counter, when all that comes before is done and nothing that comes after has begun. Intel SDM, volume 2B, "RDTSC".
pub(super) fn fenced_tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: every x86-64 CPU has the instructions. Not `nomem`: what is measured stays on its side.
    unsafe {
        asm!("lfence", "rdtsc", "lfence", out("eax") low, out("edx") high, options(nostack, preserves_flags));
    }
    u64::from(low) | u64::from(high) << 32
}

/// Uses the FPU and changes nothing, to be measured as a trap: FNOP is the function's first instruction, so the function's address is
/// that of the trap.
#[unsafe(naked)]
pub(super) extern "C" fn use_x87() {
    naked_asm!("fnop", "ret");
}

/// The instruction that may fault is the first of its function, so the function's address is the address of the fault.
#[unsafe(naked)]
extern "C" fn fxrstor_at() {
    naked_asm!("fxrstor64 [rdi]", "xor eax, eax", "ret");
}

/// As [`fxrstor_at`].
#[unsafe(naked)]
extern "C" fn xrstor_at() {
    naked_asm!("xrstor64 [rdi]", "xor eax, eax", "ret");
}

/// As [`fxrstor_at`].
#[unsafe(naked)]
extern "C" fn xrstors_at() {
    naked_asm!("xrstors64 [rdi]", "xor eax, eax", "ret");
}

/// Where a faulted restore continues: its return address is on the stack, as at the fault.
#[unsafe(naked)]
extern "C" fn restore_failed() {
    naked_asm!("mov eax, 1", "ret");
}

pub(super) fn fixup(rip: u64) -> Option<u64> {
    let address = |function: extern "C" fn()| function as usize as u64;
    [fxrstor_at, xrstor_at, xrstors_at]
        .map(address)
        .contains(&rip)
        .then(|| address(restore_failed))
}

/// One instruction for each size of a word: the templates for 1, 2, 4 and 8 bytes, then the operands.
#[doc(hidden)]
#[macro_export]
macro_rules! gs_by_size {
    ($bytes:expr; $one:expr, $two:expr, $four:expr, $eight:expr; $($operands:tt)*) => {
        match $bytes {
            // SAFETY: the caller promises GS.base, and a word of that size there.
            1 => unsafe { ::core::arch::asm!($one, $($operands)*) },
            // SAFETY: as above.
            2 => unsafe { ::core::arch::asm!($two, $($operands)*) },
            // SAFETY: as above.
            4 => unsafe { ::core::arch::asm!($four, $($operands)*) },
            // SAFETY: as above.
            _ => unsafe { ::core::arch::asm!($eight, $($operands)*) },
        }
    };
}

/// The instructions on the per-CPU word whose name is a constant, for [`dpcpu!`](crate::dpcpu): the operand is `gs:` with the address of
/// the static itself, since `GS.base` is the CPU's dynamic offset. One instruction each, so neither an interrupt nor a migration
/// comes in between; not `lock`ed, since only its own CPU writes a copy.
///
/// None is `nomem`: other code reaches the same memory by pointers. `add` and `inc` change the flags. `bytes` is a constant once they
/// are inlined, as they always are.
#[doc(hidden)]
#[macro_export]
macro_rules! gs_instructions {
    ($symbol:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[inline(always)]
        unsafe fn gs_load<const AT: usize>(bytes: usize) -> u64 {
            let value: u64;
            $crate::gs_by_size!(bytes;
                "movzx {:e}, byte ptr gs:[rip + {} + {}]", "movzx {:e}, word ptr gs:[rip + {} + {}]",
                "mov {:e}, dword ptr gs:[rip + {} + {}]", "mov {}, qword ptr gs:[rip + {} + {}]";
                out(reg) value, sym $symbol, const AT, options(nostack, preserves_flags, readonly));
            value
        }

        #[cfg(target_arch = "x86_64")]
        #[inline(always)]
        unsafe fn gs_store<const AT: usize>(bytes: usize, value: u64) {
            $crate::gs_by_size!(bytes;
                "mov byte ptr gs:[rip + {} + {}], {:l}", "mov word ptr gs:[rip + {} + {}], {:x}",
                "mov dword ptr gs:[rip + {} + {}], {:e}", "mov qword ptr gs:[rip + {} + {}], {}";
                sym $symbol, const AT, in(reg) value, options(nostack, preserves_flags));
        }

        #[cfg(target_arch = "x86_64")]
        #[inline(always)]
        unsafe fn gs_add<const AT: usize>(bytes: usize, n: u64) {
            $crate::gs_by_size!(bytes;
                "add byte ptr gs:[rip + {} + {}], {:l}", "add word ptr gs:[rip + {} + {}], {:x}",
                "add dword ptr gs:[rip + {} + {}], {:e}", "add qword ptr gs:[rip + {} + {}], {}";
                sym $symbol, const AT, in(reg) n, options(nostack));
        }

        #[cfg(target_arch = "x86_64")]
        #[inline(always)]
        unsafe fn gs_inc<const AT: usize>(bytes: usize) {
            $crate::gs_by_size!(bytes;
                "inc byte ptr gs:[rip + {} + {}]", "inc word ptr gs:[rip + {} + {}]",
                "inc dword ptr gs:[rip + {} + {}]", "inc qword ptr gs:[rip + {} + {}]";
                sym $symbol, const AT, options(nostack));
        }
    };
}

/// Reads the per-CPU word of `bytes` bytes with the name `name`. As [`gs_instructions!`](crate::gs_instructions), with the name in a register.
///
/// # Safety
///
/// `GS.base` is the CPU's dynamic offset, and every CPU has such a word.
#[cfg(not(loom))]
#[inline]
pub(super) unsafe fn gs_load(name: usize, bytes: usize) -> u64 {
    let value: u64;
    gs_by_size!(bytes;
        "movzx {:e}, byte ptr gs:[{}]", "movzx {:e}, word ptr gs:[{}]",
        "mov {:e}, dword ptr gs:[{}]", "mov {}, qword ptr gs:[{}]";
        out(reg) value, in(reg) name, options(nostack, preserves_flags, readonly));
    value
}

/// Writes the per-CPU word of `bytes` bytes with the name `name`.
///
/// # Safety
///
/// As [`gs_load`].
#[cfg(not(loom))]
#[inline]
pub(super) unsafe fn gs_store(name: usize, bytes: usize, value: u64) {
    gs_by_size!(bytes;
        "mov byte ptr gs:[{}], {:l}", "mov word ptr gs:[{}], {:x}",
        "mov dword ptr gs:[{}], {:e}", "mov qword ptr gs:[{}], {}";
        in(reg) name, in(reg) value, options(nostack, preserves_flags));
}

/// Adds to the per-CPU word of `bytes` bytes with the name `name`.
///
/// # Safety
///
/// As [`gs_load`].
#[cfg(not(loom))]
#[inline]
pub(super) unsafe fn gs_add(name: usize, bytes: usize, n: u64) {
    gs_by_size!(bytes;
        "add byte ptr gs:[{}], {:l}", "add word ptr gs:[{}], {:x}",
        "add dword ptr gs:[{}], {:e}", "add qword ptr gs:[{}], {}";
        in(reg) name, in(reg) n, options(nostack));
}
