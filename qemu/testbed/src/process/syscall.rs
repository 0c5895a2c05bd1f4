//! The system calls, with Linux's numbers, registers and errors, so that the same program file runs on both.
//!
//! Numbers: Linux, `arch/x86/entry/syscalls/syscall_64.tbl`; each call as its manual page says, as far as the project's
//! programs need it. A call that is not here returns `ENOSYS`, and its number is logged once.

use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::FsBase;

use super::thread::is_interrupted;
use super::{
    Waited, current, exec, exit, files, fork, futex, memory, ptrace, signal, thread, wait,
};
use crate::cpu::time;
use crate::cpu::trap::Frame;
use crate::line;
use crate::memory::USER_END;
use crate::sched::{self, with_current};

/// Errors, by Linux's numbers (`include/uapi/asm-generic/errno-base.h`, `errno.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Errno {
    Perm = 1,
    NoEntry = 2,
    NoSuchProcess = 3,
    Interrupted = 4,
    Io = 5,
    TooBig = 7,
    NoExec = 8,
    BadFd = 9,
    Child = 10,
    Again = 11,
    NoMemory = 12,
    Fault = 14,
    NoDevice = 19,
    Invalid = 22,
    TooManyFiles = 24,
    NotATerminal = 25,
    BrokenPipe = 32,
    NameTooLong = 36,
    NoSuchCall = 38,
    TimedOut = 110,
}

pub(super) type Answer = Result<u64, Errno>;

const RT_SIGRETURN: u64 = 15;
const EXECVE: u64 = 59;

/// Serves the call whose registers are in `frame`, with interrupts on.
pub(crate) fn handle(frame: &mut Frame) {
    if frame.rax == RT_SIGRETURN {
        // It answers with all registers.
        signal::rt_sigreturn(frame);
        return;
    }
    let number = frame.rax;
    let answer = if number == EXECVE {
        exec::execve(frame)
    } else {
        call(frame)
    };
    if answer == Err(Errno::Interrupted) {
        with_current(|lwp| lwp.thread.signals.note_interrupted(number));
    }
    frame.rax = match answer {
        Ok(value) => value,
        Err(errno) => u64::from(errno as u16).wrapping_neg(),
    };
}

fn call(frame: &Frame) -> Answer {
    let (a, b, c) = (frame.rdi, frame.rsi, frame.rdx);
    match frame.rax {
        0 => files::read(a, b, c),
        1 => files::write(a, b, c),
        3 => files::close(a),
        9 => memory::mmap(a, b, c, frame.r10),
        10 => memory::mprotect(a, b, c),
        11 => memory::munmap(a, b),
        12 => Ok(memory::brk(a)),
        13 => signal::rt_sigaction(a, b, c, frame.r10),
        14 => signal::rt_sigprocmask(a, b, c, frame.r10),
        16 => files::ioctl(a),
        20 => files::writev(a, b, c),
        22 => files::pipe(a, 0),
        24 => {
            sched::yield_now();
            Ok(0)
        }
        28 => memory::madvise(a, b, c),
        35 => nanosleep(a),
        39 => Ok(current().pid),
        56 => thread::clone(frame),
        57 => fork(frame).ok_or(Errno::Again),
        60 => thread::exit_thread(a),
        61 => wait4(a, b, c),
        62 => signal::kill(a, b),
        101 => ptrace::ptrace(a, b, c, frame.r10),
        131 => signal::sigaltstack(frame, a, b),
        158 => arch_prctl(a, b),
        186 => Ok(with_current(|lwp| lwp.thread.tid())),
        200 => signal::tkill(a, b),
        202 => futex::futex(a, b, c, frame.r10),
        218 => Ok(thread::set_tid_address(a)),
        228 => clock_gettime(a, b),
        231 => exit(a),
        234 => signal::tgkill(a, b, c),
        293 => files::pipe(a, b),
        number => {
            name_once(number);
            Err(Errno::NoSuchCall)
        }
    }
}

/// Logs the number of a call that does not exist here, the first time.
fn name_once(number: u64) {
    static NAMED: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
    let place = number.min(511);
    let bit = 1 << (place % 64);
    if NAMED[(place / 64) as usize].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        line!("system call {number} does not exist here: ENOSYS");
    }
}

pub(super) fn read_word(at: u64) -> Result<u64, Errno> {
    let mut word = [0; 8];
    current()
        .with_space(|space| space.read(at, &mut word))
        .ok_or(Errno::Fault)?;
    Ok(u64::from_le_bytes(word))
}

pub(super) fn write_user(at: u64, bytes: &[u8]) -> Result<(), Errno> {
    current()
        .with_space(|space| space.write(at, bytes))
        .ok_or(Errno::Fault)
}

fn wait4(pid: u64, status_at: u64, options: u64) -> Answer {
    const WNOHANG: u64 = 1;
    let pid = match pid.cast_signed() {
        -1 => None,
        1.. => Some(pid),
        _ => return Err(Errno::Child),
    };
    match wait(pid, options & WNOHANG == 0) {
        Waited::NoChild => Err(Errno::Child),
        Waited::StillRunning => Ok(0),
        Waited::Interrupted => Err(Errno::Interrupted),
        Waited::Told(pid, status) => {
            if status_at != 0 {
                write_user(status_at, &status.0.to_le_bytes())?;
            }
            Ok(pid)
        }
    }
}

fn arch_prctl(code: u64, address: u64) -> Answer {
    const ARCH_SET_FS: u64 = 0x1002;
    const ARCH_GET_FS: u64 = 0x1003;
    match code {
        ARCH_SET_FS if address >= USER_END => Err(Errno::Perm),
        ARCH_SET_FS => {
            // In this order: a switch in between loads the new base as well.
            with_current(|lwp| lwp.fs_base.store(address, Ordering::Relaxed));
            FsBase::write(VirtAddr::new(address));
            Ok(0)
        }
        ARCH_GET_FS => {
            let base = with_current(|lwp| lwp.fs_base.load(Ordering::Relaxed));
            write_user(address, &base.to_le_bytes()).map(|()| 0)
        }
        _ => Err(Errno::Invalid),
    }
}

fn clock_gettime(clock: u64, at: u64) -> Answer {
    // Every clock counts from the boot here.
    if clock > 11 {
        return Err(Errno::Invalid);
    }
    let now = time::nanoseconds();
    write_user(at, &(now / 1_000_000_000).to_le_bytes())?;
    write_user(at.wrapping_add(8), &(now % 1_000_000_000).to_le_bytes())?;
    Ok(0)
}

/// Reads a `struct timespec`, in nanoseconds.
pub(super) fn read_time(at: u64) -> Result<u64, Errno> {
    let (seconds, nanoseconds) = (read_word(at)?, read_word(at.wrapping_add(8))?);
    if seconds.cast_signed() < 0 || nanoseconds >= 1_000_000_000 {
        return Err(Errno::Invalid);
    }
    Ok(seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds))
}

/// What is left after an interruption is not told.
fn nanosleep(at: u64) -> Answer {
    let end = time::nanoseconds().saturating_add(read_time(at)?);
    sched::poll_each_tick(|| {
        if time::nanoseconds() >= end {
            return Some(Ok(0));
        }
        is_interrupted().then_some(Err(Errno::Interrupted))
    })
}
