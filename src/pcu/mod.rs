//! PCU(9): who owns a per-CPU unit, and when its state moves. Machine-independent; knows no unit and no machine.
//!
//! A *unit* is a set of registers of which each CPU has one copy and each LWP wants one: the FPU first of all. The core
//! moves a state only when somebody else needs the registers, and finds the newest copy wherever it is.
//!
//! # Where a state is
//!
//! ```text
//!                    load (init or restore)
//!       +---------+ -----------------------> +-----------+ --+ switch away and back,
//!       | nowhere |                          | live on c |   | trap, load:
//!       +---------+ <----------------------- +-----------+ <-+ re-enable, nothing moves
//!            ^        stolen, fetched, saved      |   ^
//!            |        (in memory), discarded      |   | re-enable: the link holds
//!            |                             save   v   |
//!            |    the link is broken         +------------+
//!            +------------------------------ | clean on c |
//!                                            +------------+
//! ```
//!
//! - *nowhere*: memory holds the state if the word says valid; else there is none, and the next load gives the initial one.
//! - *live on c*: the registers of CPU c may be newer than memory; memory may hold an equal copy.
//! - *clean on c*: memory is the newest; the two-way link (the word names the CPU and a serial, and the CPU's tag has the
//!   same serial) says whether the registers still equal it.
//!
//! The *gate* (`CR0.TS` on x86) decides whether a use of the unit traps. It is open for the live owner while it is current,
//! and derived from the location at the end of every critical section; nothing about it is stored with the LWP.
//!
//! # Kernel threads
//!
//! The kernel uses a unit in one of two ways, and in no other:
//!
//! - for a short while, without sleeping, in a [section](Pcu::section);
//! - in a kernel thread that was given a state of its own, which it keeps over switches, preemption and migration as any LWP does.
//!
//! Such a thread is in no domain ([`Kernel::domain`] says `None`), has a place for its state (the unit accepts it:
//! [`FpuArea`](crate::x86_64::fpu::FpuArea) gives an area), and calls [`load`](Pcu::load) before its first use. The load is what
//! makes it an owner: over a kernel thread without a state a switch leaves the gate as it is, perhaps open for somebody else, whose
//! registers a use without a load would destroy. From then on its use may trap, and the trap is its own
//! ([`UsedBy::Lwp`](crate::x86_64::UsedBy)); it does not return to user mode, so what [`before_user`](Pcu::before_user) brings back to
//! others comes to it by that trap. Before it ends, it calls [`exit`](Pcu::exit). User domains never see what it leaves.
//!
//! A thread without a place is refused: its load is [`StateError::Refused`]. Its use behind a closed gate is reported with the
//! instruction's address, if the kernel says whose it is ([`UsedBy::Kernel`](crate::x86_64::UsedBy)); through an open one it is
//! not noticed, which is why the kernel is compiled without such instructions.
//!
//! # Invariants
//!
//! Each unsafe block cites them by number.
//!
//! - **I1** A CPU's entries are written only by that CPU, at `IPL_PCU` (interrupts off, no migration, no cross-call served).
//! - **I2** A live location is set only by that LWP while current, and cleared only by the CPU that it names. A clean one is
//!   cleared by whoever holds the LWP (itself, or the holder of a stopped one).
//! - **I3** Below `IPL_PCU` on c: `owner == l` with a live tag if and only if l's word says live on c. Clean links bind nobody.
//! - **I4** Valid: the newest state is in the registers of the CPU that a live word names, else in memory.
//! - **I5** Under `DomainAware`, user mode on c runs with registers that hold, in every unit, only its own, its domain's or
//!   initial state. `Trusting` suspends I5 (not I1-I4) by its named opt-in.
//! - **I6** Validity and location are one atomic word, changed together; the section that sees "not live" also finishes the
//!   operation.
//! - **I7** A clean owner entry is an identity, never dereferenced. Nothing touches an LWP after its final location store
//!   (so the function that makes it takes a raw pointer).
//!
//! The word is stored Release when a holder gives up and loaded Acquire before a load; the LWP's own stores are ordered by the
//! kernel, which hands the LWP from CPU to CPU. `tests/loom` fails where either is weaker.

