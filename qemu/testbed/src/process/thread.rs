//! The threads of a process: what an LWP in user mode has of its own, how one begins, and how they end, alone or all together.
//!
//! Threads share the address space, the files, the actions of signals, and the protection domain: for `pcu9` they are LWPs of one
//! domain. Each has its registers, its base of `fs`, its signal mask, and an FPU state, which begins as a copy of its creator's.
//!
//! Sources: Linux, `kernel/fork.c` (`copy_process`, `mm_release`), `kernel/exit.c` (`do_exit`, `do_group_exit`); clone(2), `set_tid_address(2)`.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::signal::LwpSignals;
use super::space::Space;
use super::stop::Stop;
use super::syscall::{Answer, Errno, write_user};
use super::{N_RUNNING, NEXT_PID, Process, WaitStatus, current, futex};
use crate::cpu::trap::Frame;
use crate::event::Event;
use crate::glue::{self, LwpFpu};
use crate::lwp::{Lwp, Start};
use crate::memory::{USER_END, paging};
use crate::sched::{self, with_current};

/// What an LWP in user mode has beside its registers; a kernel thread's is never looked at.
#[derive(Debug)]
pub(crate) struct Thread {
    /// Its number: of the first thread the process's.
    tid: AtomicU64,
    /// What it sleeps for in system calls that a signal interrupts.
    pub(super) event: Event,
    /// Where user mode finds a 0 when it has ended, and is woken; 0 for nowhere.
    pub(super) clear_tid: AtomicU64,
    pub(super) signals: LwpSignals,
    pub(super) stop: Stop,
}

impl Thread {
    /// A kernel thread's.
    pub(crate) fn none() -> Self {
        Self::new(0, LwpSignals::new(0))
    }

    pub(super) fn new(tid: u64, signals: LwpSignals) -> Self {
        Self {
            tid: AtomicU64::new(tid),
            event: Event::new(),
            clear_tid: AtomicU64::new(0),
            signals,
            stop: Stop::none(),
        }
    }

    pub(super) fn tid(&self) -> u64 {
        self.tid.load(Ordering::Relaxed)
    }
}

/// Does a process leave a core file?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dump {
    No,
    Yes,
}

/// The threads of a process.
#[derive(Debug)]
pub(super) struct Threads {
    /// Those that have not ended.
    lwps: Vec<(u64, Weak<Lwp>)>,
    /// How the process ends: every thread is on its way out.
    end: Option<WaitStatus>,
    /// All threads but the one of this number are on their way out: it begins another program.
    alone: Option<u64>,
    /// Its threads stand still before they end, for a core file.
    is_dumping: bool,
}

impl Threads {
    pub(super) const fn new() -> Self {
        Self {
            lwps: Vec::new(),
            end: None,
            alone: None,
            is_dumping: false,
        }
    }

    /// Is the thread of this number on its way out?
    fn is_ending(&self, tid: u64) -> bool {
        self.end.is_some() || self.alone.is_some_and(|alone| alone != tid)
    }

    pub(super) fn all(&self) -> Vec<Arc<Lwp>> {
        let lwps = self.lwps.iter();
        lwps.filter_map(|(_, lwp)| lwp.upgrade()).collect()
    }
}

impl Process {
    /// Its threads that have not ended, the oldest first.
    pub(super) fn lwps(&self) -> Vec<Arc<Lwp>> {
        self.threads.lock().all()
    }

    /// Adds a thread that has not run, unless the process is ending.
    pub(super) fn add_thread(&self, lwp: &Arc<Lwp>) -> Option<()> {
        let mut threads = self.threads.lock();
        if threads.end.is_some() || threads.alone.is_some() {
            return None;
        }
        threads.lwps.push((lwp.thread.tid(), Arc::downgrade(lwp)));
        N_RUNNING.fetch_add(1, Ordering::AcqRel);
        Some(())
    }

