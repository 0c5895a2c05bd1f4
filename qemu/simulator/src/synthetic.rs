//! Made-up workloads: what the LWPs are like, and how the scheduler deals with them.

use std::collections::VecDeque;
use std::str::FromStr;

use fastrand::Rng;

use super::{Slice, Workload};

/// When an LWP uses the unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Habit {
    /// In each slice with probability `p`, in runs of `run` slices on average (1: each slice for itself).
    Uses {
        /// The share of its slices that use the unit.
        p: f64,
        /// The mean length of a run of slices that do.
        run: f64,
    },
    /// In all of so many slices, then in none of so many, over and over.
    Phases {
        /// Slices with use.
        on: u32,
        /// Slices without.
        off: u32,
    },
}

/// `p=0.9`, `p=0.1,run=8`, or `on=100,off=400`.
impl FromStr for Habit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is none of p=P, p=P,run=N (P from 0 to 1, N from 1), on=N,off=N (N from 1)"
            )
        };
        let figures: Option<Vec<(&str, f64)>> = text
            .split(',')
            .map(|word| {
                word.split_once('=')
                    .and_then(|(key, value)| Some((key, value.parse().ok()?)))
            })
            .collect();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count, checked to be one"
        )]
        let count = |n: f64| (1.0..=1e9).contains(&n).then_some(n as u32);
        let habit = match figures.ok_or_else(wrong)?[..] {
            [("p", p)] if (0.0..=1.0).contains(&p) => Self::Uses { p, run: 1.0 },
            [("p", p), ("run", run)] if (0.0..=1.0).contains(&p) && run >= 1.0 => {
                Self::Uses { p, run }
            }
            [("on", on), ("off", off)] => match (count(on), count(off)) {
                (Some(on), Some(off)) => Self::Phases { on, off },
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        Ok(habit)
    }
}

/// A made-up workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Synthetic {
    /// How many CPUs there are.
    pub n_cpus: u16,
    /// LWPs, each a domain of its own; those at `k` have the habit at `k` modulo the number of habits.
    pub n_lwps: u32,
    /// What they are like.
    pub habits: Vec<Habit>,
    /// How many slices there are in all, kernel threads' not counted.
    pub n_slices: usize,
    /// With which probability an LWP that is about to run goes to another CPU instead.
    pub migration: f64,
    /// With which probability a slice is followed by a kernel thread's, or idleness, and another slice of the same LWP.
    pub stay: f64,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Synthetic {
    /// The share of slices that use the unit, on average, and the mean run of those that do: 0 unless all LWPs have the same habit.
    pub fn shape(&self) -> (f64, f64) {
        let share = |habit: &Habit| match *habit {
            Habit::Uses { p, .. } => p,
            Habit::Phases { on, off } => f64::from(on) / f64::from(on + off),
        };
        #[expect(clippy::cast_precision_loss, reason = "a few habits")]
        let p = self.habits.iter().map(share).sum::<f64>() / self.habits.len() as f64;
        match self.habits[..] {
            [Habit::Uses { run, .. }] => (p, run),
            [Habit::Phases { on, .. }] => (p, f64::from(on)),
            _ => (p, 0.0),
        }
    }

    /// Makes the slices: each CPU in turn runs the first LWP of its queue and puts it at the end.
    ///
    /// # Panics
    ///
    /// Without CPUs, LWPs or habits.
    pub fn make(&self) -> Workload {
        assert!(self.n_cpus > 0 && self.n_lwps > 0 && !self.habits.is_empty());
        let mut rng = Rng::with_seed(self.seed);
        let n_cpus = usize::from(self.n_cpus);
        let mut queues: Vec<VecDeque<u32>> = vec![VecDeque::new(); n_cpus];
        for lwp in 0..self.n_lwps {
            queues[lwp as usize % n_cpus].push_back(lwp);
        }
        let mut drives: Vec<Drive> = (0..self.n_lwps)
            .map(|lwp| Drive::new(self.habits[lwp as usize % self.habits.len()], &mut rng))
            .collect();
        // Each CPU has a kernel thread of its own, behind the LWPs.
        let domains = (1..=u64::from(self.n_lwps))
            .chain((0..n_cpus).map(|_| 0))
            .collect();
        let mut slices = Vec::with_capacity(self.n_slices);
        let mut gap = vec![0; n_cpus];
        let mut n_user = 0;
        'all: loop {
            for cpu in 0..self.n_cpus {
                let here = usize::from(cpu);
                let Some(mut lwp) = queues[here].pop_front() else {
                    gap[here] += 1;
                    continue;
                };
                if n_cpus > 1 && rng.f64() < self.migration {
                    let there = (here + rng.usize(1..n_cpus)) % n_cpus;
                    queues[there].push_back(lwp);
                    match queues[here].pop_front() {
                        Some(next) => lwp = next,
                        None => continue,
                    }
                }
                loop {
                    if n_user == self.n_slices {
                        break 'all;
                    }
                    n_user += 1;
                    let uses = drives[lwp as usize].next(&mut rng);
                    slices.push(Slice {
                        lwp,
                        gap: std::mem::take(&mut gap[here]),
                        cpu,
                        uses,
                        enters_user: true,
                    });
                    if rng.f64() >= self.stay {
                        break;
                    }
                    if rng.bool() {
                        gap[here] = 1;
                    } else {
                        let thread = self.n_lwps + u32::from(cpu);
                        slices.push(Slice {
                            lwp: thread,
                            gap: 0,
                            cpu,
                            uses: false,
                            enters_user: false,
                        });
                    }
                }
                queues[here].push_back(lwp);
            }
        }
        Workload {
            n_cpus,
            domains,
            slices,
        }
    }
}

/// An LWP's habit, in motion.
struct Drive {
    habit: Habit,
    is_on: bool,
    /// Slices of the phase that are left.
    left: u32,
}

impl Drive {
    /// Begins somewhere in its course, so that LWPs of the same habit do not go in step.
    fn new(habit: Habit, rng: &mut Rng) -> Self {
        let mut drive = Self {
            habit,
            is_on: false,
            left: 0,
        };
        match habit {
            Habit::Uses { p, .. } => drive.is_on = rng.f64() < p,
            Habit::Phases { on, off } => {
                let at = rng.u32(0..on + off);
                drive.is_on = at < on;
                drive.left = if drive.is_on { on - at } else { on + off - at };
            }
        }
        drive
    }

    fn next(&mut self, rng: &mut Rng) -> bool {
        let uses = self.is_on;
        match self.habit {
            // A chain of two states: left with these probabilities, it is on for `run` slices on average, and p of the time.
            Habit::Uses { p, run } if run > 1.0 && p > 0.0 && p < 1.0 => {
                let on_to_off = 1.0 / run;
                let off_to_on = (on_to_off * p / (1.0 - p)).min(1.0);
                if rng.f64() < if uses { on_to_off } else { off_to_on } {
                    self.is_on = !uses;
                }
            }
            Habit::Uses { p, .. } => self.is_on = rng.f64() < p,
            Habit::Phases { on, off } => {
                self.left -= 1;
                if self.left == 0 {
                    self.is_on = !uses;
                    self.left = if self.is_on { on } else { off };
                }
            }
        }
        uses
    }
}
