//! What happened in the stress, by kinds, and how much of each is the least.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::cpu::n_cpus;
use crate::glue::{EXECS, EXITS, FORKS, PERCPU, SIGNALS};
use crate::sched::{Counters, counters};
use crate::testing::timer_sections;

/// What the stress itself does: see [`note`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Done {
    Push,
    Section,
    Policy,
    Rule,
    Offline,
    Online,
}

static DONE: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

/// Counts it.
pub(super) fn note(done: Done) {
    DONE[done as usize].fetch_add(1, Ordering::Relaxed);
}

/// The kinds, and how many a minute there must be.
const KINDS: [(&str, u64); N_KINDS] = [
    ("switches", 10_000),
    ("preemptions", 1000),
    ("migrations", 1000),
    ("forced moves", 300),
    ("signals", 100),
    ("forks", 100),
    ("execs", 30),
    ("exits", 100),
    ("sections of LWPs", 100),
    ("sections in interrupts", 1000),
    ("policy changes", 100),
    ("leak rule changes", 12),
    ("CPUs offline", 6),
    ("CPUs online", 6),
];
const N_KINDS: usize = 14;

/// How many of each kind there have been.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally([u64; N_KINDS]);

impl Tally {
    /// Up to now.
    pub(super) fn now() -> Self {
        let sum = |of: fn(&Counters) -> &AtomicU64| {
            let each = (0..n_cpus()).map(|cpu| of(counters(cpu)).load(Ordering::Relaxed));
            each.sum::<u64>()
        };
        let done = |done: Done| DONE[done as usize].load(Ordering::Relaxed);
        Self([
            sum(|counters| &counters.switches),
            sum(|counters| &counters.preemptions),
            sum(|counters| &counters.migrations),
            done(Done::Push),
            SIGNALS.fetch(&PERCPU),
            FORKS.get().map_or(0, |forks| forks.fetch(&PERCPU)),
            EXECS.fetch(&PERCPU),
            EXITS.fetch(&PERCPU),
            done(Done::Section),
            timer_sections().entered,
            done(Done::Policy),
            done(Done::Rule),
            done(Done::Offline),
            done(Done::Online),
        ])
    }

    /// What has come since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        let places = since.0.iter_mut().zip(before.0);
        places.for_each(|(n, before)| *n -= before);
        since
    }

    /// The kinds of which there are too few for a run of `seconds`: their names, how many there are, how many are needed. At least
    /// one of each.
    pub(super) fn below_floors(
        &self,
        seconds: u64,
    ) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let floors = KINDS.map(|(kind, a_minute)| (kind, (a_minute * seconds / 60).max(1)));
        let rows = floors.into_iter().zip(self.0);
        rows.filter(|((_, floor), n)| n < floor)
            .map(|((kind, floor), n)| (kind, n, floor))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, ((kind, _), n)) in KINDS.iter().zip(self.0).enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{n} {kind}")?;
        }
        Ok(())
    }
}
