//! The hooks of the scheduler and of the way to user mode.

use super::Pcu;
use core::ptr::NonNull;

use super::local::Local;
use crate::kernel::{Current, Held, IplPcu, Kernel};

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    /// Takes note that the current LWP leaves this CPU.
    ///
    /// Under [`Policy::Lazy`](super::Policy::Lazy) nothing is to be done: the registers stay where they are.
    ///
    /// Context: the scheduler, at `IPL_PCU`, before the LWP can be picked elsewhere; does not wait, cannot fail.
    #[inline]
    pub fn switch_out(&self, _ipl: &IplPcu<'_, K, N>, _lwp: &mut Current<'_, K, N>) {}

    /// Takes note that `lwp` is current on this CPU now, or (`None`) that the CPU is idle. NetBSD: `pcu_switchpoint`.
    ///
    /// No cross-call is ever sent: the gate is closed when the state is elsewhere *or nowhere*, and the trap fetches it.
    /// Over idle and over kernel threads without a state nothing is done at all: the gate stays as it is. A kernel thread
    /// that wants a state of its own calls [`load`](Self::load) before it uses the unit.
    ///
    /// Context: the scheduler, at `IPL_PCU`, at every switch-in, an LWP's first run included; does not wait, cannot fail.
    #[doc(alias = "pcu_switchpoint")]
    #[inline]
    pub fn switchpoint(&self, ipl: &IplPcu<'_, K, N>, lwp: Option<&mut Current<'_, K, N>>) {
        let Some(lwp) = lwp else { return };
        let local = self.local(ipl);
        let domain = local.domain(lwp.lwp());
        let touched = local.lwp_pcu(lwp.lwp()).used() | local.cpu.enabled();
        if touched == 0 && domain.is_none_or(|domain| local.is_fit_for(domain)) {
            return;
        }
        self.switch_in(&local, lwp.lwp());
    }

    /// Makes sure that the current LWP may enter user mode: no other domain's registers are left (I5).
    ///
    /// Optional where every switch and exec calls its own hook; it then finds nothing to do.
    ///
    /// Context: the way to user mode, entered and left at `IPL_PCU`; may open it to wait, so the caller's own checks come
    /// after it.
    pub fn before_user<'k>(
        &self,
        ipl: IplPcu<'k, K, N>,
        lwp: &mut Current<'_, K, N>,
    ) -> IplPcu<'k, K, N> {
        let local = self.local(&ipl);
        if let Some(domain) = local.domain(lwp.lwp())
            && !local.is_fit_for(domain)
        {
            self.switch_in(&local, lwp.lwp());
        }
        ipl
    }

    /// The part of a switch that has something to do: wipes what must not be seen, and derives every gate.
    #[cold]
    pub(super) fn switch_in(&self, local: &Local<'_, K, N>, lwp: NonNull<K::Lwp>) {
        let pcu = local.lwp_pcu(lwp);
        match local.domain(lwp) {
            Some(domain) => local.scrub(domain),
            None if pcu.used() == 0 => return,
            None => {}
        }
        for unit in self.units() {
            let word = pcu.word(unit.id);
            debug_assert!(
                local.agrees(unit.id, lwp, word),
                "{:?}: {word:?}, {:?}",
                local.id,
                local.cpu
            );
            if word.is_live_on(local.id) {
                if !local.cpu.is_enabled(unit.id) {
                    local.cpu.counters(unit.id).reenables_switch.bump();
                    local.open(unit);
                }
            } else {
                // NetBSD: the release callback tells the port to disarm. Here the core closes the gate itself, and does
                // so for an LWP that never used the unit as well.
                if word.is_valid() {
                    Local::<K, N>::release(unit, lwp);
                }
                local.close(unit);
            }
        }
    }
}
