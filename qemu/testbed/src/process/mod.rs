//! Processes: one address space, its threads, a parent, and a number that is never used again as its protection domain.
//!
//! In the order of a life: [`space`] and [`elf`] (what a process begins with), [`stack`] (what it finds there), [`exec`] (a program in the place of another),
//! [`syscall`] (what it
//! asks for: [`memory`], [`files`], [`futex`] ..), [`thread`] (its LWPs), [`signal`] (what befalls it), and its end, below.

mod corefile;
pub(crate) mod elf;
mod exec;
mod files;
mod futex;
mod memory;
mod ptrace;
mod registers;
pub(crate) mod signal;
pub(crate) mod space;
mod stack;
mod stop;
pub(crate) mod syscall;
mod thread;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spin::mutex::SpinMutex;
use spin::relax::Loop;
use x86_64::instructions::interrupts;

use crate::cpu::trap::Frame;
use crate::event::Event;
use crate::glue::LwpFpu;
use crate::line;
use crate::lock::IrqLock;
use crate::lwp::{Lwp, Start};
use crate::sched::{self, with_current};
use crate::testing::programs;
use files::Files;
use signal::{LwpSignals, Signals};
use space::Space;
use stack::Words;
use thread::{Dump, Threads};

pub(crate) use thread::Thread;

/// Why a program could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartError {
    /// The file is not a program that this kernel runs; the text says why.
    BadFile(&'static str),
    /// There is no memory for it.
    NoMemory,
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::BadFile(why) => f.write_str(why),
            Self::NoMemory => f.write_str("no memory"),
        }
    }
}

/// How a process ended, as `wait4` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitStatus(pub(crate) u32);

impl WaitStatus {
    fn exited(status: u64) -> Self {
        Self(((status & 0xff) as u32) << 8)
    }

    fn killed(signal: u32, dump: Dump) -> Self {
        const CORE: u32 = 0x80;
        Self(match dump {
            Dump::No => signal,
            Dump::Yes => signal | CORE,
        })
    }

    fn stopped(signal: u32) -> Self {
        Self(signal << 8 | 0x7f)
    }
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u64,
    /// The job whose output it writes; forked processes share their parent's.
    job: u64,
    /// Whether it is the job's first.
    is_first: bool,
    /// Its protection domain.
    domain: AtomicU64,
    table: AtomicU64,
    /// The program that it runs.
    file: IrqLock<&'static [u8]>,
    /// `None` once it has ended. Held without preemption, so that a CPU waits for another one alone, with interrupts on: see
    /// [`Space`].
    space: SpinMutex<Option<Space>, Loop>,
    parent: Weak<Process>,
    children: IrqLock<Vec<Arc<Process>>>,
    files: Files,
    threads: IrqLock<Threads>,
    /// Threads of others whose signals it hears of: see [`ptrace`].
    tracees: IrqLock<Vec<Weak<Lwp>>>,
    status: IrqLock<Option<WaitStatus>>,
    /// Its parent has heard of its end.
    is_forgotten: AtomicBool,
    signals: Signals,
}

/// Of processes and of their threads.
static NEXT_PID: AtomicU64 = AtomicU64::new(1);
/// Domains are never used again; the boot tests' own begin far above.
static NEXT_DOMAIN: AtomicU64 = AtomicU64::new(1);
/// Threads of processes that have not ended.
static N_RUNNING: AtomicU64 = AtomicU64::new(0);
static END: Event = Event::new();
/// All that may be sent a signal.
static ALL: IrqLock<Vec<Weak<Process>>> = IrqLock::new(Vec::new());

impl Process {
    fn new(space: Space, file: &'static [u8], job: u64, parent: Option<&Arc<Self>>) -> Arc<Self> {
        let process = Arc::new(Self {
            pid: NEXT_PID.fetch_add(1, Ordering::Relaxed),
            job,
            is_first: parent.is_none(),
            domain: AtomicU64::new(new_domain()),
            table: AtomicU64::new(space.top()),
            file: IrqLock::new(file),
            space: SpinMutex::new(Some(space)),
            parent: parent.map(Arc::downgrade).unwrap_or_default(),
            children: IrqLock::new(Vec::new()),
            files: parent.map_or_else(Files::console, |parent| parent.files.fork()),
            threads: IrqLock::new(Threads::new()),
            tracees: IrqLock::new(Vec::new()),
            status: IrqLock::new(None),
            is_forgotten: AtomicBool::new(false),
            signals: parent.map_or_else(Signals::new, |parent| parent.signals.fork()),
        });
        let mut all = ALL.lock();
        all.retain(|process| process.strong_count() > 0);
        all.push(Arc::downgrade(&process));
        drop(all);
        process
    }

