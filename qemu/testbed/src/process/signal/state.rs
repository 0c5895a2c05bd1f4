//! What is remembered of signals: by a process, which all its threads share, and by each thread.
//!
//! Locks are taken in this order: the process's, then a thread's.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::action::{
    Action, AltStack, Info, SA_NODEFER, SA_RESETHAND, SIG_DFL, SIG_IGN, Signal, Todo,
    is_ignored_by_default, is_synchronous,
};
use crate::lock::IrqLock;

/// What a process knows of signals.
#[derive(Debug)]
pub(in crate::process) struct Signals(IrqLock<Shared>);

#[derive(Debug)]
struct Shared {
    actions: [Action; 64],
    /// For any thread.
    pending: Vec<(Signal, Info)>,
}

/// What a thread has of its own.
#[derive(Debug)]
pub(in crate::process) struct LwpSignals {
    own: IrqLock<Own>,
    /// It is worth looking whether there is something to deliver.
    attention: AtomicBool,
}

#[derive(Debug)]
struct Own {
    mask: u64,
    pending: Vec<(Signal, Info)>,
    stack: AltStack,
    /// The number of the system call that a signal cut short.
    interrupted: Option<u64>,
    is_traced: bool,
}

impl Shared {
    fn action(&mut self, signal: Signal) -> &mut Action {
        &mut self.actions[signal.0 as usize - 1]
    }

    fn is_ignored(&mut self, signal: Signal) -> bool {
        match self.action(signal).handler {
            SIG_IGN => true,
            SIG_DFL => is_ignored_by_default(signal),
            _ => false,
        }
    }
}

impl Own {
    fn keeps_ignored(&self, signal: Signal) -> bool {
        self.is_traced || self.blocks(signal)
    }

    fn blocks(&self, signal: Signal) -> bool {
        self.mask & signal.bit() != 0
    }

    fn set_mask(&mut self, mask: u64) {
        self.mask = mask & !(Signal::KILL.bit() | Signal::STOP.bit());
    }

    /// The place in `pending` of the signal that comes next, and its rank.
    fn next(&self, pending: &[(Signal, Info)]) -> Option<(usize, (bool, u32))> {
        let places = pending.iter().enumerate();
        places
            .filter(|(_, (signal, _))| !self.blocks(*signal))
            .map(|(place, (signal, _))| (place, (!is_synchronous(*signal), signal.0)))
            .min_by_key(|(_, rank)| *rank)
    }

    /// Takes the signal that comes next: the thread's own first, if both are alike.
    fn take(&mut self, shared: &mut Shared) -> Option<(Signal, Info)> {
        let (own, others) = (self.next(&self.pending), self.next(&shared.pending));
        match (own, others) {
            (Some((place, rank)), others) if others.is_none_or(|(_, other)| rank <= other) => {
                Some(self.pending.remove(place))
            }
            (_, Some((place, _))) => Some(shared.pending.remove(place)),
            (_, None) => None,
        }
    }
}

/// Adds a signal that is not there yet.
fn add(pending: &mut Vec<(Signal, Info)>, signal: Signal, info: Info) -> bool {
    let is_there = pending.iter().any(|(other, _)| *other == signal);
    if !is_there {
        pending.push((signal, info));
    }
    !is_there
}

impl Signals {
    /// A new process's.
    pub(in crate::process) fn new() -> Self {
        Self(IrqLock::new(Shared {
            actions: [Action::default(); 64],
            pending: Vec::new(),
        }))
    }

    /// A forked process's: the same actions, and nothing pending.
    pub(in crate::process) fn fork(&self) -> Self {
        let child = Self::new();
        child.0.lock().actions = self.0.lock().actions;
        child
    }

    pub(super) fn action(&self, signal: Signal) -> Action {
        *self.0.lock().action(signal)
    }

    pub(super) fn set_action(&self, signal: Signal, action: Action) {
        *self.0.lock().action(signal) = action;
    }

    /// Signals with a handler do again what they do without one.
    pub(super) fn forget_handlers(&self) {
        for action in &mut self.0.lock().actions {
            let handler = match action.handler {
                SIG_IGN => SIG_IGN,
                _ => SIG_DFL,
            };
            *action = Action {
                handler,
                ..Action::default()
            };
        }
    }

    /// Would it be dropped, if nobody blocks it?
    pub(super) fn is_ignored(&self, signal: Signal) -> bool {
        self.0.lock().is_ignored(signal)
    }

    /// Forgets a signal that waits for any thread.
    pub(super) fn forget(&self, signal: Signal) {
        self.0.lock().pending.retain(|(other, _)| *other != signal);
    }

    /// Adds a signal to the process, whose first thread has `first`; whether somebody is to be told.
    pub(super) fn add(&self, signal: Signal, info: Info, first: Option<&LwpSignals>) -> bool {
        let mut shared = self.0.lock();
        let keeps_ignored = first.is_some_and(|first| first.own.lock().keeps_ignored(signal));
        let is_dropped = !keeps_ignored && shared.is_ignored(signal);
        !is_dropped && add(&mut shared.pending, signal, info)
    }

