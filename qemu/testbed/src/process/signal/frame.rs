//! The frame of a signal on the user's stack: Linux's `struct rt_sigframe` for x86-64, and the FPU's image above it.
//!
//! ```text
//!   rsp before   ----------------------------------------
//!                128 bytes that belong to the function (the red zone of the System V ABI)
//!   fpstate  --> the FPU's image, 64-byte aligned: Form::SignalFrame
//!                siginfo       128 bytes
//!                ucontext      flags, link, stack, registers (struct sigcontext_64), signal mask
//!   rsp      --> pretcode      where the handler returns to: the restorer, which calls rt_sigreturn
//! ```
//!
//! Sources: Linux, `arch/x86/include/asm/sigframe.h`, `arch/x86/include/uapi/asm/sigcontext.h`, `include/uapi/asm-generic/ucontext.h`;
//! who writes it, `x64_setup_rt_frame` in `arch/x86/kernel/signal_64.c`, and its place, `get_sigframe` in `arch/x86/kernel/signal.c`.

use core::fmt;

use pcu9::x86_64::fpu::foreign::Form;

use super::{Action, AltStack, Info, SA_ONSTACK, SA_RESTORER, Signal};
use crate::cpu::gdt::{USER_CODE, USER_DATA};
use crate::cpu::trap::Frame;
use crate::glue::foreign::{self, Unfit};
use crate::glue::{HERE, SIGNALS};
use crate::memory::USER_END;
use crate::process::Process;
use crate::sched::with_current;
use crate::testing::sleepy;

/// The frame without the FPU's image, in words of eight bytes; where its fields are.
const WORDS: usize = 55;
const PRETCODE: usize = 0;
const UC_FLAGS: usize = 1;
const STACK: usize = 3;
const REGISTERS: usize = 6;
const SEGMENTS: usize = 24;
const ERROR_CODE: usize = 25;
const OLD_MASK: usize = 27;
const FPSTATE: usize = 29;
const MASK: usize = 38;
const SIGINFO: usize = 39;

const BYTES: u64 = 8 * WORDS as u64;
/// Where `ucontext` and `siginfo` begin.
const AT_UCONTEXT: u64 = 8;
const AT_SIGINFO: u64 = 8 * SIGINFO as u64;

const _: () = assert!(BYTES == 440, "sizeof(struct rt_sigframe)");

const RED_ZONE: u64 = 128;
/// `arch/x86/include/uapi/asm/ucontext.h`.
const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;
/// What a program may set in RFLAGS: `FIX_EFLAGS`, same source as the frame's place. AC, OF, DF, TF, SF, ZF, AF, PF, CF, RF.
pub(in crate::process) const USER_FLAGS: u64 = 0x0005_0dd5;
/// What a handler finds clear: direction, resume, trap.
const CLEARED_FLAGS: u64 = 0x0001_0500;

/// The frame cannot be written.
pub(super) enum NoFrame {
    NoRestorer,
    /// IRET to there would fault in the kernel.
    NoHandler {
        at: u64,
    },
    /// There is no writable memory for it.
    NoStack {
        at: u64,
    },
    Fpu(Unfit),
}

impl fmt::Display for NoFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRestorer => f.write_str("a handler without SA_RESTORER cannot return"),
            Self::NoHandler { at } => write!(f, "no handler can be at {at:#x}"),
            Self::NoStack { at } => write!(f, "no stack for a signal's frame at {at:#x}"),
            Self::Fpu(why) => write!(f, "no FPU state for a signal's frame: {why}"),
        }
    }
}

/// The frame that `rt_sigreturn` finds is none.
pub(super) enum BadFrame {
    Unreadable {
        at: u64,
    },
    /// It leads out of user mode, or where IRET would fault in the kernel.
    Registers {
        rip: u64,
        cs: u64,
    },
    Fpu {
        at: u64,
        why: Unfit,
    },
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bad frame in rt_sigreturn: ")?;
        match self {
            Self::Unreadable { at } => write!(f, "none can be read at {at:#x}"),
            Self::Registers { rip, cs } => {
                write!(f, "rip {rip:#x}, cs {cs:#x} are not user mode's")
            }
            Self::Fpu { at, why } => write!(f, "fpstate at {at:#x}: {why}"),
        }
    }
}

/// The registers in the order of `struct sigcontext_64`.
fn registers(frame: &mut Frame) -> [&mut u64; 18] {
    [
        &mut frame.r8,
        &mut frame.r9,
        &mut frame.r10,
        &mut frame.r11,
        &mut frame.r12,
        &mut frame.r13,
        &mut frame.r14,
        &mut frame.r15,
        &mut frame.rdi,
        &mut frame.rsi,
        &mut frame.rbp,
        &mut frame.rbx,
        &mut frame.rdx,
        &mut frame.rax,
        &mut frame.rcx,
        &mut frame.rsp,
        &mut frame.rip,
        &mut frame.rflags,
    ]
}

/// Where `bytes` of FPU image and the frame go; `None` without room for them.
fn place(rsp: u64, action: Action, stack: AltStack, bytes: u64) -> Option<(u64, u64)> {
    let mut top = rsp.checked_sub(RED_ZONE)?;
    let was_on_it = stack.holds(rsp);
    let goes_on_it = action.flags & SA_ONSTACK != 0 && stack.bytes != 0 && !was_on_it;
    if goes_on_it {
        top = stack.start.checked_add(stack.bytes)?;
    }
    let fpstate = top.checked_sub(bytes)? & !63;
    let at = (fpstate.checked_sub(BYTES)? & !15).checked_sub(8)?;
    // Not over the alternate stack's end.
    (!(was_on_it || goes_on_it) || stack.holds(at)).then_some((fpstate, at))
}

