//! The system calls about signals.

use super::{Action, AltStack, Info, SIG_DFL, Signal, State, force, frame, send};
use crate::cpu::trap::Frame;
use crate::glue::foreign;
use crate::process::syscall::{Answer, Errno, write_user};
use crate::process::{current, find};

/// Bytes of a signal mask, `struct sigaction` and `stack_t`, as the calls have them.
const MASK_BYTES: u64 = 8;
const ACTION_WORDS: usize = 4;
const STACK_WORDS: usize = 3;

/// Where a signal comes from: `include/uapi/asm-generic/siginfo.h`.
const SI_USER: i32 = 0;
const SI_TKILL: i32 = -6;
const SI_KERNEL: i32 = 0x80;

const SS_ONSTACK: u64 = 1;
const SS_DISABLE: u64 = 2;
const MINSIGSTKSZ: u64 = 2048;

fn read_words<const N: usize>(at: u64) -> Result<[u64; N], Errno> {
    let mut bytes = [[0; 8]; N];
    current()
        .with_space(|space| space.read(at, bytes.as_flattened_mut()))
        .ok_or(Errno::Fault)?;
    Ok(bytes.map(u64::from_le_bytes))
}

fn write_words<const N: usize>(at: u64, words: [u64; N]) -> Result<(), Errno> {
    write_user(at, words.map(u64::to_le_bytes).as_flattened())
}

/// Runs `f` on the current process's state, after which something else may be deliverable.
fn with_state<R>(f: impl FnOnce(&mut State) -> R) -> R {
    let process = current();
    let result = f(&mut process.signals.state.lock());
    process.signals.look_again();
    result
}

pub(in crate::process) fn rt_sigaction(signal: u64, new: u64, old: u64, bytes: u64) -> Answer {
    let signal = Signal::new(signal).ok_or(Errno::Invalid)?;
    let is_fixed = signal == Signal::KILL || signal == Signal::STOP;
    if bytes != MASK_BYTES || new != 0 && is_fixed {
        return Err(Errno::Invalid);
    }
    let new = match new {
        0 => None,
        at => Some(read_words::<ACTION_WORDS>(at)?),
    };
    let before = with_state(|state| {
        let before = *state.action(signal);
        if let Some([handler, flags, restorer, mask]) = new {
            *state.action(signal) = Action {
                handler,
                flags,
                restorer,
                mask,
            };
            if state.is_ignored(signal) {
                state.pending.retain(|(other, _)| *other != signal);
            }
        }
        before
    });
    if old != 0 {
        let Action {
            handler,
            flags,
            restorer,
            mask,
        } = before;
        write_words(old, [handler, flags, restorer, mask])?;
    }
    Ok(0)
}

pub(in crate::process) fn rt_sigprocmask(how: u64, new: u64, old: u64, bytes: u64) -> Answer {
    const SIG_BLOCK: u64 = 0;
    const SIG_UNBLOCK: u64 = 1;
    const SIG_SETMASK: u64 = 2;
    if bytes != MASK_BYTES || new != 0 && how > SIG_SETMASK {
        return Err(Errno::Invalid);
    }
    let new = match new {
        0 => None,
        at => Some(read_words::<1>(at)?),
    };
    let before = with_state(|state| {
        let before = state.mask;
        match (how, new) {
            (_, None) => {}
            (SIG_BLOCK, Some([mask])) => state.set_mask(before | mask),
            (SIG_UNBLOCK, Some([mask])) => state.set_mask(before & !mask),
            (_, Some([mask])) => state.set_mask(mask),
        }
        before
    });
    if old != 0 {
        write_words(old, [before])?;
    }
    Ok(0)
}

impl AltStack {
    /// Checks what a program asks for. Linux, `kernel/signal.c`, `do_sigaltstack`.
    pub(super) fn new(start: u64, flags: u64, bytes: u64) -> Result<Self, Errno> {
        match flags & 0xffff_ffff {
            SS_DISABLE => Ok(Self::default()),
            0 | SS_ONSTACK if bytes < MINSIGSTKSZ => Err(Errno::NoMemory),
            0 | SS_ONSTACK => Ok(Self { start, bytes }),
            _ => Err(Errno::Invalid),
        }
    }

    /// As a program whose stack pointer is `rsp` is told.
    pub(super) fn flags(self, rsp: u64) -> u64 {
        match self.bytes {
            0 => SS_DISABLE,
            _ if self.holds(rsp) => SS_ONSTACK,
            _ => 0,
        }
    }
}

pub(in crate::process) fn sigaltstack(frame: &Frame, new: u64, old: u64) -> Answer {
    let new = match new {
        0 => None,
        at => Some(read_words::<STACK_WORDS>(at)?),
    };
    let before = with_state(|state| {
        let before = state.stack;
        if let Some([start, flags, bytes]) = new {
            if before.holds(frame.rsp) {
                return Err(Errno::Perm);
            }
            state.stack = AltStack::new(start, flags, bytes)?;
        }
        Ok(before)
    })?;
    if old != 0 {
        write_words(old, [before.start, before.flags(frame.rsp), before.bytes])?;
    }
    Ok(0)
}

pub(in crate::process) fn kill(pid: u64, signal: u64) -> Answer {
    signal_to(pid, signal, SI_USER)
}

/// A process has one LWP, whose number is the process's.
pub(in crate::process) fn tgkill(process: u64, lwp: u64, signal: u64) -> Answer {
    if process != lwp {
        return Err(Errno::NoSuchProcess);
    }
    signal_to(process, signal, SI_TKILL)
}

fn signal_to(pid: u64, signal: u64, code: i32) -> Answer {
    let target = find(pid).ok_or(Errno::NoSuchProcess)?;
    if signal == 0 {
        return Ok(0); // it was only asked whether there is such a process
    }
    let signal = Signal::new(signal).ok_or(Errno::Invalid)?;
    let info = Info {
        code,
        value: current().pid(),
        ..Info::default()
    };
    send(&target, signal, info);
    Ok(0)
}

/// Ends a handler. A frame that is no good is a SIGSEGV, and the FPU's state is the initial one then. Linux, `signal_fault`.
pub(in crate::process) fn rt_sigreturn(frame: &mut Frame) {
    let result = frame::restore(&current(), frame);
    if let Err(why) = result {
        // Nothing of the FPU's is kept, whether a handler comes or the end. If another CPU does not give it up, the end will tell.
        let _ = foreign::start_over();
        let info = Info {
            code: SI_KERNEL,
            ..Info::default()
        };
        force(Signal::SEGV, info, why);
    }
}

const _: () = assert!(SIG_DFL == 0, "an action of zeros is the default one");
