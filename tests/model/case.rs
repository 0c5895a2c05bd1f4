//! What a run is made of: a machine, its rules, and operations with what is let in wherever one of them lowers the level. All
//! of it is data that proptest draws and shrinks; the simplest value of everything is "nothing happens".

use std::fmt;

use pcu9::pcu::{CoreDump, LeakRule, Policy, Validity, WriteBackAtIdle};
use pcu9_fake::{Memory, TRUSTING, UNITS};
use proptest::prelude::{BoxedStrategy, Just, Strategy, any};
use proptest::{collection, option, prop_oneof, sample};

const MAX_STEPS: usize = 40;

/// A machine and what happens on it. Numbers of CPUs, LWPs and units are taken modulo what the machine has.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) n_cpus: usize,
    pub(crate) n_lwps: usize,
    pub(crate) n_units: usize,
    pub(crate) last_unit: LastUnit,
    /// Of every unit.
    pub(crate) policies: [Policy; UNITS],
    pub(crate) rule: LeakRule,
    pub(crate) first_lwp: FirstLwp,
    pub(crate) steps: Vec<Step>,
}

/// Can a use of the last unit be detected?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastUnit {
    Traps,
    DoesNotTrap,
}

/// What the first LWP is; the others are processes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstLwp {
    Process,
    /// It has the protection domain of the second one.
    Thread,
    KernelThread,
}

/// An operation of the LWP that runs on a CPU (one is brought there if there is none), and what is let in at each lowering of
/// the level in it; where the list ends, nothing is.
#[derive(Clone)]
pub(crate) struct Step {
    pub(crate) cpu: u8,
    pub(crate) op: Op,
    pub(crate) lowerings: Vec<Lowering>,
}

/// Somebody else's turn, while an LWP is in the middle of an operation and below `IPL_PCU`.
#[derive(Clone, Debug)]
pub(crate) struct Lowering {
    pub(crate) turn: Turn,
    pub(crate) steps: Vec<Step>,
    /// Where the LWP goes on, if somebody took its CPU.
    pub(crate) back_on: u8,
}

/// Does the LWP keep its CPU?
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn {
    Stays,
    IsPreempted { by: Option<u8> },
}

/// Does the kernel call an optional hook?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Called,
    LeftOut,
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Use {
        unit: u8,
        writes: Contents,
        before_user: Hook,
    },
    Switch {
        to: Option<u8>,
        switch_out: Hook,
    },
    ReturnToUser,
    Load {
        unit: u8,
    },
    Own(HeldOp),
    Stopped {
        lwp: u8,
        op: HeldOp,
    },
    SpuriousTrap {
        unit: u8,
    },
    SaveAllOnCpu,
    /// The CPU is offline for a while, or stops without a word.
    Restart(Restart),
    /// The kernel itself uses a unit, for the LWP.
    Section {
        unit: u8,
    },
    /// The same in an interrupt, into whatever is under way on the CPU.
    Interrupt {
        unit: u8,
        slot: Slot,
    },
    /// With no memory named the child is an LWP that there is already, with the state that it has.
    Fork {
        child: u8,
        memory: Option<Memory>,
        domain: ChildDomain,
        fate: Fate,
    },
    Exec,
    Exit {
        memory: Memory,
    },
    SetPolicy {
        unit: u8,
        policy: Policy,
    },
    SetLeakRule(LeakRule),
    SetWriteBackAtIdle(WriteBackAtIdle),
    /// These CPUs do not answer from now on.
    Deafen {
        cpus: u8,
    },
    /// From now on, or from now on no more.
    Toggle(Fault),
}

/// What is written into a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    New,
    Initial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildDomain {
    Own,
    Parents,
}

/// Has an interrupt a place for the registers of the section that it comes into?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Given,
    Lacking,
}

/// What becomes of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lives,
    /// The kernel gives it up before it ran.
    NeverRuns,
}

/// Has a CPU that stops been told so?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    Told,
    Untold,
}

/// What a kernel cannot rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    BadImage,
    RefusedArea,
    FailingReenable,
}