mod adaptive;
mod costs;
mod cpu;
mod flush;
#[cfg(not(loom))]
mod layout;
mod life;
mod load;
mod local;
mod ops;
mod policy;
mod section;
mod state;
mod stats;
mod switch;
mod unit;
mod view;
mod word;

use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

pub use self::costs::Costs;
#[cfg(not(loom))]
pub use self::layout::Layout;
pub use self::load::LoadError;
pub use self::ops::{CoreDump, Replacing};
pub use self::policy::{Policy, PolicyError, WriteBackAtIdle};
pub use self::section::{Section, SectionError};
pub use self::state::{CpuPcu, LwpPcu};
pub use self::stats::UnitStats;
pub use self::unit::{Gate, LoadFlags, PcuFlags, PcuOps, StateError, UnitId, UnitOps};
pub use self::view::{CpuView, Location, LwpView, Registers, Residue};
pub use self::word::Validity;

use self::costs::SharedRule;
use crate::kernel::Kernel;

/// Whose registers may lie in a unit while user code runs that did not put them there.
///
/// With [`Trusting`](Self::Trusting), plain pcu(9), the last owner's registers stay in the closed unit while other LWPs
/// run. On CPUs with CVE-2018-3665 (`LazyFP`, INTEL-SA-00145) user code reads them speculatively, through the closed gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeakRule {
    /// Before user mode of a domain other than the residue's, registers are saved if live, and wiped (I5).
    #[default]
    DomainAware,
    /// Registers stay until somebody else loads. The argument names what that risks.
    Trusting(AcceptLazyFp),
}

/// Said by a kernel that lets one domain run over another's registers: it accepts CVE-2018-3665, because its CPUs are not
/// affected or because all its LWPs trust each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptLazyFp;

/// The per-CPU units of one kernel: the table of their operations and the rules they are switched by.
///
/// Methods say in a *Context* line who may call, at which level, and whether they may wait for another CPU.
pub struct Pcu<K: Kernel<N>, const N: usize> {
    units: [Option<UnitOps<K::Lwp>>; N],
    policies: [AtomicU8; N],
    /// Bit U: the table has a unit U.
    present: u32,
    /// Bit U: a use of unit U does not trap, so that a state is brought in at every switch, the initial one before user mode.
    untrappable: u32,
    /// Bit U: the policy of unit U is another than [`Policy::Lazy`], so that a switch may move a state. All bits, for good, from the
    /// first time on that an LWP got such a policy of its own, which [`OWN_POLICIES`] stands for.
    movers: AtomicU64,
    leak_rule: AtomicU8,
    write_back_at_idle: AtomicBool,
    rule: SharedRule,
    kernel: PhantomData<fn(&K)>,
}

/// Of the movers: the low half is the mask.
const ALL_UNITS: u64 = u32::MAX as u64;
const OWN_POLICIES: u64 = 1 << 32;

