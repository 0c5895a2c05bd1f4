//! Descriptors: the console, and pipes. Linux, `fs/pipe.c`, `fs/read_write.c`; pipe(7).
//!
//! Standard input is at its end, as the runner gives it to a program on the host.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::signal::{self, Signal};
use super::syscall::{Answer, Errno, read_word, write_user};
use super::thread::{is_interrupted, wait_for};
use super::{Process, current};
use crate::line;
use crate::lock::IrqLock;
use crate::lwp::Lwp;
use crate::sched;
use crate::testing::programs;

/// What a pipe holds, and how much of it is written in one piece: pipe(7), "Pipe capacity" and `PIPE_BUF`.
const CAPACITY: usize = 65536;
const PIPE_BUF: usize = 4096;
/// Most descriptors, as on Linux by default.
const MOST: usize = 1024;
/// Most pieces that `writev` takes, as on Linux.
const IOV_MAX: u64 = 1024;
/// More than any program here writes at once.
const MOST_BYTES: u64 = 1 << 20;

/// What a descriptor names.
#[derive(Clone, Debug)]
enum File {
    Console,
    Reads(Arc<ReadEnd>),
    Writes(Arc<WriteEnd>),
}

/// What becomes of a descriptor when another program begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtExec {
    Stays,
    Closes,
}

/// A process's descriptors. Its threads share them, a forked process has the same.
#[derive(Debug)]
pub(super) struct Files(IrqLock<Vec<Option<(File, AtExec)>>>);

#[derive(Debug, Default)]
struct Pipe(IrqLock<PipeState>);

#[derive(Debug, Default)]
struct PipeState {
    bytes: VecDeque<u8>,
    has_no_reader: bool,
    has_no_writer: bool,
    /// Who is to be woken when something changes.
    waiting: Vec<Arc<Lwp>>,
}

#[derive(Debug)]
struct ReadEnd(Arc<Pipe>);

#[derive(Debug)]
struct WriteEnd(Arc<Pipe>);

impl Files {
    /// Standard input, output and error.
    pub(super) fn console() -> Self {
        Self(IrqLock::new(
            alloc::vec![Some((File::Console, AtExec::Stays)); 3],
        ))
    }

    pub(super) fn fork(&self) -> Self {
        let files = self.0.lock().clone();
        Self(IrqLock::new(files))
    }

    /// Closes all.
    pub(super) fn close_all(&self) {
        let files = core::mem::take(&mut *self.0.lock());
        drop(files); // with no lock held, since it wakes others
    }

    /// Closes those that another program is not to have.
    pub(super) fn close_at_exec(&self) {
        let take = |file: &mut Option<(File, AtExec)>| {
            file.take_if(|(_, at_exec)| *at_exec == AtExec::Closes)
        };
        let closed: Vec<_> = self.0.lock().iter_mut().map(take).collect();
        drop(closed); // with no lock held, since it wakes others
    }

    fn get(&self, descriptor: u64) -> Result<File, Errno> {
        let files = self.0.lock();
        let file = files.get(descriptor as usize).cloned().flatten();
        file.map(|(file, _)| file).ok_or(Errno::BadFd)
    }

    /// Takes the lowest free number.
    fn add(&self, file: File, at_exec: AtExec) -> Result<u64, Errno> {
        let mut files = self.0.lock();
        let free = files.iter().position(Option::is_none);
        let place = free.unwrap_or(files.len());
        if place == MOST {
            return Err(Errno::TooManyFiles);
        }
        if place == files.len() {
            files.push(None);
        }
        files[place] = Some((file, at_exec));
        Ok(place as u64)
    }

    fn close(&self, descriptor: u64) -> Result<(), Errno> {
        let closed = {
            let mut files = self.0.lock();
            files.get_mut(descriptor as usize).and_then(Option::take)
        };
        closed.map(drop).ok_or(Errno::BadFd)
    }
}

impl Pipe {
    /// Changes the state by `f`, and lets whoever waits look again.
    fn change<R>(&self, f: impl FnOnce(&mut PipeState) -> R) -> R {
        let (result, waiting) = {
            let mut state = self.0.lock();
            let result = f(&mut state);
            (result, core::mem::take(&mut state.waiting))
        };
        for lwp in waiting {
            lwp.thread.event.signal();
        }
        result
    }

    /// Looks at the state until `f` finds something to say, or something interrupts.
    fn wait<R>(
        &self,
        mut f: impl FnMut(&mut PipeState) -> Option<Result<R, Errno>>,
    ) -> Result<R, Errno> {
        let own = sched::current();
        let result = wait_for(|| {
            let mut state = self.0.lock();
            if let Some(found) = f(&mut state) {
                return Some(found);
            }
            if !state.waiting.iter().any(|lwp| Arc::ptr_eq(lwp, &own)) {
                state.waiting.push(Arc::clone(&own));
            }
            drop(state);
            is_interrupted().then_some(Err(Errno::Interrupted))
        });
        self.change(|_| ());
        result
    }

