//! A second kernel on the same CPUs, with more units in its table: the FPU, a register file behind a page, the debug registers.
//!
//! Its LWPs are [`Member`]s, which the testbed's kernel threads play ([`spawn`]). The scheduler calls the hooks of both kernels, and the
//! traps that members cause come here, so that switches, preemption, migration and faults are the machine's own. To the testbed's own
//! table they are threads without FPU state: only members use units while there are any, and each case ends with empty CPUs.

use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pcu9::kernel::{CpuId, CrossCall, Current, Domain, IplPcu, Kernel, NoAnswer, Stopped};
use pcu9::pcu::{CpuPcu, LeakRule, LwpPcu, Pcu, Policy, PolicyError, UnitId, UnitOps, UnitStats};
use pcu9::x86_64::debug::{Breakpoints, DEBUG, DebugArea, DebugRegisters, take_hits};
use pcu9::x86_64::fpu::{FPU, Fpu, FpuArea, Refused};
use pcu9::x86_64::scratch::{Registers, SCRATCH, Scratch, ScratchArea, Window};
use x86_64::instructions::interrupts;

use super::{move_to, new_domain, policies, spawn_plain};
use crate::cpu::trap::{Frame, VECTOR_DEBUG, VECTOR_DEVICE_NOT_AVAILABLE, VECTOR_PAGE_FAULT};
use crate::cpu::{self, MAX_CPUS, crosscall};
use crate::glue::{LwpFpu, cpu_id};
use crate::lock::InterruptsOff;
use crate::lwp::Lwp;
use crate::memory::{PAGE_BYTES, USER_END, window};
use crate::sched;

/// The kernel.
#[derive(Debug)]
pub struct Annex([CpuPcu<Member, N_UNITS>; MAX_CPUS]);

/// The number of slots in its table, one of them empty.
pub const N_UNITS: usize = 4;

/// The kernel that every token is branded with.
pub static ANNEX: Annex = Annex([const { CpuPcu::new() }; MAX_CPUS]);

/// Its table.
// SAFETY: the annex's only one.
pub static UNITS: Pcu<Annex, N_UNITS> = unsafe {
    Pcu::new([
        Some(UnitOps::of::<Fpu>()),
        None,
        Some(UnitOps::of::<Scratch>()),
        Some(UnitOps::of::<DebugRegisters>()),
    ])
};

/// One of its LWPs.
#[derive(Debug)]
pub struct Member {
    pcu: LwpPcu<N_UNITS>,
    /// The place of its FPU registers, and its domain.
    fpu: LwpFpu,
    scratch: UnsafeCell<Registers>,
    debug: UnsafeCell<Breakpoints>,
    /// The kernel refuses it a place for scratch registers.
    is_refused: AtomicBool,
    /// Where it arrives it goes on in the kernel, and not to user mode.
    is_in_kernel: AtomicBool,
    n_hits: AtomicU64,
}

// SAFETY: the two cells are reached by the units alone, on the CPU that holds the registers or the LWP, and by `watch`, where memory is
// the state.
unsafe impl Sync for Member {}

/// The current member's token.
pub type Me = Current<'static, Annex, N_UNITS>;

impl Member {
    /// Makes one.
    ///
    /// # Panics
    ///
    /// Without memory for its FPU registers.
    pub fn new(domain: u64) -> Arc<Self> {
        Arc::new(Self {
            pcu: LwpPcu::new(),
            fpu: LwpFpu::with_area(domain).expect("memory for an FPU area"),
            scratch: UnsafeCell::new([0; 512]),
            debug: UnsafeCell::new(Breakpoints::NONE),
            is_refused: AtomicBool::new(false),
            is_in_kernel: AtomicBool::new(false),
            n_hits: AtomicU64::new(0),
        })
    }

    /// Makes one in a domain of its own.
    pub fn alone() -> Arc<Self> {
        Self::new(new_domain())
    }

    /// What is kept of it.
    pub fn pcu(&self) -> &LwpPcu<N_UNITS> {
        &self.pcu
    }

    /// How many breakpoints it has met.
    pub fn n_hits(&self) -> u64 {
        self.n_hits.load(Ordering::Relaxed)
    }

    /// Refuses it a place for its scratch registers from now on.
    pub fn refuse_scratch(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
    }

    /// From now on it is in the middle of a system call, and goes to user mode no more.
    pub fn stay_in_kernel(&self) {
        self.is_in_kernel.store(true, Ordering::Relaxed);
    }

