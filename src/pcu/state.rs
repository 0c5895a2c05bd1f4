//! What the protocol remembers: [`CpuPcu`] for a CPU, [`LwpPcu`] for an LWP.

use core::hint::select_unpredictable;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{self, AtomicPtr, Ordering};

use super::adaptive::Habits;
use super::policy::Policy;
use super::stats::{UnitCounters, UnitStats};
use super::unit::UnitId;
use super::word::{Serial, Tag, Validity, Word};
use crate::kernel::Domain;
use crate::shared;

/// What one CPU knows of the units it has. Written by that CPU alone, at `IPL_PCU` (I1); so every access is relaxed, and
/// atomic only because debuggers and statistics look from outside.
#[repr(C)]
pub struct CpuPcu<L, const N: usize> {
    /// What the hit path of a switch tests: 0 when all gates are closed and the registers hold nobody's bits. Bit U: the gate of
    /// unit U is open, which shadows the hardware (`CR0.TS`) and is changed together with it. [`RESIDUE`]: the residue summary
    /// is not [`NO_DOMAIN`].
    pub(super) attention: atomic::AtomicU64,
    /// How many kernel sections are under way here, of all units.
    pub(super) section_depth: atomic::AtomicU32,
    /// The units that the settled LWP had used.
    settled_units: atomic::AtomicU32,
    /// [`NO_DOMAIN`], a domain, or [`MIXED_DOMAINS`].
    pub(super) residue_summary: atomic::AtomicU64,
    pub(super) serial: atomic::AtomicU64,
    /// Null, or the LWP whose switch-in would find nothing to do but to open its gates, if all are closed: a note of what the rest says,
    /// dropped when any of it changes otherwise than by closing or opening them all. It owns units here, so it is not freed before; an
    /// identity all the same.
    settled: AtomicPtr<L>,
    /// Last, so that everything before it has its place for every `N`.
    pub(super) units: [CpuUnit<L>; N],
}

#[repr(C)]
pub(super) struct CpuUnit<L> {
    pub(super) owner: AtomicPtr<L>,
    pub(super) tag: atomic::AtomicU64,
    /// The domain whose bits the registers hold; outlives the owner.
    pub(super) residue: atomic::AtomicU64,
    pub(super) counters: UnitCounters,
}

/// The byte of an LWP's own policy.
const POLICY_MASK: u64 = 0xff << 56;

/// In a CPU's attention word: the registers hold somebody's bits.
const RESIDUE: u64 = 1 << 32;
/// The registers hold nobody's bits.
pub(super) const NO_DOMAIN: u64 = 0;
/// The registers hold bits of the kernel, or of more than one domain: no user domain may see them.
pub(super) const MIXED_DOMAINS: u64 = u64::MAX;

/// The gates that are open, by a CPU's attention word.
#[inline]
pub(super) const fn gates(attention: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the mask")]
    let enabled = attention as u32;
    enabled
}

impl<L, const N: usize> CpuPcu<L, N> {
    /// The state of a CPU that has not run an LWP yet: its gates are closed and its registers initial, as
    /// `x86_64::fpu::init_cpu` leaves them.
    pub const fn new() -> Self {
        const { assert!(N <= UnitId::LIMIT, "a table holds 32 units") };
        Self {
            units: [const {
                CpuUnit {
                    owner: AtomicPtr::new(null_mut()),
                    tag: atomic::AtomicU64::new(0),
                    residue: atomic::AtomicU64::new(NO_DOMAIN),
                    counters: UnitCounters::new(),
                }
            }; N],
            attention: atomic::AtomicU64::new(0),
            section_depth: atomic::AtomicU32::new(0),
            residue_summary: atomic::AtomicU64::new(NO_DOMAIN),
            serial: atomic::AtomicU64::new(0),
            settled: AtomicPtr::new(null_mut()),
            settled_units: atomic::AtomicU32::new(0),
        }
    }

    /// The LWP whose live registers this CPU holds, for debuggers, tests and schedulers' hints. NetBSD:
    /// `ci_pcu_curlwp[]`. The answer may be old before it is read; never dereference it.
    #[doc(alias = "ci_pcu_curlwp")]
    pub fn owner(&self, unit: UnitId) -> Option<NonNull<L>> {
        let slot = self.units.get(unit.index())?;
        if Tag::from_raw(slot.tag.load(Ordering::Relaxed)).is_live() {
            NonNull::new(slot.owner.load(Ordering::Relaxed))
        } else {
            None
        }
    }

    /// The note of a switch-in that found nothing to do: whose, and the mask of its units. For whoever checks the core: it says
    /// nothing that the rest does not say, and is dropped at any time.
    #[doc(hidden)]
    pub fn settled(&self) -> Option<(NonNull<L>, u32)> {
        let lwp = NonNull::new(self.settled.load(Ordering::Relaxed))?;
        Some((lwp, self.settled_units()))
    }

