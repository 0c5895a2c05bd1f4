//! Signals, with Linux's numbers, layouts and rules as far as the project's programs need them.
//!
//! In the order of a life: [`action`] (what is said of signals), [`state`] (what a process and its threads remember), [`calls`] (what a
//! program asks for), [`send`] and [`exception`] (where a signal comes from), [`deliver`] on the way to user mode, [`frame`] (what a
//! handler finds on its stack, and how it ends).
//!
//! Sources: Linux, `kernel/signal.c` (who is told, in what order), `arch/x86/kernel/signal.c` and `signal_64.c` (the frame),
//! `arch/x86/kernel/fpu/signal.c` (the FPU in it), `include/uapi/asm-generic/signal.h` (numbers).
//! Not here: stopping and continuing but for a tracer, queues of real-time signals, `SIGCHLD` at a child's end, process groups.
//! Architecture invariant: who sends touches the other process's [`Signals`] and its threads' [`LwpSignals`] alone; everything else is
//! the thread's own work.

mod action;
mod calls;
mod exception;
mod frame;
mod state;

use core::convert::Infallible;
use core::fmt;

pub(super) use self::action::Signal;
pub(super) use self::calls::{
    kill, rt_sigaction, rt_sigprocmask, rt_sigreturn, sigaltstack, tgkill, tkill,
};
pub(crate) use self::exception::exception;
pub(super) use self::frame::USER_FLAGS;
pub(super) use self::state::{LwpSignals, Signals};

use self::action::{
    Action, AltStack, Info, SA_ONSTACK, SA_RESTART, SA_RESTORER, SI_USER, SIG_DFL, SIG_IGN, Todo,
    dumps_core,
};
use self::frame::NoFrame;
use super::thread::{Dump, leave};
use super::{Process, WaitStatus, corefile, current};
use crate::cpu::trap::Frame;
use crate::line;
use crate::lwp::Lwp;
use crate::sched::{self, with_current};
use crate::testing::programs;

/// Sends a signal to `target`: to the thread that Linux would choose, whose CPU is asked to come into the kernel if it is in user mode.
fn send(target: &Process, signal: Signal, info: Info) {
    let lwps = target.lwps();
    let first = lwps.first().map(|lwp| &lwp.thread.signals);
    if target.signals.add(signal, info, first) {
        target.notify(signal);
    }
}

/// Sends `SIGUSR1` to a process that has a handler for it.
pub(super) fn disturb(target: &Process) {
    if target.signals.action(Signal::USR1).handler > SIG_IGN {
        send(target, Signal::USR1, Info::default());
    }
}

/// Sends a signal to one thread.
fn send_to(process: &Process, lwp: &Lwp, signal: Signal, info: Info) {
    if lwp.thread.signals.add(&process.signals, signal, info) {
        wake(lwp);
    }
}

/// What the current process, which has one thread, knows of signals when another program begins: handlers and the alternate stack are the
/// old one's. Linux, `kernel/signal.c`, `flush_signal_handlers`.
pub(super) fn forget_handlers(process: &Process) {
    process.signals.forget_handlers();
    with_current(|lwp| lwp.thread.signals.set_stack(AltStack::default()));
}

/// Sends the current thread a signal of the kernel's.
pub(super) fn send_to_current(signal: Signal) {
    send_to(&current(), &sched::current(), signal, Info::default());
}

/// Lets a thread look at its signals.
fn wake(lwp: &Lwp) {
    lwp.thread.signals.look_again();
    lwp.thread.event.signal();
    sched::kick(lwp);
}

impl Process {
    /// Tells a thread that does not block it of a signal to the process; the first thread, if there is a choice. Linux,
    /// `kernel/signal.c`, `complete_signal`.
    fn notify(&self, signal: Signal) {
        let lwps = self.lwps();
        let chosen = lwps.iter().find(|lwp| !lwp.thread.signals.blocks(signal));
        if let Some(lwp) = chosen {
            wake(lwp);
        }
    }

    /// Signals to the process that the current thread blocks from now on are another one's to take. Linux, `retarget_shared_pending`.
    fn retarget(&self) {
        for signal in self.signals.pending() {
            self.notify(signal);
        }
    }

    /// Must `lwp`, a thread of it, give up what it waits for?
    pub(super) fn is_interrupting(&self, lwp: &Lwp) -> bool {
        let own = &lwp.thread.signals;
        own.has_attention() && (self.is_ending() || own.has_next(&self.signals))
    }
}

/// Gives the current thread a signal that cannot wait: one that is blocked or ignored ends the process. `why` is told if it ends.
/// Linux, `kernel/signal.c`, `force_sig_info_to_task`.
fn force(frame: &Frame, signal: Signal, info: Info, why: impl fmt::Display) {
    // The caller holds nothing that would be left behind, and neither does this.
    let ends = with_current(|lwp| {
        let ends = lwp.thread.signals.force(&current().signals, signal);
        // A tracer hears of it first.
        ends && !lwp.thread.stop.is_traced()
    });
    if ends {
        die(frame, signal, Cause::Wrong(why));
    }
    send_to(&current(), &sched::current(), signal, info);
}

/// Why a signal ends a process.
enum Cause<D> {
    /// The process of this number wants it so.
    Sent(u64),
    /// It did something wrong.
    Wrong(D),
}

