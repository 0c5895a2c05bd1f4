//! What is under way, and what its local variables can depend on.

use pcu9::pcu::CoreDump;
use std::fmt;

use super::world::{CPUS, LWPS, UNITS};

/// Who executes the crate's code: an LWP in the kernel, or a CPU in its scheduler or an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Lwp(usize),
    Cpu(usize),
}

impl Who {
    /// All of them, in the order of their slots.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..LWPS).map(Self::Lwp).chain((0..CPUS).map(Self::Cpu))
    }

    pub(crate) fn slot(self) -> usize {
        match self {
            Self::Lwp(lwp) => lwp,
            Self::Cpu(cpu) => LWPS + cpu,
        }
    }
}

/// An operation of the crate that the current LWP begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Trap(usize),
    Load(usize),
    Save(usize),
    SaveAll(CoreDump),
    Discard(usize),
    DiscardAll,
    Replace(usize),
    BeforeUser,
    Exec,
    Exit,
    /// The child takes the place of an LWP that has come to its end.
    Fork(usize),
}

/// What a CPU does at `IPL_PCU` on nobody's behalf.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    Leave(usize),
    Idle,
    Arrive(usize),
    Serve(usize),
    SaveAllOnCpu,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Op(Op),
    Job(Job),
}

/// Where the explorer chose somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Below `IPL_PCU`, about to raise.
    Raise,
    /// At `IPL_PCU`, about to look at the state of its LWP, whose word another CPU is about to store.
    Look,
    /// At `IPL_PCU`, about to store the word of an LWP that is not its own.
    Store(usize),
    /// Waiting for a cross-call.
    Wait,
}

/// How a cross-call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Served,
    /// The holder found another owner.
    Raced,
    Withdrawn,
}

/// Something that local variables can depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A section has ended.
    Section,
    Asked(u8),
    /// On which CPU each unit was live when `before_user` asked: of these it asks for one.
    AskedOf([Option<u8>; UNITS]),
    Answered(Answer),
    /// The section that is under way looks at the LWP's state.
    Looks(u8),
    /// On which CPU each unit of that LWP was live then; noted where another CPU may have changed it.
    Saw([Option<u8>; UNITS]),
    /// A callback for a unit and an LWP, in the section that is under way.
    Called(Callback, u8, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    Save,
    Load,
    Reenable,
    Release,
    Copy,
}

/// The notes of one flight. When a section ends only the fact of it is kept.
pub(crate) struct Notes {
    list: [Note; 64],
    len: usize,
    section: usize,
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            list: [Note::Section; 64],
            len: 0,
            section: 0,
        }
    }
}

impl Notes {
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.section = 0;
    }

    pub(crate) fn push(&mut self, note: Note) {
        assert!(self.len < self.list.len(), "an operation that does not end");
        self.list[self.len] = note;
        self.len += 1;
        if !matches!(note, Note::Looks(_) | Note::Saw(_) | Note::Called(..)) {
            self.section = self.len;
        }
    }

    /// Ends a section; says whether it did more than count.
    pub(crate) fn end_section(&mut self) -> bool {
        if self.len == self.section {
            return false;
        }
        self.len = self.section;
        self.push(Note::Section);
        true
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Note> {
        self.list[..self.len].iter().copied()
    }
}

/// One operation or job under way.
#[derive(Clone, Copy)]
pub(crate) struct Flight {
    pub(crate) what: What,
    pub(crate) at: At,
    /// Nothing but local code ran since it was resumed below `IPL_PCU`.
    pub(crate) is_fresh: bool,
    /// The LWPs, not its own, whose words the section that is under way has stored: a mask.
    pub(crate) stored: u8,
    /// Sections of another CPU have come both before and after this one, so that no order of whole sections explains it.
    pub(crate) is_entangled: bool,
}

impl Flight {
    pub(crate) fn new(what: What) -> Self {
        Self {
            what,
            at: At::Raise,
            is_fresh: true,
            stored: 0,
            is_entangled: false,
        }
    }

    /// Is this LWP its own: does it hold it, so that its sections look at its word?
    pub(crate) fn holds(&self, who: Who, lwp: usize) -> bool {
        match self.what {
            What::Op(op) => who == Who::Lwp(lwp) || op == Op::Fork(lwp),
            What::Job(job) => job == Job::Arrive(lwp) || job == Job::Leave(lwp),
        }
    }

    /// Is it at `IPL_PCU`?
    pub(crate) fn is_in_section(&self) -> bool {
        matches!(self.at, At::Look | At::Store(_))
    }

    /// Does it look at everything anew after a cross-call, however that ended?
    pub(crate) fn is_load(&self) -> bool {
        matches!(
            self.what,
            What::Op(Op::Trap(_) | Op::Load(_) | Op::BeforeUser)
        )
    }

    /// Does it end the state of this unit, so that there may be none before it is over?
    pub(crate) fn ends(&self, unit: usize) -> bool {
        match self.what {
            What::Op(Op::Discard(which) | Op::Replace(which)) => which == unit,
            What::Op(Op::DiscardAll | Op::Exec | Op::Exit) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trap(unit) => write!(f, "trap(unit {unit})"),
            Self::Load(unit) => write!(f, "load(unit {unit})"),
            Self::Save(unit) => write!(f, "save(unit {unit})"),
            Self::SaveAll(dump) => write!(f, "save_all(core dump: {dump:?})"),
            Self::Discard(unit) => write!(f, "discard(unit {unit}, invalid)"),
            Self::DiscardAll => f.write_str("discard_all"),
            Self::Replace(unit) => write!(f, "replace(unit {unit})"),
            Self::BeforeUser => f.write_str("before_user"),
            Self::Exec => f.write_str("exec"),
            Self::Exit => f.write_str("exit"),
            Self::Fork(child) => write!(f, "fork(into lwp {child})"),
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leave(lwp) => write!(f, "switch_out(lwp {lwp})"),
            Self::Idle => f.write_str("switchpoint(none)"),
            Self::Arrive(lwp) => write!(f, "switchpoint(lwp {lwp})"),
            Self::Serve(lwp) => write!(f, "the cross-call of lwp {lwp}"),
            Self::SaveAllOnCpu => f.write_str("save_all_on_cpu"),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op(op) => op.fmt(f),
            Self::Job(job) => job.fmt(f),
        }
    }
}
