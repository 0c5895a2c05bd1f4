//! A table with a unit whose use does not trap takes no policy that waits for a use.

use core::ptr::NonNull;

use pcu9::kernel::{CpuId, CrossCall, Domain, IplPcu, Kernel, NoAnswer};
use pcu9::pcu::{CpuPcu, LwpPcu, Pcu, Policy, UnitOps};
use pcu9::x86_64::debug::{Breakpoints, DebugArea, DebugRegisters};
use pcu9::x86_64::fpu::Refused;

struct Lwp;

unsafe impl DebugArea for Lwp {
    unsafe fn debug_area(_: NonNull<Self>) -> Result<NonNull<Breakpoints>, Refused> {
        Err(Refused)
    }
}

struct Machine;

unsafe impl Kernel<4> for Machine {
    type Lwp = Lwp;
    type Saved = ();

    fn splraise(&self) {}
    unsafe fn splx(&self, (): ()) {}
    fn cpu_id(&self, _: &IplPcu<'_, Self, 4>) -> CpuId {
        unreachable!("it does not compile")
    }
    fn cpu_pcu(&self, _: CpuId) -> &CpuPcu<Lwp, 4> {
        unreachable!("it does not compile")
    }
    unsafe fn lwp_pcu(&self, _: NonNull<Lwp>) -> NonNull<LwpPcu<4>> {
        unreachable!("it does not compile")
    }
    unsafe fn domain(&self, _: NonNull<Lwp>) -> Option<Domain> {
        unreachable!("it does not compile")
    }
    fn cross_call(
        &self,
        _: IplPcu<'_, Self, 4>,
        _: CpuId,
        _: CrossCall<'_, Self, 4>,
    ) -> Result<(), NoAnswer> {
        unreachable!("it does not compile")
    }
}

static UNITS: Pcu<Machine, 4> = unsafe {
    Pcu::new([None, None, None, Some(UnitOps::of::<DebugRegisters>())]).with_policy(Policy::Lazy)
};

fn main() {
    let _ = &UNITS;
}