impl<D: fmt::Display> fmt::Display for Cause<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(by) => write!(f, "from process {by}"),
            Self::Wrong(why) => why.fmt(f),
        }
    }
}

/// Ends the current process by a signal; with a core file where Linux writes one, if one is wanted.
fn die(frame: &Frame, signal: Signal, cause: Cause<impl fmt::Display>) -> ! {
    let process = current();
    let dump = if dumps_core(signal) && !process.is_ending() && corefile::is_wanted() {
        Dump::Yes
    } else {
        Dump::No
    };
    if process.begin_end(WaitStatus::killed(signal.0, dump), dump) {
        note_death(&process, signal, &cause);
        if dump == Dump::Yes {
            corefile::write(&process, signal, frame);
            process.end_dump();
        }
    } else {
        process.stand_for_dump(frame);
    }
    drop(cause);
    leave(process)
}

/// Says why a process ends. A forked process's end is its parent's to judge, and is told if something is wrong.
fn note_death(process: &Process, signal: Signal, cause: &Cause<impl fmt::Display>) {
    let why = format_args!("killed by signal {}: {cause}", signal.0);
    programs::note_death(&why);
    match cause {
        _ if process.is_first => line!("@fault {} {why}", process.job),
        Cause::Wrong(_) => line!("job {}, a forked process: {why}", process.job),
        Cause::Sent(_) => {}
    }
}

/// Is there perhaps something to [`deliver`]? With interrupts off nothing comes after a no, but by an interrupt.
pub(crate) fn is_pending() -> bool {
    with_current(|lwp| lwp.thread.signals.has_attention())
}

/// Does what signals ask for: changes `frame`, with which the process goes on in user mode, or ends the process. Interrupts are on.
pub(crate) fn deliver(frame: &mut Frame) {
    let mut interrupted = with_current(|lwp| lwp.thread.signals.take_interrupted());
    loop {
        let process = current();
        if process.is_ending() {
            process.stand_for_dump(frame);
            leave(process);
        }
        drop(process);
        match deliver_next(frame, &mut interrupted) {
            Delivered::Last => break,
            Delivered::One => {}
            Delivered::Fatal { signal, by } => die(frame, signal, Cause::<Infallible>::Sent(by)),
            Delivered::NoFrame(why) => force(frame, Signal::SEGV, Info::default(), why),
        }
    }
    // What interrupted it was not for a handler.
    if let Some(number) = interrupted {
        make_again(frame, number);
    }
}

/// What came of the next signal. The process does not end before everything is given up that was needed to find that out.
enum Delivered {
    /// There was none.
    Last,
    One,
    Fatal {
        signal: Signal,
        by: u64,
    },
    NoFrame(NoFrame),
}

fn deliver_next(frame: &mut Frame, interrupted: &mut Option<u64>) -> Delivered {
    let process = current();
    let Some((signal, info)) = with_current(|lwp| lwp.thread.signals.take(&process.signals)) else {
        return Delivered::Last;
    };
    let Some((signal, info)) = as_traced(&process, frame, signal, info) else {
        return Delivered::One;
    };
    let todo = with_current(|lwp| lwp.thread.signals.begin(&process.signals, signal));
    let (action, mask) = match todo {
        Todo::Nothing => return Delivered::One,
        Todo::End => {
            let by = info.value;
            return Delivered::Fatal { signal, by };
        }
        Todo::Handle(action, mask) => (action, mask),
    };
    if let Some(number) = interrupted.take()
        && action.flags & SA_RESTART != 0
    {
        make_again(frame, number);
    }
    match frame::build(&process, frame, (signal, info), action, mask) {
        Ok(()) => Delivered::One,
        Err(why) => {
            // Linux, `kernel/signal.c`, `signal_setup_done`, `force_sigsegv`.
            with_current(|lwp| lwp.thread.signals.set_mask(mask));
            if signal == Signal::SEGV {
                process.signals.set_action(signal, Action::default());
            }
            Delivered::NoFrame(why)
        }
    }
}

/// What is to be delivered: of a traced thread what its tracer makes of the signal, for which it stands still. Linux, `kernel/signal.c`,
/// `ptrace_signal`.
fn as_traced(
    process: &Process,
    frame: &mut Frame,
    signal: Signal,
    info: Info,
) -> Option<(Signal, Info)> {
    let own = sched::current();
    let Some(tracer) = own.thread.stop.tracer().filter(|_| signal != Signal::KILL) else {
        return Some((signal, info));
    };
    let value = tracer.pid();
    drop(tracer); // it may end meanwhile
    let ends = || process.is_ending() || own.thread.signals.is_killed(&process.signals);
    let wanted = own.thread.stop.stand(frame, Some(signal), ends)?;
    let others = Info {
        code: SI_USER,
        value,
        ..Info::default()
    };
    Some((wanted, if wanted == signal { info } else { others }))
}

/// Stops a thread for its tracer.
pub(super) fn stop(process: &Process, lwp: &Lwp) {
    send_to(process, lwp, Signal::STOP, Info::default());
}

/// Lets user mode make its system call again: SYSCALL has two bytes.
fn make_again(frame: &mut Frame, number: u64) {
    frame.rax = number;
    frame.rip -= 2;
}
