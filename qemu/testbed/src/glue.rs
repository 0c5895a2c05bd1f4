//! All that a kernel writes to use `pcu9`: the trait, the place of the state, and one small function for each hook.
//!
//! Who calls the hooks: the scheduler (`switch_out`, `switchpoint`), the traps (`trap`, `fixup`, `before_user`), the
//! processes ([`fork`], [`exec`], `exit`), their signals (`foreign`), and each CPU's start (`init_cpu`).

mod cpus;
pub(crate) mod foreign;
pub(crate) mod percpu;
mod section;

use alloc::alloc::{alloc, dealloc};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use pcu9::kernel::{CpuId, CrossCall, Current, Domain, IplPcu, Kernel, NoAnswer, Stopped};
use pcu9::pcu::{
    AcceptLazyFp, Costs, CpuPcu, LeakRule, LoadError, LwpPcu, Pcu, Policy, PolicyError, UnitId,
    UnitOps,
};
use pcu9::x86_64::fpu::{self, Area, FpuArea, FpuFeatures, Limits, Refused, SaveInstruction};
use pcu9::x86_64::machine::Native;
use pcu9::x86_64::{DeviceNotAvailable, UsedBy, calibrate as measure, calibrate_cross_call};
use spin::Once;
use x86_64::instructions::interrupts;

pub(crate) use self::cpus::{cpu_offline, cpu_online, say_what_is_lost};
pub use self::percpu::{
    CPU_PCU, EXECS, EXITS, FORKS, HERE, PCPU, PERCPU, SIGNALS, SYSCALLS, TICKS, TRAPS, add_cpu,
    add_cpu_at_the_end,
};
pub use self::section::{NoSection, in_section, section, section_in_interrupt};
use crate::cpu::{self, crosscall};
use crate::line;
use crate::lock::IrqLock;
use crate::lwp::Lwp;
use crate::watch::{self, Registers, WatchedFpu};
use crate::{step, timeline};

/// The number of units: the FPU alone.
pub const N_UNITS: usize = 1;
/// The FPU's place in the table.
pub const FPU: UnitId = UnitId::new(0);

/// This kernel, as `pcu9` sees it.
#[derive(Debug)]
pub struct Testbed;

/// The kernel that every token is branded with.
pub static KERNEL: Testbed = Testbed;
/// The units and their rules.
// SAFETY: this kernel's only one.
pub static PCU: Pcu<Testbed, N_UNITS> = unsafe { Pcu::new([Some(UnitOps::of::<WatchedFpu>())]) };

/// A token for the LWP that executes the caller.
pub type CurrentLwp = Current<'static, Testbed, N_UNITS>;

// SAFETY:
// P1: interrupts off keep the CPU, its scheduler (which runs in interrupts and in calls of the LWP itself) and cross-calls
//     out; `cli` and `sti` are not `nomem`.
// P2: `cpu::index` reads the executing CPU's own block; the numbers are given once.
// P3: a per-CPU variable, and the executing CPU's copy of it.
// P4: the field of the LWP, which is in an `Arc` that the scheduler, and the holder of a token, keeps.
// P5: processes and boot tests take numbers from one counter each, apart, and never give one back.
// P6: `crosscall::call` does just that, and its documentation says how.
// P7: `sched::preempt` leaves a section alone, and `sched::switch` asserts it; `section` refuses one in an NMI.
unsafe impl Kernel<N_UNITS> for Testbed {
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

    fn cpu_id(&self, _: &IplPcu<'_, Self, N_UNITS>) -> CpuId {
        cpu_id(cpu::index())
    }

    fn cpu_pcu(&self, cpu: CpuId) -> &CpuPcu<Lwp, N_UNITS> {
        CPU_PCU.on(&PERCPU, cpu).expect("a CPU with data")
    }

