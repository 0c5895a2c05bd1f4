//! When a state is moved: the policies, and how they are chosen and changed.

use core::fmt;
use core::sync::atomic::Ordering;

use super::unit::{UnitId, UnitOps};
use super::{ALL_UNITS, LeakRule, OWN_POLICIES, Pcu, encode_leak_rule};
use crate::kernel::{CpuId, Current, Held, IplPcu, Kernel, NoAnswer};

/// When a state is moved. Per unit, or per LWP, whose own policy wins; changeable on a running system.
///
/// | policy | at switch-out | at switch-in | use | cross-calls |
/// |---|---|---|---|---|
/// | `Lazy` | nothing | gate opened for the owner, else closed | trap | to fetch after a migration |
/// | `Deferred` | saved if live, the link stays | restored unless the link holds | no trap after the first | none |
/// | `Eager` | saved, link dropped | restored | no trap after the first | none |
/// | `Adaptive` | as the LWP's history says | as the LWP's history says | trap while it seldom uses the unit | few |
/// | `AdaptiveWriteThrough` | saved if live, the link stays | as the LWP's history says | the same | none |
/// | `Probe` | nothing | gate closed always | trap at each slice's first use | to fetch after a migration |
///
/// The tags alone say where a state is, so LWPs and CPUs of different policies mix, also during a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// NetBSD's: nothing moves at a switch; the first use traps.
    #[default]
    Lazy,
    /// Linux's since 5.2: written through at switch-out, restored at switch-in unless the registers still equal memory.
    /// An LWP whose state is known to be the initial one is neither saved nor restored until it uses the unit again.
    Deferred,
    /// Saved and restored at every switch, but for a state known to be the initial one; the registers that are left on a CPU are
    /// never taken to be anybody's.
    Eager,
    /// Per LWP, by its use of the unit and its migrations so far (the module `adaptive`).
    Adaptive,
    /// `Adaptive`, but every state is saved at switch-out, so that no CPU ever asks another.
    AdaptiveWriteThrough,
    /// For traces: each time slice's first use traps, so that the counters show how many slices use the unit.
    Probe,
}

impl Policy {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 6] = [
        Self::Lazy,
        Self::Deferred,
        Self::Eager,
        Self::Adaptive,
        Self::AdaptiveWriteThrough,
        Self::Probe,
    ];

    /// Does it wait for a use, so that the unit's use must trap?
    pub const fn needs_traps(self) -> bool {
        !matches!(self, Self::Deferred | Self::Eager)
    }

    /// As a small number; 0 is left for "none of its own".
    pub(super) const fn encode(self) -> u8 {
        self as u8 + 1
    }

    #[inline]
    pub(super) const fn decode(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Lazy,
            2 => Self::Deferred,
            3 => Self::Eager,
            4 => Self::Adaptive,
            5 => Self::AdaptiveWriteThrough,
            6 => Self::Probe,
            _ => return None,
        })
    }
}

/// The policy was not set, or not yet in force everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// The kernel's table has no such unit.
    NoSuchUnit(UnitId),
    /// The policy waits for a use, and the unit's use cannot be detected; nothing was changed.
    NeedsTraps(UnitId),
    /// The policy is set, but this CPU was not flushed: what it holds moves by the tags, as ever, only later.
    NoAnswer(CpuId),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUnit(unit) => write!(f, "no unit {} in the kernel's table", unit.index()),
            Self::NeedsTraps(unit) => {
                write!(
                    f,
                    "the policy needs traps, and a use of unit {} does not trap",
                    unit.index()
                )
            }
            Self::NoAnswer(cpu) => write!(
                f,
                "the policy is set, but cpu {} was not flushed",
                cpu.index()
            ),
        }
    }
}

impl core::error::Error for PolicyError {}

