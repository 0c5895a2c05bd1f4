//! What is to run: the programs with what each did on the host, how many copies, and the archive for the guest.

use std::path::PathBuf;
use std::time::Duration;

use super::compare::Verdict;
use super::run::Row;
use crate::cli::DemoArgs;
use crate::error::Result;
use crate::process::Ended;
use crate::programs::{self, Archive, Oracle, Program};
use crate::progress::Step;

/// How long a program may run on the host.
const HOST_LIMIT: Duration = Duration::from_mins(5);

/// What runs in the guest, whatever the policy.
#[derive(Debug)]
pub(super) struct Plan {
    /// The programs that run.
    pub(super) programs: Vec<Planned>,
    /// How many copies of each.
    pub(super) copies: u32,
    /// The others.
    pub(super) rows: Vec<Row>,
}

/// A program that runs in the guest, and what it did on the host.
#[derive(Debug)]
pub(super) struct Planned {
    /// The program.
    pub(super) program: Program,
    /// What it wrote.
    pub(super) output: Vec<u8>,
    /// How it ended.
    pub(super) ended: Ended,
}

impl Plan {
    /// Reads the programs in `files` and runs each once on the host. What cannot be compared does not go to the guest.
    pub(super) fn new(args: &DemoArgs, files: &[PathBuf], problems: &mut Vec<String>) -> Self {
        let (programs, rejected) = programs::read(files);
        let mut plan = Self {
            programs: Vec::new(),
            copies: 0,
            rows: Vec::new(),
        };
        for file in rejected {
            plan.leave_out(&file.name, 0, Verdict::Wrong("no program"));
            problems.push(file.reason);
        }
        plan.ask_the_host(programs, problems);
        plan.copies = args
            .copies
            .unwrap_or_else(|| default_copies(args.cpus, plan.programs.len()));
        plan
    }

    /// Packs the programs into an archive for the guest.
    pub(super) fn pack(&self) -> Result<Archive> {
        let programs: Vec<&Program> = self.programs.iter().map(|one| &one.program).collect();
        Archive::of(&programs)
    }

    fn ask_the_host(&mut self, programs: Vec<Program>, problems: &mut Vec<String>) {
        let step = Step::start(format!("running {} programs on the host", programs.len()));
        for program in programs {
            step.note(&program.name);
            match programs::run(&program, HOST_LIMIT) {
                Ok(Oracle::Lacks(feature)) => {
                    let why = format!("needs {feature}, the host lacks it");
                    self.leave_out(&program.name, 0, Verdict::Skipped(why));
                }
                Ok(Oracle::Ran {
                    output,
                    ended: ended @ (Ended::TimedOut(_) | Ended::TooMuch(_)),
                }) => {
                    let verdict = Verdict::Wrong("stopped on the host");
                    self.leave_out(&program.name, output.len(), verdict);
                    problems.push(format!(
                        "{}: on the host it {ended}; the guest did not run it",
                        program.path.display()
                    ));
                }
                Ok(Oracle::Ran { output, ended }) => self.programs.push(Planned {
                    program,
                    output,
                    ended,
                }),
                Err(error) => {
                    self.leave_out(&program.name, 0, Verdict::Wrong("no host run"));
                    problems.push(error.to_string());
                }
            }
        }
        step.done();
    }

    fn leave_out(&mut self, name: &str, bytes: usize, verdict: Verdict) {
        self.rows.push(Row::new(name, 0, bytes, verdict));
    }
}

/// At least two copies of each program, and at least two LWPs for each CPU.
fn default_copies(cpus: u32, programs: usize) -> u32 {
    let programs = u32::try_from(programs).unwrap_or(u32::MAX).max(1);
    (2 * cpus).div_ceil(programs).max(2)
}

#[cfg(test)]
mod tests {
    use super::default_copies;

    #[test]
    fn by_default_two_lwps_share_a_cpu_and_each_program_runs_twice() {
        assert_eq!(default_copies(4, 9), 2);
        assert_eq!(default_copies(8, 3), 6);
        assert_eq!(default_copies(8, 1), 16);
        assert_eq!(default_copies(1, 1), 2);
        for cpus in 1..=8 {
            for programs in 1..12 {
                let lwps = default_copies(cpus, programs) as usize * programs;
                assert!(lwps >= 2 * cpus as usize);
            }
        }
    }
}