    fn this_cpu_pcu(&self, _: &IplPcu<'_, Self, N_UNITS>) -> &CpuPcu<Lwp, N_UNITS> {
        // SAFETY: a present CPU's copy, and no CPU is ever removed.
        unsafe { &*CPU_PCU.this_copy(HERE) }
    }

    unsafe fn lwp_pcu(&self, lwp: NonNull<Lwp>) -> NonNull<LwpPcu<N_UNITS>> {
        // SAFETY: the caller promises that the LWP is valid; only the field's address is taken.
        let field = unsafe { &raw const (*lwp.as_ptr()).fpu.pcu };
        // SAFETY: the address of a field is not null.
        unsafe { NonNull::new_unchecked(field.cast_mut()) }
    }

    #[inline]
    unsafe fn domain(&self, lwp: NonNull<Lwp>) -> Option<Domain> {
        // SAFETY: the caller promises that the LWP is valid.
        let domain = unsafe { &(*lwp.as_ptr()).fpu.domain };
        Domain::new(domain.load(Ordering::Relaxed))
    }

    fn cross_call(
        &self,
        ipl: IplPcu<'_, Self, N_UNITS>,
        cpu: CpuId,
        f: CrossCall<'_, Self, N_UNITS>,
    ) -> Result<(), NoAnswer> {
        let asked = timeline::note_asked(cpu.index());
        let run = || {
            timeline::note_served(asked);
            watch::is_asked();
            // SAFETY: a cross-call's function runs with interrupts off on its CPU until it returns.
            f(&unsafe { IplPcu::assume(&KERNEL) });
            step::here();
        };
        crosscall::call(ipl, cpu.index(), &run).map_err(|crosscall::NoAnswer| NoAnswer(cpu))
    }
}

pub(crate) fn cpu_id(index: usize) -> CpuId {
    u16::try_from(index)
        .ok()
        .and_then(CpuId::new)
        .expect("CPU numbers are small")
}

/// What an LWP carries for `pcu9`.
#[derive(Debug)]
pub(crate) struct LwpFpu {
    pcu: LwpPcu<N_UNITS>,
    /// Where its registers are saved; null for an LWP that may have none.
    area: AtomicPtr<u8>,
    /// What was allocated, while `area` may be a test's own.
    allocated: AtomicPtr<u8>,
    /// Set by tests: the area is refused.
    refuse: AtomicBool,
    /// Its protection domain; 0 for none.
    domain: AtomicU64,
    /// What it had in the registers when it left a CPU last; kept while the watch is on.
    pub(crate) seen: IrqLock<Registers>,
}

impl LwpFpu {
    fn new(area: *mut u8, domain: u64) -> Self {
        Self {
            pcu: LwpPcu::new(),
            area: AtomicPtr::new(area),
            allocated: AtomicPtr::new(area),
            refuse: AtomicBool::new(false),
            domain: AtomicU64::new(domain),
            seen: IrqLock::new(Registers::INITIAL),
        }
    }

    pub(crate) fn domain(&self) -> u64 {
        self.domain.load(Ordering::Relaxed)
    }

    /// Where its registers are saved; null for nowhere.
    pub(crate) fn area(&self) -> *mut u8 {
        self.area.load(Ordering::Relaxed)
    }

    /// For idle LWPs and kernel threads: no FPU state, ever.
    pub(crate) fn none() -> Self {
        Self::new(null_mut(), 0)
    }

    /// For an LWP of `domain` (0: none) that may use the FPU; `None` without memory for its area.
    pub(crate) fn with_area(domain: u64) -> Option<Self> {
        let layout = <Area>::layout();
        // SAFETY: the layout's size is not zero.
        let memory = NonNull::new(unsafe { alloc(layout) })?;
        let mut memory = NonNull::slice_from_raw_parts(memory, layout.size());
        // SAFETY: new memory, for this LWP alone.
        let area = unsafe { <Area>::new(memory) }.expect("the layout is an area's");
        // SAFETY: as above.
        crate::testing::poison::spoil_area(unsafe { memory.as_mut() });
        Some(Self::new(area.pointer().as_ptr(), domain))
    }
}