/// Writes the frame, and lets `frame` begin with the handler; `mask` is put back when it returns. If it cannot be written all is as it
/// was, but for the user's memory.
pub(super) fn build(
    process: &Process,
    frame: &mut Frame,
    (signal, info): (Signal, Info),
    action: Action,
    mask: u64,
) -> Result<(), NoFrame> {
    if action.flags & SA_RESTORER == 0 {
        return Err(NoFrame::NoRestorer);
    }
    if action.handler >= USER_END {
        return Err(NoFrame::NoHandler { at: action.handler });
    }
    let image = foreign::export(Form::SignalFrame).map_err(NoFrame::Fpu)?;
    let stack = with_current(|lwp| lwp.thread.signals.stack());
    let (fpstate, at) = place(frame.rsp, action, stack, image.len() as u64)
        .ok_or(NoFrame::NoStack { at: frame.rsp })?;

    let mut words = [0; WORDS];
    words[PRETCODE] = action.restorer;
    words[UC_FLAGS] = UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
    if foreign::has_xsave() {
        words[UC_FLAGS] |= UC_FP_XSTATE;
    }
    words[STACK..STACK + 3].copy_from_slice(&[stack.start, stack.flags(frame.rsp), stack.bytes]);
    for (word, register) in words[REGISTERS..].iter_mut().zip(registers(frame)) {
        *word = *register;
    }
    words[SEGMENTS] = frame.cs | frame.ss << 48;
    words[ERROR_CODE] = info.trap[0];
    words[ERROR_CODE + 1] = info.trap[1];
    words[OLD_MASK] = mask;
    words[OLD_MASK + 1] = info.trap[2];
    words[FPSTATE] = fpstate;
    words[MASK] = mask;
    words[SIGINFO] = u64::from(signal.0);
    words[SIGINFO + 1] = u64::from(info.code.cast_unsigned());
    words[SIGINFO + 2] = info.value;

    let write = |at, bytes: &[u8]| {
        sleepy::pause();
        process
            .with_space(|space| space.write(at, bytes))
            .ok_or(NoFrame::NoStack { at })
    };
    write(fpstate, &image)?;
    write(at, words.map(u64::to_le_bytes).as_flattened())?;
    sleepy::pause();
    // As on Linux, a handler begins with the initial state: `handle_signal`, `fpu__clear_user_states`.
    foreign::start_over().map_err(NoFrame::Fpu)?;
    frame.rdi = u64::from(signal.0);
    frame.rsi = at + AT_SIGINFO;
    frame.rdx = at + AT_UCONTEXT;
    frame.rax = 0;
    frame.rsp = at;
    frame.rip = action.handler;
    frame.rflags &= !CLEARED_FLAGS;
    SIGNALS.increment(HERE);
    Ok(())
}

/// Puts everything back as the frame at the user's stack pointer says, which the handler may have changed.
pub(super) fn restore(process: &Process, frame: &mut Frame) -> Result<(), BadFrame> {
    let at = frame.rsp.wrapping_sub(8);
    let mut bytes = [[0; 8]; WORDS];
    process
        .with_space(|space| space.read(at, bytes.as_flattened_mut()))
        .ok_or(BadFrame::Unreadable { at })?;
    let words = bytes.map(u64::from_le_bytes);
    let (rip, cs) = (words[REGISTERS + 16], words[SEGMENTS] & 0xffff | 3);
    if rip >= USER_END || cs != u64::from(USER_CODE) {
        return Err(BadFrame::Registers { rip, cs });
    }
    with_current(|lwp| {
        let own = &lwp.thread.signals;
        own.set_mask(words[MASK]);
        // As on Linux, what is wrong with the alternate stack is passed over.
        let [start, flags, size] = [words[STACK], words[STACK + 1], words[STACK + 2]];
        if let Ok(stack) = AltStack::new(start, flags, size)
            && !own.stack().holds(frame.rsp)
        {
            own.set_stack(stack);
        }
    });
    process.retarget();
    let rflags = frame.rflags;
    for (word, register) in words[REGISTERS..].iter().zip(registers(frame)) {
        *register = *word;
    }
    frame.rflags = rflags & !USER_FLAGS | frame.rflags & USER_FLAGS;
    (frame.cs, frame.ss) = (u64::from(USER_CODE), u64::from(USER_DATA));
    restore_fpu(process, words[FPSTATE])
}

/// The FPU's state from the image at `at`, of which the kernel has one copy, that is checked; none is the initial state.
fn restore_fpu(process: &Process, at: u64) -> Result<(), BadFrame> {
    let bad = |why| BadFrame::Fpu { at, why };
    if at == 0 {
        return foreign::start_over().map_err(bad);
    }
    let mut copy = alloc::vec![0; Form::SignalFrame.bytes()];
    // A shorter frame may lie at the end of the memory that can be read.
    sleepy::pause();
    let n = process.with_space(|space| space.read_some(at, &mut copy));
    sleepy::pause();
    if n == 0 {
        return Err(BadFrame::Fpu {
            at,
            why: Unfit::Unreadable,
        });
    }
    foreign::import(&copy[..n]).map_err(bad)
}
