//! The timer's handler uses the FPU itself, whatever it came into: a kernel section by the clock.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use spin::Once;

use super::{prepare_slot, yield_until};
use crate::cpu::{self, MAX_CPUS, time};
use crate::glue::{self, NoSection};
use crate::lwp::Lwp;
use crate::registers::RegisterFile;
use crate::step;
use crate::watch;

/// How the timer's handler has the FPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TimerSection {
    /// Not at all.
    Off,
    /// In a section, with a slot of its CPU's for the registers of another one that it came into.
    WithSlot,
    /// In a section, without: there it is refused.
    WithoutSlot,
}

static HOW: AtomicU8 = AtomicU8::new(TimerSection::Off as u8);
static SLOTS: [Once<Arc<Lwp>>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];
static COUNTS: [Counters; MAX_CPUS] = [const { Counters::new() }; MAX_CPUS];

/// What one CPU has seen.
struct Counters {
    entered: AtomicU64,
    nested: AtomicU64,
    refused: AtomicU64,
    not_initial: AtomicU64,
    lost: AtomicU64,
    left_behind: AtomicU64,
    /// The next section is not before this reading of the time stamp counter.
    next: AtomicU64,
    /// The handler is under way.
    is_inside: AtomicBool,
}

/// What came of the timer's sections since they were turned on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerSections {
    /// Sections entered.
    pub entered: u64,
    /// Those of them inside another one.
    pub nested: u64,
    /// Sections refused.
    pub refused: u64,
    /// Sections that found registers or control words other than the initial ones.
    pub not_initial: u64,
    /// Sections that did not find what they had written themselves.
    pub lost: u64,
    /// Sections, of those that were in no other one, that left something in the registers.
    pub left_behind: u64,
}

impl Counters {
    const fn new() -> Self {
        Self {
            entered: AtomicU64::new(0),
            nested: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            not_initial: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            left_behind: AtomicU64::new(0),
            next: AtomicU64::new(0),
            is_inside: AtomicBool::new(false),
        }
    }

    fn all(&self) -> [&AtomicU64; 6] {
        let Self {
            entered,
            nested,
            refused,
            not_initial,
            lost,
            left_behind,
            next: _,
            is_inside: _,
        } = self;
        [entered, nested, refused, not_initial, lost, left_behind]
    }
}

/// Says how the timer's handler has the FPU from now on, on all CPUs; unless it is `Off`, what came of it is counted from 0. `Off`
/// waits until the handlers that are under way are over.
///
/// # Panics
///
/// Without memory for the slots; when a handler is not over within a minute.
pub fn use_fpu_in_timer(how: TimerSection) {
    for cpu in 0..cpu::n_cpus() {
        SLOTS[cpu].call_once(prepare_slot);
        if how != TimerSection::Off {
            for counter in COUNTS[cpu].all() {
                counter.store(0, Ordering::Relaxed);
            }
        }
    }
    // A handler that has not read this is inside already, for the wait to see: one order of all four accesses.
    HOW.store(how as u8, Ordering::SeqCst);
    let is_over = || {
        let mut counts = COUNTS[..cpu::n_cpus()].iter();
        counts.all(|cpu| !cpu.is_inside.load(Ordering::SeqCst))
    };
    assert!(
        how != TimerSection::Off || yield_until(is_over),
        "a timer's handler is not over"
    );
}

/// What came of the sections on CPU `cpu`.
pub fn timer_sections_on(cpu: usize) -> TimerSections {
    let [entered, nested, refused, not_initial, lost, left_behind] = COUNTS[cpu]
        .all()
        .map(|counter| counter.load(Ordering::Relaxed));
    TimerSections {
        entered,
        nested,
        refused,
        not_initial,
        lost,
        left_behind,
    }
}

/// What came of the sections on all CPUs.
pub fn timer_sections() -> TimerSections {
    let cpus = (0..cpu::n_cpus()).map(timer_sections_on);
    cpus.fold(TimerSections::default(), |sum, one| TimerSections {
        entered: sum.entered + one.entered,
        nested: sum.nested + one.nested,
        refused: sum.refused + one.refused,
        not_initial: sum.not_initial + one.not_initial,
        lost: sum.lost + one.lost,
        left_behind: sum.left_behind + one.left_behind,
    })
}

/// The timer's handler: interrupts are off.
pub(crate) fn in_timer() {
    let cpu = cpu::index();
    let counts = &COUNTS[cpu];
    counts.is_inside.store(true, Ordering::SeqCst);
    match HOW.load(Ordering::SeqCst) {
        how if how == TimerSection::WithSlot as u8 => {
            use_fpu(cpu, counts, SLOTS[cpu].get().map(|slot| &**slot));
        }
        how if how == TimerSection::WithoutSlot as u8 => use_fpu(cpu, counts, None),
        _ => {}
    }
    counts.is_inside.store(false, Ordering::SeqCst);
}

fn use_fpu(cpu: usize, counts: &Counters, slot: Option<&Lwp>) {
    // Between two ticks Bochs executes fewer instructions than a section has; the LWPs get most of the time all the same.
    let begin = time::ticks();
    if begin < counts.next.load(Ordering::Relaxed) {
        return;
    }
    let add = |counter: &AtomicU64, n: bool| counter.fetch_add(n.into(), Ordering::Relaxed);
    let is_nested = glue::in_section();
    let seed = add(&counts.entered, false) << 8 | cpu as u64;
    let result = glue::section_in_interrupt(slot, || use_all_registers(seed));
    match result {
        Ok(found) => {
            add(&counts.not_initial, !found.was_initial);
            add(&counts.lost, !found.kept);
            add(&counts.nested, is_nested);
            add(&counts.entered, true);
        }
        Err(NoSection::Refused(_)) => {
            add(&counts.refused, true);
        }
        Err(error @ NoSection::Nmi) => panic!("the timer's handler: {error}"),
    }
    if !is_nested {
        add(&counts.left_behind, !watch::sees_nothing());
    }
    let end = time::ticks();
    let next = end + 4 * (end - begin);
    counts.next.store(next, Ordering::Relaxed);
}

/// What a section found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Every register and control word had its initial value.
    pub was_initial: bool,
    /// What it wrote, it read again.
    pub kept: bool,
}

/// To be called in a kernel section: looks at every register, and leaves contents of its own in each.
pub fn use_all_registers(seed: u64) -> Found {
    let seed = 0xcafe << 48 ^ seed;
    let was_initial = RegisterFile::is_initial();
    RegisterFile::load_random(seed);
    step::here();
    let kept = RegisterFile::is_random(seed);
    Found { was_initial, kept }
}