    fn pid(&self) -> u64 {
        self.pid
    }

    /// How it ended.
    pub(crate) fn status(&self) -> Option<WaitStatus> {
        *self.status.lock()
    }

    /// The job whose output it writes.
    pub(crate) fn job(&self) -> u64 {
        self.job
    }

    /// Its top-level page table.
    pub(crate) fn table(&self) -> u64 {
        self.table.load(Ordering::Relaxed)
    }

    /// Its protection domain.
    fn domain(&self) -> u64 {
        self.domain.load(Ordering::Relaxed)
    }

    fn file(&self) -> &'static [u8] {
        *self.file.lock()
    }

    fn set_file(&self, file: &'static [u8]) {
        *self.file.lock() = file;
    }

    /// Works on its address space, before its end. Interrupts are on, and `f` does not sleep.
    fn with_space<R>(&self, f: impl FnOnce(&mut Space) -> R) -> R {
        debug_assert!(
            interrupts::are_enabled(),
            "a space's lock with interrupts off"
        );
        sched::without_preemption(|| {
            f(self
                .space
                .lock()
                .as_mut()
                .expect("a process that runs has an address space"))
        })
    }

    /// Says that it exits.
    fn tell_exit(&self, status: WaitStatus) {
        if self.is_first {
            line!("@exit {} {}", self.job, status.0 >> 8 & 0xff);
        }
    }

    /// Gives everything up, when its last thread has left its address space.
    fn end(&self, status: WaitStatus) {
        drop(self.space.lock().take());
        self.files.close_all();
        self.untrace_all();
        self.children.lock().clear();
        *self.status.lock() = Some(status);
        if let Some(parent) = self.parent.upgrade() {
            parent.wake_all();
        }
    }
}

/// Starts the program in `file` as the first process of `job` on the CPUs of `pin`; `arguments` begin with its name.
pub(crate) fn start(
    file: &'static [u8],
    arguments: &[&str],
    job: u64,
    pin: u64,
) -> Result<Arc<Lwp>, StartError> {
    let (space, frame) = exec::prepare(file, &Words::of(arguments))?;
    let process = Process::new(space, file, job, None);
    let fpu = LwpFpu::with_area(process.domain()).ok_or(StartError::NoMemory)?;
    let start = Start::User(Box::new(frame));
    let name = arguments.first().copied().unwrap_or_default();
    let thread = Thread::new(process.pid, LwpSignals::new(0));
    let lwp = Lwp::with_start(name, Some((Arc::clone(&process), thread)), start, fpu)
        .ok_or(StartError::NoMemory)?;
    process.add_thread(&lwp).ok_or(StartError::NoMemory)?;
    lwp.pin.store(pin, Ordering::Relaxed);
    sched::make_ready(Arc::clone(&lwp));
    Ok(lwp)
}

/// A protection domain that no process ever had.
fn new_domain() -> u64 {
    NEXT_DOMAIN.fetch_add(1, Ordering::Relaxed)
}

/// Waits until no process runs any more.
pub(crate) fn wait_for_all() {
    END.wait_for(|| have_all_ended().then_some(()));
}

/// Whether no process runs any more.
pub(crate) fn have_all_ended() -> bool {
    N_RUNNING.load(Ordering::Acquire) == 0
}

/// An LWP of a process that runs, for tests: which one of them, `number` says.
pub(crate) fn any_lwp(number: usize) -> Option<Arc<Lwp>> {
    any(number)?.lwps().into_iter().next()
}

/// Sends `SIGUSR1`, for tests, to a process that has a handler for it: to which one, `number` says.
pub(crate) fn signal_any(number: usize) {
    if let Some(process) = any(number) {
        signal::disturb(&process);
    }
}

fn any(number: usize) -> Option<Arc<Process>> {
    let all: Vec<_> = ALL.lock().clone();
    let mut running: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
    running.retain(|process| process.status().is_none());
    let place = number.checked_rem(running.len())?;
    running.into_iter().nth(place)
}

