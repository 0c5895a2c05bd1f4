//! What a test looks at from outside the protocol: the counters, `CR0.TS`, and the registers behind a closed gate.

use alloc::vec::Vec;

use pcu9::pcu::{Policy, UnitStats};
use pcu9::x86_64::fpu;
use x86_64::registers::control::{Cr0, Cr0Flags};

use super::{Case, is_exact, total_stats};
use crate::glue::{self, FPU};
use crate::lock::InterruptsOff;
use crate::lwp::Lwp;
use crate::sched;

/// What the FPU's counters of all CPUs showed when a test began to count.
#[derive(Clone, Copy, Debug)]
pub struct Counts(UnitStats);

impl Counts {
    /// Begins to count.
    pub fn begin() -> Self {
        Self(total_stats())
    }

    /// What was counted since.
    pub fn so_far(&self) -> UnitStats {
        difference(total_stats(), self.0)
    }
}

/// How many of everything came between two readings.
pub fn difference(after: UnitStats, before: UnitStats) -> UnitStats {
    macro_rules! subtract {
        ($($name:ident)*) => { UnitStats { $($name: after.$name - before.$name,)* } };
    }
    subtract!(traps loads preloads inits restores elided_restores reenables_trap reenables_load reenables_switch
        spurious probes failed saves elided_saves releases discards wipes sections xcalls xcalls_raced)
}

impl Case {
    /// Checks the identities of the counters, which hold when nothing is under way and no LWP with a state is left, that nothing
    /// failed, and what the policy promises.
    pub fn expect_identities(&mut self, counts: &Counts) {
        let counted = counts.so_far();
        self.expect_sums(&counted);
        self.expect_eq("failed loads", counted.failed, 0);
        self.expect_eq("traps though the gate was open", counted.spurious, 0);
        if !is_exact() {
            self.expect_promises(&counted);
        }
    }

    /// Checks the identities of the counters alone.
    pub(super) fn expect_sums(&mut self, c: &UnitStats) {
        self.expect_eq(
            "traps, loads and preloads, by what came of them",
            c.inits + c.restores + c.reenables_trap + c.reenables_load + c.spurious + c.failed,
            c.traps + c.loads + c.preloads,
        );
        self.expect_eq(
            "states loaded, as against states given up",
            c.releases,
            c.inits + c.restores + c.elided_restores,
        );
        self.expect(
            "a state is given up either saved or discarded",
            c.saves + c.discards >= c.releases,
        );
    }

    /// Sets the FPU's policy and says so.
    pub fn policy(&self, policy: Policy) {
        self.log(format_args!("policy: {policy:?}"));
        glue::set_policy(policy);
    }
}

/// Whether `CR0.TS` is set on this CPU: is the gate closed?
pub fn is_task_switched() -> bool {
    Cr0::read().contains(Cr0Flags::TASK_SWITCHED)
}

/// Runs `f` with interrupts off and `CR0.TS` clear, and puts both back: it sees the registers as they are, without the
/// unit's trap. `f` must only read them.
pub fn past_the_gate<R>(f: impl FnOnce() -> R) -> R {
    let _off = InterruptsOff::new();
    let before = Cr0::read();
    // SAFETY: nobody else runs here until TS is put back, and soft-float code does not notice it.
    unsafe { Cr0::write(before - Cr0Flags::TASK_SWITCHED) };
    let result = f();
    // SAFETY: the value that was there.
    unsafe { Cr0::write(before) };
    result
}

/// Sets `CR0.TS` behind the back of `pcu9`, as a fault of the hypervisor or of the firmware might. The current LWP may use
/// the FPU after it; the gate must be open.
///
/// # Panics
///
/// When it is closed.
pub fn set_task_switched_by_hand() {
    let _off = InterruptsOff::new();
    assert!(!is_task_switched(), "CR0.TS is set already");
    // SAFETY: the next use traps, which the kernel serves.
    unsafe { Cr0::write(Cr0::read() | Cr0Flags::TASK_SWITCHED) };
}

/// The image that was saved of `lwp`, whose CPU does not save meanwhile.
pub fn image(lwp: &Lwp) -> Vec<u8> {
    let area = lwp.fpu_area().cast_const();
    // SAFETY: the area is as long, and its LWP is stopped, or executes this.
    unsafe { core::slice::from_raw_parts(area, fpu::features().area_bytes()) }.to_vec()
}

/// Writes `image` over that of `lwp`, which has no registers anywhere now.
///
/// # Panics
///
/// When it is not as long as an image of this machine.
pub fn write_image(lwp: &Lwp, image: &[u8]) {
    assert_eq!(image.len(), fpu::features().area_bytes());
    // SAFETY: the area is as long; its LWP has no registers, and its holder calls this.
    unsafe { lwp.fpu_area().copy_from(image.as_ptr(), image.len()) };
}

/// Fills the saved image of the LWP that calls this with a wrong state: good for a restore, but not what its registers hold.
/// A restore that should not be shows then.
///
/// # Panics
///
/// When the LWP has no area, or its registers are not live, so that the image is its state.
pub fn poison_own_memory() {
    let lwp = sched::current();
    let area = lwp.fpu_area();
    assert!(!area.is_null(), "an LWP without FPU state");
    assert!(lwp.pcu().live_cpu(FPU).is_some(), "memory is the state");
    // SAFETY: an area has at least 512 bytes, XMM0 to XMM15 at 160.
    let xmm = unsafe { area.add(160) };
    // SAFETY: as above; nobody saves to the area while its LWP executes this.
    unsafe { xmm.write_bytes(0x5a, 256) };
    if fpu::features().xcr0() != 0 {
        // SAFETY: an XSAVE area has its header at 512.
        let xstate_bv = unsafe { area.add(512) };
        // SAFETY: as above. x87 and SSE are not in their initial state.
        unsafe { xstate_bv.write(3) };
    }
}