    /// Is the current thread, which is one of its, on its way out?
    pub(super) fn is_ending(&self) -> bool {
        let tid = with_current(|lwp| lwp.thread.tid());
        self.threads.lock().is_ending(tid)
    }

    /// Ends every other thread than the current one, which has the process's number afterwards; `None` if it is to end itself. Linux,
    /// `de_thread`.
    pub(super) fn end_others(&self) -> Option<()> {
        let own = with_current(|lwp| lwp.thread.tid());
        {
            let mut threads = self.threads.lock();
            if threads.is_ending(own) {
                return None;
            }
            threads.alone = Some(own);
        }
        self.hurry();
        let is_alone = wait_for(|| {
            let threads = self.threads.lock();
            let is_alone = threads.lwps.len() == 1;
            (is_alone || threads.end.is_some()).then_some(threads.end.is_none())
        });
        let mut threads = self.threads.lock();
        threads.alone = None;
        if !is_alone || threads.end.is_some() {
            return None;
        }
        with_current(|lwp| lwp.thread.tid.store(self.pid, Ordering::Relaxed));
        threads.lwps.iter_mut().for_each(|(tid, _)| *tid = self.pid);
        Some(())
    }

    /// Lets all threads look again at what they wait for.
    pub(super) fn wake_all(&self) {
        self.lwps().iter().for_each(|lwp| lwp.thread.event.signal());
    }

    /// Tells all threads to end, the process ending so; whether nobody was faster.
    pub(super) fn begin_end(&self, status: WaitStatus, dump: Dump) -> bool {
        {
            let mut threads = self.threads.lock();
            if threads.end.is_some() {
                return false;
            }
            threads.end = Some(status);
            threads.is_dumping = dump == Dump::Yes;
        }
        self.hurry();
        true
    }

    /// Has every thread look whether it is to end.
    fn hurry(&self) {
        for lwp in self.lwps() {
            lwp.thread.signals.look_again();
            lwp.thread.event.signal();
            sched::kick(&lwp);
        }
    }
}

impl Process {
    /// The core file is written: the threads that stand may end.
    pub(super) fn end_dump(&self) {
        self.threads.lock().is_dumping = false;
        self.wake_all();
    }

    /// The current thread, which would go on with `frame`, stands still while the core file is written, if one is.
    pub(super) fn stand_for_dump(&self, frame: &Frame) {
        let is_dumping = || self.threads.lock().is_dumping;
        if is_dumping() {
            let own = sched::current();
            let stop = &own.thread.stop;
            stop.stand(&mut frame.clone(), None, || !is_dumping());
        }
    }
}

/// Sleeps, in a system call, until `condition` gives a value; it is looked at again when something happens to the thread.
pub(super) fn wait_for<R>(condition: impl FnMut() -> Option<R>) -> R {
    let lwp = sched::current();
    lwp.thread.event.wait_for(condition)
}

/// Must a system call that waits give up, for a signal or the process's end?
pub(super) fn is_interrupted() -> bool {
    current().is_interrupting(&sched::current())
}

/// Makes an LWP of `process` that goes on with `frame` and with what the current one has in its FPU.
pub(super) fn copy_of_current(
    process: &Arc<Process>,
    name: &str,
    thread: Thread,
    frame: Frame,
    fs_base: u64,
) -> Option<Arc<Lwp>> {
    let fpu = LwpFpu::with_area(process.domain())?;
    let start = Start::User(Box::new(frame));
    let lwp = Lwp::with_start(name, Some((Arc::clone(process), thread)), start, fpu)?;
    lwp.fs_base.store(fs_base, Ordering::Relaxed);
    glue::fork(&lwp).ok()?;
    Some(lwp)
}

