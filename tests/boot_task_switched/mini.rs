//! A small kernel of one CPU on this CPU, whose unit is the FPU behind somebody who counts and looks at `CR0` at each write.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use pcu9::kernel::{CpuId, CrossCall, Current, Domain, IplPcu, Kernel, NoAnswer};
use pcu9::pcu::{
    CpuPcu, LeakRule, LoadFlags, LwpPcu, Pcu, PcuOps, Policy, StateError, UnitId, UnitOps,
};
use pcu9::x86_64::fpu::{Fpu, FpuArea, Refused};
use pcu9_testbed::testing::is_task_switched;
use x86_64::instructions::interrupts;

/// An area as long as any: AVX-512 in the standard format, at Intel's offsets.
pub(crate) const AREA_WORDS: usize = 2688 / 8;

/// An LWP of the small kernel: nothing runs it, the schedule says who is current.
#[repr(C, align(64))]
pub(crate) struct Lwp {
    area: [AtomicU64; AREA_WORDS],
    domain: u64,
    pcu: LwpPcu<1>,
}

impl Lwp {
    const fn new(domain: u64) -> Self {
        Self {
            area: [const { AtomicU64::new(0) }; AREA_WORDS],
            domain,
            pcu: LwpPcu::new(),
        }
    }
}

// SAFETY: the area is at the LWP's start, aligned, long enough (checked in `run`), and `Mini::new` prepares it.
unsafe impl FpuArea for Lwp {
    unsafe fn area(lwp: NonNull<Self>) -> Result<NonNull<u8>, Refused> {
        Ok(lwp.cast())
    }
}

/// The FPU, behind somebody who counts and looks.
enum Watched {}

static OPENED: AtomicU64 = AtomicU64::new(0);
static CLOSED: AtomicU64 = AtomicU64::new(0);
/// Writes of the value that `CR0.TS` had.
static IN_VAIN: AtomicU64 = AtomicU64::new(0);

// SAFETY: every callback is the FPU's own, but for writes in vain, which are left out.
unsafe impl PcuOps<Lwp> for Watched {
    const ID: UnitId = UnitId::new(0);

    unsafe fn state_save(lwp: NonNull<Lwp>) {
        // SAFETY: the caller's promise.
        unsafe { <Fpu>::state_save(lwp) };
    }
    unsafe fn state_load(lwp: NonNull<Lwp>, flags: LoadFlags) -> Result<(), StateError> {
        // SAFETY: the caller's promise.
        unsafe { <Fpu>::state_load(lwp, flags) }
    }
    unsafe fn state_release(lwp: NonNull<Lwp>) {
        // SAFETY: the caller's promise.
        unsafe { <Fpu>::state_release(lwp) };
    }
    unsafe fn unit_enable() {
        if !is_task_switched() {
            IN_VAIN.fetch_add(1, Ordering::Relaxed);
            return;
        }
        OPENED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { <Fpu as PcuOps<Lwp>>::unit_enable() };
    }
    unsafe fn unit_trap() {
        if is_task_switched() {
            IN_VAIN.fetch_add(1, Ordering::Relaxed);
            return;
        }
        CLOSED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { <Fpu as PcuOps<Lwp>>::unit_trap() };
    }
    unsafe fn state_wipe() {
        // SAFETY: the caller's promise.
        unsafe { <Fpu as PcuOps<Lwp>>::state_wipe() };
    }
    unsafe fn state_copy(parent: NonNull<Lwp>, child: NonNull<Lwp>) {
        // SAFETY: the caller's promise.
        unsafe { <Fpu>::state_copy(parent, child) };
    }
    unsafe fn is_initial(lwp: NonNull<Lwp>) -> bool {
        // SAFETY: the caller's promise.
        unsafe { <Fpu>::is_initial(lwp) }
    }
}

pub(crate) fn counted() -> [u64; 3] {
    [&OPENED, &CLOSED, &IN_VAIN].map(|counter| counter.load(Ordering::Relaxed))
}

pub(crate) const UNIT: UnitId = <Watched as PcuOps<Lwp>>::ID;
pub(crate) const CPU_0: CpuId = CpuId::new(0).unwrap();

/// A kernel of one CPU and a few LWPs.
pub(crate) struct Mini {
    pub(crate) pcu: Pcu<MiniKernel, 1>,
    pub(crate) kernel: MiniKernel,
    /// By the number of who it is.
    pub(crate) lwps: [Lwp; 4],
}

pub(crate) struct MiniKernel(CpuPcu<Lwp, 1>);

impl MiniKernel {
    /// What the crate takes the gate for.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_enabled(UNIT)
    }
}

// SAFETY: P1, P2, P6: a schedule runs on one CPU with interrupts off from its begin to its end. P3, P4: fields that do not
// move while a schedule runs. P5: the domains are constants.
unsafe impl Kernel<1> for MiniKernel {
    type Lwp = Lwp;
    type Saved = bool;

    fn splraise(&self) -> bool {
        let were_on = interrupts::are_enabled();
        interrupts::disable();
        were_on
    }
    unsafe fn splx(&self, were_on: bool) {
        if were_on {
            interrupts::enable();
        }
    }
    fn cpu_id(&self, _: &IplPcu<'_, Self, 1>) -> CpuId {
        CPU_0
    }
    fn cpu_pcu(&self, _: CpuId) -> &CpuPcu<Lwp, 1> {
        &self.0
    }
    unsafe fn lwp_pcu(&self, lwp: NonNull<Lwp>) -> NonNull<LwpPcu<1>> {
        // SAFETY: the caller promises an LWP.
        NonNull::from(unsafe { &(*lwp.as_ptr()).pcu })
    }
    unsafe fn domain(&self, lwp: NonNull<Lwp>) -> Option<Domain> {
        // SAFETY: the caller promises an LWP.
        Domain::new(unsafe { (*lwp.as_ptr()).domain })
    }
    fn cross_call(
        &self,
        ipl: IplPcu<'_, Self, 1>,
        cpu: CpuId,
        f: CrossCall<'_, Self, 1>,
    ) -> Result<(), NoAnswer> {
        let is_here = cpu == CPU_0;
        is_here.then(|| f(&ipl)).ok_or(NoAnswer(cpu))
    }
}

impl Mini {
    pub(crate) fn new(policy: Policy, rule: LeakRule) -> Self {
        // SAFETY: this small kernel's only one.
        let units = unsafe { Pcu::new([Some(UnitOps::of::<Watched>())]) };
        Self {
            pcu: units.with_policy(policy).with_leak_rule(rule),
            kernel: MiniKernel(CpuPcu::new()),
            lwps: [1, 2, 1, 0].map(Lwp::new),
        }
    }

    pub(crate) fn token(&self, lwp: &Lwp) -> Current<'_, MiniKernel, 1> {
        // SAFETY: the schedule says that it is current; each token is dropped before the next is made.
        unsafe { Current::new(&self.kernel, NonNull::from(lwp)) }
    }

    pub(crate) fn switch(&self, from: Option<&Lwp>, to: Option<&Lwp>) {
        // SAFETY: the only token here.
        let ipl = unsafe { IplPcu::raise(&self.kernel) };
        if let Some(from) = from {
            self.pcu.switch_out(&ipl, &mut self.token(from));
        }
        match to {
            Some(to) => self.pcu.switchpoint(&ipl, Some(&mut self.token(to))),
            None => self.pcu.switchpoint(&ipl, None),
        }
    }
}