/// An operation of an LWP's holder: of the LWP itself, or of who stopped it.
#[derive(Clone, Debug)]
pub(crate) enum HeldOp {
    Save {
        unit: u8,
    },
    SaveAll(CoreDump),
    Inspect {
        unit: u8,
    },
    Discard {
        unit: u8,
        validity: Validity,
    },
    DiscardAll,
    Replace {
        unit: u8,
        write: Write,
    },
    Edit {
        unit: u8,
        write: Write,
    },
    /// The caller of `save` writes memory next.
    SaveAndWrite {
        unit: u8,
    },
    SetPolicy(Option<Policy>),
}

/// How the writing of a new image ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Succeeds,
    /// Its source cannot be read to the end.
    Fails,
}

/// What may change while the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Policies and the leak rule are changed, hooks left out, loads refused, CPUs fall silent.
    Change,
    /// The same, but nearly always the policy is `Lazy`, which has short ways of its own.
    ChangeFromLazy,
    /// One policy for all; nothing fails; every hook is called.
    Stay(Policy),
}

pub(crate) fn case(rules: Rules, last_unit: LastUnit) -> impl Strategy<Value = Case> {
    let policies = match rules {
        Rules::Stay(policy) => Just([policy; UNITS]).boxed(),
        Rules::Change => [policy(rules), policy(rules), policy(rules)].boxed(),
        Rules::ChangeFromLazy => Just([Policy::Lazy; UNITS]).boxed(),
    };
    let first_lwp = sample::select(vec![
        FirstLwp::Process,
        FirstLwp::Thread,
        FirstLwp::KernelThread,
    ]);
    let machine = (1..=4_usize, 1..=6_usize, 1..=UNITS);
    let steps = collection::vec(step(rules, 2), 1..=MAX_STEPS);
    (machine, policies, leak_rule(), first_lwp, steps).prop_map(
        move |((n_cpus, n_lwps, n_units), policies, rule, first_lwp, steps)| Case {
            n_cpus,
            n_lwps,
            n_units,
            last_unit,
            policies,
            rule,
            first_lwp,
            steps,
        },
    )
}

/// `depth` is how often operations that are let in may let others in themselves.
fn step(rules: Rules, depth: usize) -> BoxedStrategy<Step> {
    let op = op(rules);
    if depth == 0 {
        let plain = |(cpu, op)| Step {
            cpu,
            op,
            lowerings: Vec::new(),
        };
        return (0..4_u8, op).prop_map(plain).boxed();
    }
    let turn = prop_oneof![
        1 => Just(Turn::Stays),
        3 => option::of(0..6_u8).prop_map(|by| Turn::IsPreempted { by }),
    ];
    let steps = collection::vec(step(rules, depth - 1), 0..=depth + 1);
    let lowering = (turn, steps, 0..4_u8).prop_map(|(turn, steps, back_on)| Lowering {
        turn,
        steps,
        back_on,
    });
    (0..4_u8, op, collection::vec(lowering, 0..=depth + 1))
        .prop_map(|(cpu, op, lowerings)| Step { cpu, op, lowerings })
        .boxed()
}

fn policy(rules: Rules) -> BoxedStrategy<Policy> {
    let any = sample::select(Policy::ALL.to_vec());
    if rules == Rules::ChangeFromLazy {
        prop_oneof![31 => Just(Policy::Lazy), 5 => any].boxed()
    } else {
        any.boxed()
    }
}

fn leak_rule() -> sample::Select<LeakRule> {
    sample::select(vec![LeakRule::DomainAware, TRUSTING])
}

fn memory() -> sample::Select<Memory> {
    sample::select(vec![Memory::New, Memory::Reused])
}

/// A hook that is optional where the rules are not the plainest.
fn hook(rules: Rules) -> sample::Select<Hook> {
    sample::select(match rules {
        Rules::Stay(_) => vec![Hook::Called],
        Rules::Change | Rules::ChangeFromLazy => vec![Hook::Called, Hook::LeftOut],
    })
}