impl From<NoAnswer> for PolicyError {
    fn from(NoAnswer(cpu): NoAnswer) -> Self {
        Self::NoAnswer(cpu)
    }
}

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    /// The policy of a unit, for LWPs that have none of their own.
    pub fn policy(&self, unit: UnitId) -> Option<Policy> {
        Policy::decode(self.policies.get(unit.index())?.load(Ordering::Relaxed))
    }

    /// Changes the policy of a unit on a running system, then asks each of `cpus` once to give up what it holds.
    ///
    /// Context: current LWP, below `IPL_PCU`; waits for a cross-call to each CPU. Two calls for one unit must not overlap: a switch-out
    /// might not write through afterwards, which costs cross-calls, and no state.
    ///
    /// # Errors
    ///
    /// [`PolicyError`].
    pub fn set_policy(
        &self,
        lwp: &mut Current<'_, K, N>,
        cpus: impl IntoIterator<Item = CpuId>,
        unit: UnitId,
        policy: Policy,
    ) -> Result<(), PolicyError> {
        let slot = self.unit(unit).ok_or(PolicyError::NoSuchUnit(unit))?;
        if policy.needs_traps() && !slot.use_traps {
            return Err(PolicyError::NeedsTraps(unit));
        }
        self.policies[unit.index()].store(policy.encode(), Ordering::Relaxed);
        let bit = u64::from(unit.bit());
        let moves = |movers: u64| {
            let is_still = policy == Policy::Lazy && movers & OWN_POLICIES == 0;
            Some(if is_still {
                movers & !bit
            } else {
                movers | bit
            })
        };
        let _ = self
            .movers
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, moves);
        Ok(self.empty_all(lwp.kernel(), cpus)?)
    }

    /// Gives an LWP a policy of its own, or takes it away. Units whose use does not trap keep their unit's policy where the
    /// LWP's needs traps.
    ///
    /// What is live somewhere is given up then, so that no CPU has to be asked for it later. From the first policy on that is not
    /// `Lazy`, every switch over an open gate or to an LWP that has used a unit asks for policies, whoever it is: it loses the short
    /// ways that `Lazy` has.
    ///
    /// Context: the LWP's holder, below `IPL_PCU`; may wait for a cross-call.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] from a CPU that holds its registers; the policy is set all the same.
    pub fn set_lwp_policy(
        &self,
        lwp: &mut impl Held<K, N>,
        policy: Option<Policy>,
    ) -> Result<(), NoAnswer> {
        if policy.is_some_and(|policy| policy != Policy::Lazy) {
            self.movers
                .fetch_or(OWN_POLICIES | ALL_UNITS, Ordering::Relaxed);
        }
        {
            let ipl = IplPcu::up(lwp.kernel());
            self.local(&ipl).lwp_pcu(lwp.lwp()).set_policy(policy);
        }
        self.save_all(lwp, super::CoreDump::Yes)
    }

    /// Changes the leak rule on a running system, then asks each of `cpus` once to give up and wipe what it holds.
    ///
    /// Context: current LWP, below `IPL_PCU`; waits for a cross-call to each CPU.
    ///
    /// # Errors
    ///
    /// A CPU that did not answer; it may hold another domain's registers until its next switch between domains.
    pub fn set_leak_rule(
        &self,
        lwp: &mut Current<'_, K, N>,
        cpus: impl IntoIterator<Item = CpuId>,
        rule: LeakRule,
    ) -> Result<(), NoAnswer> {
        self.leak_rule
            .store(encode_leak_rule(rule), Ordering::Relaxed);
        self.empty_all(lwp.kernel(), cpus)
    }

    /// Shall a CPU that goes idle save what is live there? The registers stay linked, so nothing is loaded again if the same
    /// LWP comes back, and nobody has to ask the CPU if it comes back elsewhere. Off by default.
    pub fn set_write_back_at_idle(&self, wanted: WriteBackAtIdle) {
        self.write_back_at_idle
            .store(wanted == WriteBackAtIdle::On, Ordering::Relaxed);
    }

    /// What `lwp_policy`, an LWP's own, comes to for `unit`.
    pub(super) fn policy_for(&self, own: Option<Policy>, unit: &UnitOps<K::Lwp>) -> Policy {
        match own {
            Some(own) if unit.use_traps || !own.needs_traps() => own,
            _ => {
                let code = self.policies[unit.id.place::<N>()].load(Ordering::Relaxed);
                Policy::decode(code).unwrap_or_default()
            }
        }
    }

    fn empty_all(&self, kernel: &K, cpus: impl IntoIterator<Item = CpuId>) -> Result<(), NoAnswer> {
        let mut result = Ok(());
        for cpu in cpus {
            let empty = &|ipl: &IplPcu<'_, K, N>| self.empty(ipl);
            let answer = kernel.cross_call(IplPcu::up(kernel), cpu, empty);
            result = result.and(answer);
        }
        result
    }

    /// Leaves this CPU's units with initial registers and closed gates, but those that a kernel section uses: its end does so.
    fn empty(&self, ipl: &IplPcu<'_, K, N>) {
        self.save_all_on_cpu(ipl);
        let local = self.local(ipl);
        for unit in self.units() {
            if !local.cpu.tag(unit.id).is_section() {
                local.wipe(unit);
                local.close(unit);
            }
        }
    }
}

/// The option of [`Pcu::set_write_back_at_idle`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteBackAtIdle {
    /// A state stays live on an idle CPU.
    #[default]
    Off,
    /// It is saved, and stays linked.
    On,
}

#[cfg(test)]
mod tests {
    use super::Policy;

    #[test]
    fn every_policy_is_decoded_and_nothing_else() {
        for policy in Policy::ALL {
            assert_eq!(Policy::decode(policy.encode()), Some(policy));
        }
        for code in [0, 7, u8::MAX] {
            assert_eq!(Policy::decode(code), None, "{code}");
        }
    }
}
