//! The system calls, with Linux's numbers, registers and errors, so that the same program file runs on both.
//!
//! Numbers: Linux, `arch/x86/entry/syscalls/syscall_64.tbl`; each call as its manual page says, as far as the project's
//! programs need it. A call that is not here returns `ENOSYS`, and its number is logged once.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::FsBase;

use super::space::Access;
use super::{Waited, current, exit, fork, signal, wait};
use crate::cpu::time;
use crate::cpu::trap::Frame;
use crate::line;
use crate::memory::{PAGE_BYTES, USER_END};
use crate::sched::{self, with_current};
use crate::testing::programs;

/// Errors, by Linux's numbers (`include/uapi/asm-generic/errno-base.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Errno {
    Perm = 1,
    NoSuchProcess = 3,
    Interrupted = 4,
    BadFd = 9,
    Child = 10,
    Again = 11,
    NoMemory = 12,
    Fault = 14,
    Invalid = 22,
    NotATerminal = 25,
    NoSuchCall = 38,
}

pub(super) type Answer = Result<u64, Errno>;

const RT_SIGRETURN: u64 = 15;
/// Longest piece of output on one line.
const CHUNK_BYTES: usize = 256;
/// Most pieces that `writev` takes, as on Linux.
const IOV_MAX: u64 = 1024;

/// Serves the call whose registers are in `frame`, with interrupts on.
pub(crate) fn handle(frame: &mut Frame) {
    if frame.rax == RT_SIGRETURN {
        // It answers with all registers.
        signal::rt_sigreturn(frame);
        return;
    }
    let answer = call(frame);
    if answer == Err(Errno::Interrupted) {
        current().signals.note_interrupted(frame.rax);
    }
    frame.rax = match answer {
        Ok(value) => value,
        Err(errno) => u64::from(errno as u16).wrapping_neg(),
    };
}

fn call(frame: &Frame) -> Answer {
    let (a, b, c) = (frame.rdi, frame.rsi, frame.rdx);
    match frame.rax {
        1 => write(a, b, c),
        9 => mmap(a, b, c, frame.r10),
        10 => mprotect(a, b, c),
        11 => munmap(a, b),
        12 => Ok(brk(a)),
        13 => signal::rt_sigaction(a, b, c, frame.r10),
        14 => signal::rt_sigprocmask(a, b, c, frame.r10),
        16 => Err(if a <= 2 {
            Errno::NotATerminal
        } else {
            Errno::BadFd
        }),
        20 => writev(a, b, c),
        24 => {
            sched::yield_now();
            Ok(0)
        }
        // getpid, gettid, set_tid_address: a process has one LWP, so the numbers are the same.
        39 | 186 | 218 => Ok(current().pid),
        57 => fork(frame).ok_or(Errno::Again),
        60 | 231 => exit(a),
        61 => wait4(a, b, c),
        62 => signal::kill(a, b),
        131 => signal::sigaltstack(frame, a, b),
        158 => arch_prctl(a, b),
        228 => clock_gettime(a, b),
        234 => signal::tgkill(a, b, c),
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

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0.iter().try_for_each(|byte| {
            let digits = [
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ];
            f.write_str(core::str::from_utf8(&digits).unwrap_or("??"))
        })
    }
}

fn write(fd: u64, start: u64, len: u64) -> Answer {
    if fd != 1 && fd != 2 {
        return Err(Errno::BadFd);
    }
    let process = current();
    let mut buffer = [0; CHUNK_BYTES];
    let mut done = 0;
    while done < len {
        let n = (len - done).min(CHUNK_BYTES as u64);
        let piece = &mut buffer[..n as usize];
        let at = start.checked_add(done).ok_or(Errno::Fault)?;
        if process.with_space(|space| space.read(at, piece)).is_none() {
            return if done > 0 {
                Ok(done)
            } else {
                Err(Errno::Fault)
            };
        }
        if !programs::takes_output(piece) {
            line!("@out {} {}", process.job, Hex(piece));
        }
        done += n;
    }
    Ok(done)
}

fn writev(fd: u64, vector: u64, n: u64) -> Answer {
    if n > IOV_MAX {
        return Err(Errno::Invalid);
    }
    let mut done = 0;
    for at in (0..n).map(|place| vector.wrapping_add(place * 16)) {
        let (start, len) = (read_word(at)?, read_word(at.wrapping_add(8))?);
        match write(fd, start, len) {
            Ok(n) => done += n,
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

fn read_word(at: u64) -> Result<u64, Errno> {
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

fn mmap(at: u64, bytes: u64, protection: u64, flags: u64) -> Answer {
    const MAP_SHARED: u64 = 1;
    const MAP_FIXED: u64 = 0x10;
    const MAP_ANONYMOUS: u64 = 0x20;
    let _ = at; // a hint, without MAP_FIXED
    if bytes == 0 || flags & MAP_ANONYMOUS == 0 || flags & (MAP_FIXED | MAP_SHARED) != 0 {
        return Err(Errno::Invalid);
    }
    let access = access(protection)?;
    current().with_space(|space| {
        let start = space.choose(bytes).ok_or(Errno::NoMemory)?;
        if protection != 0 {
            space
                .map_range(start, start + bytes, access)
                .ok_or(Errno::NoMemory)?;
        }
        Ok(start)
    })
}

/// What a protection asks for; never writable and executable at once.
fn access(protection: u64) -> Result<Access, Errno> {
    const PROT_WRITE: u64 = 2;
    const PROT_EXEC: u64 = 4;
    match (protection & PROT_WRITE != 0, protection & PROT_EXEC != 0) {
        (true, true) => Err(Errno::Perm),
        (true, false) => Ok(Access::ReadWrite),
        (false, true) => Ok(Access::ReadExecute),
        (false, false) => Ok(Access::Read),
    }
}

/// The pages of `start..start + bytes`, which must begin on a page boundary and lie in user memory; 4 GiB at most, which
/// is more than any machine of this kernel has.
fn pages(start: u64, bytes: u64) -> Result<Range<u64>, Errno> {
    let end = start
        .checked_add(bytes)
        .filter(|&end| end <= USER_END && bytes <= 4 << 30);
    match end {
        Some(end) if start.is_multiple_of(PAGE_BYTES) => Ok(start..end),
        _ => Err(Errno::Invalid),
    }
}

fn mprotect(start: u64, bytes: u64, protection: u64) -> Answer {
    let pages = pages(start, bytes)?;
    let access = access(protection)?;
    current()
        .with_space(|space| space.protect(pages, access))
        .map(|()| 0)
        .ok_or(Errno::NoMemory)
}

fn munmap(start: u64, bytes: u64) -> Answer {
    let pages = pages(start, bytes)?;
    current().with_space(|space| space.unmap(pages));
    Ok(0)
}

/// Moves the heap's end up; it stays where it is when that cannot be done, and memory never goes back.
fn brk(wanted: u64) -> u64 {
    current().with_space(|space| {
        if wanted >= space.brk && wanted < space.brk_start + (1 << 30) {
            let from = space.brk.next_multiple_of(PAGE_BYTES);
            if space
                .map_range(from, wanted.max(from), Access::ReadWrite)
                .is_some()
            {
                space.brk = wanted;
            }
        }
        space.brk
    })
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
        Waited::Ended(pid, status) => {
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