impl Drop for LwpFpu {
    fn drop(&mut self) {
        let area = *self.allocated.get_mut();
        if !area.is_null() {
            // SAFETY: `with_area` allocated it with this layout.
            unsafe { dealloc(area, <Area>::layout()) };
        }
    }
}

// SAFETY: `with_area` makes an area of that size and alignment ready, for this LWP alone; only a test puts another in its
// place, and answers for it.
unsafe impl FpuArea for Lwp {
    unsafe fn area(lwp: NonNull<Self>) -> Result<NonNull<u8>, Refused> {
        // SAFETY: the caller promises that the LWP is valid.
        let fpu = unsafe { &(*lwp.as_ptr()).fpu };
        if fpu.refuse.load(Ordering::Relaxed) {
            return Err(Refused);
        }
        NonNull::new(fpu.area()).ok_or(Refused)
    }
}

/// The current LWP's token, made anew for each hook.
fn current() -> CurrentLwp {
    let lwp = NonNull::new(PCPU.this_lwp(HERE)).expect("a CPU always has a current LWP");
    // SAFETY: the LWP executes this, the CPU holds it, and each hook drops its token before another is made.
    unsafe { Current::new(&KERNEL, lwp) }
}

/// What `xsave=INSTRUCTION` and `xcr0=MASK` on the command line leave of the FPU.
fn limits() -> Limits {
    let mut limits = Limits::NONE;
    if let Some(name) = crate::option("xsave") {
        limits.save_instruction = match name {
            "fxsave" => SaveInstruction::Fxsave,
            "xsave" => SaveInstruction::Xsave,
            "xsaveopt" => SaveInstruction::Xsaveopt,
            "xsavec" => SaveInstruction::Xsavec,
            "xsaves" => SaveInstruction::Xsaves,
            _ => panic!("xsave={name} on the command line: not an instruction that saves"),
        };
    }
    if let Some(mask) = crate::option_number("xcr0") {
        limits.components = mask;
    }
    limits
}

/// Starts a CPU's FPU, for the first time or again.
///
/// # Panics
///
/// When the CPU's FPU is unlike the first one's.
pub(crate) fn init_cpu() {
    if let Err(error) = FpuFeatures::limit::<Native>(limits()) {
        panic!("{error}");
    }
    // SAFETY: ring 0, interrupts off, and the kernel is soft-float.
    if let Err(error) = unsafe { fpu::init_cpu() } {
        panic!("{error}");
    }
    percpu::describe_fpu();
    cpu_online();
}

static CALIBRATED: Once<Costs> = Once::new();

/// What [`calibrate`] found.
///
/// # Panics
///
/// Before it ran.
pub fn calibrated() -> Costs {
    *CALIBRATED.get().expect("all CPUs run")
}

/// Measures what moving a state costs, on the first CPU, once all CPUs run; the fetch from another CPU, if there is one that
/// answers. What is not measured stays a Zen 3 server's.
pub(crate) fn calibrate() {
    // SAFETY: ring 0, interrupts off, and no LWP with FPU state has run.
    let mut costs = unsafe { measure(Costs::ZEN3) };
    if cpu::n_cpus() > 1 {
        match calibrate_cross_call(&KERNEL, cpu_id(1), costs) {
            Ok(measured) => costs = measured,
            Err(error) => line!("{error}: what one takes is not measured"),
        }
    }
    CALIBRATED.call_once(|| costs);
    PCU.set_costs(costs);
    line!("{costs:?}, in ticks of the time stamp counter");
}

/// The scheduler: `lwp` leaves this CPU. Interrupts are off.
pub(crate) fn switch_out(lwp: &Lwp) {
    watch::leaves(lwp);
    // SAFETY: the scheduler runs with interrupts off.
    let ipl = unsafe { IplPcu::assume(&KERNEL) };
    PCU.switch_out(&ipl, &mut current());
    step::here();
}