    fn token(&self) -> Me {
        // SAFETY: called for the member that the current LWP plays, by one hook or operation after the other.
        unsafe { Current::new(&ANNEX, NonNull::from(self)) }
    }
}

// SAFETY: what `LwpFpu::with_area` made, for this member alone.
unsafe impl FpuArea for Member {
    unsafe fn area(lwp: NonNull<Self>) -> Result<NonNull<u8>, Refused> {
        // SAFETY: the caller promises that the member is valid.
        let fpu = unsafe { &(*lwp.as_ptr()).fpu };
        NonNull::new(fpu.area()).ok_or(Refused)
    }
}

// SAFETY: `window` made both for this CPU, and its own table is loaded whenever a member runs; the area is the member's field.
unsafe impl ScratchArea for Member {
    const ADDRESS: u64 = window::WINDOW;

    fn window() -> Window {
        let (registers, entry) = window::of(cpu::index()).expect("a CPU with a window");
        Window { registers, entry }
    }

    unsafe fn scratch_area(lwp: NonNull<Self>) -> Result<NonNull<Registers>, Refused> {
        // SAFETY: the caller promises that the member is valid.
        let member = unsafe { &*lwp.as_ptr() };
        if member.is_refused.load(Ordering::Relaxed) {
            return Err(Refused);
        }
        NonNull::new(member.scratch.get()).ok_or(Refused)
    }
}

// SAFETY: the member's field.
unsafe impl DebugArea for Member {
    unsafe fn debug_area(lwp: NonNull<Self>) -> Result<NonNull<Breakpoints>, Refused> {
        // SAFETY: the caller promises that the member is valid.
        let debug = unsafe { &(*lwp.as_ptr()).debug };
        NonNull::new(debug.get()).ok_or(Refused)
    }
}

// SAFETY:
// P1: interrupts off, as for the testbed itself.
// P2: `cpu::index` reads the executing CPU's own block.
// P3: the array of the one static.
// P4: a field of the member, which is in an `Arc` for as long as an LWP plays it.
// P5: `new_domain` gives each number once; members that trust each other share one.
// P6: `crosscall::call` does just that.
// P7: there are no sections in this kernel.
unsafe impl Kernel<N_UNITS> for Annex {
    type Lwp = Member;
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

    fn cpu_pcu(&self, cpu: CpuId) -> &CpuPcu<Member, N_UNITS> {
        &self.0[cpu.index()]
    }

    unsafe fn lwp_pcu(&self, lwp: NonNull<Member>) -> NonNull<LwpPcu<N_UNITS>> {
        // SAFETY: the caller promises that the member is valid; only the field's address is taken.
        let field = unsafe { &raw const (*lwp.as_ptr()).pcu };
        // SAFETY: the address of a field is not null.
        unsafe { NonNull::new_unchecked(field.cast_mut()) }
    }

    unsafe fn domain(&self, lwp: NonNull<Member>) -> Option<Domain> {
        // SAFETY: the caller promises that the member is valid.
        Domain::new(unsafe { &(*lwp.as_ptr()).fpu }.domain())
    }

    fn cross_call(
        &self,
        ipl: IplPcu<'_, Self, N_UNITS>,
        cpu: CpuId,
        f: CrossCall<'_, Self, N_UNITS>,
    ) -> Result<(), NoAnswer> {
        let run = || {
            // SAFETY: a cross-call's function runs with interrupts off on its CPU until it returns.
            f(&unsafe { IplPcu::assume(&ANNEX) });
        };
        crosscall::call(ipl, cpu.index(), &run).map_err(|crosscall::NoAnswer| NoAnswer(cpu))
    }
}

/// Whom `lwp` plays.
fn member(lwp: &Lwp) -> Option<&Member> {
    // SAFETY: the LWP put it there, and takes it away before its `Arc` is dropped.
    unsafe { lwp.member.load(Ordering::Acquire).as_ref() }
}

/// The scheduler: `lwp` leaves this CPU. Interrupts are off.
pub(crate) fn switch_out(lwp: &Lwp) {
    if let Some(member) = member(lwp) {
        // SAFETY: the scheduler runs with interrupts off.
        let ipl = unsafe { IplPcu::assume(&ANNEX) };
        UNITS.switch_out(&ipl, &mut member.token());
    }
}

