//! Cross-calls: a CPU runs a function for another one, in its interrupt, with interrupts off.
//!
//! Each CPU has a few slots. A caller publishes a pointer to its request in a free slot with interrupts off, sends the
//! interrupt, and then waits with interrupts *on*: two CPUs that ask each other both serve. The whole state of a request
//! is its slot, so that the request itself, which lies on the caller's stack, is touched only by who owns it:
//!
//! ```text
//!            publish                serve                     the function has run
//!   0 ---------------------> p ---------------> p | TAKEN ---------------------------> 0, then `done` (last touch)
//!                            |
//!                            +-- withdraw --> 0    the caller's bound is over: it has not run and never will
//! ```
//!
//! Architecture invariant: from the slot's change to `TAKEN` until `done` the caller waits without bound, since the
//! function is running. A PAUSE in the loops is rare: under emulation it costs milliseconds; without any, an emulator that runs
//! one CPU at a time (QEMU's `-icount`) may never come to the one that is waited for.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use x86_64::instructions::{interrupts, tlb};

use super::{MAX_CPUS, apic, block, n_cpus, this, time};
use crate::lock::InterruptsOff;
use crate::testing::holds;

/// More callers than CPUs may wait at once, since a waiting LWP can be preempted.
const N_SLOTS: usize = 16;
/// Set in a slot while its function runs; requests are aligned, so the bit is free.
const TAKEN: usize = 1;

static SLOTS: [[AtomicUsize; N_SLOTS]; MAX_CPUS] =
    [const { [const { AtomicUsize::new(0) }; N_SLOTS] }; MAX_CPUS];

/// How long a caller waits for the other CPU to begin.
static BOUND_MS: AtomicU64 = AtomicU64::new(10_000);

/// The other CPU did not begin in time; the function has not run and never will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

/// A call on its way. Made and waited for by one caller.
struct Request<'a> {
    f: &'a (dyn Fn() + Sync + 'a),
    done: AtomicBool,
}

/// Sets the bound after which a cross-call is withdrawn, and gives the one before; for tests.
pub fn set_bound_ms(ms: u64) -> u64 {
    BOUND_MS.swap(ms, Ordering::Relaxed)
}

/// When a wait that begins now has lasted as long as the bound.
pub(super) fn end_of_patience() -> u64 {
    time::ticks() + BOUND_MS.load(Ordering::Relaxed) * time::ticks_per_ms()
}

/// How many callers want something of CPU C, from before they look whether it runs.
static N_ASKING: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];

/// One caller, counted while it exists.
struct Asking(usize);

impl Asking {
    fn of(cpu: usize) -> Self {
        N_ASKING[cpu].fetch_add(1, Ordering::SeqCst);
        Self(cpu)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        N_ASKING[self.0].fetch_sub(1, Ordering::SeqCst);
    }
}

/// Does anybody still want something of CPU `cpu`?
pub(super) fn is_asked(cpu: usize) -> bool {
    N_ASKING[cpu].load(Ordering::SeqCst) != 0
}

/// How many requests to CPU `cpu` are published and not begun; for tests that place what happens by hand.
pub fn n_pending(cpu: usize) -> usize {
    let is_pending = |slot: &&AtomicUsize| {
        let pointer = slot.load(Ordering::Acquire);
        pointer != 0 && pointer & TAKEN == 0
    };
    SLOTS[cpu].iter().filter(is_pending).count()
}

