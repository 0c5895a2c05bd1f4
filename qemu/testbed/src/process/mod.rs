//! Processes: one address space, one LWP, a parent, and a number that is never used again as its protection domain.
//!
//! In the order of a life: [`space`] and [`elf`] (what a process begins with), [`stack`] (what it finds there), [`syscall`] (what it
//! asks for), [`signal`] (what befalls it), and its end, below.

pub(crate) mod elf;
pub(crate) mod signal;
pub(crate) mod space;
mod stack;
pub(crate) mod syscall;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use spin::Once;
use spin::mutex::SpinMutex;
use spin::relax::Loop;

use crate::cpu::gdt::{USER_CODE, USER_DATA};
use crate::cpu::trap::Frame;
use crate::event::Event;
use crate::glue::LwpFpu;
use crate::line;
use crate::lock::IrqLock;
use crate::lwp::{Lwp, Start};
use crate::memory::paging;
use crate::sched::{self, with_current};
use crate::testing::programs;
use signal::Signals;
use space::Space;

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

    fn killed(signal: u32) -> Self {
        Self(signal)
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
    domain: u64,
    table: u64,
    /// `None` once it has ended. Used by its own LWP alone, so nobody waits for the lock.
    space: SpinMutex<Option<Space>, Loop>,
    parent: Weak<Process>,
    children: IrqLock<Vec<Arc<Process>>>,
    /// A child has ended, or a signal has come.
    child_event: Event,
    status: IrqLock<Option<WaitStatus>>,
    /// Its parent has heard of its end.
    is_forgotten: AtomicBool,
    signals: Signals,
    lwp: Once<Weak<Lwp>>,
}

static NEXT_PID: AtomicU64 = AtomicU64::new(1);
/// Domains are never used again; the boot tests' own begin far above.
static NEXT_DOMAIN: AtomicU64 = AtomicU64::new(1);
/// Processes that have not ended.
static N_RUNNING: AtomicU64 = AtomicU64::new(0);
static END: Event = Event::new();
/// All that may be sent a signal.
static ALL: IrqLock<Vec<Weak<Process>>> = IrqLock::new(Vec::new());

