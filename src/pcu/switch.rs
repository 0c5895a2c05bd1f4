//! The hooks of the scheduler and of the way to user mode: here the policies differ, and nowhere else.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use super::Pcu;
use super::adaptive::{Arrival, Slice};
use super::local::{Command, Local};
use super::policy::Policy;
use super::state::LwpPcu;
use super::unit::UnitOps;
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
        let used = pcu.used();
        if used != 0 && self.may_move(used, pcu) {
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
        let touched = used_by(ipl, lwp) | self.untrappable;
        if u64::from(touched) | ipl.kernel().this_cpu_pcu(ipl).attention() != 0 {
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
                local.write_through(unit, owner);
            }
        }
    }

    /// [`arrive`](Self::arrive), out of the hit path's way.
    #[cold]
    #[inline(never)]
    fn arrive_on(&self, kernel: &K, lwp: NonNull<K::Lwp>) {
        // SAFETY: as in `leave`.
        let ipl = unsafe { IplPcu::assume(kernel) };
        let cpu = kernel.this_cpu_pcu(&ipl);
        // SAFETY: P4 holds for the LWP that arrives.
        let pcu = unsafe { kernel.lwp_pcu(lwp) };
        // SAFETY: P4 promises a valid object; every field of it is atomic, so a shared reference is enough.
        let used = unsafe { pcu.as_ref() }.used();
        // Its holder may have given it a state of another unit meanwhile, in memory.
        if cpu.is_settled(lwp) && used == cpu.enabled() {
            debug_assert!(self.is_in_place(&ipl, lwp), "{lwp:?}: {cpu:?}");
        } else {
            self.arrive_off(kernel, lwp);
        }
    }

    /// Is there nothing to do for `lwp`, which comes back to live registers of its own in all units that it used, with their gates
    /// open and no others?
    fn is_in_place(&self, ipl: &IplPcu<'_, K, N>, lwp: NonNull<K::Lwp>) -> bool {
        let local = &self.local(ipl);
        let used = local.lwp_pcu(lwp).used();
        let is_own = |unit: &UnitOps<K::Lwp>| local.cpu.is_owner(unit.id, lwp);
        used != 0
            && used == local.cpu.enabled()
            && self.units_in(used).all(is_own)
            && local.domain(lwp).map(Domain::get) == Some(local.cpu.residue_summary())
    }

    #[inline(never)]
    fn arrive_off(&self, kernel: &K, lwp: NonNull<K::Lwp>) {
        // SAFETY: as in `leave`.
        let ipl = unsafe { IplPcu::assume(kernel) };
        let local = &self.local(&ipl);
        let pcu = local.lwp_pcu(lwp);
        let units = pcu.used() | local.cpu.enabled();
        let moves = self.may_move(units, pcu) || local.cpu.in_section();
        if moves || !self.arrive_lazily(local, lwp, units) {
            self.arrive_anew(kernel, lwp);
        }
    }

    /// May a policy other than `Lazy` have a say in what a switch does to these units of an LWP?
    #[inline]
    fn may_move(&self, units: u32, pcu: &LwpPcu<N>) -> bool {
        units & self.movers.load(Ordering::Relaxed) != 0 || pcu.has_policy()
    }

    /// What [`arrive`](Self::arrive) comes to where no policy moves a state and nobody has to be wiped: gates move, each to where
    /// the owner of its unit says. Says whether that was all; if not, what it did is what `arrive` would have done.
    #[inline]
    fn arrive_lazily(&self, local: &Local<'_, K, N>, lwp: NonNull<K::Lwp>, units: u32) -> bool {
        let pcu = local.lwp_pcu(lwp);
        let Some(domain) = local.domain(lwp) else {
            // A kernel thread without a state: the gate stays as it is.
            return pcu.used() == 0;
        };
        if !local.is_fit_for(domain) {
            return false;
        }
        let mut is_in_place = local.cpu.residue_summary() == domain.get();
        for unit in self.units_in(units) {
            if local.cpu.is_owner(unit.id, lwp) {
                if !local.cpu.is_enabled(unit.id) {
                    local.cpu.counters(unit.id).reenables_switch.bump();
                    local.open(unit);
                }
                continue;
            }
            is_in_place = false;
            let word = pcu.word(unit.id);
            if word.links(local.id, local.cpu.tag(unit.id)) {
                return false;
            }
            if word.is_valid() {
                Local::<K, N>::release(unit, lwp);
            }
            local.close(unit);
        }
        if is_in_place && units != 0 {
            local.cpu.settle(lwp);
        }
        true
    }

    /// [`arrive`](Self::arrive), for an LWP that has something more to be done for it.
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
        let touched = pcu.used() | self.untrappable;
        match local.domain(lwp) {
            // A kernel thread without a state: the gate stays as it is.
            None if pcu.used() == 0 => return,
            // Nothing but what its own domain left.
            Some(domain) if touched | local.cpu.enabled() == 0 && local.is_fit_for(domain) => {
                return;
            }
            _ => {}
        }
        let own = pcu.policy();
        let mut adaptive = None;
        let concerned = if local
            .domain(lwp)
            .is_none_or(|domain| local.is_fit_for(domain))
        {
            touched | local.cpu.enabled()
        } else {
            self.present
        };
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
            Self::arrive_unit(local, unit, lwp, slice);
        }
    }

    fn arrive_unit(
        local: &Local<'_, K, N>,
        unit: &UnitOps<K::Lwp>,
        lwp: NonNull<K::Lwp>,
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
        if is_resident(local, pcu, unit) {
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
        } else if wants(pcu, unit, slice) && preload(local, unit, lwp) {
            return;
        }
        // NetBSD: the release callback tells the port to disarm. Here the core closes the gate itself, and does so for an
        // LWP that never used the unit as well.
        if word.is_valid() {
            Local::<K, N>::release(unit, lwp);
        }
        local.scrub(unit, local.domain(lwp));
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
            match pcu.word(unit.id).live_cpu() {
                Some(holder) if holder != local.id && is_preloaded => {
                    elsewhere = Some((unit, holder));
                }
                // Not at the switch: an LWP in the kernel may be writing its next state into memory, which a save of the
                // initial one would destroy.
                None if !unit.use_traps && !has_contents(pcu, unit) => {
                    preload(local, unit, lwp);
                }
                _ if is_preloaded && !local.cpu.is_enabled(unit.id) => {
                    Self::arrive_unit(local, unit, lwp, Some(Slice::Preload));
                }
                _ => {}
            }
        }
        elsewhere
    }

    /// Lets the LWP's habits take note of this switch-in, once for all its units.
    #[inline(never)]
    fn learn(&self, local: &Local<'_, K, N>, pcu: &LwpPcu<N>) -> Slice {
        let arrival = self
            .units_in(pcu.used())
            .fold(Arrival::Evicted, |arrival, unit| {
                if is_resident(local, pcu, unit) {
                    Arrival::Resident
                } else if arrival == Arrival::Evicted
                    && !pcu.word(unit.id).is_live()
                    && pcu.word(unit.id).cpu().is_some_and(|cpu| cpu != local.id)
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

/// Are the registers of this CPU the LWP's own, live or clean?
fn is_resident<K: Kernel<N>, const N: usize>(
    local: &Local<'_, K, N>,
    pcu: &LwpPcu<N>,
    unit: &UnitOps<K::Lwp>,
) -> bool {
    let word = pcu.word(unit.id);
    word.is_live_on(local.id) || word.links(local.id, local.cpu.tag(unit.id))
}

/// Is the state to be brought in without a use? One that is live elsewhere is not: a switch sends no cross-call.
fn wants<L, const N: usize>(pcu: &LwpPcu<N>, unit: &UnitOps<L>, slice: Option<Slice>) -> bool {
    let is_wanted = !unit.use_traps || slice == Some(Slice::Preload);
    is_wanted && has_contents(pcu, unit) && !pcu.word(unit.id).is_live()
}

/// Is there a state other than the initial one?
fn has_contents<L, const N: usize>(pcu: &LwpPcu<N>, unit: &UnitOps<L>) -> bool {
    pcu.word(unit.id).is_valid() && !pcu.is_known_initial(unit.id)
}

/// Brings the state in. A failure leaves the gate closed, and the trap reports it.
#[inline(never)]
fn preload<K: Kernel<N>, const N: usize>(
    local: &Local<'_, K, N>,
    unit: &UnitOps<K::Lwp>,
    lwp: NonNull<K::Lwp>,
) -> bool {
    local.cpu.counters(unit.id).preloads.bump();
    local.acquire(unit, lwp).is_ok()
}

/// The units that the LWP may have a state of.
fn used_by<K: Kernel<N>, const N: usize>(ipl: &IplPcu<'_, K, N>, lwp: &Current<'_, K, N>) -> u32 {
    // SAFETY: P4 holds for an LWP with a token.
    let pcu = unsafe { ipl.kernel().lwp_pcu(lwp.lwp()) };
    // SAFETY: P4 promises a valid object; every field of it is atomic, so a shared reference is enough.
    unsafe { pcu.as_ref() }.used()
}
