//! CPUs leave and come back, and the machine sleeps and wakes.
//!
//! A CPU leaves in four steps. Its LWPs go elsewhere, those that are pinned to it too, until it is back. It gives up what its units
//! hold (`Pcu::cpu_offline`). It serves whoever had a reason to ask it before that. Then it stops with interrupts off and answers
//! nothing. It comes back as CPUs start, by INIT and STARTUP; what its registers hold then is anything, of which this file makes
//! sure.
//!
//! Architecture invariant: who read in an LWP's word that it was live on a CPU is never turned away by that CPU's going. It reads
//! and publishes its request in one stretch with interrupts off; so when every other CPU has answered a call after the units were
//! given up, all such requests are on their way, and `crosscall` counts those that still want to publish.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use pcu9::percpu::CpuState;
use pcu9::x86_64::fpu;
use x86_64::instructions::interrupts;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

use super::crosscall::{self, NoAnswer};
use super::{MAX_CPUS, block, n_cpus, smp, time};
use crate::glue::{self, PERCPU, cpu_id};
use crate::lock::InterruptsOff;
use crate::registers::{Pattern, YmmPattern};
use crate::report::has_avx;
use crate::sched;

/// Bit C: LWPs may run on CPU C.
static ONLINE: AtomicU64 = AtomicU64::new(0);

/// How far CPU C has gone.
static STEP: [AtomicU8; MAX_CPUS] = [const { AtomicU8::new(STAYS) }; MAX_CPUS];
const STAYS: u8 = 0;
/// It was asked to, and may still be asked to stay.
const LEAVING: u8 = 1;
/// Its units are nobody's, and it will stop.
const GOING: u8 = 2;
const GONE: u8 = 3;
/// It was asked to stop as it is, and lose what it holds.
const STOPPING: u8 = 4;

/// How many states CPUs have taken with them that stopped without leaving.
static N_LOST: AtomicU64 = AtomicU64::new(0);

/// The CPUs on which LWPs may run.
pub(crate) fn online() -> u64 {
    ONLINE.load(Ordering::SeqCst)
}

/// Whether CPU `cpu` runs LWPs.
pub fn is_online(cpu: usize) -> bool {
    online() & 1 << cpu != 0
}

/// Notes that CPU `cpu` runs LWPs from now on.
pub(crate) fn joins(cpu: usize) {
    STEP[cpu].store(STAYS, Ordering::SeqCst);
    ONLINE.fetch_or(1 << cpu, Ordering::SeqCst);
}

/// Has CPU `cpu` been asked to leave?
pub(crate) fn is_leaving(cpu: usize) -> bool {
    STEP[cpu].load(Ordering::SeqCst) == LEAVING
}

/// How many states were lost with CPUs that stopped without leaving.
pub fn n_lost() -> u64 {
    N_LOST.load(Ordering::Relaxed)
}

/// Notes that a CPU lost a state.
pub(crate) fn note_loss() {
    N_LOST.fetch_add(1, Ordering::Relaxed);
}

/// Takes CPU `cpu` offline. Its LWPs go elsewhere, and nobody loses a register.
///
/// # Errors
///
/// [`NoAnswer`] when it does not leave within the bound of a cross-call; it stays then, and is online again when it comes to its
/// idle LWP.
///
/// # Panics
///
/// For the boot CPU, which keeps the time, and for a CPU that is not online.
pub fn offline(cpu: usize) -> Result<(), NoAnswer> {
    assert!(cpu != 0, "the boot CPU stays online");
    assert!(is_online(cpu), "CPU {cpu} is not online");
    STEP[cpu].store(LEAVING, Ordering::SeqCst);
    ONLINE.fetch_and(!(1 << cpu), Ordering::SeqCst);
    sched::request_reschedule(cpu);
    let end = crosscall::end_of_patience();
    loop {
        match STEP[cpu].load(Ordering::SeqCst) {
            GONE => return Ok(()),
            LEAVING if time::ticks() >= end && step(cpu, LEAVING, STAYS) => return Err(NoAnswer),
            _ => sched::yield_now(),
        }
    }
}

fn step(cpu: usize, from: u8, to: u8) -> bool {
    STEP[cpu]
        .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
        .is_ok()
}

/// What a CPU does that was asked to leave, on its idle LWP with interrupts off; it returns if it is asked to stay after all.
pub(crate) fn leave() {
    let cpu = super::index();
    if is_leaving(cpu) {
        // What was queued for this CPU at the last moment is for the others.
        sched::leave_to(online());
        glue::cpu_offline();
        give_answers(cpu);
        glue::cpu_online();
    }
    joins(cpu);
}

