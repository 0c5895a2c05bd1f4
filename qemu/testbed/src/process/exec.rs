//! `execve`: another program in the place of the current one, from the archive.
//!
//! In two parts. First all is made that the new program needs, and whatever goes wrong is an answer, with the old program as it was. Then
//! the other threads end; from there on the old program does not come back: what cannot be done kills the process.
//!
//! What stays: the process's number, parent, children and files but those that are to be closed, the signals that wait, are blocked or
//! ignored. What goes: the memory, the other threads, the handlers, the alternate stack, and every register. The archive has one
//! directory, `/`, which is everybody's working directory; `/proc/self/exe` is there as well.
//!
//! Sources: Linux, `fs/exec.c` (`bprm_execve`, `begin_new_exec`, `de_thread`); execve(2).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pcu9::kernel::NoAnswer;
use tar_no_std::TarArchiveRef;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::FsBase;

use super::space::Space;
use super::stack::Words;
use super::syscall::{Answer, Errno};
use super::{Process, StartError, current, elf, kill, new_domain, signal, stack, thread};
use crate::boot::info;
use crate::cpu::trap::Frame;
use crate::glue;
use crate::memory::paging;
use crate::sched::{self, with_current};

/// `PATH_MAX`, with the zero.
const PATH_BYTES: usize = 4096;
/// What arguments and environment may take of the new stack, which is 512 KiB: a quarter, as on Linux.
const MOST_BYTES: usize = 128 << 10;

/// Begins the program that the registers in `frame` name, with its arguments and environment: `frame` is its own then, and the answer
/// its `rax`. On an error nothing has changed.
pub(super) fn execve(frame: &mut Frame) -> Answer {
    let (path_at, argv_at, envp_at) = (frame.rdi, frame.rsi, frame.rdx);
    let process = current();
    let path = read_string(&process, path_at, PATH_BYTES, Errno::NameTooLong)?;
    let file = find(&process, &path)?;
    let mut room = MOST_BYTES;
    let mut arguments = read_strings(&process, argv_at, &mut room)?;
    if arguments.is_empty() {
        // As on Linux since 5.18: programs count on the one that is their name.
        arguments.push(Vec::new());
    }
    let words = Words {
        arguments,
        environment: read_strings(&process, envp_at, &mut room)?,
        path,
    };
    let (space, new_frame) = prepare(file, &words).map_err(|error| match error {
        StartError::BadFile(_) => Errno::NoExec,
        StartError::NoMemory => Errno::NoMemory,
    })?;
    drop(words);
    // Waiting for the others, it may hear that it is to end itself.
    if process.end_others().is_none() {
        drop(space);
        thread::leave(process);
    }
    if let Err(error) = replace(&process, space, file) {
        drop(process);
        kill(error);
    }
    *frame = new_frame;
    Ok(0)
}

/// Makes the address space of a program with its stack, and the registers that it begins with.
pub(super) fn prepare(file: &[u8], words: &Words) -> Result<(Space, Frame), StartError> {
    let mut space = Space::new().ok_or(StartError::NoMemory)?;
    let program = elf::load(file, &mut space)?;
    let rsp = stack::build(&mut space, &program, words).ok_or(StartError::NoMemory)?;
    let frame = Frame::of_user(program.entry, rsp);
    Ok((space, frame))
}

/// The point of no return: this thread is the process's only one. An error, of the CPU that has its registers, leaves nothing to go on
/// with.
fn replace(process: &Arc<Process>, space: Space, file: &'static [u8]) -> Result<(), NoAnswer> {
    let domain = new_domain();
    glue::exec(domain)?;
    process.domain.store(domain, Ordering::Relaxed);
    process.set_file(file);
    // In this order, and unpreempted: who switches in loads the table that the LWP names.
    let old = sched::without_preemption(|| {
        let top = space.top();
        process.table.store(top, Ordering::Relaxed);
        with_current(|lwp| lwp.table.store(top, Ordering::Relaxed));
        // SAFETY: the space maps the kernel, and the process keeps it from the next line on.
        unsafe { paging::activate(top) };
        process.space.lock().replace(space)
    });
    drop(old);
    with_current(|lwp| {
        lwp.fs_base.store(0, Ordering::Relaxed);
        lwp.thread.clear_tid.store(0, Ordering::Relaxed);
    });
    FsBase::write(VirtAddr::zero());
    signal::forget_handlers(process);
    process.files.close_at_exec();
    if with_current(|lwp| lwp.thread.stop.is_traced()) {
        signal::send_to_current(signal::Signal::TRAP);
    }
    Ok(())
}

/// The file at a path, which is a name in the archive.
fn find(process: &Process, path: &[u8]) -> Result<&'static [u8], Errno> {
    if path == b"/proc/self/exe" {
        return Ok(process.file());
    }
    let mut name = path;
    while let Some(rest) = name.strip_prefix(b"/").or(name.strip_prefix(b"./")) {
        name = rest;
    }
    let archive = info::get().module_bytes().ok_or(Errno::NoEntry)?;
    let archive = TarArchiveRef::new(archive).map_err(|_| Errno::NoEntry)?;
    // The files borrow from the module, which stays, and not from what reads it.
    let entry = archive
        .entries()
        .find(|entry| entry.filename().as_str().map(str::as_bytes) == Ok(name));
    entry.map(|entry| entry.data()).ok_or(Errno::NoEntry)
}

/// Reads a string that ends with a zero, without it, of at most `most` bytes with it.
fn read_string(process: &Process, at: u64, most: usize, too_long: Errno) -> Result<Vec<u8>, Errno> {
    const PIECE: usize = 256;
    let mut string = Vec::new();
    loop {
        let from = at.checked_add(string.len() as u64).ok_or(Errno::Fault)?;
        let mut piece = [0; PIECE];
        let n = process.with_space(|space| space.read_some(from, &mut piece));
        let end = piece[..n].iter().position(|&byte| byte == 0);
        string.extend(&piece[..end.unwrap_or(n)]);
        if string.len() >= most {
            return Err(too_long);
        }
        match end {
            Some(_) => return Ok(string),
            None if n < PIECE => return Err(Errno::Fault),
            None => {}
        }
    }
}

/// Reads an array of strings that ends with a null pointer; none at all is an empty one. Takes from `room` what they need on the stack.
fn read_strings(process: &Process, at: u64, room: &mut usize) -> Result<Vec<Vec<u8>>, Errno> {
    let mut strings = Vec::new();
    if at == 0 {
        return Ok(strings);
    }
    for place in (at..).step_by(8) {
        let mut pointer = [0; 8];
        process
            .with_space(|space| space.read(place, &mut pointer))
            .ok_or(Errno::Fault)?;
        let pointer = u64::from_le_bytes(pointer);
        if pointer == 0 {
            break;
        }
        let string = read_string(process, pointer, *room, Errno::TooBig)?;
        *room = room
            .checked_sub(string.len() + 1 + size_of::<u64>())
            .ok_or(Errno::TooBig)?;
        strings.push(string);
    }
    Ok(strings)
}