const DOMAIN_AWARE: u8 = 0;
const TRUSTING: u8 = 1;

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    /// Takes the table of units, NetBSD's `pcu_ops_md_defs[]`; a slot may be empty. Policy [`Policy::Lazy`], for units whose
    /// use does not trap [`Policy::Deferred`]; leak rule [`LeakRule::DomainAware`].
    ///
    /// # Panics
    ///
    /// If a unit stands in a slot that is not its [`PcuOps::ID`]. In a constant this is an error of compilation.
    ///
    /// # Safety
    ///
    /// The CPUs and LWPs of a kernel are given to one `Pcu` alone: another table would find owners whose units it does not have.
    #[doc(alias = "pcu_ops_md_defs")]
    pub const unsafe fn new(units: [Option<UnitOps<K::Lwp>>; N]) -> Self {
        let mut policies = [const { AtomicU8::new(Policy::Lazy.encode()) }; N];
        let (mut present, mut untrappable) = (0, 0);
        let mut index = 0;
        while index < N {
            if let Some(unit) = &units[index] {
                assert!(
                    unit.id.index() == index,
                    "a unit stands in another unit's slot"
                );
                present |= unit.id.bit();
                if !unit.use_traps {
                    untrappable |= unit.id.bit();
                    policies[index] = AtomicU8::new(Policy::Deferred.encode());
                }
            }
            index += 1;
        }
        Self {
            units,
            policies,
            present,
            untrappable,
            // Units whose use does not trap are `Deferred` from the start.
            movers: AtomicU64::new(untrappable as u64),
            leak_rule: AtomicU8::new(DOMAIN_AWARE),
            write_back_at_idle: AtomicBool::new(false),
            rule: SharedRule::new(Costs::ZEN3),
            kernel: PhantomData,
        }
    }

    /// The same with another policy for every unit, from before the first LWP ran; later there is
    /// [`set_policy`](Self::set_policy).
    ///
    /// # Panics
    ///
    /// If the policy needs traps and a unit's use does not trap. In a constant this is an error of compilation.
    #[must_use]
    pub const fn with_policy(mut self, policy: Policy) -> Self {
        assert!(
            self.untrappable == 0 || !policy.needs_traps(),
            "the policy needs traps, and a unit's use does not trap"
        );
        let mut index = 0;
        while index < N {
            self.policies[index] = AtomicU8::new(policy.encode());
            index += 1;
        }
        let is_lazy = policy.encode() == Policy::Lazy.encode();
        self.movers = AtomicU64::new(if is_lazy { 0 } else { ALL_UNITS });
        self
    }

    /// The same with another leak rule, from before the first LWP ran; later there is
    /// [`set_leak_rule`](Self::set_leak_rule).
    #[must_use]
    pub const fn with_leak_rule(mut self, rule: LeakRule) -> Self {
        self.leak_rule = AtomicU8::new(encode_leak_rule(rule));
        self
    }

    /// The leak rule in force.
    pub fn leak_rule(&self) -> LeakRule {
        if self.leak_rule.load(Ordering::Relaxed) == TRUSTING {
            LeakRule::Trusting(AcceptLazyFp)
        } else {
            LeakRule::DomainAware
        }
    }

    /// The unit with that number, if its slot is not empty.
    fn unit(&self, unit: UnitId) -> Option<&UnitOps<K::Lwp>> {
        self.units.get(unit.index())?.as_ref()
    }

    /// The units of a mask of units of this table, in the order of their numbers.
    #[inline]
    fn units_in(&self, mask: u32) -> impl Iterator<Item = &UnitOps<K::Lwp>> {
        debug_assert_eq!(mask & !self.present, 0, "a unit of another table");
        UnitId::in_mask::<N>(mask).map(|unit| {
            // SAFETY: a bit of the mask is that of a unit of the table, which stands in the slot of its number.
            let slot = unsafe { self.units.get_unchecked(unit.place::<N>()) };
            // SAFETY: as above, the slot is not empty.
            let ops = unsafe { slot.as_ref().unwrap_unchecked() };
            // SAFETY: as above; what is known of the number need not be looked up.
            unsafe { core::hint::assert_unchecked(ops.id.index() == unit.index()) };
            ops
        })
    }

    /// The units of the table in the order of their numbers.
    fn units(&self) -> impl Iterator<Item = &UnitOps<K::Lwp>> {
        self.units.iter().flatten()
    }
}

const fn encode_leak_rule(rule: LeakRule) -> u8 {
    match rule {
        LeakRule::DomainAware => DOMAIN_AWARE,
        LeakRule::Trusting(AcceptLazyFp) => TRUSTING,
    }
}

impl<K: Kernel<N>, const N: usize> fmt::Debug for Pcu<K, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pcu")
            .field("units", &self.units)
            .field("leak_rule", &self.leak_rule())
            .finish_non_exhaustive()
    }
}
