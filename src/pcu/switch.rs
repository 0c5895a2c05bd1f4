//! The hooks of the scheduler and of the way to user mode: here the policies differ, and nowhere else.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::Pcu;
use super::adaptive::{Arrival, Slice};
use super::local::{Command, Local};
use super::policy::Policy;
use super::state::{CpuPcu, LwpPcu, gates};
use super::unit::UnitOps;
use super::word::Word;
use crate::kernel::{CpuId, Current, Domain, Held, IplPcu, Kernel};

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    /// Takes note that the current LWP leaves this CPU: policies that write through, save here.
    ///
    /// A kernel that leaves the call out brings cross-calls back, and corrupts nothing. After it a
    /// [`switchpoint`](Self::switchpoint) must follow, also if the same LWP goes on after all: its registers may be clean, with
    /// the gate open, and what it wrote would be lost.
    ///
    /// Context: the scheduler, at `IPL_PCU`, before the LWP can be picked elsewhere; does not wait, cannot fail.
    #[inline]
    pub fn switch_out(&self, ipl: &IplPcu<'_, K, N>, lwp: &mut Current<'_, K, N>) {
        // SAFETY: P4 holds for an LWP with a token.
        let pcu = unsafe { ipl.kernel().lwp_pcu(lwp.lwp()) };
        // SAFETY: P4 promises a valid object; every field of it is atomic, so a shared reference is enough.
        let pcu = unsafe { pcu.as_ref() };
        if self.may_move(pcu.used()) {
            self.leave(ipl.kernel(), lwp.lwp());
        }
    }

    /// Takes note that `lwp` is current on this CPU now, or (`None`) that the CPU is idle. NetBSD: `pcu_switchpoint`.
    ///
    /// No cross-call is ever sent: the gate is closed when the state is elsewhere *or nowhere*, and the trap (or
    /// [`before_user`](Self::before_user)) fetches it. Over idle and over kernel threads without a state nothing is done at
    /// all: the gate stays as it is. A kernel thread that wants a state of its own calls [`load`](Self::load) before it uses
    /// the unit.
    ///
    /// Context: the scheduler, at `IPL_PCU`, at every switch-in, an LWP's first run included; does not wait, cannot fail.
    #[doc(alias = "pcu_switchpoint")]
    #[inline]
    pub fn switchpoint(&self, ipl: &IplPcu<'_, K, N>, lwp: Option<&mut Current<'_, K, N>>) {
        let Some(lwp) = lwp else {
            if self.write_back_at_idle.load(Ordering::Relaxed) {
                self.write_back(ipl);
            }
            return;
        };
        let used = used_by(ipl, lwp);
        let cpu = ipl.kernel().this_cpu_pcu(ipl);
        let attention = cpu.attention();
        if u64::from(used | self.untrappable) | attention == 0 {
            return;
        }
        // Its gates may be closed, or its holder has given it a state of another unit meanwhile, in memory.
        if cpu.is_settled(lwp.lwp()) && used == gates(attention) {
            debug_assert!(self.is_in_place(ipl, lwp.lwp(), used), "{lwp:?}: {cpu:?}");
            return;
        }
        // SAFETY: P4 holds for an LWP with a token.
        let has_domain = || unsafe { ipl.kernel().domain(lwp.lwp()) }.is_some();
        // Over a kernel thread without a state the gates stay as they are.
        if used != 0 || has_domain() || cpu.in_section() {
            self.arrive_on(ipl.kernel(), lwp.lwp());
        }
    }

    /// Makes sure that the current LWP may enter user mode: no other domain's registers are left (I5), and under `Deferred`
    /// and `Eager` its own are in place, so that their use does not trap.
    ///
    /// Optional where every unit's use traps and every switch and exec calls its own hook: it only avoids traps then. A unit
    /// whose use does not trap needs it at every return to user mode, from interrupts too: whatever takes the registers of a
    /// current LWP ([`save`](Self::save), [`discard`](Self::discard), a change of rules) is made good here.
    ///
    /// Context: the way to user mode, entered and left at `IPL_PCU`. With a token of [`IplPcu::raise`] or
    /// [`IplPcu::adopt`] it may go below and wait for a cross-call, so the caller's own checks come after it.
    pub fn before_user<'k>(
        &self,
        mut ipl: IplPcu<'k, K, N>,
        lwp: &mut Current<'_, K, N>,
    ) -> IplPcu<'k, K, N> {
        loop {
            let local = self.local(&ipl);
            let pcu = local.lwp_pcu(lwp.lwp());
            // An open gate that is not the LWP's own was left open over a kernel thread, which it was until now.
            let mismatch = (pcu.used() | self.untrappable) ^ local.cpu.enabled();
            let is_fit = local
                .domain(lwp.lwp())
                .is_none_or(|domain| local.is_fit_for(domain));
            if mismatch == 0 && is_fit {
                return ipl;
            }
            match self.complete(&local, lwp.lwp()) {
                Some((unit, holder)) if ipl.may_wait() => {
                    let kernel = ipl.kernel();
                    let answer = self.send_to(ipl, unit, holder, lwp.lwp(), Command::SaveRelease);
                    // The LWP may have migrated while it waited: everything is read anew.
                    ipl = IplPcu::up(kernel);
                    if answer.is_err() {
                        return ipl; // the trap asks again, and reports it
                    }
                }
                _ => return ipl,
            }
        }
    }

    /// Saves what the current LWP's policies want saved.
    #[cold]
    #[inline(never)]
    fn leave(&self, kernel: &K, lwp: NonNull<K::Lwp>) {
        // SAFETY: the caller has a token. Made anew here, it costs the hit path nothing.
        let ipl = unsafe { IplPcu::assume(kernel) };
        let local = &self.local(&ipl);
        local.assert_no_section();
        let pcu = local.lwp_pcu(lwp);
        for unit in self.units_in(pcu.used()) {
            let policy = self.policy_for(pcu.policy(), unit);
            let saves = match policy {
                Policy::Lazy | Policy::Probe => false,
                Policy::Adaptive => pcu.habits().writes_through(&self.rule.load()),
                Policy::Deferred | Policy::Eager | Policy::AdaptiveWriteThrough => true,
            };
            if !saves {
                continue;
            }
            if !pcu.word(unit.id).is_live_on(local.id) {
                local.cpu.counters(unit.id).elided_saves.bump();
                continue;
            }
            local.write_through(unit, lwp);
            if policy == Policy::Eager {
                local.forget_owner(unit);
            }
        }
    }

    /// Saves what is live on a CPU that goes idle; the registers stay linked.
    #[cold]
    #[inline(never)]
    fn write_back(&self, ipl: &IplPcu<'_, K, N>) {
        let local = &self.local(ipl);
        for unit in self.units() {
            if let Some(owner) = local.live_owner(unit.id) {
                local.write_through_at_idle(unit, owner);
            }
        }
    }

    /// [`arrive`](Self::arrive), out of the hit path's way: by the shortest way that serves.
    #[inline(never)]
    fn arrive_on(&self, kernel: &K, lwp: NonNull<K::Lwp>) {
        // SAFETY: as in `leave`.
        let ipl = unsafe { IplPcu::assume(kernel) };
        let cpu = kernel.this_cpu_pcu(&ipl);
        // SAFETY: P4 holds for the LWP that arrives.
        let pcu = unsafe { kernel.lwp_pcu(lwp) };
        // SAFETY: P4 promises a valid object; every field of it is atomic, so a shared reference is enough.
        let (used, enabled) = (unsafe { pcu.as_ref() }.used(), cpu.enabled());
        if self.may_move(used | enabled) || cpu.in_section() {
            return self.arrive_anew(kernel, lwp);
        }
        // With its gates open it would have found nothing to do, so all are closed.
        if cpu.is_settled(lwp) && used == cpu.settled_units() {
            debug_assert_eq!(enabled, 0, "{lwp:?}: {cpu:?}");
            self.reopen(cpu, used);
            debug_assert!(self.is_in_place(&ipl, lwp, used), "{lwp:?}: {cpu:?}");
            return;
        }
        // SAFETY: as above.
        match unsafe { kernel.domain(lwp) } {
            Some(domain) if used == 0 && self.is_fit(cpu, domain) => self.shut(cpu, enabled),
            _ => self.arrive_lazily(kernel, lwp),
        }
    }

    /// Is there nothing to do for `lwp`, which comes back to live registers of its own in all units that it used, with their gates
    /// open and no others?
    fn is_in_place(&self, ipl: &IplPcu<'_, K, N>, lwp: NonNull<K::Lwp>, used: u32) -> bool {
        let local = &self.local(ipl);
        let is_own = |unit: &UnitOps<K::Lwp>| local.cpu.is_owner(unit.id, lwp);
        used != 0
            && used == local.cpu.enabled()
            && self.units_in(used).all(is_own)
            && local.domain(lwp).map(Domain::get) == Some(local.cpu.residue_summary())
    }

    /// Opens the gates of the settled LWP, which finds everything else in place.
    #[inline(never)]
    fn reopen(&self, cpu: &CpuPcu<K::Lwp, N>, units: u32) {
        cpu.set_gates(units);
        for unit in self.units_in(units) {
            cpu.counters(unit.id).reenables_switch.bump();
            // SAFETY: at IPL_PCU; the unit's live owner arrives: the note says so, and is dropped when it is so no more (I3).
            unsafe { (unit.unit_enable)() };
        }
    }

    /// Closes the gates that are open, where no kernel section is under way.
    #[inline(never)]
    fn shut(&self, cpu: &CpuPcu<K::Lwp, N>, units: u32) {
        cpu.set_gates(0);
        for unit in self.units_in(units) {
            // SAFETY: at IPL_PCU; who arrives has no state that a use could find.
            unsafe { (unit.unit_trap)() };
        }
    }

    /// May a policy other than `Lazy` have a say in what is done to these units?
    #[inline]
    pub(super) fn may_move(&self, units: u32) -> bool {
        u64::from(units) & self.movers.load(Ordering::Relaxed) != 0
    }

    /// What [`arrive`](Self::arrive) comes to where no policy moves a state and nobody has to be wiped: gates move, each to where
    /// the owner of its unit says. Where that is not all, what it did is what `arrive` would have done.
    #[inline(never)]
    fn arrive_lazily(&self, kernel: &K, lwp: NonNull<K::Lwp>) {
        // SAFETY: as in `leave`.
        let ipl = unsafe { IplPcu::assume(kernel) };
        let local = &self.local(&ipl);
        let pcu = local.lwp_pcu(lwp);
        let (used, enabled) = (pcu.used(), local.cpu.enabled());
        let Some(domain) = local.domain(lwp).filter(|&domain| local.is_fit_for(domain)) else {
            return self.arrive_anew(kernel, lwp);
        };
        let mut is_in_place = local.cpu.residue_summary() == domain.get();
        for unit in self.units_in(used | enabled) {
            let id = unit.id;
            let is_open = enabled & id.bit_of::<N>() != 0;
            if local.cpu.is_owner(id, lwp) {
                if !is_open {
                    local.cpu.counters(id).reenables_switch.bump();
                    local.open(unit);
                }
                continue;
            }
            is_in_place = false;
            let word = pcu.word(id);
            if word.links(local.id, local.cpu.tag(id)) {
                return self.arrive_anew(kernel, lwp);
            }
            if word.is_valid() {
                Local::<K, N>::release(unit, lwp);
            }
            if is_open {
                local.close_open(unit, id);
            }
        }
        if is_in_place {
            local.cpu.settle(lwp, used);
        }
    }

    /// [`arrive`](Self::arrive), for an LWP that may have something more to be done for it.
    #[inline(never)]
    fn arrive_anew(&self, kernel: &K, lwp: NonNull<K::Lwp>) {
        // SAFETY: as in `leave`.
        self.arrive(&unsafe { IplPcu::assume(kernel) }, lwp);
    }

    /// The part of a switch-in that has something to do: brings in what the policies want, wipes what must not be seen, and
    /// derives every gate.
    pub(super) fn arrive(&self, ipl: &IplPcu<'_, K, N>, lwp: NonNull<K::Lwp>) {
        let local = &self.local(ipl);
        local.assert_no_section();
        let pcu = local.lwp_pcu(lwp);
        let domain = local.domain(lwp);
        let (used, enabled) = (pcu.used(), local.cpu.enabled());
        // A kernel thread without a state: the gate stays as it is.
        if used == 0 && domain.is_none() {
            return;
        }
        let is_fit = domain.is_none_or(|domain| local.is_fit_for(domain));
        let touched = used | self.untrappable;
        let concerned = if is_fit {
            touched | enabled
        } else {
            self.present
        };
        let own = pcu.policy();
        let mut adaptive = None;
        for unit in self.units_in(concerned) {
            let slice = match self.policy_for(own, unit) {
                // The owner's gate is opened; nothing is brought in.
                Policy::Lazy => None,
                Policy::Deferred | Policy::Eager => Some(Slice::Preload),
                Policy::Probe => Some(Slice::Probe),
                Policy::Adaptive | Policy::AdaptiveWriteThrough => {
                    Some(*adaptive.get_or_insert_with(|| self.learn(local, pcu)))
                }
            };
            Self::arrive_unit(local, unit, lwp, domain, slice);
        }
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a switch-in is one function")]
    fn arrive_unit(
        local: &Local<'_, K, N>,
        unit: &UnitOps<K::Lwp>,
        lwp: NonNull<K::Lwp>,
        domain: Option<Domain>,
        slice: Option<Slice>,
    ) {
        let pcu = local.lwp_pcu(lwp);
        let word = pcu.word(unit.id);
        debug_assert!(
            local.agrees(unit.id, lwp, word),
            "{:?}: {word:?}, {:?}",
            local.id,
            local.cpu
        );
        if is_resident(local, unit, word) {
            if slice != Some(Slice::Probe) || !unit.use_traps {
                if !local.cpu.is_enabled(unit.id) {
                    local.cpu.counters(unit.id).reenables_switch.bump();
                    local.open(unit);
                }
                local.relink(unit, lwp);
                return;
            }
            if slice == Some(Slice::Probe) {
                local.cpu.counters(unit.id).probes.bump();
            }
        } else if wants(pcu, unit, word, slice) && preload(local, unit, lwp, word) {
            return;
        }
        // NetBSD: the release callback tells the port to disarm. Here the core closes the gate itself, and does so for an
        // LWP that never used the unit as well.
        if word.is_valid() {
            Local::<K, N>::release(unit, lwp);
        }
        local.scrub(unit, domain);
        local.close(unit);
    }

    /// Brings in what is missing before user mode, and wipes what must not be seen; says what is live on another CPU.
    #[cold]
    #[inline(never)]
    fn complete<'a>(
        &'a self,
        local: &Local<'_, K, N>,
        lwp: NonNull<K::Lwp>,
    ) -> Option<(&'a UnitOps<K::Lwp>, CpuId)> {
        let pcu = local.lwp_pcu(lwp);
        let own = pcu.policy();
        let domain = local.domain(lwp);
        let mut elsewhere = None;
        for unit in self.units() {
            local.scrub(unit, domain);
            if local.live_owner(unit.id) != Some(lwp) {
                local.close(unit);
            }
            let policy = self.policy_for(own, unit);
            let is_preloaded = matches!(policy, Policy::Deferred | Policy::Eager);
            let word = pcu.word(unit.id);
            match word.live_cpu() {
                Some(holder) if holder != local.id && is_preloaded => {
                    elsewhere = Some((unit, holder));
                }
                // Not at the switch: an LWP in the kernel may be writing its next state into memory, which a save of the
                // initial one would destroy.
                None if !unit.use_traps && !has_contents(pcu, unit, word) => {
                    preload_late(local, unit, lwp, word);
                }
                _ if is_preloaded && !local.cpu.is_enabled(unit.id) => {
                    Self::arrive_late(local, unit, lwp, domain);
                }
                _ => {}
            }
        }
        elsewhere
    }

    /// What a policy that preloads missed at the switch-in.
    #[cold]
    #[inline(never)]
    fn arrive_late(
        local: &Local<'_, K, N>,
        unit: &UnitOps<K::Lwp>,
        lwp: NonNull<K::Lwp>,
        domain: Option<Domain>,
    ) {
        Self::arrive_unit(local, unit, lwp, domain, Some(Slice::Preload));
    }

    /// Lets the LWP's habits take note of this switch-in, once for all its units.
    #[inline(never)]
    fn learn(&self, local: &Local<'_, K, N>, pcu: &LwpPcu<N>) -> Slice {
        let arrival = self
            .units_in(pcu.used())
            .fold(Arrival::Evicted, |arrival, unit| {
                let word = pcu.word(unit.id);
                if is_resident(local, unit, word) {
                    Arrival::Resident
                } else if arrival == Arrival::Evicted
                    && !word.is_live()
                    && word.cpu().is_some_and(|cpu| cpu != local.id)
                {
                    Arrival::Migrated
                } else {
                    arrival
                }
            });
        let mut habits = pcu.habits();
        let slice = habits.arrive(arrival, &self.rule.load());
        pcu.set_habits(habits);
        slice
    }
}

