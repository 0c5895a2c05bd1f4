//! A CPU leaves and comes back: offline and online, suspend and resume, and what a CPU that was lost took with it.

use core::ptr::NonNull;

use super::Pcu;
use super::unit::UnitId;
use crate::kernel::{IplPcu, Kernel};

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    /// Leaves nothing of anybody on this CPU, which goes offline or is suspended: what is live is saved and given up, clean links
    /// are broken, registers that hold somebody's bits are wiped, every gate is closed. NetBSD: `pcu_save_all_on_cpu` in
    /// `cpu_offline_md`.
    ///
    /// An LWP that is current here keeps its state, in memory, and goes on wherever the kernel puts it.
    ///
    /// Context: this CPU, at `IPL_PCU`, as the last thing that concerns units before it stops; not in a kernel section; does not
    /// wait. From here until [`cpu_online`](Self::cpu_online) no hook is called on it. Nobody who looks from now on has a reason to ask
    /// it, since no state is live there; who looked before may still ask, so the CPU goes on serving cross-calls until every other CPU
    /// has been below `IPL_PCU` once, or else that asker gets [`NoAnswer`](crate::kernel::NoAnswer) and asks again.
    #[doc(alias = "cpu_offline_md")]
    pub fn cpu_offline(&self, ipl: &IplPcu<'_, K, N>) {
        let local = self.local(ipl);
        local.assert_no_section();
        for unit in self.units() {
            local.vacate(unit);
        }
    }

    /// Takes note that this CPU starts again with its units as a new [`CpuPcu`](super::CpuPcu) assumes them: gates closed,
    /// registers initial. What the crate remembered of its hardware (`CR0.TS`, whose bits are in the registers) is forgotten.
    ///
    /// After [`cpu_offline`](Self::cpu_offline) nobody has lost anything. A CPU that stopped without it (a failed suspend, a reset)
    /// took the newest state of its owners with it: `lost` is called for each, whose state of that unit is the initial one from
    /// then on. The kernel ends such an LWP, or signals it: nothing is lost silently. The pointer is valid until `lost` returns.
    ///
    /// Context: this CPU, at `IPL_PCU`, after the units' own start ([`x86_64::fpu::init_cpu`](crate::x86_64::fpu::init_cpu), which
    /// sets CR0, CR4, XCR0 and XSS anew, and [`x86_64::amx::init_cpu`](crate::x86_64::amx::init_cpu), which sets XFD), before an LWP
    /// runs there; does not wait.
    pub fn cpu_online(
        &self,
        ipl: &IplPcu<'_, K, N>,
        mut lost: impl FnMut(NonNull<K::Lwp>, UnitId),
    ) {
        let local = self.local(ipl);
        local.cpu.forget_all();
        local.cpu.set_section_depth(0);
        for unit in self.units() {
            if let Some(owner) = local.live_owner(unit.id) {
                lost(owner, unit.id);
            }
            local.bereave(unit);
        }
    }
}