/// The scheduler: `lwp` has arrived on this CPU and is current. Interrupts are off.
pub(crate) fn switchpoint(lwp: &Lwp) {
    // SAFETY: the scheduler runs with interrupts off.
    let ipl = unsafe { IplPcu::assume(&KERNEL) };
    if lwp.is_idle {
        PCU.switchpoint(&ipl, None);
    } else {
        PCU.switchpoint(&ipl, Some(&mut current()));
        step::here();
        watch::look(lwp, "at a switch");
    }
}

/// On the way to user mode: entered and left with interrupts off, which it may turn on to wait.
pub(crate) fn before_user() {
    // SAFETY: interrupts are off, and only `iretq` turns them on again, or a wait for another CPU: user mode has them on.
    let ipl = unsafe { IplPcu::adopt(&KERNEL, true) };
    PCU.before_user(ipl, &mut current()).keep();
    step::here();
    if !is_gate_open() {
        crate::sched::with_current(|lwp| watch::look(lwp, "before user mode"));
    }
}

/// What the #NM at `rip` is about.
pub(crate) fn whose_trap(by: UsedBy, rip: u64) -> DeviceNotAvailable {
    // SAFETY: the kernel runs in ring 0.
    unsafe { DeviceNotAvailable::classify(by, rip) }
}

/// #NM, with interrupts still off; they are on while it waits for another CPU, and off again at the end.
///
/// # Errors
///
/// [`LoadError`]: the LWP cannot go on.
pub(crate) fn trap(unit: UnitId) -> Result<(), LoadError> {
    // SAFETY: the trap's entry turned interrupts off where they were on, and nobody else turns them on again.
    let ipl = unsafe { IplPcu::adopt(&KERNEL, true) };
    let result = PCU.trap(ipl, &mut current(), unit);
    interrupts::disable();
    step::here();
    result
}

/// May the FPU be used on this CPU without a trap? Interrupts are off.
pub(crate) fn is_gate_open() -> bool {
    // SAFETY: interrupts are off, so this is the copy of the CPU that goes on.
    unsafe { &*CPU_PCU.this_copy(HERE) }.is_enabled(FPU)
}

/// #GP and #PF of the kernel: where to go on, if a restore may fault at `rip`.
pub(crate) fn fixup(rip: u64) -> Option<u64> {
    pcu9::x86_64::fixup(rip)
}

/// Gives `child`, which has not run, the current LWP's registers.
///
/// # Errors
///
/// [`NoAnswer`] of the CPU that holds them.
pub fn fork(child: &Lwp) -> Result<(), NoAnswer> {
    crate::sched::with_current(|parent| watch::forks(parent, child));
    // SAFETY: the child has never run, and the caller starts it later.
    let mut child = unsafe { Stopped::new(&KERNEL, NonNull::from(child)) };
    PCU.fork(&mut current(), &mut child)?;
    if let Some(forks) = FORKS.get() {
        forks.add(HERE, 1);
    }
    Ok(())
}

/// Starts the current LWP over, in `domain`.
///
/// # Errors
///
/// [`NoAnswer`] of the CPU that holds its registers.
pub fn exec(domain: u64) -> Result<(), NoAnswer> {
    let change_domain = || {
        crate::sched::with_current(|lwp| {
            lwp.fpu.domain.store(domain, Ordering::Relaxed);
            watch::starts_over(lwp);
        });
    };
    PCU.exec(&mut current(), change_domain)?;
    EXECS.increment(HERE);
    Ok(())
}

/// Ends the current LWP's use of the FPU.
///
/// # Panics
///
/// When the CPU that holds its registers does not answer.
pub(crate) fn exit() {
    if let Err(error) = PCU.exit(current()) {
        panic!("{error}: its LWP cannot end");
    }
    EXITS.increment(HERE);
}