/// The scheduler: `lwp` has arrived and is current; it goes to what stands for user mode, unless it is in a system call. Interrupts are off.
pub(crate) fn switchpoint(lwp: &Lwp) {
    if let Some(member) = member(lwp) {
        // SAFETY: the scheduler runs with interrupts off, and `keep` leaves them so.
        let ipl = unsafe { IplPcu::assume(&ANNEX) };
        UNITS.switchpoint(&ipl, Some(&mut member.token()));
        if !member.is_in_kernel.load(Ordering::Relaxed) {
            UNITS.before_user(ipl, &mut member.token()).keep();
        }
    }
}

/// Serves the exception if a member caused it by a unit; whether it did. Interrupts are off, and are so again at the end.
pub(crate) fn serves(frame: &Frame, address: u64) -> bool {
    let lwp = sched::current();
    let Some(member) = member(&lwp).filter(|_| frame.rflags & 1 << 9 != 0) else {
        return false;
    };
    let unit = match frame.vector {
        VECTOR_DEVICE_NOT_AVAILABLE => FPU,
        VECTOR_PAGE_FAULT if address / PAGE_BYTES == window::WINDOW / PAGE_BYTES => SCRATCH,
        VECTOR_DEBUG => {
            // SAFETY: the kernel runs in ring 0.
            let hits = unsafe { take_hits() };
            let n_hits = u64::from(hits.count_ones());
            member.n_hits.fetch_add(n_hits, Ordering::Relaxed);
            return hits != 0;
        }
        _ => return false,
    };
    // SAFETY: the trap's entry turned interrupts off where they were on, and nobody else turns them on again.
    let ipl = unsafe { IplPcu::adopt(&ANNEX, true) };
    let result = UNITS.trap(ipl, &mut member.token(), unit);
    interrupts::disable();
    if let Err(error) = result {
        panic!("{} at {:#x}: {error}", lwp.name, frame.rip);
    }
    true
}

/// Starts a kernel thread on CPU `cpu` that plays `member` while `f` runs.
pub fn spawn(
    name: &str,
    cpu: usize,
    member: &Arc<Member>,
    f: impl FnOnce(&Member) + Send + 'static,
) -> Arc<Lwp> {
    let member = Arc::clone(member);
    spawn_plain(name, cpu, move || play(&member, f))
}

fn play(member: &Member, f: impl FnOnce(&Member)) {
    let set = |pointer: *mut Member| {
        sched::with_current(|lwp| lwp.member.store(pointer, Ordering::Release));
    };
    {
        let _off = InterruptsOff::new();
        set((&raw const *member).cast_mut());
        sched::with_current(switchpoint);
    }
    f(member);
    sched::without_preemption(|| {
        assert_eq!(UNITS.exit(member.token()), Ok(()), "the end of a member");
        set(null_mut());
    });
}

/// Does `f` with the current member's token, as a system call does, and comes back to what stands for user mode. One that is preempted
/// in `f` goes on in the kernel.
pub fn operate<R>(member: &Member, f: impl FnOnce(&mut Me) -> R) -> R {
    let was_in_kernel = member.is_in_kernel.swap(true, Ordering::Relaxed);
    let result = f(&mut member.token());
    let _off = InterruptsOff::new();
    member.is_in_kernel.store(was_in_kernel, Ordering::Relaxed);
    // SAFETY: interrupts are off.
    let ipl = unsafe { IplPcu::assume(&ANNEX) };
    UNITS.before_user(ipl, &mut member.token()).keep();
    result
}

/// Makes a child of the current member in `domain`, with its registers; it has not run.
///
/// # Panics
///
/// When the CPU that holds them does not answer.
pub fn fork(parent: &Member, domain: u64) -> Arc<Member> {
    let child = Member::new(domain);
    operate(parent, |me| {
        // SAFETY: nobody plays it yet.
        let mut child = unsafe { Stopped::new(&ANNEX, NonNull::from(&*child)) };
        assert_eq!(UNITS.fork(me, &mut child), Ok(()));
    });
    child
}

/// Gives the current member these breakpoints in place of all that it has, as a debugger's call does.
///
/// # Panics
///
/// When the CPU that holds those does not answer.
pub fn watch(member: &Member, breakpoints: &Breakpoints) {
    let replaced = operate(member, |me| {
        UNITS.replace(me, DEBUG, |_| {
            // SAFETY: there is no state meanwhile, so that nobody else reads or writes it.
            unsafe { member.debug.get().write(breakpoints.clone()) };
            Ok::<(), NoAnswer>(())
        })
    });
    assert_eq!(replaced, Ok(()));
}