fn op(rules: Rules) -> BoxedStrategy<Op> {
    let unit = || 0..3_u8;
    let lwp = || 0..6_u8;
    let contents = prop_oneof![5 => Just(Contents::New), 1 => Just(Contents::Initial)];
    let uses = (unit(), contents, hook(rules)).prop_map(|(unit, writes, before_user)| Op::Use {
        unit,
        writes,
        before_user,
    });
    let switch = (option::weighted(0.8, lwp()), hook(rules))
        .prop_map(|(to, switch_out)| Op::Switch { to, switch_out });
    let fork = (
        lwp(),
        option::weighted(0.8, memory()),
        sample::select(vec![ChildDomain::Own, ChildDomain::Parents]),
        prop_oneof![4 => Just(Fate::Lives), 1 => Just(Fate::NeverRuns)],
    );
    let fork = fork.prop_map(|(child, memory, domain, fate)| Op::Fork {
        child,
        memory,
        domain,
        fate,
    });
    let stopped = (lwp(), held_op(rules)).prop_map(|(lwp, op)| Op::Stopped { lwp, op });
    let plain = prop_oneof![
        6 => uses,
        4 => switch,
        1 => Just(Op::ReturnToUser),
        2 => unit().prop_map(|unit| Op::Load { unit }),
        5 => held_op(rules).prop_map(Op::Own),
        3 => stopped,
        1 => unit().prop_map(|unit| Op::SpuriousTrap { unit }),
        1 => Just(Op::SaveAllOnCpu),
        1 => Just(Op::Restart(Restart::Told)),
        1 => fork,
        1 => Just(Op::Exec),
        1 => memory().prop_map(|memory| Op::Exit { memory }),
    ];
    if matches!(rules, Rules::Stay(_)) {
        return plain.boxed();
    }
    let faults = vec![Fault::BadImage, Fault::RefusedArea, Fault::FailingReenable];
    let write_back = sample::select(vec![WriteBackAtIdle::Off, WriteBackAtIdle::On]);
    let slot = sample::select(vec![Slot::Given, Slot::Lacking]);
    let disturbing = prop_oneof![
        2 => unit().prop_map(|unit| Op::Section { unit }),
        4 => (unit(), slot).prop_map(|(unit, slot)| Op::Interrupt { unit, slot }),
        2 => (unit(), policy(rules)).prop_map(|(unit, policy)| Op::SetPolicy { unit, policy }),
        1 => leak_rule().prop_map(Op::SetLeakRule),
        1 => write_back.prop_map(Op::SetWriteBackAtIdle),
        1 => prop_oneof![Just(0), any::<u8>()].prop_map(|cpus| Op::Deafen { cpus }),
        3 => sample::select(faults).prop_map(Op::Toggle),
        1 => Just(Op::Restart(Restart::Untold)),
    ];
    prop_oneof![4 => plain, 1 => disturbing].boxed()
}

fn held_op(rules: Rules) -> BoxedStrategy<HeldOp> {
    let unit = || 0..3_u8;
    let validity = sample::select(vec![Validity::Invalid, Validity::Valid]);
    let write = prop_oneof![4 => Just(Write::Succeeds), 1 => Just(Write::Fails)];
    let plain = prop_oneof![
        unit().prop_map(|unit| HeldOp::Save { unit }),
        sample::select(vec![CoreDump::No, CoreDump::Yes]).prop_map(HeldOp::SaveAll),
        unit().prop_map(|unit| HeldOp::Inspect { unit }),
        (unit(), validity).prop_map(|(unit, validity)| HeldOp::Discard { unit, validity }),
        Just(HeldOp::DiscardAll),
        (unit(), write.clone()).prop_map(|(unit, write)| HeldOp::Replace { unit, write }),
        (unit(), write).prop_map(|(unit, write)| HeldOp::Edit { unit, write }),
        unit().prop_map(|unit| HeldOp::SaveAndWrite { unit }),
    ];
    if matches!(rules, Rules::Stay(_)) {
        return plain.boxed();
    }
    let set_policy = option::of(policy(rules)).prop_map(HeldOp::SetPolicy);
    // One LWP's own policy takes the short ways from all LWPs, and for good.
    let plain_for_one = if rules == Rules::ChangeFromLazy {
        100
    } else {
        6
    };
    prop_oneof![plain_for_one => plain, 1 => set_policy].boxed()
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} CPUs, {} LWPs (the first is a {:?}), {} units (the last {:?}), {:?}, {:?}",
            self.n_cpus,
            self.n_lwps,
            self.first_lwp,
            self.n_units,
            self.last_unit,
            &self.policies[..self.n_units],
            self.rule
        )?;
        self.steps
            .iter()
            .try_for_each(|step| writeln!(f, "  {step:?}"))
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on cpu {} {:?}", self.cpu, self.op)?;
        if self.lowerings.is_empty() {
            Ok(())
        } else {
            write!(f, " {:?}", self.lowerings)
        }
    }
}
