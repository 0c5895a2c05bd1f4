//! LWPs: what the scheduler runs. Kernel threads, the threads of each process, and one idle LWP a CPU.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::cpu::hotplug;
use crate::cpu::trap::Frame;
use crate::event::Event;
use crate::glue::LwpFpu;
use crate::lock::IrqLock;
use crate::memory::paging;
use crate::memory::stacks::Stack;
use crate::process::{Process, Thread};
use crate::testing::annex::Member;

/// What an LWP may do; changed under the scheduler's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// It runs, or waits in the queue.
    Runnable,
    /// It waits for an event.
    Sleeping,
    /// It has ended and only its stack is still in use.
    Zombie,
}

/// What an LWP does when it first runs.
pub(crate) enum Start {
    /// It runs a function of the kernel and ends with it.
    Kernel(Box<dyn FnOnce() + Send>),
    /// It goes to user mode.
    User(Box<Frame>),
}

/// No CPU, where the number of one could be.
pub(crate) const NO_CPU: u32 = u32::MAX;
/// The pin mask of an LWP that may run anywhere.
pub(crate) const ANYWHERE: u64 = u64::MAX;

/// One LWP. Shared by reference counts: the CPU it runs on, the queue it waits in and whoever keeps a handle each hold one.
#[derive(Debug)]
pub struct Lwp {
    pub(crate) number: u64,
    pub(crate) name: String,
    /// The beginning of the name, for readers outside.
    pub(crate) label: [u8; LABEL_BYTES],
    /// The next one in the list of all LWPs.
    pub(crate) next: AtomicPtr<Self>,
    /// `None` for the idle LWPs, which run on the stack that their CPU started with.
    pub(crate) stack: Option<Stack>,
    /// Where its registers lie on its stack while it does not run.
    pub(crate) saved_rsp: AtomicU64,
    /// Its top-level page table.
    pub(crate) table: AtomicU64,
    /// The base of `fs` in user mode.
    pub(crate) fs_base: AtomicU64,
    /// Bit C: it may run on CPU C; see [`Lwp::allowed`].
    pub(crate) pin: AtomicU64,
    /// Where it ran last.
    pub(crate) last_cpu: AtomicU32,
    /// A [`State`].
    pub(crate) state: AtomicU8,
    /// It is on some CPU, or its registers are still being put away there; changed under the scheduler's lock.
    pub(crate) on_cpu: AtomicBool,
    /// Somebody keeps it off every CPU; changed under the scheduler's lock.
    pub(crate) is_held: AtomicBool,
    /// Above 0 it is not preempted.
    pub(crate) preempt_off: AtomicU32,
    pub(crate) is_idle: bool,
    pub(crate) process: Option<Arc<Process>>,
    /// What it has of its own in user mode.
    pub(crate) thread: Thread,
    pub(crate) start: IrqLock<Option<Start>>,
    pub(crate) ended: AtomicBool,
    pub(crate) end_event: Event,
    /// What `pcu9` keeps for it.
    pub(crate) fpu: LwpFpu,
    /// Whom it plays in a boot test's table of more units; null for nobody.
    pub(crate) member: AtomicPtr<Member>,
}

impl core::fmt::Debug for Start {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Kernel(_) => "Kernel",
            Self::User(_) => "User",
        })
    }
}

/// Bytes of [`Lwp::label`].
pub(crate) const LABEL_BYTES: usize = 16;

/// The first of all LWPs, for readers outside; the links are changed under [`LIST`].
pub(crate) static FIRST: AtomicPtr<Lwp> = AtomicPtr::new(null_mut());
static LIST: IrqLock<()> = IrqLock::new(());

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

impl Lwp {
    fn new(
        name: &str,
        stack: Option<Stack>,
        user: Option<(Arc<Process>, Thread)>,
        start: Option<Start>,
        fpu: LwpFpu,
    ) -> Self {
        let (process, thread) = match user {
            Some((process, thread)) => (Some(process), thread),
            None => (None, Thread::none()),
        };
        Self {
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            label: label(name),
            next: AtomicPtr::new(null_mut()),
            stack,
            saved_rsp: AtomicU64::new(0),
            table: AtomicU64::new(
                process
                    .as_ref()
                    .map_or_else(paging::kernel_table, |process| process.table()),
            ),
            fs_base: AtomicU64::new(0),
            pin: AtomicU64::new(ANYWHERE),
            last_cpu: AtomicU32::new(NO_CPU),
            state: AtomicU8::new(State::Runnable as u8),
            on_cpu: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            preempt_off: AtomicU32::new(0),
            is_idle: false,
            process,
            thread,
            start: IrqLock::new(start),
            ended: AtomicBool::new(false),
            end_event: Event::new(),
            fpu,
            member: AtomicPtr::new(null_mut()),
        }
    }