/// Lets everybody ask who still has a reason to, and stops; returns if this CPU is to stay.
fn give_answers(cpu: usize) {
    for other in (0..n_cpus()).filter(|&other| other != cpu) {
        let has_not_answered = || {
            block(other).started.load(Ordering::SeqCst)
                && is_leaving(cpu)
                && crosscall::call((), other, &|| ()).is_err()
        };
        while has_not_answered() {}
    }
    if !step(cpu, LEAVING, GOING) {
        return;
    }
    let number = cpu_id(cpu);
    block(cpu).started.store(false, Ordering::SeqCst);
    PERCPU.set_offline(number).expect("a CPU with data");
    while crosscall::is_asked(cpu) {
        crosscall::serve();
    }
    STEP[cpu].store(GONE, Ordering::SeqCst);
    crate::exit::stop()
}

/// Brings CPU `cpu` back.
///
/// # Errors
///
/// [`NoAnswer`] when it does not start.
///
/// # Panics
///
/// When it has not left.
pub fn bring_online(cpu: usize) -> Result<(), NoAnswer> {
    let has_left = STEP[cpu].load(Ordering::SeqCst) == GONE;
    assert!(has_left, "CPU {cpu} has not left");
    smp::start_again(cpu).then_some(()).ok_or(NoAnswer)
}

/// Stops for good, if this CPU was asked to: where its idle LWP holds no lock, with interrupts off.
pub(crate) fn stop_if_asked() {
    if step(super::index(), STOPPING, GONE) {
        crate::exit::stop()
    }
}

/// Resets CPU `cpu`, which is idle, without giving it a chance to leave, and starts it again: what is live there is lost.
///
/// # Errors
///
/// [`NoAnswer`] when it does not come to its idle LWP within the bound of a cross-call, or does not start.
///
/// # Panics
///
/// For the boot CPU.
pub fn reset(cpu: usize) -> Result<(), NoAnswer> {
    assert!(cpu != 0, "the boot CPU is not reset");
    STEP[cpu].store(STOPPING, Ordering::SeqCst);
    sched::request_reschedule(cpu);
    let end = crosscall::end_of_patience();
    while STEP[cpu].load(Ordering::SeqCst) != GONE {
        if time::ticks() >= end && step(cpu, STOPPING, STAYS) {
            return Err(NoAnswer);
        }
        sched::yield_now();
    }
    block(cpu).started.store(false, Ordering::SeqCst);
    smp::start_again(cpu).then_some(()).ok_or(NoAnswer)
}

/// Sleeps and wakes as a machine does: every other CPU leaves, this one, the boot CPU, gives up its units and loses what its
/// registers hold, and all start again. No emulator wakes a kernel that was loaded without firmware, so the registers are spoiled
/// by hand.
///
/// # Errors
///
/// [`NoAnswer`] when a CPU does not leave; those that have left are brought back, and nothing else has happened.
///
/// # Panics
///
/// On another CPU than the first, and when a CPU does not come back.
pub fn suspend() -> Result<(), NoAnswer> {
    let others = || (1..n_cpus()).filter(|&cpu| PERCPU.state(cpu_id(cpu)) == CpuState::Started);
    let slept = others().try_for_each(offline);
    if slept.is_ok() {
        let _off = InterruptsOff::new();
        assert_eq!(super::index(), 0, "the boot CPU goes last");
        glue::cpu_offline();
        spoil();
        glue::init_cpu();
    }
    for cpu in (1..n_cpus()).filter(|&cpu| STEP[cpu].load(Ordering::SeqCst) == GONE) {
        assert_eq!(bring_online(cpu), Ok(()), "CPU {cpu} does not come back");
    }
    slept
}

/// Leaves this CPU's FPU as it may be after a deep sleep: somebody's bits in every register, the gate open, all that start-up sets
/// cleared. Interrupts are off, and nobody's state is in the registers.
pub(super) fn spoil() {
    debug_assert!(!interrupts::are_enabled(), "spoiled under an LWP");
    let xcr0 = fpu::features().xcr0();
    let extended = if xcr0 == 0 {
        Cr4Flags::empty()
    } else {
        Cr4Flags::OSXSAVE
    };
    let units = Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE | extended;
    // SAFETY: the kernel is soft-float, and CPUID shows what is enabled.
    unsafe { Cr4::write(Cr4::read() | units) };
    // SAFETY: as above.
    unsafe { Cr0::write(Cr0::read() - Cr0Flags::TASK_SWITCHED) };
    if xcr0 != 0 {
        // SAFETY: the unit's own choice, of what CPUID shows.
        unsafe { XCr0::write(XCr0Flags::from_bits_truncate(xcr0)) };
    }
    Pattern::random(0xdead).load();
    if has_avx() {
        YmmPattern::random(0xdead).load();
    }
    if xcr0 != 0 {
        // SAFETY: what it is after a reset.
        unsafe { XCr0::write(XCr0Flags::X87) };
    }
    // SAFETY: as at the beginning.
    unsafe { Cr4::write(Cr4::read() - units) };
    let cr0 = Cr0::read() - Cr0Flags::MONITOR_COPROCESSOR - Cr0Flags::NUMERIC_ERROR;
    // SAFETY: as at the beginning.
    unsafe { Cr0::write(cr0) };
}