/// `clone` with a shared address space, as threads are made; nothing else.
pub(super) fn clone(frame: &Frame) -> Answer {
    const VM: u64 = 0x100;
    const FS: u64 = 0x200;
    const FILES: u64 = 0x400;
    const SIGHAND: u64 = 0x800;
    const THREAD: u64 = 0x1_0000;
    const SYSVSEM: u64 = 0x4_0000;
    const SETTLS: u64 = 0x8_0000;
    const PARENT_SETTID: u64 = 0x10_0000;
    const CHILD_CLEARTID: u64 = 0x20_0000;
    /// Linux has no meaning for it any more.
    const DETACHED: u64 = 0x40_0000;
    const NEEDED: u64 = VM | FS | FILES | SIGHAND | THREAD;
    const KNOWN: u64 = NEEDED | SYSVSEM | SETTLS | PARENT_SETTID | CHILD_CLEARTID | DETACHED;
    let (flags, stack, parent_tid, child_tid, tls) =
        (frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8);
    if flags & NEEDED != NEEDED || flags & !KNOWN != 0 {
        return Err(Errno::Invalid);
    }
    if flags & SETTLS != 0 && tls >= USER_END {
        return Err(Errno::Perm);
    }
    let process = current();
    let own = sched::current();
    let fs_base = if flags & SETTLS != 0 {
        tls
    } else {
        own.fs_base.load(Ordering::Relaxed)
    };
    let tid = NEXT_PID.fetch_add(1, Ordering::Relaxed);
    let frame = Frame {
        rax: 0,
        rsp: if stack == 0 { frame.rsp } else { stack },
        ..frame.clone()
    };
    process.with_space(Space::share);
    let thread = Thread::new(tid, LwpSignals::new(own.thread.signals.mask()));
    let lwp = copy_of_current(&process, own.name(), thread, frame, fs_base).ok_or(Errno::Again)?;
    if flags & CHILD_CLEARTID != 0 {
        lwp.thread.clear_tid.store(child_tid, Ordering::Relaxed);
    }
    lwp.pin
        .store(own.pin.load(Ordering::Relaxed), Ordering::Relaxed);
    if flags & PARENT_SETTID != 0 {
        write_user(parent_tid, &(tid as u32).to_le_bytes())?;
    }
    process.add_thread(&lwp).ok_or(Errno::Again)?;
    sched::make_ready(lwp);
    Ok(tid)
}

pub(super) fn set_tid_address(at: u64) -> u64 {
    with_current(|lwp| {
        lwp.thread.clear_tid.store(at, Ordering::Relaxed);
        lwp.thread.tid()
    })
}

/// Ends the current thread alone; the last one takes the process with it, and its status counts. Linux, `synchronize_group_exit`.
pub(super) fn exit_thread(status: u64) -> ! {
    end(current(), WaitStatus::exited(status))
}

/// Ends the current thread, whose process is ending as a whole.
pub(super) fn leave(process: Arc<Process>) -> ! {
    end(process, WaitStatus(0))
}

fn end(process: Arc<Process>, status: WaitStatus) -> ! {
    let (tid, clear_tid) = with_current(|lwp| {
        let thread = &lwp.thread;
        (thread.tid(), thread.clear_tid.swap(0, Ordering::Relaxed))
    });
    if clear_tid != 0 {
        // As on Linux, what cannot be written is passed over.
        let _ = write_user(clear_tid, &0_u32.to_le_bytes());
        futex::wake_one(&process, clear_tid);
    }
    with_current(|lwp| lwp.table.store(paging::kernel_table(), Ordering::Relaxed));
    // SAFETY: the kernel's own table maps the kernel, and stays.
    unsafe { paging::activate(paging::kernel_table()) };
    let (last, is_awaited) = {
        let mut threads = process.threads.lock();
        threads.lwps.retain(|(other, _)| *other != tid);
        let status = threads.end.unwrap_or(status);
        let last = threads.lwps.is_empty().then(|| {
            // Nobody begins another end.
            let was_told = threads.end.replace(status).is_some();
            (status, was_told)
        });
        (last, threads.alone.is_some())
    };
    if is_awaited {
        process.wake_all();
    }
    if let Some((status, was_told)) = last {
        if !was_told {
            process.tell_exit(status);
        }
        process.end(status);
    }
    drop(process);
    sched::end()
}
