//! A thread that stands still on its way to user mode, so that another may look at its registers and change them.
//!
//! It leaves the registers of its [`Frame`] where others find them, and sleeps. Its FPU state stays wherever it is, live on a CPU
//! perhaps; whoever looks holds it off every CPU meanwhile ([`sched::hold`]) and asks `pcu9` for it.

use alloc::sync::{Arc, Weak};

use super::Process;
use super::signal::Signal;
use super::thread::wait_for;
use crate::cpu::trap::Frame;
use crate::glue::foreign::Stood;
use crate::lock::IrqLock;
use crate::lwp::Lwp;
use crate::sched;

/// What a thread has for those who stop it.
#[derive(Debug)]
pub(super) struct Stop(IrqLock<State>);

#[derive(Debug, Default)]
struct State {
    tracer: Weak<Process>,
    /// Where it stands; `None` while it runs.
    at: Option<Frame>,
    /// The signal for which it stands, for its tracer's next wait.
    news: Option<Signal>,
    go_on: Option<GoOn>,
}

/// It may go on.
#[derive(Clone, Copy, Debug)]
enum GoOn {
    Plain,
    With(Signal),
}

impl GoOn {
    fn new(signal: Option<Signal>) -> Self {
        signal.map_or(Self::Plain, Self::With)
    }
}

impl Stop {
    pub(super) fn none() -> Self {
        Self(IrqLock::new(State::default()))
    }

    pub(super) fn tracer(&self) -> Option<Arc<Process>> {
        self.0.lock().tracer.upgrade()
    }

    pub(super) fn is_traced(&self) -> bool {
        self.0.lock().tracer.strong_count() > 0
    }

    /// Makes `tracer` the one who is told of the thread's signals; `false` if there is one already.
    pub(super) fn trace(&self, tracer: &Arc<Process>) -> bool {
        let mut state = self.0.lock();
        let is_free = state.tracer.strong_count() == 0;
        if is_free {
            state.tracer = Arc::downgrade(tracer);
        }
        is_free
    }

    /// Nobody is told any more; if it stands, it goes on with `signal`.
    pub(super) fn untrace(&self, signal: Option<Signal>) {
        let mut state = self.0.lock();
        state.tracer = Weak::new();
        state.news = None;
        if state.at.is_some() {
            state.go_on = Some(GoOn::new(signal));
        }
    }

    pub(super) fn is_standing(&self) -> bool {
        let state = self.0.lock();
        state.at.is_some() && state.go_on.is_none()
    }

    /// What is new of it since this was asked last.
    pub(super) fn take_news(&self) -> Option<Signal> {
        self.0.lock().news.take()
    }

    /// Lets it go on, with `signal`.
    pub(super) fn release(&self, signal: Option<Signal>) {
        self.0.lock().go_on = Some(GoOn::new(signal));
    }

    /// Works on its registers; `None` if it does not stand.
    pub(super) fn with_frame<R>(&self, f: impl FnOnce(&mut Frame) -> R) -> Option<R> {
        self.0.lock().at.as_mut().map(f)
    }

    /// The current thread, whose stop this is, stands still for a signal until it may go on, with the signal that is given here; with
    /// none if `ends` says that it is to end. `frame` is what others made of it.
    pub(super) fn stand(
        &self,
        frame: &mut Frame,
        news: Option<Signal>,
        ends: impl Fn() -> bool,
    ) -> Option<Signal> {
        {
            let mut state = self.0.lock();
            state.at = Some(frame.clone());
            state.news = news;
            state.go_on = None;
        }
        if let Some(tracer) = self.tracer() {
            tracer.wake_all();
        }
        let go_on = wait_for(|| {
            let go_on = self.0.lock().go_on;
            go_on.or_else(|| ends().then_some(GoOn::Plain))
        });
        let mut state = self.0.lock();
        if let Some(changed) = state.at.take() {
            *frame = changed;
        }
        state.news = None;
        state.go_on = None;
        match go_on {
            GoOn::Plain => None,
            GoOn::With(signal) => Some(signal),
        }
    }
}

/// Calls `f` with a thread that stands, and keeps it off every CPU meanwhile. Interrupts are on.
pub(super) fn with_standing<R>(lwp: &Arc<Lwp>, f: impl FnOnce(&mut Stood<'_>) -> R) -> R {
    let held = sched::hold(lwp);
    // SAFETY: the LWP is on no CPU and comes on none while it is held; and it stands, so no token of its own is in use: it sleeps in
    // `stand`. Who holds it waits for whoever else does.
    let mut stood = unsafe { Stood::new(held.lwp()) };
    f(&mut stood)
}