    /// What waits for any thread.
    pub(super) fn pending(&self) -> Vec<Signal> {
        let shared = self.0.lock();
        shared.pending.iter().map(|(signal, _)| *signal).collect()
    }
}

impl LwpSignals {
    /// A new thread's.
    pub(in crate::process) fn new(mask: u64) -> Self {
        Self {
            own: IrqLock::new(Own {
                mask,
                pending: Vec::new(),
                stack: AltStack::default(),
                interrupted: None,
                is_traced: false,
            }),
            attention: AtomicBool::new(false),
        }
    }

    /// A forked process's: the same mask and alternate stack, and nothing pending.
    pub(in crate::process) fn fork(&self) -> Self {
        let child = Self::new(self.mask());
        child.set_stack(self.stack());
        child
    }

    pub(in crate::process) fn mask(&self) -> u64 {
        self.own.lock().mask
    }

    pub(super) fn set_mask(&self, mask: u64) {
        self.own.lock().set_mask(mask);
        self.look_again();
    }

    pub(super) fn blocks(&self, signal: Signal) -> bool {
        self.own.lock().blocks(signal)
    }

    pub(super) fn stack(&self) -> AltStack {
        self.own.lock().stack
    }

    pub(super) fn set_stack(&self, stack: AltStack) {
        self.own.lock().stack = stack;
    }

    /// The system call of this number returns `EINTR`, or is made again after a handler that says so.
    pub(in crate::process) fn note_interrupted(&self, number: u64) {
        self.own.lock().interrupted = Some(number);
    }

    pub(super) fn take_interrupted(&self) -> Option<u64> {
        self.own.lock().interrupted.take()
    }

    pub(super) fn has_attention(&self) -> bool {
        self.attention.load(Ordering::Acquire)
    }

    /// What may be deliverable has changed.
    pub(in crate::process) fn look_again(&self) {
        self.attention.store(true, Ordering::Release);
    }

    /// Is there a signal, the thread's or its process's, that it does not block?
    pub(super) fn has_next(&self, process: &Signals) -> bool {
        let shared = process.0.lock();
        let own = self.own.lock();
        own.next(&own.pending).is_some() || own.next(&shared.pending).is_some()
    }

    /// Adds a signal to the thread; whether it is to be told.
    /// One that is ignored is kept if it is blocked, or if a tracer is to hear of it.
    pub(super) fn add(&self, process: &Signals, signal: Signal, info: Info) -> bool {
        let mut shared = process.0.lock();
        let mut own = self.own.lock();
        let is_dropped = !own.keeps_ignored(signal) && shared.is_ignored(signal);
        !is_dropped && add(&mut own.pending, signal, info)
    }

    pub(super) fn forget(&self, signal: Signal) {
        self.own
            .lock()
            .pending
            .retain(|(other, _)| *other != signal);
    }

    /// Prepares for a signal that cannot wait, which is not blocked nor ignored from now on; whether it ends the process.
    pub(super) fn force(&self, process: &Signals, signal: Signal) -> bool {
        let mut shared = process.0.lock();
        let mut own = self.own.lock();
        if own.blocks(signal) || shared.is_ignored(signal) {
            *shared.action(signal) = Action::default();
            own.mask &= !signal.bit();
        }
        shared.action(signal).handler == SIG_DFL
    }

    /// Takes the next signal.
    pub(super) fn take(&self, process: &Signals) -> Option<(Signal, Info)> {
        let mut shared = process.0.lock();
        let mut own = self.own.lock();
        let taken = own.take(&mut shared);
        if taken.is_none() {
            self.attention.store(false, Ordering::Release);
        }
        taken
    }

    /// Notes that a signal is being handled, and says how.
    pub(super) fn begin(&self, process: &Signals, signal: Signal) -> Todo {
        begin(&mut process.0.lock(), &mut self.own.lock(), signal)
    }

    /// Has somebody sent a signal that nothing stands above?
    pub(super) fn is_killed(&self, process: &Signals) -> bool {
        let is_kill = |(signal, _): &(Signal, Info)| *signal == Signal::KILL;
        let shared = process.0.lock();
        shared.pending.iter().any(is_kill) || self.own.lock().pending.iter().any(is_kill)
    }

    /// Whether a tracer is to hear of ignored signals too.
    pub(in crate::process) fn set_traced(&self, is_traced: bool) {
        self.own.lock().is_traced = is_traced;
    }
}

/// Takes note that the signal is being handled, and says how.
fn begin(shared: &mut Shared, own: &mut Own, signal: Signal) -> Todo {
    if shared.is_ignored(signal) {
        return Todo::Nothing;
    }
    let (action, mask) = (*shared.action(signal), own.mask);
    if action.handler == SIG_DFL {
        return Todo::End;
    }
    if action.flags & SA_RESETHAND != 0 {
        shared.action(signal).handler = SIG_DFL;
    }
    let bit = if action.flags & SA_NODEFER == 0 {
        signal.bit()
    } else {
        0
    };
    own.set_mask(mask | action.mask | bit);
    Todo::Handle(action, mask)
}