/// The process of this number: one that runs, or has ended and not been waited for.
fn find(pid: u64) -> Option<Arc<Process>> {
    let all: Vec<_> = ALL.lock().clone();
    let mut all = all.iter().filter_map(Weak::upgrade);
    // Its LWP may still be on its way out.
    all.find(|process| process.pid == pid && !process.is_forgotten.load(Ordering::Relaxed))
}

/// The thread of this number, in a process of any.
fn find_thread(tid: u64) -> Option<Arc<Lwp>> {
    let all: Vec<_> = ALL.lock().clone();
    let mut all = all.iter().filter_map(Weak::upgrade);
    all.find_map(|process| {
        let mut lwps = process.lwps().into_iter();
        lwps.find(|lwp| lwp.thread.tid() == tid)
    })
}

/// The process whose LWP executes this.
fn current() -> Arc<Process> {
    with_current(|lwp| lwp.process.clone()).expect("only a process's LWP comes here")
}

/// Makes a copy of the current process with the current thread alone; its pid, `None` without memory.
fn fork(frame: &Frame) -> Option<u64> {
    let parent = current();
    let space = parent.with_space(|space| space.copy())?;
    let child = Process::new(space, parent.file(), parent.job, Some(&parent));
    let pid = child.pid;
    let frame = Frame {
        rax: 0,
        ..frame.clone()
    };
    let fs_base = with_current(|lwp| lwp.fs_base.load(Ordering::Relaxed));
    let thread = Thread::new(pid, with_current(|lwp| lwp.thread.signals.fork()));
    let lwp = thread::copy_of_current(&child, "fork", thread, frame, fs_base)?;
    lwp.pin.store(programs::forked_pin(), Ordering::Relaxed);
    child.add_thread(&lwp)?;
    parent.children.lock().push(child);
    sched::make_ready(lwp);
    Some(pid)
}

/// Ends the current process, all its threads, with an exit status.
fn exit(status: u64) -> ! {
    let process = current();
    let status = WaitStatus::exited(status);
    if process.begin_end(status, Dump::No) {
        process.tell_exit(status);
    }
    thread::leave(process)
}

/// Ends the current process because the kernel could not serve it.
pub(crate) fn kill(why: impl core::fmt::Display) -> ! {
    let process = current();
    if process.begin_end(WaitStatus::killed(9, Dump::No), Dump::No) {
        programs::note_death(&format_args!("{why}"));
        line!("@fault {} {why}", process.job);
    }
    thread::leave(process)
}

/// The scheduler: a thread has left its CPU for good, and nothing of it will be counted any more.
pub(crate) fn note_end() {
    N_RUNNING.fetch_sub(1, Ordering::AcqRel);
    END.signal();
}

/// What a process hears of its children, and of those whom it traces.
enum Waited {
    /// There is no such child.
    NoChild,
    /// None of them has ended yet.
    StillRunning,
    /// A signal came first.
    Interrupted,
    /// The child with this pid ended so, and is forgotten now; or the traced thread with this number stands.
    Told(u64, WaitStatus),
}

/// Waits for a child: `pid`, or any for `None`.
fn wait(pid: Option<u64>, may_wait: bool) -> Waited {
    let process = current();
    thread::wait_for(|| {
        let is_interrupted = thread::is_interrupted();
        let tracees = process.tracees();
        let mut wanted_tracees = tracees.iter().filter(|lwp| {
            let tid = lwp.thread.tid();
            pid.is_none_or(|pid| pid == tid)
        });
        let traces_any = wanted_tracees.clone().next().is_some();
        let news = wanted_tracees.find_map(|lwp| {
            let signal = lwp.thread.stop.take_news()?;
            Some((lwp.thread.tid(), WaitStatus::stopped(signal.number())))
        });
        if let Some((tid, status)) = news {
            return Some(Waited::Told(tid, status));
        }
        let mut children = process.children.lock();
        let wanted = |child: &Arc<Process>| pid.is_none_or(|pid| pid == child.pid);
        if !children.iter().any(wanted) && !traces_any {
            return Some(Waited::NoChild);
        }
        let ended = children
            .iter()
            .position(|child| wanted(child) && child.status.lock().is_some());
        match ended {
            Some(place) => {
                let child = children.swap_remove(place);
                child.is_forgotten.store(true, Ordering::Relaxed);
                let status = child.status.lock().unwrap_or(WaitStatus(0));
                Some(Waited::Told(child.pid, status))
            }
            None if may_wait && is_interrupted => Some(Waited::Interrupted),
            None if may_wait => None,
            None => Some(Waited::StillRunning),
        }
    })
}
