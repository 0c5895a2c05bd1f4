//! Another process's registers, by `ptrace`: a traced thread stops at each signal, its tracer hears of it by `wait4`, reads and writes
//! its register sets, and lets it go on. ptrace(2); Linux, `kernel/ptrace.c`, `arch/x86/kernel/ptrace.c`, `arch/x86/kernel/fpu/regset.c`.
//!
//! Not here: memory, single steps, system call stops, options.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use pcu9::x86_64::fpu::foreign::Form;

use super::signal::{self, Signal};
use super::stop::with_standing;
use super::syscall::{Answer, Errno, read_word, write_user};
use super::{Process, current, find_thread, registers};
use crate::glue::foreign::{self, Stood, Unfit};
use crate::lwp::Lwp;
use crate::sched;

const TRACEME: u64 = 0;
const CONT: u64 = 7;
const ATTACH: u64 = 16;
const DETACH: u64 = 17;
const GETREGSET: u64 = 0x4204;
const SETREGSET: u64 = 0x4205;

/// Register sets; Linux, `include/uapi/linux/elf.h`.
pub(super) const NT_PRSTATUS: u64 = 1;
pub(super) const NT_PRFPREG: u64 = 2;
pub(super) const NT_X86_XSTATE: u64 = 0x202;

/// FXSAVE's image.
pub(super) const FXSAVE_BYTES: usize = 512;

pub(super) fn ptrace(request: u64, tid: u64, kind: u64, data: u64) -> Answer {
    match request {
        TRACEME => trace_me(),
        ATTACH => attach(tid),
        _ => {
            let lwp = standing_tracee(tid)?;
            match request {
                CONT | DETACH => go_on(&lwp, data, request == DETACH),
                GETREGSET => get(&lwp, kind, data),
                SETREGSET => set(&lwp, kind, data),
                _ => Err(Errno::Io),
            }
        }
    }
}

fn trace_me() -> Answer {
    let process = current();
    let parent = process.parent.upgrade().ok_or(Errno::Perm)?;
    trace(&sched::current(), &parent)
}

fn attach(tid: u64) -> Answer {
    let (lwp, tracer) = (find_thread(tid).ok_or(Errno::NoSuchProcess)?, current());
    let process = lwp.process.clone().ok_or(Errno::NoSuchProcess)?;
    if Arc::ptr_eq(&process, &tracer) {
        return Err(Errno::Perm);
    }
    trace(&lwp, &tracer)?;
    signal::stop(&process, &lwp);
    Ok(0)
}

fn trace(lwp: &Arc<Lwp>, tracer: &Arc<Process>) -> Answer {
    if !lwp.thread.stop.trace(tracer) {
        return Err(Errno::Perm);
    }
    lwp.thread.signals.set_traced(true);
    tracer.tracees.lock().push(Arc::downgrade(lwp));
    Ok(0)
}

/// The thread of this number, which the current process traces and which stands.
fn standing_tracee(tid: u64) -> Result<Arc<Lwp>, Errno> {
    let lwp = find_thread(tid).ok_or(Errno::NoSuchProcess)?;
    let stop = &lwp.thread.stop;
    let is_own = stop
        .tracer()
        .is_some_and(|tracer| Arc::ptr_eq(&tracer, &current()));
    if is_own && stop.is_standing() {
        Ok(lwp)
    } else {
        Err(Errno::NoSuchProcess)
    }
}

fn go_on(lwp: &Arc<Lwp>, signal: u64, detaches: bool) -> Answer {
    let signal = match signal {
        0 => None,
        number => Some(Signal::new(number).ok_or(Errno::Io)?),
    };
    if detaches {
        current().forget_tracee(lwp);
        lwp.thread.signals.set_traced(false);
        lwp.thread.stop.untrace(signal);
    } else {
        lwp.thread.stop.release(signal);
    }
    lwp.thread.event.signal();
    Ok(0)
}

/// A `struct iovec`.
fn read_vector(at: u64) -> Result<(u64, usize), Errno> {
    let (start, len) = (read_word(at)?, read_word(at.wrapping_add(8))?);
    if !len.is_multiple_of(8) {
        return Err(Errno::Invalid);
    }
    Ok((start, len.min(1 << 20) as usize))
}

