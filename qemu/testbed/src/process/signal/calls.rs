//! The system calls about signals.

use super::{Action, AltStack, Info, SI_USER, SIG_DFL, Signal, force, frame, send, send_to};
use crate::cpu::trap::Frame;
use crate::glue::foreign;
use crate::process::syscall::{Answer, Errno, write_user};
use crate::process::{current, find, find_thread};
use crate::sched::with_current;

/// Bytes of a signal mask, `struct sigaction` and `stack_t`, as the calls have them.
const MASK_BYTES: u64 = 8;
const ACTION_WORDS: usize = 4;
const STACK_WORDS: usize = 3;

/// Where a signal comes from: `include/uapi/asm-generic/siginfo.h`.
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
    let process = current();
    let before = process.signals.action(signal);
    if let Some([handler, flags, restorer, mask]) = new {
        let action = Action {
            handler,
            flags,
            restorer,
            mask,
        };
        process.signals.set_action(signal, action);
        if process.signals.is_ignored(signal) {
            process.signals.forget(signal);
            for lwp in process.lwps() {
                lwp.thread.signals.forget(signal);
            }
        }
    }
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
    let before = with_current(|lwp| {
        let own = &lwp.thread.signals;
        let before = own.mask();
        match (how, new) {
            (_, None) => {}
            (SIG_BLOCK, Some([mask])) => own.set_mask(before | mask),
            (SIG_UNBLOCK, Some([mask])) => own.set_mask(before & !mask),
            (_, Some([mask])) => own.set_mask(mask),
        }
        before
    });
    current().retarget();
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
    let before = with_current(|lwp| lwp.thread.signals.stack());
    if let Some([start, flags, bytes]) = new {
        if before.holds(frame.rsp) {
            return Err(Errno::Perm);
        }
        let stack = AltStack::new(start, flags, bytes)?;
        with_current(|lwp| lwp.thread.signals.set_stack(stack));
    }
    if old != 0 {
        write_words(old, [before.start, before.flags(frame.rsp), before.bytes])?;
    }
    Ok(0)
}

pub(in crate::process) fn kill(pid: u64, signal: u64) -> Answer {
    let target = find(pid).ok_or(Errno::NoSuchProcess)?;
    if let Some((signal, info)) = from_current(signal, SI_USER)? {
        send(&target, signal, info);
    }
    Ok(0)
}

/// `tgkill` without the process's number.
pub(in crate::process) fn tkill(tid: u64, signal: u64) -> Answer {
    let lwp = find_thread(tid).ok_or(Errno::NoSuchProcess)?;
    let process = lwp.process.as_ref().ok_or(Errno::NoSuchProcess)?;
    if let Some((signal, info)) = from_current(signal, SI_TKILL)? {
        send_to(process, &lwp, signal, info);
    }
    Ok(0)
}

pub(in crate::process) fn tgkill(pid: u64, tid: u64, signal: u64) -> Answer {
    let lwp = find_thread(tid).ok_or(Errno::NoSuchProcess)?;
    let process = lwp.process.as_ref();
    process
        .filter(|process| process.pid == pid)
        .ok_or(Errno::NoSuchProcess)?;
    tkill(tid, signal)
}

/// The signal of this number as the current process sends it; `None` for 0, by which it only asks whether there is a target.
fn from_current(signal: u64, code: i32) -> Result<Option<(Signal, Info)>, Errno> {
    if signal == 0 {
        return Ok(None);
    }
    let signal = Signal::new(signal).ok_or(Errno::Invalid)?;
    let info = Info {
        code,
        value: current().pid(),
        ..Info::default()
    };
    Ok(Some((signal, info)))
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
        force(frame, Signal::SEGV, info, why);
    }
}

const _: () = assert!(SIG_DFL == 0, "an action of zeros is the default one");
