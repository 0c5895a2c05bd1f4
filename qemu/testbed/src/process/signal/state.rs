//! What a process knows of signals: actions, mask, what is pending. Changed by its own LWP, but for [`Signals::add`].

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::lock::IrqLock;

/// A signal's number, from 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signal(pub(super) u32);

impl Signal {
    pub(super) const ILL: Self = Self(4);
    pub(super) const TRAP: Self = Self(5);
    pub(super) const BUS: Self = Self(7);
    pub(super) const FPE: Self = Self(8);
    pub(super) const KILL: Self = Self(9);
    pub(super) const SEGV: Self = Self(11);
    pub(super) const CHLD: Self = Self(17);
    pub(super) const CONT: Self = Self(18);
    pub(super) const STOP: Self = Self(19);
    pub(super) const TSTP: Self = Self(20);
    pub(super) const TTIN: Self = Self(21);
    pub(super) const TTOU: Self = Self(22);
    pub(super) const URG: Self = Self(23);
    pub(super) const WINCH: Self = Self(28);
    pub(super) const SYS: Self = Self(31);

    pub(super) fn new(number: u64) -> Option<Self> {
        (1..=64).contains(&number).then_some(Self(number as u32))
    }

    pub(super) fn bit(self) -> u64 {
        1 << (self.0 - 1)
    }
}

/// They come first, since they are about the instruction that is next. Linux, `kernel/signal.c`, `SYNCHRONOUS_MASK`.
fn is_synchronous(signal: Signal) -> bool {
    use Signal as S;
    [S::SEGV, S::BUS, S::ILL, S::TRAP, S::FPE, S::SYS].contains(&signal)
}

/// Does the default action do nothing? Linux stops the process for some of them, which does not exist here.
fn is_ignored_by_default(signal: Signal) -> bool {
    use Signal as S;
    let stops = [S::STOP, S::TSTP, S::TTIN, S::TTOU];
    stops.contains(&signal) || [S::CHLD, S::CONT, S::URG, S::WINCH].contains(&signal)
}

/// What is told of a signal, in `siginfo_t` (Linux, `include/uapi/asm-generic/siginfo.h`) and beside it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Info {
    pub(super) code: i32,
    /// The sender's pid, with user 0; of an exception the address.
    pub(super) value: u64,
    /// Error code, vector and CR2 of an exception.
    pub(super) trap: [u64; 3],
}

/// What a process does about a signal: `struct sigaction` as the system call has it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Action {
    pub(super) handler: u64,
    pub(super) flags: u64,
    pub(super) restorer: u64,
    pub(super) mask: u64,
}

pub(super) const SIG_DFL: u64 = 0;
pub(super) const SIG_IGN: u64 = 1;
/// Flags; `arch/x86/include/uapi/asm/signal.h`. `SA_SIGINFO` (4) changes nothing on x86-64: every handler gets all arguments.
pub(super) const SA_RESTORER: u64 = 0x0400_0000;
pub(super) const SA_ONSTACK: u64 = 0x0800_0000;
pub(super) const SA_RESTART: u64 = 0x1000_0000;
pub(super) const SA_NODEFER: u64 = 0x4000_0000;
pub(super) const SA_RESETHAND: u64 = 0x8000_0000;

/// The alternate stack; without one its size is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AltStack {
    pub(super) start: u64,
    pub(super) bytes: u64,
}

impl AltStack {
    /// Is this stack pointer on it? Linux, `include/linux/sched/signal.h`, `__on_sig_stack`.
    pub(super) fn holds(self, rsp: u64) -> bool {
        rsp > self.start && rsp - self.start <= self.bytes
    }
}

/// What a process knows of signals.
#[derive(Debug)]
pub(in crate::process) struct Signals {
    pub(super) state: IrqLock<State>,
    /// It is worth looking whether there is something to deliver.
    attention: AtomicBool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) actions: [Action; 64],
    pub(super) mask: u64,
    pub(super) pending: Vec<(Signal, Info)>,
    pub(super) stack: AltStack,
    /// The number of the system call that a signal cut short.
    pub(super) interrupted: Option<u64>,
}