/// Runs `f` on CPU `cpu` with interrupts off there, and waits for its end. On the own CPU it runs at once.
///
/// `raised` is the bracket (interrupts off) in which the caller found out that it wants to ask; it ends here, once the
/// request is published.
/// Interrupts are on while it waits, and as before the bracket when it returns.
///
/// # Errors
///
/// [`NoAnswer`] when the CPU does not run, or in a panic, or does not begin within the bound.
pub(crate) fn call<Raised>(
    raised: Raised,
    cpu: usize,
    f: &(dyn Fn() + Sync + '_),
) -> Result<(), NoAnswer> {
    if cpu == super::index() {
        f();
        return Ok(());
    }
    if crate::exit::panicked() || cpu >= n_cpus() {
        return Err(NoAnswer);
    }
    // In this order: a CPU that goes says so first, and then serves everybody who counts.
    let _asking = Asking::of(cpu);
    if !block(cpu).started.load(Ordering::SeqCst) {
        return Err(NoAnswer);
    }
    let request = Request {
        f,
        done: AtomicBool::new(false),
    };
    let pointer = (&raw const request).expose_provenance();
    debug_assert!(pointer & TAKEN == 0, "a request is aligned");
    let end = end_of_patience();

    let mut slot = publish(cpu, pointer);
    drop(raised);
    let were_on = interrupts::are_enabled();
    interrupts::enable();
    let mut pause = RarePause::default();
    while slot.is_none() && time::ticks() < end {
        pause.here();
        slot = publish(cpu, pointer);
    }
    let result = match slot {
        Some(slot) => wait(&request, slot, pointer, end),
        None => Err(NoAnswer),
    };
    if !were_on {
        interrupts::disable();
    }
    result
}

/// Lets every other CPU forget what it remembers of the lower half of its page tables; one that is offline comes back without it.
/// Interrupts are on.
///
/// # Panics
///
/// When a CPU does not answer.
pub(crate) fn flush_others() {
    debug_assert!(interrupts::are_enabled(), "a flush with interrupts off");
    for cpu in 0..n_cpus() {
        // The caller is not moved: whoever holds a space's lock is not preempted.
        if cpu != super::index() {
            let flushed = call(InterruptsOff::new(), cpu, &tlb::flush_all);
            let is_gone = || !block(cpu).started.load(Ordering::SeqCst);
            assert!(
                flushed.is_ok() || is_gone(),
                "CPU {cpu} does not flush its TLB"
            );
        }
    }
}

/// One PAUSE in so many turns of a loop that waits.
#[derive(Default)]
struct RarePause(u16);

impl RarePause {
    fn here(&mut self) {
        self.0 = self.0.wrapping_add(1) % 4096;
        if self.0 == 0 {
            spin_loop();
        }
    }
}

/// Puts the request in a free slot and sends the interrupt; with interrupts off in between.
fn publish(cpu: usize, pointer: usize) -> Option<&'static AtomicUsize> {
    let _off = InterruptsOff::new();
    let slot = SLOTS[cpu].iter().find(|slot| {
        slot.compare_exchange(0, pointer, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    })?;
    apic::send(
        block(cpu).apic_id.load(Ordering::Relaxed),
        apic::VECTOR_CROSS_CALL,
    );
    holds::has_asked();
    Some(slot)
}

fn wait(
    request: &Request<'_>,
    slot: &AtomicUsize,
    pointer: usize,
    end: u64,
) -> Result<(), NoAnswer> {
    let mut pause = RarePause::default();
    while !request.done.load(Ordering::Acquire) {
        pause.here();
        // Only a request that nobody has begun can be withdrawn, and it is only ever this caller's: no other request has
        // this address while this one lives.
        if time::ticks() >= end
            && slot
                .compare_exchange(pointer, 0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            return Err(NoAnswer);
        }
    }
    Ok(())
}

/// Runs what other CPUs ask of this one: the interrupt's handler, interrupts off.
pub(super) fn serve() {
    let cpu = super::index();
    this()
        .counters
        .cross_calls_served
        .fetch_add(1, Ordering::Relaxed);
    for slot in &SLOTS[cpu] {
        let pointer = slot.load(Ordering::Relaxed);
        if pointer == 0 || pointer & TAKEN != 0 {
            continue;
        }
        if slot
            .compare_exchange(
                pointer,
                pointer | TAKEN,
                Ordering::Acquire,
                Ordering::Relaxed,
            )
            .is_err()
        {
            continue; // withdrawn
        }
        let request = core::ptr::with_exposed_provenance::<Request<'_>>(pointer);
        // SAFETY: the slot was taken while the request stood in it, so its caller waits for `done` and the request lives.
        let f = unsafe { (*request).f };
        f();
        // SAFETY: as above; `done` is not set yet.
        let done = unsafe { &raw const (*request).done };
        slot.store(0, Ordering::Relaxed);
        // SAFETY: as above; this is the last touch, and through a raw pointer, since the request may end with it.
        unsafe { AtomicBool::store(&*done, true, Ordering::Release) };
    }
}
