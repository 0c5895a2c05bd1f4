//! What is said of signals: numbers, actions, alternate stacks.

/// A signal's number, from 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) struct Signal(pub(super) u32);

impl Signal {
    pub(super) const QUIT: Self = Self(3);
    pub(super) const ILL: Self = Self(4);
    pub(in crate::process) const TRAP: Self = Self(5);
    pub(super) const ABRT: Self = Self(6);
    pub(super) const BUS: Self = Self(7);
    pub(super) const FPE: Self = Self(8);
    pub(super) const KILL: Self = Self(9);
    pub(super) const USR1: Self = Self(10);
    pub(super) const SEGV: Self = Self(11);
    pub(in crate::process) const PIPE: Self = Self(13);
    pub(super) const CHLD: Self = Self(17);
    pub(super) const CONT: Self = Self(18);
    pub(super) const STOP: Self = Self(19);
    pub(super) const TSTP: Self = Self(20);
    pub(super) const TTIN: Self = Self(21);
    pub(super) const TTOU: Self = Self(22);
    pub(super) const URG: Self = Self(23);
    pub(super) const XCPU: Self = Self(24);
    pub(super) const XFSZ: Self = Self(25);
    pub(super) const WINCH: Self = Self(28);
    pub(super) const SYS: Self = Self(31);

    pub(in crate::process) fn new(number: u64) -> Option<Self> {
        (1..=64).contains(&number).then_some(Self(number as u32))
    }

    pub(in crate::process) fn number(self) -> u32 {
        self.0
    }

    pub(super) fn bit(self) -> u64 {
        1 << (self.0 - 1)
    }
}

/// They come first, since they are about the instruction that is next. Linux, `kernel/signal.c`, `SYNCHRONOUS_MASK`.
pub(super) fn is_synchronous(signal: Signal) -> bool {
    use Signal as S;
    [S::SEGV, S::BUS, S::ILL, S::TRAP, S::FPE, S::SYS].contains(&signal)
}

/// Does the default action leave a core file? Linux, `include/linux/signal.h`, `SIG_KERNEL_COREDUMP_MASK`.
pub(super) fn dumps_core(signal: Signal) -> bool {
    use Signal as S;
    let wrong = [S::SEGV, S::BUS, S::ILL, S::TRAP, S::FPE, S::SYS];
    wrong.contains(&signal) || [S::QUIT, S::ABRT, S::XCPU, S::XFSZ].contains(&signal)
}

/// Does the default action do nothing? Linux stops the process for some of them, which does not exist here.
pub(super) fn is_ignored_by_default(signal: Signal) -> bool {
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

/// A process sent it: `include/uapi/asm-generic/siginfo.h`.
pub(super) const SI_USER: i32 = 0;

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

/// What is to be done about a signal that was taken.
pub(super) enum Todo {
    Nothing,
    End,
    /// Run the handler; the mask is what it was before.
    Handle(Action, u64),
}