/// What is to be done about a signal that was taken.
pub(super) enum Todo {
    Nothing,
    End,
    /// Run the handler; the mask is what it was before.
    Handle(Action, u64),
}

impl State {
    pub(super) fn action(&mut self, signal: Signal) -> &mut Action {
        &mut self.actions[signal.0 as usize - 1]
    }

    pub(super) fn is_ignored(&mut self, signal: Signal) -> bool {
        match self.action(signal).handler {
            SIG_IGN => true,
            SIG_DFL => is_ignored_by_default(signal),
            _ => false,
        }
    }

    pub(super) fn set_mask(&mut self, mask: u64) {
        self.mask = mask & !(Signal::KILL.bit() | Signal::STOP.bit());
    }

    /// The place of the signal that comes next.
    pub(super) fn next(&self) -> Option<usize> {
        let places = self.pending.iter().enumerate();
        places
            .filter(|(_, (signal, _))| self.mask & signal.bit() == 0)
            .min_by_key(|(_, (signal, _))| (!is_synchronous(*signal), signal.0))
            .map(|(place, _)| place)
    }

    /// Takes note that the signal is being handled, and says how.
    fn begin(&mut self, signal: Signal) -> Todo {
        if self.is_ignored(signal) {
            return Todo::Nothing;
        }
        let (action, mask) = (*self.action(signal), self.mask);
        if action.handler == SIG_DFL {
            return Todo::End;
        }
        if action.flags & SA_RESETHAND != 0 {
            self.action(signal).handler = SIG_DFL;
        }
        let own = if action.flags & SA_NODEFER == 0 {
            signal.bit()
        } else {
            0
        };
        self.set_mask(mask | action.mask | own);
        Todo::Handle(action, mask)
    }
}

impl Signals {
    /// A new process's.
    pub(in crate::process) fn new() -> Self {
        Self {
            state: IrqLock::new(State {
                actions: [Action::default(); 64],
                mask: 0,
                pending: Vec::new(),
                stack: AltStack::default(),
                interrupted: None,
            }),
            attention: AtomicBool::new(false),
        }
    }

    /// A forked process's: the same actions, mask and alternate stack, and nothing pending.
    pub(in crate::process) fn fork(&self) -> Self {
        let child = Self::new();
        {
            let parent = self.state.lock();
            let mut state = child.state.lock();
            (state.actions, state.mask, state.stack) = (parent.actions, parent.mask, parent.stack);
        }
        child
    }

    /// Is there a signal that is neither blocked nor ignored?
    pub(in crate::process) fn is_interrupting(&self) -> bool {
        self.attention.load(Ordering::Acquire) && self.state.lock().next().is_some()
    }

    /// The system call of this number returns `EINTR`, or is made again after a handler that says so.
    pub(in crate::process) fn note_interrupted(&self, number: u64) {
        self.state.lock().interrupted = Some(number);
    }

    pub(super) fn add(&self, signal: Signal, info: Info) -> bool {
        let mut state = self.state.lock();
        let is_dropped = state.mask & signal.bit() == 0 && state.is_ignored(signal);
        if is_dropped || state.pending.iter().any(|(other, _)| *other == signal) {
            return false;
        }
        state.pending.push((signal, info));
        self.attention.store(true, Ordering::Release);
        true
    }

    /// Takes the next signal, and notes that it is being handled.
    pub(super) fn take(&self) -> Option<(Signal, Info, Todo)> {
        let mut state = self.state.lock();
        let Some(place) = state.next() else {
            self.attention.store(false, Ordering::Release);
            return None;
        };
        let (signal, info) = state.pending.remove(place);
        let todo = state.begin(signal);
        Some((signal, info, todo))
    }

    /// Is there perhaps something to deliver?
    pub(super) fn wants_a_look(&self) -> bool {
        self.attention.load(Ordering::Acquire)
    }

    /// What may be deliverable has changed.
    pub(super) fn look_again(&self) {
        self.attention.store(true, Ordering::Release);
    }
}