    /// What this CPU knows of a unit of its table.
    #[inline]
    fn slot(&self, unit: UnitId) -> &CpuUnit<L> {
        // SAFETY: the core asks for units of the table alone, whose numbers are their places in it, as `Pcu::new` made sure; the
        // table has N places. Numbers from outside go through `get`.
        unsafe { self.units.get_unchecked(unit.place::<N>()) }
    }

    /// The LWP whose live registers this CPU holds in a unit of its table.
    #[inline]
    pub(super) fn live_owner(&self, unit: UnitId) -> Option<NonNull<L>> {
        let slot = self.slot(unit);
        if Tag::from_raw(slot.tag.load(Ordering::Relaxed)).is_live() {
            NonNull::new(slot.owner.load(Ordering::Relaxed))
        } else {
            None
        }
    }

    /// Are the live registers of a unit of the table those of `lwp`?
    #[inline]
    pub(super) fn is_owner(&self, unit: UnitId, lwp: NonNull<L>) -> bool {
        let slot = self.slot(unit);
        Tag::from_raw(slot.tag.load(Ordering::Relaxed)).is_live()
            && slot.owner.load(Ordering::Relaxed) == lwp.as_ptr()
    }

    /// The LWP whose live registers this CPU holds, or else the other one, without a branch; and whether there is an owner.
    pub(super) fn owner_or(&self, unit: UnitId, other: NonNull<L>) -> (bool, NonNull<L>) {
        let slot = self.slot(unit);
        let is_live = Tag::from_raw(slot.tag.load(Ordering::Relaxed)).is_live();
        let owner = slot.owner.load(Ordering::Relaxed);
        let lwp = select_unpredictable(is_live, owner, other.as_ptr());
        debug_assert!(!lwp.is_null(), "a live tag without an owner");
        // SAFETY: a live tag stands beside its owner's address.
        (is_live, unsafe { NonNull::new_unchecked(lwp) })
    }

    /// Is the gate of `unit` open on this CPU?
    pub fn is_enabled(&self, unit: UnitId) -> bool {
        self.enabled() & unit.bit() != 0
    }

    /// Is a kernel section under way on this CPU, so that it must not be preempted (P7)?
    ///
    /// Context: the CPU itself, in its scheduler or in the interrupt that would preempt.
    pub fn in_section(&self) -> bool {
        self.section_depth() != 0
    }

    /// What the unit's counters show; zeros for a unit that the table does not have.
    pub fn stats(&self, unit: UnitId) -> UnitStats {
        self.units
            .get(unit.index())
            .map_or_else(UnitStats::default, |slot| slot.counters.snapshot())
    }

    pub(super) fn counters(&self, unit: UnitId) -> &UnitCounters {
        &self.slot(unit).counters
    }

    pub(super) fn tag(&self, unit: UnitId) -> Tag {
        Tag::from_raw(self.slot(unit).tag.load(Ordering::Relaxed))
    }

    pub(super) fn set_owner(&self, unit: UnitId, owner: Option<NonNull<L>>, tag: Tag) {
        let slot = self.slot(unit);
        let owner = owner.map_or(null_mut(), NonNull::as_ptr);
        slot.owner.store(owner, Ordering::Relaxed);
        slot.tag.store(tag.raw(), Ordering::Relaxed);
        self.unsettle();
    }

    pub(super) fn residue(&self, unit: UnitId) -> u64 {
        self.slot(unit).residue.load(Ordering::Relaxed)
    }

    /// Notes whose bits the registers of `unit` hold, and derives the summary anew.
    pub(super) fn set_residue(&self, unit: UnitId, domain: u64) {
        let slot = self.slot(unit);
        if slot.residue.load(Ordering::Relaxed) == domain {
            return;
        }
        slot.residue.store(domain, Ordering::Relaxed);
        self.unsettle();
        let summary = self.units.iter().fold(NO_DOMAIN, |summary, slot| {
            match slot.residue.load(Ordering::Relaxed) {
                NO_DOMAIN => summary,
                domain if summary == NO_DOMAIN || summary == domain => domain,
                _ => MIXED_DOMAINS,
            }
        });
        self.set_residue_summary(summary);
    }

    fn set_residue_summary(&self, summary: u64) {
        self.residue_summary.store(summary, Ordering::Relaxed);
        let residue = if summary == NO_DOMAIN { 0 } else { RESIDUE };
        let enabled = u64::from(self.enabled());
        self.attention.store(enabled | residue, Ordering::Relaxed);
    }

    /// Notes that every gate is closed and that no register holds anybody's bits.
    pub(super) fn forget_all(&self) {
        for slot in &self.units {
            slot.residue.store(NO_DOMAIN, Ordering::Relaxed);
        }
        self.residue_summary.store(NO_DOMAIN, Ordering::Relaxed);
        self.attention.store(0, Ordering::Relaxed);
        self.unsettle();
    }

