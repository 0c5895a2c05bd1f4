//! The trace: every slice of every CPU, recorded when the command line has `trace=1`, and printed at the end.
//!
//! A slice is a stretch of one LWP on one CPU between two context switches. Each CPU fills its own buffer, in the switch,
//! and only counts what there is no room for. The slices of a CPU follow each other without a gap, so a record says how long
//! its slice took, and only the first one's beginning is kept.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use spin::Once;

use crate::cpu::{self, MAX_CPUS, time};
use crate::glue::{self, FPU};
use crate::line;
use crate::lwp::Lwp;
use crate::memory::{PAGE_BYTES, direct_map, frames};

/// How many slices a CPU has room for: about a minute of one that is busy.
const MAX_SLICES: usize = 1 << 18;
/// How many slices stand on a line.
const LINE_SLICES: usize = 16;

/// A slice that is over.
#[derive(Debug)]
struct Record {
    ticks: AtomicU64,
    lwp: AtomicU64,
    /// `USER`, `USED` and `MIGRATED`, and above them 0 for idle, 1 for the kernel, or a job's number plus 2.
    what: AtomicU64,
}

const USER: u64 = 1;
const USED: u64 = 2;
const MIGRATED: u64 = 4;
const WHO: u32 = 3;

/// What a CPU records; written by itself alone, with interrupts off.
#[derive(Debug)]
struct Recorder {
    buffer: Once<&'static [Record]>,
    n: AtomicUsize,
    lost: AtomicU64,
    /// When the first record's slice began.
    first: AtomicU64,
    /// When the slice that runs began; 0 before the first switch.
    since: AtomicU64,
    /// `MIGRATED`, or nothing, of the slice that runs.
    arrival: AtomicU64,
    /// [`uses`] when it began.
    uses: AtomicU64,
    /// Whether it has entered user mode.
    user: AtomicBool,
}

static RECORDERS: [Recorder; MAX_CPUS] = [const {
    Recorder {
        buffer: Once::new(),
        n: AtomicUsize::new(0),
        lost: AtomicU64::new(0),
        first: AtomicU64::new(0),
        since: AtomicU64::new(0),
        arrival: AtomicU64::new(0),
        uses: AtomicU64::new(0),
        user: AtomicBool::new(false),
    }
}; MAX_CPUS];

static ON: AtomicBool = AtomicBool::new(false);

/// Begins to record.
///
/// # Panics
///
/// Without memory for the buffers.
pub(crate) fn start() {
    for recorder in &RECORDERS[..cpu::n_cpus()] {
        recorder.buffer.call_once(|| {
            let bytes = (MAX_SLICES * size_of::<Record>()) as u64;
            let at = frames::allocate_contiguous(bytes.div_ceil(PAGE_BYTES))
                .expect("no memory for the trace");
            let records = direct_map::<Record>(at).cast_const();
            // SAFETY: the frames are nobody else's for the rest of the run, the direct map covers them, a page is aligned
            // well enough, and a record may have any bits.
            unsafe { core::slice::from_raw_parts(records, MAX_SLICES) }
        });
    }
    ON.store(true, Ordering::Release);
}

/// The scheduler: this CPU, number `cpu`, leaves `from`, and its next LWP came from another one or not. Interrupts are off.
pub(crate) fn note_switch(cpu: usize, from: &Lwp, migrates: bool) {
    if ON.load(Ordering::Acquire) {
        RECORDERS[cpu].note_switch(cpu, from, migrates);
    }
}

/// The way to user mode. Interrupts are off.
pub(crate) fn note_user() {
    if ON.load(Ordering::Relaxed) {
        RECORDERS[cpu::index()].user.store(true, Ordering::Relaxed);
    }
}

impl Recorder {
    #[cold]
    fn note_switch(&self, cpu: usize, from: &Lwp, migrates: bool) {
        let (now, uses) = (time::ticks(), uses(cpu));
        let since = self.since.swap(now, Ordering::Relaxed);
        let arrival = if migrates { MIGRATED } else { 0 };
        let mut what = self.arrival.swap(arrival, Ordering::Relaxed);
        if self.user.swap(false, Ordering::Relaxed) {
            what |= USER;
        }
        if self.uses.swap(uses, Ordering::Relaxed) != uses {
            what |= USED;
        }
        let who = from.whose();
        if since == 0 {
            self.first.store(now, Ordering::Relaxed);
            return; // what ran when the recording began
        }
        let n = self.n.load(Ordering::Relaxed);
        let Some(record) = self.buffer.get().and_then(|buffer| buffer.get(n)) else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        record.ticks.store(now - since, Ordering::Relaxed);
        record.lwp.store(from.number(), Ordering::Relaxed);
        record.what.store(what | who << WHO, Ordering::Relaxed);
        self.n.store(n + 1, Ordering::Release);
    }
}

/// A number that changes when the LWP that runs on `cpu` uses the FPU and the gate is closed: by a trap there, or by what
/// came of one that began elsewhere. What a switch brings in by itself leaves it alone.
fn uses(cpu: usize) -> u64 {
    let unit = glue::cpu_pcu(cpu).stats(FPU);
    (unit.traps + unit.inits + unit.restores + unit.reenables_trap + unit.spurious + unit.failed)
        .wrapping_sub(unit.preloads)
}

/// Stops recording, and prints the slices of each CPU (`@slice`) and what there is to say of them (`@trace`).
pub(crate) fn print() {
    if !ON.swap(false, Ordering::AcqRel) {
        return;
    }
    for (cpu, recorder) in RECORDERS[..cpu::n_cpus()].iter().enumerate() {
        let n = recorder.n.load(Ordering::Acquire);
        let mut begin = recorder.first.load(Ordering::Relaxed);
        let records = recorder.buffer.get().map_or(&[][..], |buffer| &buffer[..n]);
        for records in records.chunks(LINE_SLICES) {
            line!("@slice {cpu} {begin:x}{}", Words(records));
            let ticks = records
                .iter()
                .map(|record| record.ticks.load(Ordering::Relaxed));
            begin += ticks.sum::<u64>();
        }
        line!(
            "@trace {cpu} slices={n} lost={} tsc_khz={}",
            recorder.lost.load(Ordering::Relaxed),
            time::ticks_per_ms()
        );
    }
}

/// Slices as words: ` TICKS,LWP,WHO,BITS`.
struct Words<'a>(&'a [Record]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for record in self.0 {
            let ticks = record.ticks.load(Ordering::Relaxed);
            let lwp = record.lwp.load(Ordering::Relaxed);
            let what = record.what.load(Ordering::Relaxed);
            write!(f, " {ticks:x},{lwp},")?;
            match what >> WHO {
                0 => f.write_str("i")?,
                1 => f.write_str("k")?,
                who => write!(f, "j{}", who - 2)?,
            }
            let mut separator = ",";
            for (bit, letter) in [(USER, "u"), (USED, "f"), (MIGRATED, "m")] {
                if what & bit != 0 {
                    write!(f, "{separator}{letter}")?;
                    separator = "";
                }
            }
        }
        Ok(())
    }
}
