//! What a CPU may do to its own units, at `IPL_PCU`: nearly every store to a CPU's entries (I1) and every callback is here. Kernel sections
//! have theirs in `section`, a flush in `flush`, and the gates that a switch shuts and opens again theirs in `switch`.

use core::ptr::NonNull;

use super::state::{CpuPcu, LwpPcu, MIXED_DOMAINS, NO_DOMAIN};
use super::stats::UnitCounters;
use super::unit::{LoadFlags, StateError, UnitId, UnitOps};
use super::word::{Tag, Validity, Word};
use super::{LeakRule, Pcu};
use crate::kernel::{CpuId, Domain, IplPcu, Kernel};

/// This CPU, for as long as it stays at `IPL_PCU`.
pub(super) struct Local<'a, K: Kernel<N>, const N: usize> {
    pub(super) id: CpuId,
    pub(super) cpu: &'a CpuPcu<K::Lwp, N>,
    pcu: &'a Pcu<K, N>,
    kernel: &'a K,
}

/// What is done to an LWP's state on the CPU that holds it.
pub(super) enum Command<L> {
    /// Bring memory up to date; the registers stay the LWP's.
    Save,
    /// Bring memory up to date and give the registers up.
    SaveRelease,
    /// Give the registers up unsaved; memory becomes the state, or there is none.
    Discard(Validity),
    /// Bring memory up to date and copy it to the child, whom the forker holds.
    Copy(NonNull<L>),
}

impl<L> Clone for Command<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Command<L> {}

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    pub(super) fn local<'a>(&'a self, ipl: &'a IplPcu<'_, K, N>) -> Local<'a, K, N> {
        let kernel = ipl.kernel();
        let id = kernel.cpu_id(ipl);
        Local {
            id,
            cpu: kernel.this_cpu_pcu(ipl),
            pcu: self,
            kernel,
        }
    }

    /// May user mode of `domain` run over the registers of `cpu`, this one, as they are?
    #[inline]
    pub(super) fn is_fit(&self, cpu: &CpuPcu<K::Lwp, N>, domain: Domain) -> bool {
        cpu.is_residue_of(domain) || self.leak_rule() != LeakRule::DomainAware
    }
}