/// Are the registers of this CPU those of the LWP whose word this is, live or clean?
fn is_resident<K: Kernel<N>, const N: usize>(
    local: &Local<'_, K, N>,
    unit: &UnitOps<K::Lwp>,
    word: Word,
) -> bool {
    word.is_live_on(local.id) || word.links(local.id, local.cpu.tag(unit.id))
}

/// Is the state to be brought in without a use? One that is live elsewhere is not: a switch sends no cross-call.
fn wants<L, const N: usize>(
    pcu: &LwpPcu<N>,
    unit: &UnitOps<L>,
    word: Word,
    slice: Option<Slice>,
) -> bool {
    let is_wanted = !unit.use_traps || slice == Some(Slice::Preload);
    is_wanted && has_contents(pcu, unit, word) && !word.is_live()
}

/// Is there a state other than the initial one?
fn has_contents<L, const N: usize>(pcu: &LwpPcu<N>, unit: &UnitOps<L>, word: Word) -> bool {
    word.is_valid() && !pcu.is_known_initial(unit.id)
}

/// Brings the state in. A failure leaves the gate closed, and the trap reports it.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a switch-in is one function")]
fn preload<K: Kernel<N>, const N: usize>(
    local: &Local<'_, K, N>,
    unit: &UnitOps<K::Lwp>,
    lwp: NonNull<K::Lwp>,
    word: Word,
) -> bool {
    local.cpu.counters(unit.id).preloads.bump();
    local.acquire(unit, lwp, word).is_ok()
}

/// The same, on the way to user mode.
#[cold]
#[inline(never)]
fn preload_late<K: Kernel<N>, const N: usize>(
    local: &Local<'_, K, N>,
    unit: &UnitOps<K::Lwp>,
    lwp: NonNull<K::Lwp>,
    word: Word,
) {
    preload(local, unit, lwp, word);
}

/// The units that the LWP may have a state of.
fn used_by<K: Kernel<N>, const N: usize>(ipl: &IplPcu<'_, K, N>, lwp: &Current<'_, K, N>) -> u32 {
    // SAFETY: P4 holds for an LWP with a token.
    let pcu = unsafe { ipl.kernel().lwp_pcu(lwp.lwp()) };
    // SAFETY: P4 promises a valid object; every field of it is atomic, so a shared reference is enough.
    unsafe { pcu.as_ref() }.used()
}
