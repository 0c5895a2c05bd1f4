//! The memory functions that the compiler calls and that otherwise a C library provides.
//!
//! They are string instructions, which use no vector register: a program that only computes with integers must not touch
//! the FPU in a copy either. The direction flag is clear at each call (System V ABI, "Registers").

use core::arch::asm;

/// Copies `count` bytes between areas that do not overlap.
///
/// # Safety
///
/// As C's `memcpy`: both areas are valid for `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise is that of this instruction.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
    to
}

/// Copies `count` bytes between areas that may overlap.
///
/// # Safety
///
/// As C's `memmove`: both areas are valid for `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= count {
        // SAFETY: copying upwards reads every byte before it writes it: `to` is below `from`, or beyond its end.
        return unsafe { memcpy(to, from, count) };
    }
    let last_to = to.wrapping_add(count).wrapping_sub(1);
    let last_from = from.wrapping_add(count).wrapping_sub(1);
    // SAFETY: copying downwards reads every byte before it writes it, as `to` is inside `from`'s area.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _, inout("rdi") last_to => _,
             inout("rsi") last_from => _, options(nostack));
    }
    to
}

/// Fills `count` bytes with the low byte of `value`.
///
/// # Safety
///
/// As C's `memset`: the area is valid for `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise is that of this instruction.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("eax") value,
             options(nostack, preserves_flags));
    }
    to
}

/// Compares `count` bytes: negative, zero or positive.
///
/// # Safety
///
/// As C's `memcmp`: both areas are valid for `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    let (above, below): (u8, u8);
    // SAFETY: the caller's promise is that of this instruction. The first compare sets "equal" for a count of zero.
    unsafe {
        asm!("cmp eax, eax", "repe cmpsb", "seta al", "setb dl", inout("rcx") count => _,
             inout("rdi") right => _, inout("rsi") left => _, out("al") above, out("dl") below,
             options(nostack, readonly));
    }
    i32::from(above) - i32::from(below)
}

/// Compares `count` bytes for equality: zero if equal.
///
/// # Safety
///
/// As C's `bcmp`: both areas are valid for `count` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the two functions make the same promise.
    unsafe { memcmp(left, right, count) }
}

/// Counts the bytes before a zero.
///
/// # Safety
///
/// As C's `strlen`: the area is valid as far as the first zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(from: *const u8) -> usize {
    let left: usize;
    // SAFETY: the caller's promise is that of this instruction, which counts the zero as well.
    unsafe {
        asm!("repne scasb", inout("rcx") usize::MAX => left, inout("rdi") from => _, in("al") 0_u8,
             options(nostack, readonly));
    }
    usize::MAX - left - 1
}
