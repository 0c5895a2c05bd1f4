//! The fake kernel's side of the seam.

use std::ptr::NonNull;

use pcu9::kernel::{CpuId, CrossCall, Domain, IplPcu, Kernel, NoAnswer};
use pcu9::pcu::{CpuPcu, LwpPcu};

use super::{Lwp, UNITS, World, cpu_id};

// SAFETY: P1: one thread plays all CPUs, and `raised` keeps the hook of `splx` out. P2, P3: the index of a vector. P4: a
// field of a leaked box. P5: `new_domain` counts. P6: the call is made at once or refused, with the level lowered around it.
unsafe impl Kernel<UNITS> for World {
    type Lwp = Lwp;
    type Saved = bool;

    fn splraise(&self) -> bool {
        self.raised.replace(true)
    }

    unsafe fn splx(&self, saved: bool) {
        if !saved {
            self.section_ends();
            self.lowered();
        }
    }

    fn cpu_id(&self, _: &IplPcu<'_, Self, UNITS>) -> CpuId {
        assert!(self.raised.get(), "cpu_id below IPL_PCU");
        cpu_id(self.here.get())
    }

    fn cpu_pcu(&self, cpu: CpuId) -> &CpuPcu<Lwp, UNITS> {
        &self.cpus[cpu.index()].pcu
    }

    unsafe fn lwp_pcu(&self, lwp: NonNull<Lwp>) -> NonNull<LwpPcu<UNITS>> {
        self.assert_may_touch(lwp);
        // SAFETY: the caller promises a valid LWP.
        let field = unsafe { &raw mut (*lwp.as_ptr()).pcu };
        NonNull::new(field).unwrap()
    }

    unsafe fn domain(&self, lwp: NonNull<Lwp>) -> Option<Domain> {
        self.assert_may_touch(lwp);
        // SAFETY: the caller promises a valid LWP.
        Domain::new(unsafe { lwp.as_ref() }.domain.get())
    }

    fn cross_call(
        &self,
        ipl: IplPcu<'_, Self, UNITS>,
        cpu: CpuId,
        f: CrossCall<'_, Self, UNITS>,
    ) -> Result<(), NoAnswer> {
        assert!(self.raised.get(), "published below IPL_PCU");
        if cpu.index() == self.here.get() {
            f(&ipl);
            return Ok(());
        }
        self.log
            .borrow_mut()
            .push(format!("xcall from={} to={}", self.here.get(), cpu.index()));
        drop(ipl);
        assert!(
            !self.raised.get(),
            "a cross-call by a caller that was raised already"
        );
        if self.deaf.get() & (1 << cpu.index()) != 0 {
            return Err(NoAnswer(cpu));
        }
        // The lowering may have moved the caller; the request is served wherever it was sent.
        let caller = self.here.replace(cpu.index());
        self.raised.set(true);
        // SAFETY: `raised` says so, and is cleared after the token's last use.
        f(&unsafe { IplPcu::assume(self) });
        self.section_ends();
        self.here.set(caller);
        self.lowered();
        Ok(())
    }
}
