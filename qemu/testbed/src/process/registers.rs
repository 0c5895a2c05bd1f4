//! The general registers as debuggers and core files have them: `struct user_regs_struct`. Linux, `arch/x86/include/asm/user_64.h`,
//! who may write what: `arch/x86/kernel/ptrace.c`, `putreg`.

use core::sync::atomic::Ordering;

use super::signal::USER_FLAGS;
use super::syscall::Errno;
use crate::cpu::gdt::{USER_CODE, USER_DATA};
use crate::cpu::trap::Frame;
use crate::lwp::Lwp;
use crate::memory::USER_END;

const WORDS: usize = 27;
/// Of the register set.
pub(super) const BYTES: usize = 8 * WORDS;

/// Places of those that are not in the frame, or not to be written as they are.
const ORIG_RAX: usize = 15;
const RIP: usize = 16;
const CS: usize = 17;
const EFLAGS: usize = 18;
const SS: usize = 20;
const FS_BASE: usize = 21;

/// In the set's order, where they are in the frame.
fn fields(frame: &mut Frame) -> [(usize, &mut u64); 20] {
    [
        (0, &mut frame.r15),
        (1, &mut frame.r14),
        (2, &mut frame.r13),
        (3, &mut frame.r12),
        (4, &mut frame.rbp),
        (5, &mut frame.rbx),
        (6, &mut frame.r11),
        (7, &mut frame.r10),
        (8, &mut frame.r9),
        (9, &mut frame.r8),
        (10, &mut frame.rax),
        (11, &mut frame.rcx),
        (12, &mut frame.rdx),
        (13, &mut frame.rsi),
        (14, &mut frame.rdi),
        (RIP, &mut frame.rip),
        (CS, &mut frame.cs),
        (EFLAGS, &mut frame.rflags),
        (19, &mut frame.rsp),
        (SS, &mut frame.ss),
    ]
}

/// The registers of a thread that goes on with `frame`. No system call is under way where one stands, so `orig_rax` is -1.
pub(super) fn of(frame: &mut Frame, lwp: &Lwp) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (place, register) in fields(frame) {
        words[place] = *register;
    }
    words[ORIG_RAX] = u64::MAX;
    words[FS_BASE] = lwp.fs_base.load(Ordering::Relaxed);
    words
}

/// Sets registers: the first ones, as many as `bytes` has. All of them or, with an error, none.
pub(super) fn set(frame: &mut Frame, lwp: &Lwp, bytes: &[u8]) -> Result<(), Errno> {
    let mut words = of(frame, lwp);
    let (given, []) = bytes.as_chunks::<8>() else {
        return Err(Errno::Invalid);
    };
    for (word, given) in words.iter_mut().zip(given) {
        *word = u64::from_le_bytes(*given);
    }
    let selectors = (u64::from(USER_CODE), u64::from(USER_DATA));
    let leads_out = words[RIP] >= USER_END || words[FS_BASE] >= USER_END;
    if (words[CS], words[SS]) != selectors || leads_out {
        return Err(Errno::Io);
    }
    words[EFLAGS] = frame.rflags & !USER_FLAGS | words[EFLAGS] & USER_FLAGS;
    for (place, register) in fields(frame) {
        *register = words[place];
    }
    lwp.fs_base.store(words[FS_BASE], Ordering::Relaxed);
    Ok(())
}
