//! What is explored: a policy, a leak rule, the operations that LWPs may begin, and what the machine does wrong.

use std::fmt;

use pcu9::pcu::{CoreDump, LeakRule, Policy, WriteBackAtIdle};

use super::flight::Op;
use super::world::LWPS;

/// One search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) policy: Policy,
    pub(crate) rule: LeakRule,
    pub(crate) domains: [u64; LWPS],
    /// How many LWPs there are, and units in the table.
    pub(crate) lwps: usize,
    pub(crate) units: usize,
    pub(crate) ops: &'static [Kind],
    pub(crate) uses: Uses,
    /// How many operations other than `trap` and `load` may be under way at a time.
    pub(crate) at_once: usize,
    /// May an asker give up before its cross-call has begun?
    pub(crate) withdrawals: bool,
    /// May `save_all_on_cpu` come at any moment?
    pub(crate) flushes: bool,
    pub(crate) write_back_at_idle: WriteBackAtIdle,
    pub(crate) cuts: Cuts,
    /// One in so many merges is audited.
    pub(crate) audit: u64,
    pub(crate) fault: Fault,
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = if self.rule == LeakRule::DomainAware {
            "DomainAware"
        } else {
            "Trusting"
        };
        write!(f, "{:?}, {rule}, {} LWPs", self.policy, self.lwps)?;
        if self.rule == LeakRule::DomainAware {
            write!(f, " of domains {:?}", &self.domains[..self.lwps])?;
        }
        write!(
            f,
            ", {} units, {} kinds of operations",
            self.units,
            self.ops.len()
        )?;
        if self.at_once != usize::MAX {
            write!(f, " ({} at once, but loads)", self.at_once)?;
        }
        for (is_on, name) in [
            (self.withdrawals, "withdrawals"),
            (self.flushes, "save_all_on_cpu"),
            (
                self.write_back_at_idle == WriteBackAtIdle::On,
                "write-back at idle",
            ),
            (self.fault == Fault::NoSwitchOut, "no switch_out"),
        ] {
            if is_on {
                write!(f, ", {name}")?;
            }
        }
        Ok(())
    }
}

/// A kind of operation; an argument that names a unit or a child takes all its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Trap,
    Load,
    Save,
    SaveAll,
    Dump,
    Discard,
    DiscardAll,
    Replace,
    BeforeUser,
    Exec,
    Exit,
    Fork,
}

impl Op {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Trap(_) => Kind::Trap,
            Self::Load(_) => Kind::Load,
            Self::Save(_) => Kind::Save,
            Self::SaveAll(CoreDump::No) => Kind::SaveAll,
            Self::SaveAll(CoreDump::Yes) => Kind::Dump,
            Self::Discard(_) => Kind::Discard,
            Self::DiscardAll => Kind::DiscardAll,
            Self::Replace(_) => Kind::Replace,
            Self::BeforeUser => Kind::BeforeUser,
            Self::Exec => Kind::Exec,
            Self::Exit => Kind::Exit,
            Self::Fork(_) => Kind::Fork,
        }
    }
}

/// What the machine does wrong, so that the checks are seen to fire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Not a fault but a freedom that the crate gives: `switch_out` is never called.
    NoSwitchOut,
    /// An asker waits at `IPL_PCU`.
    WaitAtIpl,
    /// An answer is lost when the asker is not current at that moment.
    LostWakeup,
    /// A cross-call is answered without being run, and its asker is told it ran.
    AnswerUnserved,
    /// Interrupts and the scheduler come in at `IPL_PCU`.
    SwitchAtIpl,
    /// `switchpoint` is not called at a switch-in.
    NoSwitchpoint,
    /// The unit does not write memory.
    SaveForgets,
}

/// Which cuts inside a section are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cuts {
    /// Those that no order of whole sections makes needless.
    Needed,
    /// All, and everything may happen at each.
    All,
}

/// When user mode uses an open unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uses {
    /// At once and always, which is the worst case where no policy asks whether a state is initial.
    Always,
    /// When the explorer chooses.
    Chosen,
}