    fn read(&self, most: usize) -> Result<Vec<u8>, Errno> {
        self.wait(|state| {
            let n = most.min(state.bytes.len());
            let is_at_its_end = state.has_no_writer || most == 0;
            (n > 0 || is_at_its_end).then(|| Ok(state.bytes.drain(..n).collect()))
        })
    }

    /// Writes all of it; how much, if it is interrupted.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            let needed = if bytes.len() <= PIPE_BUF {
                rest.len()
            } else {
                1
            };
            let written = self.wait(|state| {
                if state.has_no_reader {
                    return Some(Err(Errno::BrokenPipe));
                }
                let room = CAPACITY - state.bytes.len();
                (room >= needed).then(|| {
                    let n = room.min(rest.len());
                    state.bytes.extend(&rest[..n]);
                    Ok(n)
                })
            });
            match written {
                Ok(n) => done += n,
                Err(Errno::Interrupted) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }
}

impl Drop for ReadEnd {
    fn drop(&mut self) {
        self.0.change(|state| state.has_no_reader = true);
    }
}

impl Drop for WriteEnd {
    fn drop(&mut self) {
        self.0.change(|state| state.has_no_writer = true);
    }
}

pub(super) fn pipe(at: u64, flags: u64) -> Answer {
    const O_CLOEXEC: u64 = 0o2_000_000;
    if flags & !O_CLOEXEC != 0 {
        return Err(Errno::Invalid);
    }
    let at_exec = if flags & O_CLOEXEC == 0 {
        AtExec::Stays
    } else {
        AtExec::Closes
    };
    let process = current();
    let pipe = Arc::new(Pipe::default());
    let reads = File::Reads(Arc::new(ReadEnd(Arc::clone(&pipe))));
    let reads = process.files.add(reads, at_exec)?;
    let writes = File::Writes(Arc::new(WriteEnd(pipe)));
    let result = process.files.add(writes, at_exec).and_then(|writes| {
        let bytes = [reads as u32, writes as u32].map(u32::to_le_bytes);
        write_user(at, bytes.as_flattened()).inspect_err(|_| {
            let _ = process.files.close(writes);
        })
    });
    if result.is_err() {
        let _ = process.files.close(reads);
    }
    result.map(|()| 0)
}

pub(super) fn close(descriptor: u64) -> Answer {
    current().files.close(descriptor).map(|()| 0)
}

/// No descriptor is a terminal's.
pub(super) fn ioctl(descriptor: u64) -> Answer {
    let file = current().files.get(descriptor)?;
    drop(file);
    Err(Errno::NotATerminal)
}

pub(super) fn read(descriptor: u64, start: u64, len: u64) -> Answer {
    let most = len.min(CAPACITY as u64) as usize;
    let bytes = match current().files.get(descriptor)? {
        File::Console => return Ok(0),
        File::Writes(_) => return Err(Errno::BadFd),
        File::Reads(end) => end.0.read(most)?,
    };
    write_user(start, &bytes)?;
    Ok(bytes.len() as u64)
}

pub(super) fn write(descriptor: u64, start: u64, len: u64) -> Answer {
    write_pieces(descriptor, &[(start, len)])
}

pub(super) fn writev(descriptor: u64, vector: u64, n: u64) -> Answer {
    if n > IOV_MAX {
        return Err(Errno::Invalid);
    }
    let places = (0..n).map(|place| vector.wrapping_add(place * 16));
    let pieces = places.map(|at| Ok((read_word(at)?, read_word(at.wrapping_add(8))?)));
    write_pieces(descriptor, &pieces.collect::<Result<Vec<_>, _>>()?)
}

/// Writes pieces of user memory as one, so that what others write does not come in between.
fn write_pieces(descriptor: u64, pieces: &[(u64, u64)]) -> Answer {
    let process = current();
    let file = process.files.get(descriptor)?;
    let mut bytes = Vec::new();
    for &(start, len) in pieces {
        let before = bytes.len();
        let most = len.min(MOST_BYTES - before as u64) as usize;
        bytes.resize(before + most, 0);
        let n = process.with_space(|space| space.read_some(start, &mut bytes[before..]));
        bytes.truncate(before + n);
        if n < most {
            break;
        }
    }
    if bytes.is_empty() && pieces.iter().any(|(_, len)| *len > 0) {
        return Err(Errno::Fault);
    }
    match file {
        File::Console => print(&process, &bytes),
        File::Reads(_) => return Err(Errno::BadFd),
        File::Writes(end) => {
            let written = end.0.write(&bytes);
            if written == Err(Errno::BrokenPipe) {
                signal::send_to_current(Signal::PIPE);
            }
            return written.map(|n| n as u64);
        }
    }
    Ok(bytes.len() as u64)
}

/// A line for each piece that other programs' may not come between.
fn print(process: &Process, bytes: &[u8]) {
    for piece in bytes.chunks(PIPE_BUF) {
        if !programs::takes_output(piece) {
            line!("@out {} {}", process.job, Hex(piece));
        }
    }
}

/// Bytes as the runner reads them.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

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