/// A breakpoint for writes of 8 bytes to `address`, in `DRn`.
///
/// # Panics
///
/// When it is not a place in user mode's half.
pub fn on_write(n: usize, address: u64) -> Breakpoints {
    let mut addresses = [0; 4];
    addresses[n] = address;
    // Enabled locally, for writes (1), of 8 bytes (2). Intel SDM, volume 3B, "Debug Control Register (DR7)".
    let control = 1 << (2 * n) | 0b1001 << (16 + 4 * n);
    Breakpoints::new(addresses, control, USER_END).expect("a user address")
}

/// Brings every CPU its window and its tables into force: the policy of this pass where the unit can have it, else `Deferred`, and
/// the leak rule. Leaves the caller on the last CPU, with all units empty.
///
/// # Panics
///
/// When a unit whose use does not trap takes a policy that waits for a use.
pub fn begin(rule: LeakRule) {
    for cpu in (0..cpu::n_cpus()).rev().chain([cpu::n_cpus() - 1]) {
        move_to(cpu);
        window::give();
    }
    end(rule);
    let nobody = Member::alone();
    for unit in [FPU, SCRATCH, DEBUG] {
        let set = |policy| UNITS.set_policy(&mut nobody.token(), cpus(), unit, policy);
        let wanted = policies::policy();
        let result = set(wanted);
        if unit == DEBUG && wanted.needs_traps() {
            assert_eq!(result, Err(PolicyError::NeedsTraps(DEBUG)), "{wanted:?}");
            assert_eq!(set(Policy::Deferred), Ok(()));
        } else {
            assert_eq!(result, Ok(()), "{wanted:?}");
        }
    }
}

/// Sets the leak rule, and leaves every CPU's units empty.
///
/// # Panics
///
/// When a CPU does not answer.
pub fn end(rule: LeakRule) {
    let nobody = Member::alone();
    let result = UNITS.set_leak_rule(&mut nobody.token(), cpus(), rule);
    assert_eq!(result, Ok(()));
}

fn cpus() -> impl Iterator<Item = CpuId> {
    (0..cpu::n_cpus()).map(cpu_id)
}

/// What was counted of `unit`, on all CPUs.
pub fn stats(unit: UnitId) -> UnitStats {
    cpus().fold(UnitStats::default(), |mut sum, cpu| {
        sum += ANNEX.cpu_pcu(cpu).stats(unit);
        sum
    })
}

/// The scratch registers of CPU `cpu`, behind an open or a closed gate.
///
/// # Panics
///
/// Before [`begin`].
pub fn past_the_gate(cpu: usize) -> Registers {
    let (registers, _) = window::of(cpu).expect("a CPU with a window");
    // SAFETY: the frame is there for good; a torn value of a running member would be found wrong.
    unsafe { registers.read_volatile() }
}

/// Can the scratch registers be used on this CPU without a fault?
///
/// # Panics
///
/// Before [`begin`].
pub fn is_window_open() -> bool {
    let _off = InterruptsOff::new();
    let (_, entry) = window::of(cpu::index()).expect("a CPU with a window");
    // SAFETY: the entry is there for good, and atomic.
    unsafe { entry.as_ref() }.load(Ordering::Relaxed) & 1 != 0
}

/// Reads scratch register `n` where user mode does. May fault.
///
/// # Panics
///
/// When there is no such register.
pub fn scratch(n: usize) -> u64 {
    // SAFETY: the window, for a member; its fault is served.
    unsafe { word(window::WINDOW, n).read_volatile() }
}

/// Writes scratch register `n`. May fault.
///
/// # Panics
///
/// When there is no such register.
pub fn set_scratch(n: usize, value: u64) {
    // SAFETY: as in `scratch`.
    unsafe { word(window::WINDOW, n).write_volatile(value) };
}

/// Writes word `n` of the page of plain memory.
///
/// # Panics
///
/// When there is no such word.
pub fn set_plain(n: usize, value: u64) {
    // SAFETY: the page is mapped, and nothing else is there.
    unsafe { word(window::PLAIN, n).write_volatile(value) };
}

/// The address of word `n` of the page of plain memory.
pub fn plain_address(n: usize) -> u64 {
    window::PLAIN + 8 * n as u64
}

fn word(page: u64, n: usize) -> *mut u64 {
    assert!(n < 512, "a page has 512 words");
    core::ptr::with_exposed_provenance_mut((page as usize) + 8 * n)
}