/// Whether the current LWP is a kernel thread that was given FPU state.
pub(crate) fn kernel_lwp_has_fpu() -> bool {
    crate::sched::with_current(|lwp| {
        lwp.process.is_none() && !lwp.fpu.allocated.load(Ordering::Relaxed).is_null()
    })
}

/// Runs `f` with the current LWP's token; for tests that call `pcu9` themselves. Inside, nothing may use the FPU or
/// cause a trap of it.
pub fn with_token<R>(f: impl FnOnce(&mut CurrentLwp) -> R) -> R {
    f(&mut current())
}

/// What `pcu9` keeps of CPU `cpu`.
///
/// # Panics
///
/// When there is no such CPU.
pub fn cpu_pcu(cpu: usize) -> &'static CpuPcu<Lwp, N_UNITS> {
    KERNEL.cpu_pcu(cpu_id(cpu))
}

/// Sets the leak rule, and asks every CPU to drop what it holds under the old one.
///
/// # Panics
///
/// When a CPU that runs does not answer.
pub fn set_leak_rule(rule: LeakRule) {
    if let Err(error) = PCU.set_leak_rule(&mut current(), PERCPU.started(), rule)
        && PERCPU.started().any(|cpu| cpu == error.0)
    {
        panic!("the leak rule: {error}");
    }
}

/// Sets the FPU's policy, and asks every CPU to drop what it holds under the old one.
///
/// # Panics
///
/// When a CPU that runs does not answer.
pub fn set_policy(policy: Policy) {
    match PCU.set_policy(&mut current(), PERCPU.started(), FPU, policy) {
        Err(PolicyError::NoAnswer(cpu)) if !PERCPU.started().any(|started| started == cpu) => {}
        Err(error) => panic!("the policy: {error}"),
        Ok(()) => {}
    }
}

/// Sets what the command line asks for: `leak=trusting|domain`, and `policy=` one of `lazy`, `deferred`, `eager`, `adaptive`,
/// `adaptive-write-through` and `probe`.
///
/// # Panics
///
/// When it asks for something that there is not.
pub fn use_command_line() {
    match crate::option("leak") {
        None | Some("domain") => set_leak_rule(LeakRule::DomainAware),
        Some("trusting") => set_leak_rule(LeakRule::Trusting(AcceptLazyFp)),
        Some(other) => panic!("leak={other}: neither domain nor trusting"),
    }
    set_policy(match crate::option("policy") {
        None | Some("lazy") => Policy::Lazy,
        Some("deferred") => Policy::Deferred,
        Some("eager") => Policy::Eager,
        Some("adaptive") => Policy::Adaptive,
        Some("adaptive-write-through") => Policy::AdaptiveWriteThrough,
        Some("probe") => Policy::Probe,
        Some(other) => panic!("policy={other}: no such policy"),
    });
}

impl Lwp {
    /// What `pcu9` keeps of it.
    pub fn pcu(&self) -> &LwpPcu<N_UNITS> {
        &self.fpu.pcu
    }

    /// Its save area; null without one. For tests that read or spoil it.
    pub fn fpu_area(&self) -> *mut u8 {
        self.fpu.area()
    }

    /// Puts a test's pointer in the area's place, and gives the one before.
    ///
    /// # Safety
    ///
    /// The promises of [`FpuArea`], but that a restore from it may fault; and nothing is live or valid that a save or a
    /// restore would need the old area for.
    pub unsafe fn replace_fpu_area(&self, area: *mut u8) -> *mut u8 {
        self.fpu.area.swap(area, Ordering::Relaxed)
    }

    /// Lets the kernel refuse the LWP's area from now on, or no longer.
    pub fn refuse_fpu_area(&self, refuse: bool) {
        self.fpu.refuse.store(refuse, Ordering::Relaxed);
    }
}