    /// Does no unit hold bits of another domain?
    #[inline]
    pub(super) fn is_residue_of(&self, domain: Domain) -> bool {
        let summary = self.residue_summary();
        summary == NO_DOMAIN || summary == domain.get()
    }

    pub(super) fn residue_summary(&self) -> u64 {
        self.residue_summary.load(Ordering::Relaxed)
    }

    pub(super) fn attention(&self) -> u64 {
        self.attention.load(Ordering::Relaxed)
    }

    /// The mask of the open gates.
    pub(super) fn enabled(&self) -> u32 {
        gates(self.attention())
    }

    /// Notes that the gate of `unit` is open.
    #[inline]
    pub(super) fn set_enabled(&self, unit: UnitId) {
        let attention = self.attention() | u64::from(unit.bit_of::<N>());
        self.attention.store(attention, Ordering::Relaxed);
        self.unsettle();
    }

    /// Notes that the gate of `unit` is closed.
    #[inline]
    pub(super) fn set_disabled(&self, unit: UnitId) {
        let attention = self.attention() & !u64::from(unit.bit_of::<N>());
        self.attention.store(attention, Ordering::Relaxed);
        self.unsettle();
    }

    /// Notes that the gates of these units are open and no others: of none, or of the settled LWP's. The note of that stays.
    #[inline]
    pub(super) fn set_gates(&self, units: u32) {
        let residue = self.attention() & RESIDUE;
        let attention = residue | u64::from(units);
        self.attention.store(attention, Ordering::Relaxed);
    }

    /// Would a switch-in of `lwp` find nothing to do, as the last one did, but to open its gates if they are closed?
    #[inline]
    pub(super) fn is_settled(&self, lwp: NonNull<L>) -> bool {
        self.settled.load(Ordering::Relaxed) == lwp.as_ptr()
    }

    /// The units of the settled LWP.
    #[inline]
    pub(super) fn settled_units(&self) -> u32 {
        self.settled_units.load(Ordering::Relaxed)
    }

    /// Notes that a switch-in of `lwp`, which owns these units here and no others, found nothing to do.
    #[inline]
    pub(super) fn settle(&self, lwp: NonNull<L>, units: u32) {
        debug_assert_ne!(units, 0, "settled without a unit");
        self.settled_units.store(units, Ordering::Relaxed);
        self.settled.store(lwp.as_ptr(), Ordering::Relaxed);
    }

    #[inline]
    fn unsettle(&self) {
        self.settled.store(null_mut(), Ordering::Relaxed);
    }

    pub(super) fn section_depth(&self) -> u32 {
        self.section_depth.load(Ordering::Relaxed)
    }

    pub(super) fn set_section_depth(&self, depth: u32) {
        self.section_depth.store(depth, Ordering::Relaxed);
    }

    /// Gives a serial that this CPU never gave before.
    pub(super) fn new_serial(&self) -> Serial {
        let serial = Serial::from_raw(self.serial.load(Ordering::Relaxed)).next();
        self.serial.store(serial.raw(), Ordering::Relaxed);
        serial
    }
}

impl<L, const N: usize> Default for CpuPcu<L, N> {
    fn default() -> Self {
        Self::new()
    }
}

/// What one LWP carries: where each unit's state is. Put it into the kernel's LWP.
///
/// Dropping it while registers are live anywhere panics, in release too: some CPU would go on naming freed memory (I7).
#[doc(alias = "l_pcu_valid")]
#[repr(C)]
pub struct LwpPcu<const N: usize> {
    /// Bit U clear: the LWP never used unit U since its last discard (a clear bit never lies).
    pub(super) used: shared::AtomicU32,
    /// Bit U: the state of unit U is known to be the initial one. Clear while the registers are live anywhere.
    pub(super) initial: shared::AtomicU32,
    /// [`Habits`], packed; its last byte is the policy, if the LWP has its own. Written by the LWP's holder alone.
    pub(super) habits: shared::AtomicU64,
    /// Last, as in [`CpuPcu`].
    pub(super) words: [shared::AtomicU64; N],
}
#[cfg(not(loom))]
static_assertions::assert_eq_size!(LwpPcu<1>, [u64; 3]);
#[cfg(not(loom))]
static_assertions::assert_eq_size!(LwpPcu<3>, [u64; 5]);