    /// Makes the LWP that a CPU is from its start on.
    pub(crate) fn idle() -> Arc<Self> {
        let mut lwp = Self::new("idle", None, None, None, LwpFpu::none());
        lwp.is_idle = true;
        lwp.list()
    }

    /// Puts it into the list of all LWPs, which it leaves when it is dropped.
    fn list(self) -> Arc<Self> {
        let lwp = Arc::new(self);
        let _list = LIST.lock();
        let next = FIRST.load(Ordering::Relaxed);
        lwp.next.store(next, Ordering::Relaxed);
        FIRST.store(Arc::as_ptr(&lwp).cast_mut(), Ordering::Release);
        lwp
    }

    /// Makes an LWP that has not run yet; `None` without memory for its stack.
    pub(crate) fn with_start(
        name: &str,
        user: Option<(Arc<Process>, Thread)>,
        start: Start,
        fpu: LwpFpu,
    ) -> Option<Arc<Self>> {
        let stack = Stack::new()?;
        let lwp = Self::new(name, Some(stack), user, Some(start), fpu);
        lwp.saved_rsp.store(
            crate::sched::prepare_stack(lwp.stack_top()),
            Ordering::Relaxed,
        );
        Some(lwp.list())
    }

    /// Whose it is, for traces: 0 for an idle LWP, 1 for the kernel's, or the job's number plus 2.
    pub(crate) fn whose(&self) -> u64 {
        match &self.process {
            Some(process) => process.job() + 2,
            None => u64::from(!self.is_idle),
        }
    }

    /// Its number, never used again.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The CPU that it runs on or ran on last, `None` before its first run.
    pub fn last_cpu(&self) -> Option<usize> {
        let cpu = self.last_cpu.load(Ordering::Acquire);
        (cpu != NO_CPU).then_some(cpu as usize)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Runnable,
            1 => State::Sleeping,
            _ => State::Zombie,
        }
    }

    /// Whether it sleeps, and has left its CPU.
    pub(crate) fn is_asleep(&self) -> bool {
        self.state() == State::Sleeping && !self.on_cpu.load(Ordering::Acquire)
    }

    pub(crate) fn may_run_on(&self, cpu: usize) -> bool {
        self.allowed() & 1 << cpu != 0
    }

    /// The CPUs on which it may run now: those of its mask that are online, or any that are while none of its mask is.
    pub(crate) fn allowed(&self) -> u64 {
        let online = hotplug::online();
        match self.pin.load(Ordering::Relaxed) & online {
            0 => online,
            pinned => pinned,
        }
    }

    /// Top of its kernel stack; 0 for an idle LWP, which never enters user mode.
    pub(crate) fn stack_top(&self) -> u64 {
        self.stack.as_ref().map_or(0, Stack::top)
    }
}

/// How many LWPs there are, those that have ended and are still held by somebody among them.
pub(crate) fn count() -> usize {
    let _list = LIST.lock();
    let mut n = 0;
    let mut at = FIRST.load(Ordering::Acquire);
    // SAFETY: an LWP in the list is not dropped before it has left it, which takes the lock.
    while let Some(lwp) = unsafe { at.as_ref() } {
        n += 1;
        at = lwp.next.load(Ordering::Acquire);
    }
    n
}

/// Calls `f` for every LWP, from a panic: a CPU that was stopped may hold the list's lock.
pub(crate) fn for_each_from_panic(mut f: impl FnMut(&Lwp)) {
    let _list = LIST.try_lock();
    let mut at = FIRST.load(Ordering::Acquire);
    // SAFETY: whoever is in the list lives; the other CPUs have been stopped, so that nobody leaves it meanwhile.
    while let Some(lwp) = unsafe { at.as_ref() } {
        f(lwp);
        at = lwp.next.load(Ordering::Acquire);
    }
}

impl Drop for Lwp {
    fn drop(&mut self) {
        let _list = LIST.lock();
        let own = &raw mut *self;
        let mut link = &FIRST;
        loop {
            let at = link.load(Ordering::Relaxed);
            if at == own {
                link.store(self.next.load(Ordering::Relaxed), Ordering::Release);
                return;
            }
            // SAFETY: an LWP in the list is not dropped before it has left it, which takes the lock.
            let Some(lwp) = (unsafe { at.as_ref() }) else {
                return;
            };
            link = &lwp.next;
        }
    }
}

/// The beginning of `name`, filled up with 0, cut between two characters.
fn label(name: &str) -> [u8; LABEL_BYTES] {
    let mut label = [0; LABEL_BYTES];
    let bytes = &name.as_bytes()[..name.floor_char_boundary(LABEL_BYTES)];
    label[..bytes.len()].copy_from_slice(bytes);
    label
}
