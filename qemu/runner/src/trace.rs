//! The trace file of `cargo demo --trace FILE`: every slice of every CPU, as text, one slice a line.
//!
//! A *slice* is a stretch of one LWP on one CPU between two context switches. The slices of a CPU follow each other without
//! a gap, from the first switch after the kernel began to record until the last one before all programs had ended; what ran
//! at either end is left out.
//!
//! ```text
//! # pcu9-trace 1: cpu begin end lwp job program user use migrated
//! # policy=probe leak=domain cpu_model=max cpus=2 tsc_khz=1000000 slices=5 lost=0
//! 0 0 51200 7 0 nbody.0 1 1 0
//! 1 1024 30720 1 idle - 0 0 0
//! 1 30720 40960 8 1 nbody.1 1 0 1
//! 1 40960 41984 3 kernel - 0 0 0
//! 0 51200 102400 9 2 integers.0 1 0 0
//! ```
//!
//! A line that begins with `#` is a comment. The first one has the format's version (this is 1) and the columns' names; the
//! second one has words `key=value` about the run: the policy, the leak rule, the CPU's model (QEMU's name), the number of
//! CPUs, the ticks of the time stamp counter in a millisecond (as the kernel measured it at its start: roughly, under an
//! emulator), how many slices follow, and how many there was no room for in
//! the guest. The room is for the first ones of each CPU: what is lost is the end. A later version may add keys, and columns
//! at the end.
//!
//! The columns are separated by one space, and the lines are sorted by `begin`, then `cpu`:
//!
//! | column | meaning |
//! |---|---|
//! | `cpu` | the CPU's number, from 0 |
//! | `begin`, `end` | when, in ticks of the time stamp counter, which all CPUs share, since the beginning of the first slice |
//! | `lwp` | the LWP's number, never used again; each CPU's idle LWP has its own |
//! | `job` | the number of the job whose LWP it is (forked processes belong to their parent's); `kernel`; or `idle` |
//! | `program` | the job's program and the number of its copy, `NAME.COPY`; `-` for the kernel's and idle LWPs |
//! | `user` | `1`: user mode was entered; `0`: the LWP stayed in the kernel |
//! | `use` | `1`: the slice used the FPU, `0`: it did not, or `?`: unknown, for every policy but `probe` |
//! | `migrated` | `1`: the LWP ran on another CPU before; `0`: it ran here, or it is its first slice |
//!
//! Under `probe` the gate is closed when a slice begins, so its first use traps, and the kernel sees that: this is what `use`
//! says. A use that has to wait for another CPU, while the timer takes its own away, counts for the slice in which it
//! trapped and for the one in which it was served.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::protocol::{Slice, Who};

/// What the guest recorded of a CPU.
#[derive(Debug, Default)]
pub(crate) struct CpuTrace {
    /// The slices in their order.
    pub(crate) slices: Vec<Slice>,
    /// How many slices the guest said that there are.
    pub(crate) announced: Option<u64>,
    /// How many there was no room for.
    pub(crate) lost: u64,
    /// Ticks in a millisecond.
    pub(crate) tsc_khz: u64,
}

/// What the file says of the run.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    /// The policy's word.
    pub(crate) policy: &'a str,
    /// Whether a trap tells that the slice used the unit, and its absence that it did not.
    pub(crate) knows_use: bool,
    /// The leak rule's word.
    pub(crate) leak: &'a str,
    /// The CPU's model.
    pub(crate) cpu_model: &'a str,
    /// How many CPUs.
    pub(crate) cpus: u32,
}

/// Counts the slices, and those that were lost.
pub(crate) fn count(traces: &BTreeMap<usize, CpuTrace>) -> (u64, u64) {
    traces.values().fold((0, 0), |(slices, lost), trace| {
        (slices + trace.slices.len() as u64, lost + trace.lost)
    })
}

/// Says what is missing in the traces of a run that ended as it should.
pub(crate) fn missing(traces: &BTreeMap<usize, CpuTrace>, cpus: u32) -> Vec<String> {
    let of_cpu = |cpu: usize| match traces.get(&cpu) {
        None => Some(format!("the kernel wrote no trace of CPU {cpu}")),
        Some(trace) if trace.announced != Some(trace.slices.len() as u64) => Some(format!(
            "the trace of CPU {cpu} has {} slices, and the kernel announced {}",
            trace.slices.len(),
            trace.announced.unwrap_or(0)
        )),
        Some(_) => None,
    };
    (0..cpus as usize).filter_map(of_cpu).collect()
}

