//! The instructions that Rust has no words for: `CR0.TS`, the FXSAVE and XSAVE families, and accesses by `gs`. The only assembly
//! of the crate.
//!
//! None of them is `nomem`: each reads or writes memory, or decides whether a later access to registers traps, and so must
//! stay where it is among the accesses around it. None is `preserves_flags` where it changes them.
//!
//! Those that move or change FPU registers are never inlined, so that a disassembly finds them under their names and nowhere
//! else.

use core::arch::{asm, naked_asm};
use core::ptr::NonNull;

use x86_64::registers::control::{Cr0, Cr0Flags};

/// Clears `CR0.TS`: the FPU may be used. Intel SDM, volume 2A, "CLTS".
///
/// # Safety
///
/// In ring 0, at `IPL_PCU`.
pub(super) unsafe fn clts() {
    // SAFETY: ring 0 is promised. Not `nomem`: accesses to areas must not move above it.
    unsafe { asm!("clts", options(nostack, preserves_flags)) };
}

/// Sets `CR0.TS`: the next use of the FPU raises `#NM`. Intel SDM, volume 3A, "Control Registers".
///
/// # Safety
///
/// In ring 0, at `IPL_PCU`.
pub(super) unsafe fn stts() {
    let cr0 = Cr0::read_raw() | Cr0Flags::TASK_SWITCHED.bits();
    // SAFETY: ring 0 is promised; TS alone changes, and soft-float code does not notice it.
    unsafe { Cr0::write_raw(cr0) };
}

/// Saves x87, MMX and SSE state. Intel SDM, volume 2A, "FXSAVE".
///
/// # Safety
///
/// `area` is 512 writable bytes at a multiple of 16; `CR0.TS` is clear.
#[inline(never)]
pub(super) unsafe fn fxsave(area: NonNull<u8>) {
    // SAFETY: the caller promises the area.
    unsafe { asm!("fxsave64 [{}]", in(reg) area.as_ptr(), options(nostack, preserves_flags)) };
}

/// Saves the components in `mask`. Intel SDM, volume 1, "Operation of XSAVE".
///
/// # Safety
///
/// `area` is writable, at a multiple of 64, and large enough for `mask` in the standard format; `CR0.TS` is clear and
/// `CR4.OSXSAVE` set.
#[inline(never)]
pub(super) unsafe fn xsave(area: NonNull<u8>, mask: u64) {
    let (low, high) = halves(mask);
    // SAFETY: the caller promises the area and the mode.
    unsafe {
        asm!("xsave64 [{}]", in(reg) area.as_ptr(), in("eax") low, in("edx") high, options(nostack, preserves_flags));
    }
}

/// Saves the components in `mask` that were changed since they were loaded from the same area. Intel SDM, volume 1,
/// "Operation of XSAVEOPT".
///
/// # Safety
///
/// As [`xsave`]; whatever the last restore on this CPU from this area loaded is still in the area, unless changed by it.
#[inline(never)]
pub(super) unsafe fn xsaveopt(area: NonNull<u8>, mask: u64) {
    let (low, high) = halves(mask);
    // SAFETY: the caller promises the area and the mode.
    unsafe {
        asm!("xsaveopt64 [{}]", in(reg) area.as_ptr(), in("eax") low, in("edx") high, options(nostack, preserves_flags));
    }
}

/// The components of `XCR0` that are not in their initial state. Intel SDM, volume 1, "XSAVE-Enabled Registers Group" and
/// volume 2C, "XGETBV" with ECX = 1.
///
/// # Safety
///
/// `CR4.OSXSAVE` is set, and CPUID.(0DH,1):EAX[2].
pub(super) unsafe fn xinuse() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller promises the instruction. Not `nomem`: the answer changes with every restore.
    unsafe {
        asm!("xgetbv", in("ecx") 1, out("eax") low, out("edx") high, options(nostack, preserves_flags));
    }
    u64::from(low) | u64::from(high) << 32
}

/// Zeroes YMM0 to YMM15 and loads MXCSR from `mxcsr`. Intel SDM, volume 2C, "VZEROALL", volume 2A, "LDMXCSR".
///
/// # Safety
///
/// AVX is enabled in `XCR0`; `CR0.TS` is clear; nobody's live state is in the registers.
#[inline(never)]
pub(super) unsafe fn zero_vectors(mxcsr: u32) {
    // SAFETY: the caller promises the mode; the clobbers name the registers.
    unsafe { asm!("vzeroall", "ldmxcsr [{}]", in(reg) &raw const mxcsr, clobber_abi("C")) };
}

/// The processor refused an image: the registers may hold any part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Faulted;

/// Loads x87, MMX and SSE state. Intel SDM, volume 2A, "FXRSTOR".
///
/// # Safety
///
/// `CR0.TS` is clear. The area may be bad or not mapped if the kernel's handlers ask [`fixup`]; nobody's live state is in
/// the registers.
pub(super) unsafe fn fxrstor(area: NonNull<u8>) -> Result<(), Faulted> {
    let failed: u32;
    // SAFETY: `fxrstor_at` is called with what it takes; the clobbers name all that a restore changes.
    unsafe {
        asm!("call {at}", at = sym fxrstor_at, in("rdi") area.as_ptr(), lateout("eax") failed, clobber_abi("C"));
    }
    if failed == 0 { Ok(()) } else { Err(Faulted) }
}

/// Loads the components in `mask`. Intel SDM, volume 1, "Operation of XRSTOR".
///
/// # Safety
///
/// As [`fxrstor`]; `CR4.OSXSAVE` is set.
pub(super) unsafe fn xrstor(area: NonNull<u8>, mask: u64) -> Result<(), Faulted> {
    let (low, high) = halves(mask);
    let failed: u32;
    // SAFETY: `xrstor_at` is called with what it takes; the clobbers name all that a restore changes.
    unsafe {
        asm!(
            "call {at}", at = sym xrstor_at,
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

/// Where a faulted restore continues: its return address is on the stack, as at the fault.
#[unsafe(naked)]
extern "C" fn restore_failed() {
    naked_asm!("mov eax, 1", "ret");
}

pub(super) fn fixup(rip: u64) -> Option<u64> {
    let address = |function: extern "C" fn()| function as usize as u64;
    let may_fault = rip == address(fxrstor_at) || rip == address(xrstor_at);
    may_fault.then(|| address(restore_failed))
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
#[inline]
pub(super) unsafe fn gs_add(name: usize, bytes: usize, n: u64) {
    gs_by_size!(bytes;
        "add byte ptr gs:[{}], {:l}", "add word ptr gs:[{}], {:x}",
        "add dword ptr gs:[{}], {:e}", "add qword ptr gs:[{}], {}";
        in(reg) name, in(reg) n, options(nostack));
}