fn get(lwp: &Arc<Lwp>, kind: u64, vector_at: u64) -> Answer {
    let (start, len) = read_vector(vector_at)?;
    let mut bytes = with_standing(lwp, |stood| match kind {
        NT_PRSTATUS => general(lwp),
        NT_PRFPREG | NT_X86_XSTATE => fpu(stood, kind),
        _ => Err(Errno::Invalid),
    })?;
    bytes.truncate(len);
    write_user(start, &bytes)?;
    write_user(vector_at.wrapping_add(8), &bytes.len().to_le_bytes())?;
    Ok(0)
}

/// The general registers of a thread that stands.
fn general(lwp: &Lwp) -> Result<Vec<u8>, Errno> {
    let words = lwp
        .thread
        .stop
        .with_frame(|frame| registers::of(frame, lwp))
        .ok_or(Errno::NoSuchProcess)?;
    Ok(words.map(u64::to_le_bytes).as_flattened().to_vec())
}

/// The FPU's registers of a thread that stands.
pub(super) fn fpu(stood: &mut Stood<'_>, kind: u64) -> Result<Vec<u8>, Errno> {
    if kind == NT_X86_XSTATE && !foreign::has_xsave() {
        return Err(Errno::NoDevice);
    }
    let mut image = stood.export(Form::Regset).map_err(errno)?;
    if kind == NT_PRFPREG {
        image.truncate(FXSAVE_BYTES);
    }
    Ok(image)
}

fn errno(why: Unfit) -> Errno {
    match why {
        Unfit::Image(_) => Errno::Invalid,
        Unfit::Unreadable => Errno::Fault,
        Unfit::Store(_) => Errno::Io,
    }
}

fn set(lwp: &Arc<Lwp>, kind: u64, vector_at: u64) -> Answer {
    let (start, len) = read_vector(vector_at)?;
    // The kernel's own copy: what is checked is what is taken.
    let most = match kind {
        NT_PRSTATUS => registers::BYTES,
        NT_PRFPREG => FXSAVE_BYTES,
        NT_X86_XSTATE if foreign::has_xsave() => Form::Regset.bytes(),
        NT_X86_XSTATE => return Err(Errno::NoDevice),
        _ => return Err(Errno::Invalid),
    };
    let mut copy = alloc::vec![0; len.min(most)];
    current()
        .with_space(|space| space.read(start, &mut copy))
        .ok_or(Errno::Fault)?;
    if kind == NT_PRSTATUS {
        return with_standing(lwp, |_| {
            let stop = &lwp.thread.stop;
            stop.with_frame(|frame| registers::set(frame, lwp, &copy))
                .unwrap_or(Err(Errno::NoSuchProcess))
        })
        .map(|()| 0);
    }
    if copy.len() != most {
        // Half of an image is none.
        return Err(if kind == NT_PRFPREG {
            Errno::Invalid
        } else {
            Errno::Fault
        });
    }
    with_standing(lwp, |stood| match kind {
        NT_PRFPREG => stood.edit_legacy(&copy),
        _ => stood.import(Form::Regset, &copy),
    })
    .map_err(errno)
    .map(|()| 0)
}

impl Process {
    fn forget_tracee(&self, lwp: &Arc<Lwp>) {
        let mut tracees = self.tracees.lock();
        tracees.retain(|other| !core::ptr::eq(other.as_ptr(), Arc::as_ptr(lwp)));
    }

    /// The threads that it traces.
    pub(super) fn tracees(&self) -> Vec<Arc<Lwp>> {
        let mut tracees = self.tracees.lock();
        tracees.retain(|lwp| lwp.strong_count() > 0);
        let all = tracees.iter().filter_map(Weak::upgrade).collect();
        drop(tracees);
        all
    }

    /// Lets all that it traces go on, when it ends.
    pub(super) fn untrace_all(&self) {
        for lwp in self.tracees() {
            lwp.thread.signals.set_traced(false);
            lwp.thread.stop.untrace(None);
            lwp.thread.event.signal();
        }
    }
}
