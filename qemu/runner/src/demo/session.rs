//! What the guest said in one run, put in order: jobs, counters, the end.

use std::collections::BTreeMap;

use super::cores::Cores;
use crate::protocol::{COUNTERS, Event, decode};
use crate::timeline::{Account, CpuTimeline};
use crate::trace::CpuTrace;

/// Everything that the guest's protocol lines told.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// The machine, as the kernel found it.
    pub(crate) boot: Option<Vec<(String, String)>>,
    /// The jobs by number.
    pub(crate) jobs: BTreeMap<usize, Job>,
    /// The counters by CPU.
    pub(crate) cpus: BTreeMap<usize, Counters>,
    /// The core files of processes that a signal ended.
    pub(crate) cores: Cores,
    /// The traces by CPU.
    pub(crate) traces: BTreeMap<usize, CpuTrace>,
    /// The timelines by CPU.
    pub(crate) timelines: BTreeMap<usize, CpuTimeline>,
    /// The last line, if it came.
    pub(crate) end: Option<bool>,
    /// What a panic said.
    pub(crate) panic: Option<String>,
    /// Lines that could not be read, or that came where they make no sense.
    pub(crate) garbled: Vec<String>,
}

/// One copy of a program.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// The program's name.
    pub(crate) name: String,
    /// Which copy.
    pub(crate) copy: u32,
    /// What it wrote.
    pub(crate) output: Vec<u8>,
    /// The status with which it exited.
    pub(crate) exit: Option<i32>,
    /// What killed its first process, and where the kernel failed.
    pub(crate) faults: Vec<String>,
    /// Why it could not be started.
    pub(crate) error: Option<String>,
    /// The feature for whose lack it was not started.
    pub(crate) skipped: Option<String>,
}

/// The counters of a CPU, or their sums.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Counters(BTreeMap<String, u64>);

impl Session {
    /// Takes in a line of the serial port. `false`: it belongs to the kernel's log.
    pub(crate) fn take(&mut self, line: &str) -> bool {
        match decode(line) {
            None => return false,
            Some(Err(garbled)) => self.garbled.push(garbled),
            Some(Ok(event)) => {
                if self.event(event).is_none() {
                    let short: String = line.chars().take(120).collect();
                    let garbled = format!(
                        "the kernel wrote a line about a job that it did not announce: {short}"
                    );
                    self.garbled.push(garbled);
                }
            }
        }
        true
    }

    fn event(&mut self, event: Event) -> Option<()> {
        match event {
            Event::Boot(machine) => self.boot = Some(machine),
            Event::Job { job, name, copy } => {
                self.jobs.insert(
                    job,
                    Job {
                        name,
                        copy,
                        ..Job::default()
                    },
                );
            }
            Event::Skip {
                job,
                name,
                copy,
                feature,
            } => {
                let skipped = Some(feature);
                self.jobs.insert(
                    job,
                    Job {
                        name,
                        copy,
                        skipped,
                        ..Job::default()
                    },
                );
            }
            Event::Out { job, bytes } => self.jobs.get_mut(&job)?.output.extend(bytes),
            Event::Exit { job, status } => self.jobs.get_mut(&job)?.exit = Some(status),
            Event::Fault { job, text } => self.jobs.get_mut(&job)?.faults.push(text),
            Event::Error { job, text } => self.jobs.get_mut(&job)?.error = Some(text),
            Event::Core { job, pid, part } => {
                self.jobs.get(&job)?;
                self.cores.take(job, pid, part)?;
            }
            Event::Cpu { cpu, counters } => {
                let is_lacking = |name: &&str| !counters.iter().any(|(key, _)| key == name);
                let lacking: Vec<&str> = COUNTERS.into_iter().filter(is_lacking).collect();
                if !lacking.is_empty() {
                    let lacking = lacking.join(", ");
                    self.garbled
                        .push(format!("the counters of CPU {cpu} lack {lacking}"));
                }
                self.cpus
                    .insert(cpu, Counters(counters.into_iter().collect()));
            }
            Event::Slices { cpu, slices } => {
                self.traces.entry(cpu).or_default().slices.extend(slices);
            }
            Event::Events { cpu, events } => {
                self.timelines.entry(cpu).or_default().events.extend(events);
            }
            Event::Timeline { cpu, pairs } => {
                self.timelines.entry(cpu).or_default().account = Some(Account::new(pairs));
            }
            Event::Trace {
                cpu,
                slices,
                lost,
                tsc_khz,
            } => {
                let trace = self.traces.entry(cpu).or_default();
                trace.announced = Some(slices);
                trace.lost = lost;
                trace.tsc_khz = tsc_khz;
            }
            Event::End { ok } => self.end = Some(ok),
            Event::Panic(text) => self.panic = Some(text),
        }
        Some(())
    }

    /// Returns how many jobs were started, and how many of them have ended.
    pub(crate) fn progress(&self) -> (usize, usize) {
        let started = self.jobs.values().filter(|job| job.is_started());
        let ended = started.clone().filter(|job| job.has_ended());
        (started.count(), ended.count())
    }

    /// Returns a job's program and the number of its copy, `NAME.COPY`.
    pub(crate) fn program(&self, job: usize) -> Option<String> {
        let job = self.jobs.get(&job)?;
        Some(format!("{}.{}", job.name, job.copy))
    }

    /// Returns the sums over all CPUs.
    pub(crate) fn totals(&self) -> Counters {
        let mut sums = Counters::default();
        self.cpus.values().for_each(|counters| sums.add(counters));
        sums
    }
}

impl Job {
    fn is_started(&self) -> bool {
        self.skipped.is_none() && self.error.is_none()
    }

    /// Tells whether it exited or was killed.
    pub(crate) fn has_ended(&self) -> bool {
        self.exit.is_some() || !self.faults.is_empty()
    }
}

impl Counters {
    /// Adds another CPU's, or another run's.
    pub(crate) fn add(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*value);
        }
    }

    /// Returns a counter; one that was not reported is 0.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Session;

    /// Takes in a recorded run.
    pub(crate) fn session(text: &str) -> Session {
        let mut session = Session::default();
        for line in text.lines() {
            session.take(line);
        }
        session
    }

    #[test]
    fn output_of_jobs_that_run_at_the_same_time_is_kept_apart() {
        let run = session("@job 0 a 0\n@job 1 a 1\n@out 0 61\n@out 1 62\n@out 0 63\n@exit 1 0");
        assert_eq!(run.jobs[&0].output, b"ac");
        assert_eq!(run.jobs[&1].output, b"b");
        assert_eq!(run.progress(), (2, 1));
    }

    #[test]
    fn strange_lines_are_kept_as_errors_and_log_lines_are_not() {
        let mut run = Session::default();
        assert!(!run.take("hello"));
        assert!(run.take("@out 7 61"));
        assert!(run.take("@out"));
        assert!(run.take("@cpu 0 traps=1"));
        assert!(run.garbled[0].contains("did not announce"));
        assert!(run.garbled[1].contains("@out"));
        assert!(run.garbled[2].contains("lack switches, inits"));
    }
}