impl Process {
    fn new(space: Space, job: u64, parent: Option<&Arc<Self>>) -> Arc<Self> {
        let process = Arc::new(Self {
            pid: NEXT_PID.fetch_add(1, Ordering::Relaxed),
            job,
            is_first: parent.is_none(),
            domain: NEXT_DOMAIN.fetch_add(1, Ordering::Relaxed),
            table: space.top(),
            space: SpinMutex::new(Some(space)),
            parent: parent.map(Arc::downgrade).unwrap_or_default(),
            children: IrqLock::new(Vec::new()),
            child_event: Event::new(),
            status: IrqLock::new(None),
            is_forgotten: AtomicBool::new(false),
            signals: parent.map_or_else(Signals::new, |parent| parent.signals.fork()),
            lwp: Once::new(),
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

    /// Its LWP, until its end.
    fn lwp(&self) -> Option<Arc<Lwp>> {
        self.lwp.get().and_then(Weak::upgrade)
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
        self.table
    }

    /// Works on its address space; only its own LWP does, before its end.
    fn with_space<R>(&self, f: impl FnOnce(&mut Space) -> R) -> R {
        f(self
            .space
            .lock()
            .as_mut()
            .expect("a process that runs has an address space"))
    }
}

/// Starts the program in `file` as the first process of `job`; `arguments` begin with its name.
pub(crate) fn start(file: &[u8], arguments: &[&str], job: u64) -> Result<Arc<Lwp>, StartError> {
    let mut space = Space::new().ok_or(StartError::NoMemory)?;
    let program = elf::load(file, &mut space)?;
    let rsp = stack::build(&mut space, &program, arguments).ok_or(StartError::NoMemory)?;
    let frame = Frame {
        rip: program.entry,
        cs: u64::from(USER_CODE),
        rflags: 1 << 9 | 2,
        rsp,
        ss: u64::from(USER_DATA),
        ..Frame::default()
    };
    let process = Process::new(space, job, None);
    let fpu = LwpFpu::with_area(process.domain).ok_or(StartError::NoMemory)?;
    let start = Start::User(Box::new(frame));
    let name = arguments.first().copied().unwrap_or_default();
    let lwp = Lwp::with_start(name, Some(Arc::clone(&process)), start, fpu)
        .ok_or(StartError::NoMemory)?;
    process.lwp.call_once(|| Arc::downgrade(&lwp));
    N_RUNNING.fetch_add(1, Ordering::AcqRel);
    sched::make_ready(Arc::clone(&lwp));
    Ok(lwp)
}

/// Waits until no process runs any more.
pub(crate) fn wait_for_all() {
    END.wait_for(|| have_all_ended().then_some(()));
}

/// Whether no process runs any more.
pub(crate) fn have_all_ended() -> bool {
    N_RUNNING.load(Ordering::Acquire) == 0
}

/// The process of this number: one that runs, or has ended and not been waited for.
fn find(pid: u64) -> Option<Arc<Process>> {
    let all: Vec<_> = ALL.lock().clone();
    let mut all = all.iter().filter_map(Weak::upgrade);
    // Its LWP may still be on its way out.
    all.find(|process| process.pid == pid && !process.is_forgotten.load(Ordering::Relaxed))
}

/// The process whose LWP executes this.
fn current() -> Arc<Process> {
    with_current(|lwp| lwp.process.clone()).expect("only a process's LWP comes here")
}

/// Makes a copy of the current process; its pid, `None` without memory.
fn fork(frame: &Frame) -> Option<u64> {
    let parent = current();
    let space = parent.with_space(|space| space.copy())?;
    let child = Process::new(space, parent.job, Some(&parent));
    let pid = child.pid;
    let fpu = LwpFpu::with_area(child.domain)?;
    let start = Start::User(Box::new(Frame {
        rax: 0,
        ..frame.clone()
    }));
    let lwp = Lwp::with_start("fork", Some(Arc::clone(&child)), start, fpu)?;
    lwp.fs_base.store(
        with_current(|lwp| lwp.fs_base.load(Ordering::Relaxed)),
        Ordering::Relaxed,
    );
    child.lwp.call_once(|| Arc::downgrade(&lwp));
    crate::glue::fork(&lwp).ok()?;
    parent.children.lock().push(child);
    N_RUNNING.fetch_add(1, Ordering::AcqRel);
    sched::make_ready(lwp);
    Some(pid)
}

/// Ends the current process with an exit status.
fn exit(status: u64) -> ! {
    let process = current();
    if process.is_first {
        line!("@exit {} {}", process.job, status & 0xff);
    }
    end(process, WaitStatus::exited(status))
}

/// Ends the current process because the kernel could not serve it.
pub(crate) fn kill(why: impl core::fmt::Display) -> ! {
    let process = current();
    programs::note_death(&format_args!("{why}"));
    line!("@fault {} {why}", process.job);
    end(process, WaitStatus::killed(9))
}

fn end(process: Arc<Process>, status: WaitStatus) -> ! {
    with_current(|lwp| lwp.table.store(paging::kernel_table(), Ordering::Relaxed));
    // SAFETY: the kernel's own table maps the kernel, and stays.
    unsafe { paging::activate(paging::kernel_table()) };
    drop(process.space.lock().take());
    process.children.lock().clear();
    *process.status.lock() = Some(status);
    if let Some(parent) = process.parent.upgrade() {
        parent.child_event.signal();
    }
    drop(process);
    sched::end()
}

/// The scheduler: a process's LWP has left its CPU for good, and nothing of it will be counted any more.
pub(crate) fn note_end() {
    N_RUNNING.fetch_sub(1, Ordering::AcqRel);
    END.signal();
}

/// What a process hears of its children.
enum Waited {
    /// There is no such child.
    NoChild,
    /// None of them has ended yet.
    StillRunning,
    /// A signal came first.
    Interrupted,
    /// The child with this pid ended so; it is forgotten now.
    Ended(u64, WaitStatus),
}

/// Waits for a child: `pid`, or any for `None`.
fn wait(pid: Option<u64>, may_wait: bool) -> Waited {
    let process = current();
    process.child_event.wait_for(|| {
        let mut children = process.children.lock();
        let wanted = |child: &Arc<Process>| pid.is_none_or(|pid| pid == child.pid);
        if !children.iter().any(wanted) {
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
                Some(Waited::Ended(child.pid, status))
            }
            None if may_wait && process.signals.is_interrupting() => Some(Waited::Interrupted),
            None if may_wait => None,
            None => Some(Waited::StillRunning),
        }
    })
}