impl<K: Kernel<N>, const N: usize> Local<'_, K, N> {
    pub(super) fn kernel(&self) -> &K {
        self.kernel
    }

    /// The state of an LWP that the caller holds a token for, or whose live registers this CPU holds.
    pub(super) fn lwp_pcu(&self, lwp: NonNull<K::Lwp>) -> &LwpPcu<N> {
        // SAFETY: P4 holds for an LWP with a token, and for the owner of live registers (I3, I7: it is not freed before
        // its word says otherwise, which only this CPU can make it say).
        let pcu = unsafe { self.kernel.lwp_pcu(lwp) };
        // SAFETY: P4 promises a valid object; every field of it is atomic, so a shared reference is enough.
        unsafe { pcu.as_ref() }
    }

    pub(super) fn domain(&self, lwp: NonNull<K::Lwp>) -> Option<Domain> {
        // SAFETY: P4 holds, as in `lwp_pcu`.
        unsafe { self.kernel.domain(lwp) }
    }

    /// The LWP whose live registers this CPU holds in `unit`.
    pub(super) fn live_owner(&self, unit: UnitId) -> Option<NonNull<K::Lwp>> {
        self.cpu.live_owner(unit)
    }

    /// Does this CPU's side of the relation agree with the word of `lwp` (I3)?
    pub(super) fn agrees(&self, unit: UnitId, lwp: NonNull<K::Lwp>, word: Word) -> bool {
        (self.live_owner(unit) == Some(lwp)) == word.is_live_on(self.id)
    }

    /// Opens the gate.
    pub(super) fn open(&self, unit: &UnitOps<K::Lwp>) {
        if !self.cpu.is_enabled(unit.id) {
            // SAFETY: at IPL_PCU; the caller is about to touch registers, or serves the live owner.
            unsafe { (unit.unit_enable)() };
            self.cpu.set_enabled(unit.id);
        }
    }

    /// Closes the gate, but not of a unit that a kernel section uses.
    pub(super) fn close(&self, unit: &UnitOps<K::Lwp>) {
        if self.cpu.is_enabled(unit.id) && !self.cpu.tag(unit.id).is_section() {
            self.close_open(unit, unit.id);
        }
    }

    /// The same of a gate that is open, where no section uses the unit, whose number is `id`.
    #[inline]
    pub(super) fn close_open(&self, unit: &UnitOps<K::Lwp>, id: UnitId) {
        // SAFETY: at IPL_PCU; nobody who runs here may use the unit untrapped from now on.
        unsafe { (unit.unit_trap)() };
        self.cpu.set_disabled(id);
    }

    /// Takes note that the hardware's gate is closed, since a use has just trapped; says whether the shadow had it open.
    pub(super) fn gate_was_closed(&self, unit: UnitId) -> bool {
        let was_open = self.cpu.is_enabled(unit);
        self.cpu.set_disabled(unit);
        was_open
    }

    /// Does `command` to `owner`, whose live registers this CPU holds, and closes the gate unless it stood open and the
    /// owner keeps its registers.
    pub(super) fn apply(
        &self,
        unit: &UnitOps<K::Lwp>,
        owner: NonNull<K::Lwp>,
        command: Command<K::Lwp>,
    ) {
        debug_assert_eq!(
            self.live_owner(unit.id),
            Some(owner),
            "applied to another's registers"
        );
        let was_open = self.cpu.is_enabled(unit.id);
        match command {
            Command::Save => self.save(unit, owner),
            Command::SaveRelease => {
                self.save(unit, owner);
                self.relinquish(unit, owner, Word::nowhere(Validity::Valid));
            }
            Command::Discard(validity) => {
                self.cpu.counters(unit.id).discards.bump();
                self.relinquish(unit, owner, Word::nowhere(validity));
            }
            Command::Copy(child) => {
                self.save(unit, owner);
                self.copy(unit, owner, child);
            }
        }
        if !was_open || self.live_owner(unit.id).is_none() {
            self.close(unit);
        }
    }

    /// Does `command` to an LWP that is live nowhere, so that memory is all there is (I4), and that the caller holds.
    pub(super) fn apply_to_memory(
        &self,
        unit: &UnitOps<K::Lwp>,
        lwp: NonNull<K::Lwp>,
        command: Command<K::Lwp>,
    ) {
        let pcu = self.lwp_pcu(lwp);
        let word = pcu.word(unit.id);
        match command {
            Command::Save => {}
            // The caller writes memory next, so a clean link must not survive (I2: the caller holds the LWP).
            Command::SaveRelease => {
                pcu.forget_known_initial(unit.id);
                pcu.set_word(unit.id, Word::nowhere(word.validity()));
            }
            Command::Discard(validity) => {
                pcu.forget_known_initial(unit.id);
                if validity == Validity::Valid {
                    pcu.set_used(pcu.used() | unit.id.bit_of::<N>());
                }
                pcu.set_word(unit.id, Word::nowhere(validity));
            }
            Command::Copy(child) => {
                if word.is_valid() {
                    self.copy(unit, lwp, child);
                }
            }
        }
    }

    /// Makes room: the live registers of whoever owns the unit here are saved and given up.
    pub(super) fn evict(&self, unit: &UnitOps<K::Lwp>) {
        if self.live_owner(unit.id).is_some() {
            self.open(unit);
            self.evict_from_open(unit);
        }
    }

    /// The same with the gate open.
    #[inline]
    fn evict_from_open(&self, unit: &UnitOps<K::Lwp>) {
        if let Some(owner) = self.live_owner(unit.id) {
            self.save_from_open(unit, owner);
            self.relinquish(unit, owner, Word::nowhere(Validity::Valid));
        }
    }

    /// Loads the state of `lwp`, which is current here and live nowhere, as its `word` says, and makes it the owner with the gate open.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a load is one function")]
    pub(super) fn acquire(
        &self,
        unit: &UnitOps<K::Lwp>,
        lwp: NonNull<K::Lwp>,
        word: Word,
    ) -> Result<(), StateError> {
        self.open(unit);
        self.evict_from_open(unit);
        let id = unit.id;
        let pcu = self.lwp_pcu(lwp);
        let must_load = word.is_valid() && !pcu.is_known_initial(id);
        let flags = if must_load {
            LoadFlags::VALID
        } else {
            LoadFlags::INIT
        };
        // SAFETY: at IPL_PCU, `lwp` is current, the last owner was evicted, the gate is open.
        if let Err(error) = unsafe { (unit.state_load)(lwp, flags) } {
            return Err(self.not_acquired(unit, error));
        }
        let counters = self.cpu.counters(id);
        if must_load {
            counters.restores.bump();
        } else {
            counters.inits.bump();
            pcu.set_used(pcu.used() | id.bit_of::<N>());
            pcu.forget_known_initial(id);
        }
        let serial = self.cpu.new_serial();
        self.cpu.set_owner(id, Some(lwp), Tag::live(serial));
        self.cpu
            .set_residue(id, self.domain(lwp).map_or(MIXED_DOMAINS, Domain::get));
        pcu.set_word(id, Word::live(self.id, serial));
        Ok(())
    }

    /// The registers may hold a part of the image, or what the last owner left: nobody's, then (I5).
    #[cold]
    #[inline(never)]
    fn not_acquired(&self, unit: &UnitOps<K::Lwp>, error: StateError) -> StateError {
        self.cpu.counters(unit.id).failed.bump();
        self.wipe(unit);
        self.close(unit);
        error
    }

    /// Gives `lwp` back the registers that are still its own, live or clean, and opens the gate.
    pub(super) fn reenable(
        &self,
        unit: &UnitOps<K::Lwp>,
        lwp: NonNull<K::Lwp>,
    ) -> Result<(), StateError> {
        let was_open = self.cpu.is_enabled(unit.id);
        self.open(unit);
        // SAFETY: at IPL_PCU, `lwp` is current, the registers are its newest state, the gate is open.
        if let Err(error) = unsafe { (unit.state_load)(lwp, LoadFlags::REENABLE) } {
            self.cpu.counters(unit.id).failed.bump();
            if !was_open {
                self.close(unit);
            }
            return Err(error);
        }
        self.relink(unit, lwp);
        Ok(())
    }

    /// Tells the unit that the current LWP, whose live registers are here with the gate open, asked for them: nothing is done but
    /// that, so no more of this CPU is needed than its counters.
    #[inline]
    pub(super) fn reenable_in_place(
        counters: &UnitCounters,
        unit: &UnitOps<K::Lwp>,
        lwp: NonNull<K::Lwp>,
    ) -> Result<(), StateError> {
        // SAFETY: at IPL_PCU, `lwp` is current, the registers are its live state (I3), the gate is open.
        if let Err(error) = unsafe { (unit.state_load)(lwp, LoadFlags::REENABLE) } {
            return Err(note_failure(counters, error));
        }
        counters.reenables_load.bump();
        Ok(())
    }

    /// Makes registers that the clean link vouches for the live state of `lwp`, which is current here; live ones stay so.
    pub(super) fn relink(&self, unit: &UnitOps<K::Lwp>, lwp: NonNull<K::Lwp>) {
        let pcu = self.lwp_pcu(lwp);
        if pcu.word(unit.id).is_live() {
            return;
        }
        let serial = self.cpu.tag(unit.id).serial();
        self.cpu.counters(unit.id).elided_restores.bump();
        self.cpu.set_owner(unit.id, Some(lwp), Tag::live(serial));
        pcu.set_word(unit.id, Word::live(self.id, serial));
    }

    /// Saves the live registers of `owner`, which this CPU holds, and keeps the link: they equal memory until somebody else
    /// loads or wipes. A state that turns out to be the initial one is remembered as that, and needs no link.
    ///
    /// The owner is the LWP that leaves this CPU, or one that has left it and not used the unit since, wherever it runs; the gate is left
    /// as it was.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a switch-out is one function")]
    pub(super) fn write_through(&self, unit: &UnitOps<K::Lwp>, owner: NonNull<K::Lwp>) {
        let was_open = self.cpu.is_enabled(unit.id);
        if !was_open {
            self.open(unit);
        }
        self.save_from_open(unit, owner);
        // SAFETY: memory holds the newest state: it was saved a line above.
        if unsafe { (unit.is_initial)(owner) } {
            self.lwp_pcu(owner).set_known_initial(unit.id);
            self.cpu.set_residue(unit.id, NO_DOMAIN);
            self.relinquish(unit, owner, Word::nowhere(Validity::Valid));
        } else {
            let serial = self.cpu.tag(unit.id).serial();
            // From the store of the word on not to be dereferenced: an identity (I7).
            let entry = (Some(owner), Tag::clean(serial));
            self.relinquish_for(unit, owner, Word::clean(self.id, serial), entry);
        }
        if !was_open {
            self.close(unit);
        }
    }

    /// The same, for whoever is still the owner when the CPU goes idle.
    #[inline(never)]
    pub(super) fn write_through_at_idle(&self, unit: &UnitOps<K::Lwp>, owner: NonNull<K::Lwp>) {
        self.write_through(unit, owner);
    }

    /// Makes the registers of one unit fit to run user mode of `domain` over them (I5): what is left of another domain is
    /// saved if it is live, and wiped. The gate is left to the caller.
    #[inline]
    pub(super) fn scrub(&self, unit: &UnitOps<K::Lwp>, domain: Option<Domain>) {
        let Some(domain) = domain else { return };
        if !self.is_residue_of(unit.id, domain) && self.pcu.leak_rule() == LeakRule::DomainAware {
            self.scrub_off(unit);
        }
    }

    #[inline(never)]
    fn scrub_off(&self, unit: &UnitOps<K::Lwp>) {
        self.evict(unit);
        self.cpu.counters(unit.id).wipes.bump();
        self.wipe(unit);
    }

    fn is_residue_of(&self, unit: UnitId, domain: Domain) -> bool {
        let residue = self.cpu.residue(unit);
        residue == NO_DOMAIN || residue == domain.get()
    }

    /// May user mode of `domain` run over the registers as they are?
    pub(super) fn is_fit_for(&self, domain: Domain) -> bool {
        self.pcu.is_fit(self.cpu, domain)
    }

    /// Loads the initial state into a unit that nobody owns live; clean links to it are broken.
    pub(super) fn wipe(&self, unit: &UnitOps<K::Lwp>) {
        debug_assert_eq!(
            self.live_owner(unit.id),
            None,
            "wiped the registers of an owner"
        );
        self.open(unit);
        // SAFETY: at IPL_PCU, nobody's live state is in the registers, the gate is open.
        unsafe { (unit.state_wipe)() };
        self.forget_owner(unit);
        self.cpu.set_residue(unit.id, NO_DOMAIN);
    }

    /// Breaks the clean links to a unit that nobody owns live; a kernel section has broken them already.
    pub(super) fn forget_owner(&self, unit: &UnitOps<K::Lwp>) {
        if !self.cpu.tag(unit.id).is_section() {
            self.cpu.set_owner(unit.id, None, Tag::NONE);
        }
    }

    /// Leaves nothing of anybody in a unit, and its gate closed.
    pub(super) fn vacate(&self, unit: &UnitOps<K::Lwp>) {
        self.evict(unit);
        self.forget_owner(unit);
        if self.cpu.residue(unit.id) != NO_DOMAIN {
            self.wipe(unit);
        }
        self.close(unit);
    }

    /// Takes note that the registers of a unit are initial without anybody's doing: an owner has lost its state, and a section
    /// its end.
    pub(super) fn bereave(&self, unit: &UnitOps<K::Lwp>) {
        if let Some(owner) = self.live_owner(unit.id) {
            self.cpu.counters(unit.id).discards.bump();
            self.relinquish(unit, owner, Word::nowhere(Validity::Invalid));
        }
        self.cpu.set_owner(unit.id, None, Tag::NONE);
    }

    /// A switch inside a kernel section would let another LWP run over its registers, so this holds in release too (P7).
    pub(super) fn assert_no_section(&self) {
        assert!(
            !self.cpu.in_section(),
            "cpu {}: a switch inside a kernel section",
            self.id.index()
        );
    }

    /// Tells the unit that the next use by `lwp`, which is not live here, will be detected.
    pub(super) fn release(unit: &UnitOps<K::Lwp>, lwp: NonNull<K::Lwp>) {
        // SAFETY: the caller holds a token for `lwp`, or this CPU its live registers (P4).
        unsafe { (unit.state_release)(lwp) };
    }

    fn save(&self, unit: &UnitOps<K::Lwp>, owner: NonNull<K::Lwp>) {
        self.open(unit);
        self.save_from_open(unit, owner);
    }

    #[inline]
    fn save_from_open(&self, unit: &UnitOps<K::Lwp>, owner: NonNull<K::Lwp>) {
        // SAFETY: at IPL_PCU, this CPU holds the live registers of `owner` (I3), the gate is open.
        unsafe { (unit.state_save)(owner) };
        self.cpu.counters(unit.id).saves.bump();
    }

    fn copy(&self, unit: &UnitOps<K::Lwp>, parent: NonNull<K::Lwp>, child: NonNull<K::Lwp>) {
        // SAFETY: memory holds the parent's newest state; the forker holds the child, which is live nowhere.
        unsafe { (unit.state_copy)(parent, child) };
        let child = self.lwp_pcu(child);
        child.set_used(child.used() | unit.id.bit_of::<N>());
        child.set_word(unit.id, Word::nowhere(Validity::Valid));
    }

    /// Gives up the live registers of `owner`, who has `word` from now on: the unit is nobody's.
    fn relinquish(&self, unit: &UnitOps<K::Lwp>, owner: NonNull<K::Lwp>, word: Word) {
        self.relinquish_for(unit, owner, word, (None, Tag::NONE));
    }

    /// The same; `entry` is what stands for the unit from now on. After the store of the word another CPU may load the state or free
    /// the LWP.
    #[inline]
    fn relinquish_for(
        &self,
        unit: &UnitOps<K::Lwp>,
        owner: NonNull<K::Lwp>,
        word: Word,
        entry: (Option<NonNull<K::Lwp>>, Tag),
    ) {
        Self::release(unit, owner);
        let (stays, tag) = entry;
        self.cpu.set_owner(unit.id, stays, tag);
        self.cpu.counters(unit.id).releases.bump();
        // SAFETY: P4 holds until the word says that this CPU has given up (I3, I7).
        let pcu = unsafe { self.kernel.lwp_pcu(owner) };
        // SAFETY: as above. This CPU is the one that the word names (I2), and nothing touches the LWP afterwards (I7).
        unsafe { LwpPcu::give_up(pcu, unit.id, word) };
    }
}

/// Out of the way of what succeeds.
#[cold]
#[inline(never)]
fn note_failure(counters: &UnitCounters, error: StateError) -> StateError {
    counters.failed.bump();
    error
}