/// Returns the file's text; `program` names a job's program and copy.
pub(crate) fn text(
    head: &Head<'_>,
    traces: &BTreeMap<usize, CpuTrace>,
    program: impl Fn(usize) -> Option<String>,
) -> String {
    let mut slices: Vec<(usize, &Slice)> = Vec::new();
    for (&cpu, trace) in traces {
        slices.extend(trace.slices.iter().map(|slice| (cpu, slice)));
    }
    slices.sort_by_key(|(cpu, slice)| (slice.begin, *cpu));
    let zero = slices.first().map_or(0, |(_, slice)| slice.begin);
    let (n_slices, lost) = count(traces);
    let tsc_khz = traces.values().next().map_or(0, |trace| trace.tsc_khz);
    let mut text = format!(
        "# pcu9-trace 1: cpu begin end lwp job program user use migrated\n\
         # policy={} leak={} cpu_model={} cpus={} tsc_khz={tsc_khz} slices={n_slices} lost={lost}\n",
        head.policy, head.leak, head.cpu_model, head.cpus
    );
    for (cpu, slice) in slices {
        let (job, program) = match slice.who {
            Who::Job(job) => (job.to_string(), program(job)),
            Who::Kernel => ("kernel".into(), None),
            Who::Idle => ("idle".into(), None),
        };
        let line = Line {
            cpu,
            slice,
            zero,
            job: &job,
            program: program.as_deref().unwrap_or("-"),
            knows_use: head.knows_use,
        };
        // A String takes everything.
        let _ = writeln!(text, "{line}");
    }
    text
}

struct Line<'a> {
    cpu: usize,
    slice: &'a Slice,
    zero: u64,
    job: &'a str,
    program: &'a str,
    knows_use: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slice = self.slice;
        let used = match (self.knows_use, slice.trapped) {
            (false, _) => '?',
            (true, false) => '0',
            (true, true) => '1',
        };
        write!(
            f,
            "{} {} {} {} {} {} {} {used} {}",
            self.cpu,
            slice.begin - self.zero,
            slice.end - self.zero,
            slice.lwp,
            self.job,
            self.program,
            u8::from(slice.user),
            u8::from(slice.migrated),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{CpuTrace, Head, missing, text};
    use crate::protocol::{Event, decode};
    use std::collections::BTreeMap;

    /// The example of the module's documentation, as the guest says it.
    fn example() -> BTreeMap<usize, CpuTrace> {
        let lines = [
            "@slice 0 1000 c800,7,j0,uf c800,9,j2,u",
            "@slice 1 1400 7400,1,i 2800,8,j1,um 400,3,k",
        ];
        let of_line = |line| match decode(line) {
            Some(Ok(Event::Slices { cpu, slices })) => {
                let announced = Some(slices.len() as u64);
                let trace = CpuTrace {
                    slices,
                    announced,
                    lost: 0,
                    tsc_khz: 1_000_000,
                };
                (cpu, trace)
            }
            other => panic!("{other:?}"),
        };
        lines.into_iter().map(of_line).collect()
    }

    const HEAD: Head<'_> = Head {
        policy: "probe",
        knows_use: true,
        leak: "domain",
        cpu_model: "max",
        cpus: 2,
    };

    fn program(job: usize) -> Option<String> {
        let programs = ["nbody.0", "nbody.1", "integers.0"];
        programs.get(job).map(ToString::to_string)
    }

    #[test]
    fn the_documented_example_is_what_is_written() {
        let documented: String = include_str!("trace.rs")
            .lines()
            .skip_while(|line| *line != "//! ```text")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| line.trim_start_matches("//! ").to_owned() + "\n")
            .collect();
        assert_eq!(text(&HEAD, &example(), program), documented);
    }

    #[test]
    fn only_probe_knows_who_used_the_unit() {
        let head = Head {
            policy: "lazy",
            knows_use: false,
            ..HEAD
        };
        let text = text(&head, &example(), program);
        let uses = text.lines().skip(2).map(|line| line.split(' ').nth(7));
        assert!(uses.clone().count() == 5 && uses.into_iter().all(|used| used == Some("?")));
    }

    #[test]
    fn a_trace_with_missing_slices_or_cpus_is_told() {
        let mut traces = example();
        assert!(missing(&traces, 2).is_empty());
        traces.get_mut(&0).expect("CPU 0").announced = Some(3);
        assert_eq!(
            missing(&traces, 3),
            [
                "the trace of CPU 0 has 2 slices, and the kernel announced 3",
                "the kernel wrote no trace of CPU 2"
            ]
        );
    }
}
