//! The end of a protection domain's turn on a CPU: nothing of it is left in the registers, and the time that takes does not say
//! whether there was anything.

use core::ptr::NonNull;

use super::Pcu;
use super::local::Local;
use super::state::LwpPcu;
use super::unit::{Gate, UnitOps};
use super::word::{Tag, Validity, Word};
use crate::kernel::{Held, IplPcu, Kernel, Stopped};

impl<K: Kernel<N>, const N: usize> Pcu<K, N> {
    /// Saves what is live on this CPU, wipes the registers of every unit, and closes every gate, by the same number of
    /// instructions whether anything was live or not; so the next domain does not learn from it whether the last one used a
    /// unit. (seL4 flushes its FPU at a domain switch for the same reason.)
    ///
    /// Where nothing is live the registers are saved all the same: to the area of `stand_in`, an LWP of this CPU's own that never
    /// runs and has no state, but an area for every unit. It has no state afterwards either.
    ///
    /// What is equal is the count of instructions, as far as the units give it (the FPU does). How long a save lasts may depend on
    /// what it saves, and a kernel that must hide that too waits afterwards until a time that it knows before.
    ///
    /// Context: the scheduler, at `IPL_PCU`, between the last LWP of one domain and the first of the next, before its
    /// [`switchpoint`](Self::switchpoint); not in a kernel section; does not wait.
    #[doc(alias = "flush_domain")]
    pub fn flush(&self, ipl: &IplPcu<'_, K, N>, stand_in: &mut Stopped<'_, K, N>) {
        let local = self.local(ipl);
        local.assert_no_section();
        for unit in self.units() {
            local.flush(unit, stand_in.lwp());
        }
        local.cpu.forget_all();
    }
}

impl<K: Kernel<N>, const N: usize> Local<'_, K, N> {
    /// Moves one unit's registers to memory and leaves nothing in them. No branch may depend on whether there is an owner.
    fn flush(&self, unit: &UnitOps<K::Lwp>, stand_in: NonNull<K::Lwp>) {
        let (is_live, lwp) = self.cpu.owner_or(unit.id, stand_in);
        let gate = if self.cpu.is_enabled(unit.id) {
            Gate::Open
        } else {
            Gate::Closed
        };
        // SAFETY: at IPL_PCU; the live registers are those of `lwp` (I3), or there are none and it is the stand-in, whom the
        // caller holds and whose memory is free.
        unsafe { (unit.unit_flush)(lwp, gate) };
        Self::release(unit, lwp);
        self.cpu.set_owner(unit.id, None, Tag::NONE);
        let counters = self.cpu.counters(unit.id);
        counters.saves.add(u64::from(is_live));
        counters.releases.add(u64::from(is_live));
        counters.wipes.add(1);
        let word = Word::nowhere(if is_live {
            Validity::Valid
        } else {
            Validity::Invalid
        });
        // SAFETY: P4 holds for the owner until its word says that this CPU has given up (I3, I7), and for the stand-in.
        let pcu = unsafe { self.kernel().lwp_pcu(lwp) };
        // SAFETY: as above. This CPU is the one that the owner's word names (I2), and nothing touches it afterwards (I7).
        unsafe { LwpPcu::give_up(pcu, unit.id, word) };
    }
}
