//! Cases under every policy and leak rule: what is compared exactly, and what must hold otherwise all the same.

use alloc::string::{String, ToString};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pcu9::pcu::{AcceptLazyFp, LeakRule, Policy, UnitStats};

use super::{Case, Counts, is_task_switched};
use crate::glue;

/// How a case is repeated when the command line has `policies=all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    /// Not at all: it looks at one policy, at several of its own choice, or at none.
    OwnPolicies,
    /// Under each policy but `Lazy`, with the leak rules that it asks for.
    EveryPolicy,
    /// Under each policy and leak rule: with the rules that it asks for, and with the other rule in place of each.
    EveryPolicyAndRule,
}

/// The place in [`Policy::ALL`] of the policy under which the case runs.
static PLACE: AtomicUsize = AtomicUsize::new(0);
/// Does the case get the other leak rule than it asks for?
static OTHER_RULE: AtomicBool = AtomicBool::new(false);

/// The policy under which the case runs, whatever it sets itself.
pub fn policy() -> Policy {
    Policy::ALL[PLACE.load(Ordering::Relaxed)]
}

/// Is what happens compared exactly? Under `Lazy` and the leak rules that the case asks for it is; otherwise the registers, the
/// identities of the counters and what the policy promises are looked at.
pub fn is_exact() -> bool {
    policy() == Policy::Lazy && !OTHER_RULE.load(Ordering::Relaxed)
}

/// The leak rule that the case gets when it asks for `asked`.
pub(super) fn rule_for(asked: LeakRule) -> LeakRule {
    if !OTHER_RULE.load(Ordering::Relaxed) {
        asked
    } else if asked == LeakRule::DomainAware {
        LeakRule::Trusting(AcceptLazyFp)
    } else {
        LeakRule::DomainAware
    }
}

/// Panics if this CPU's gate is open although it must be closed where [`is_exact`]; `why` says why.
///
/// # Panics
///
/// As said.
#[track_caller]
pub fn assert_gate_closed(why: &str) {
    assert!(!is_exact() || is_task_switched(), "the gate is open: {why}");
}

/// Panics if this CPU's gate is closed although the current LWP's registers should be in place: under the policies that open it
/// for the owner at a switch. `why` says why.
///
/// # Panics
///
/// As said.
#[track_caller]
pub fn assert_gate_open(why: &str) {
    let opens = is_exact() || matches!(policy(), Policy::Deferred | Policy::Eager);
    assert!(!opens || !is_task_switched(), "the gate is closed: {why}");
}

/// Once through the cases.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pass {
    /// As each case says, all of them.
    Plain,
    /// The cases that can be repeated, under the policy at this place.
    Repeat(usize),
}

/// What the command line asks for.
pub(super) fn passes() -> impl Iterator<Item = Pass> {
    let repeats = match crate::option("policies") {
        Some("all") => Policy::ALL.len(),
        _ => 0,
    };
    core::iter::once(Pass::Plain).chain((0..repeats).map(Pass::Repeat))
}

impl Pass {
    /// How often a case runs in this pass, and whether with the other leak rule.
    pub(super) fn rules(self, under: Under) -> &'static [bool] {
        match (self, under) {
            (Self::Plain, _) => &[false],
            (_, Under::OwnPolicies) | (Self::Repeat(0), Under::EveryPolicy) => &[],
            (_, Under::EveryPolicy) => &[false],
            (Self::Repeat(0), Under::EveryPolicyAndRule) => &[true],
            (_, Under::EveryPolicyAndRule) => &[false, true],
        }
    }

    /// A case's name in this pass.
    pub(super) fn full_name(self, name: &str) -> String {
        let policy = match self {
            Self::Plain => return name.to_string(),
            Self::Repeat(place) => Policy::ALL[place],
        };
        let suffix = match policy {
            Policy::Lazy => "/lazy",
            Policy::Deferred => "/deferred",
            Policy::Eager => "/eager",
            Policy::Adaptive => "/adaptive",
            Policy::AdaptiveWriteThrough => "/adaptive_write_through",
            Policy::Probe => "/probe",
            other => panic!("{other:?}: a policy without a name"),
        };
        name.to_string() + suffix
    }

    /// Puts the pass's policy in force for what runs next.
    pub(super) fn enter(self, other_rule: bool) {
        let place = match self {
            Self::Plain => 0,
            Self::Repeat(place) => place,
        };
        PLACE.store(place, Ordering::Relaxed);
        OTHER_RULE.store(other_rule, Ordering::Relaxed);
        glue::set_policy(policy());
    }
}

impl Case {
    /// Says that in each stretch that is counted `n` states are given up by the LWPs themselves: by `save`, `discard` and the
    /// like. The next use traps then under every policy, since a kernel thread does not return to user mode.
    pub fn gives_up_by_hand(&mut self, n: u64) {
        self.n_given_up = n;
    }

    /// Checks what was counted since `counts` began: where [`is_exact`] that it was exactly this, what the test does not name being
    /// zero; otherwise the identities, and that the policy keeps its promises.
    pub fn expect_counts(&mut self, counts: &Counts, expected: UnitStats) {
        if is_exact() {
            self.expect_eq("counted", counts.so_far(), expected);
            return;
        }
        let counted = counts.so_far();
        self.expect_sums(&counted);
        // A switch that cannot bring a state in counts a failure as well.
        if expected.failed == 0 {
            self.expect_eq("failed loads", counted.failed, 0);
        } else {
            self.expect(
                "the loads that fail, fail",
                counted.failed >= expected.failed,
            );
        }
        self.expect_eq(
            "traps though the gate was open",
            counted.spurious,
            expected.spurious,
        );
        self.expect_eq("explicit loads", counted.loads, expected.loads);
        self.expect_promises(&counted);
    }

    /// Checks what the policy promises, whatever the LWPs do.
    pub(super) fn expect_promises(&mut self, counted: &UnitStats) {
        let policy = policy();
        let failures_before = self.n_failures;
        if matches!(
            policy,
            Policy::Deferred | Policy::Eager | Policy::AdaptiveWriteThrough
        ) {
            self.expect_eq("cross-calls", counted.xcalls, 0);
        }
        if matches!(policy, Policy::Deferred | Policy::Eager) {
            let excused = counted.inits + counted.spurious + counted.failed + self.n_given_up;
            self.expect("no trap but for first uses", counted.traps <= excused);
            self.expect_eq("probes", counted.probes, 0);
        }
        if policy == Policy::Eager {
            self.expect_eq("restores left out", counted.elided_restores, 0);
        }
        if matches!(policy, Policy::Lazy | Policy::Probe) {
            self.expect_eq("preloads", counted.preloads, 0);
        }
        if self.n_failures != failures_before {
            self.log(format_args!("{policy:?} counted {counted:?}"));
        }
    }
}