impl<const N: usize> LwpPcu<N> {
    /// The state of an LWP that has never run.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            words: [const { shared::AtomicU64::new(Word::nowhere(Validity::Invalid).raw()) }; N],
            used: shared::AtomicU32::new(0),
            initial: shared::AtomicU32::new(0),
            habits: shared::AtomicU64::new(0),
        }
    }

    /// The same for loom, whose atomics are made at run time.
    #[cfg(loom)]
    pub fn new() -> Self {
        let none = Word::nowhere(Validity::Invalid).raw();
        Self {
            words: core::array::from_fn(|_| shared::AtomicU64::new(none)),
            used: shared::AtomicU32::new(0),
            initial: shared::AtomicU32::new(0),
            habits: shared::AtomicU64::new(0),
        }
    }

    /// Where the unit's state is, for a unit of the table.
    #[inline]
    fn cell(&self, unit: UnitId) -> &shared::AtomicU64 {
        // SAFETY: as in `CpuPcu::slot`.
        unsafe { self.words.get_unchecked(unit.place::<N>()) }
    }

    /// Loads the word: Acquire, so that whoever sees "nowhere" also sees the image that the last holder wrote.
    pub(super) fn word(&self, unit: UnitId) -> Word {
        Word::from_raw(self.cell(unit).load(Ordering::Acquire))
    }

    /// Stores the word for the LWP's holder. Nobody else acts on what it says, and the next holder, on whichever CPU, gets the
    /// LWP itself through the kernel's own ordering; so Relaxed is enough.
    pub(super) fn set_word(&self, unit: UnitId, word: Word) {
        self.cell(unit).store(word.raw(), Ordering::Relaxed);
    }

    /// Stores the word of an LWP that somebody else may load elsewhere, or free, as soon as the word is stored (I7). Release,
    /// for the counterpart of [`word`](Self::word): the image in memory was written by this CPU.
    ///
    /// # Safety
    ///
    /// `this` is valid until then.
    pub(super) unsafe fn give_up(this: NonNull<Self>, unit: UnitId, word: Word) {
        // SAFETY: `this` is valid; only the address of the field is computed.
        let words = unsafe { &raw const (*this.as_ptr()).words };
        // SAFETY: as above; the reference is to an atomic, which asks nothing of the memory after its store.
        let words = unsafe { &*words };
        // SAFETY: as in `CpuPcu::slot`.
        let word_of_unit = unsafe { words.get_unchecked(unit.place::<N>()) };
        word_of_unit.store(word.raw(), Ordering::Release);
    }

    pub(super) fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn set_used(&self, used: u32) {
        self.used.store(used, Ordering::Relaxed);
    }

    pub(super) fn is_known_initial(&self, unit: UnitId) -> bool {
        self.initial.load(Ordering::Relaxed) & unit.bit_of::<N>() != 0
    }

    /// The CPU that holds the registers calls this while the LWP may be elsewhere, so units must not disturb each other.
    pub(super) fn set_known_initial(&self, unit: UnitId) {
        self.initial.fetch_or(unit.bit_of::<N>(), Ordering::Relaxed);
    }

    pub(super) fn forget_known_initial(&self, unit: UnitId) {
        if self.is_known_initial(unit) {
            self.initial
                .fetch_and(!unit.bit_of::<N>(), Ordering::Relaxed);
        }
    }

    /// Takes note that the LWP used a unit through a trap, or asked for it.
    #[inline]
    pub(super) fn note_use(&self) {
        let habits = self.habits.load(Ordering::Relaxed);
        self.habits.store(habits | Habits::USED, Ordering::Relaxed);
    }

    pub(super) fn habits(&self) -> Habits {
        Habits::unpack(self.habits.load(Ordering::Relaxed))
    }

    pub(super) fn set_habits(&self, habits: Habits) {
        let policy = self.habits.load(Ordering::Relaxed) & POLICY_MASK;
        self.habits.store(policy | habits.pack(), Ordering::Relaxed);
    }

    pub(super) fn policy(&self) -> Option<Policy> {
        match self.habits.load(Ordering::Relaxed).to_le_bytes() {
            [.., 0] => None,
            [.., code] => decode_own(code),
        }
    }

    /// Sets the LWP's own policy; its habits under another one say nothing any more.
    pub(super) fn set_policy(&self, policy: Option<Policy>) {
        let code = policy.map_or(0, Policy::encode);
        let packed = u64::from_le_bytes([0, 0, 0, 0, 0, 0, 0, code]);
        self.habits.store(packed, Ordering::Relaxed);
    }
}

/// Out of the way of LWPs that have none of their own.
#[cold]
#[inline(never)]
fn decode_own(code: u8) -> Option<Policy> {
    Policy::decode(code)
}

impl<const N: usize> Default for LwpPcu<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Drop for LwpPcu<N> {
    fn drop(&mut self) {
        for word in &mut self.words {
            let word = Word::from_raw(shared::read_exclusive(word));
            assert!(
                !word.is_live(),
                "an LWP was dropped while its registers are live: {word:?}"
            );
        }
    }
}

#[cfg(test)]
mod tests;
