//! A CPU's events as what is drawn of them: stretches with a beginning and an end, and moments.

use super::{CpuTimeline, Stretch};
use crate::protocol::{Lwp, Registers, What};

/// What a CPU did in a window.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) cpu: usize,
    /// Until when there are events; nothing is known of the rest of the window.
    pub(super) until: u64,
    pub(super) lost: u64,
    pub(super) runs: Vec<Run>,
    pub(super) stays: Vec<Stay>,
    pub(super) marks: Vec<Mark>,
    pub(super) asked: Vec<Call>,
    pub(super) served: Vec<Call>,
}

/// An LWP runs.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) lwp: Lwp,
    pub(super) when: Stretch,
    /// It began in the window, by a switch.
    pub(super) is_begun: bool,
}

/// Something is in the unit's registers.
#[derive(Debug)]
pub(super) struct Stay {
    pub(super) of: Registers,
    pub(super) when: Stretch,
    /// It began in the window.
    pub(super) is_begun: bool,
    /// It ended in the window.
    pub(super) is_ended: bool,
}

/// A counter grew.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) at: u64,
    pub(super) counter: &'static str,
    /// While this LWP ran.
    pub(super) during: Option<Lwp>,
}

/// An end of a cross-call: the other CPU, and the asker's number of it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) at: u64,
    pub(super) cpu: usize,
    pub(super) number: u64,
}

impl Lane {
    pub(super) fn new(cpu: usize, timeline: &CpuTimeline, (from, to): Stretch) -> Self {
        let account = timeline.account.as_ref();
        let until = account.map_or(0, super::Account::until).min(to);
        let mut lane = Self {
            cpu,
            until,
            lost: account.map_or(0, super::Account::lost),
            ..Self::default()
        };
        // What goes on, since when, and whether that is in the window.
        let mut runs: Option<(Lwp, u64, bool)> = None;
        let mut held = (Registers::Nobodys, from, false);
        // What the kernel says at the beginning is no event.
        let mut is_beginning = false;
        for event in timeline.events.iter().take_while(|event| event.at < to) {
            let (at, is_inside) = (event.at, event.at >= from);
            match event.what {
                What::Runs(lwp) => runs = Some((lwp, at.max(from), false)),
                What::Switched(lwp) => {
                    lane.end_run(runs, at, from);
                    runs = Some((lwp, at.max(from), is_inside));
                }
                What::Registers(of) => {
                    lane.end_stay(held, at, (from, is_inside));
                    held = (of, at.max(from), is_inside && !is_beginning);
                }
                _ if !is_inside => {}
                What::Counted(counter) => lane.marks.push(Mark {
                    at,
                    counter,
                    during: runs.map(|(lwp, ..)| lwp),
                }),
                What::Asked { cpu, number } => lane.asked.push(Call { at, cpu, number }),
                What::Served { cpu, number } => lane.served.push(Call { at, cpu, number }),
            }
            is_beginning = matches!(event.what, What::Runs(_));
        }
        lane.end_run(runs, until, from);
        lane.end_stay(held, until, (from, false));
        lane
    }

    fn end_run(&mut self, runs: Option<(Lwp, u64, bool)>, end: u64, from: u64) {
        if let Some((lwp, begin, is_begun)) = runs
            && (is_begun || end > from)
        {
            self.runs.push(Run {
                lwp,
                when: (begin, end.max(begin)),
                is_begun,
            });
        }
    }

    fn end_stay(
        &mut self,
        (of, begin, is_begun): (Registers, u64, bool),
        end: u64,
        (from, is_ended): (u64, bool),
    ) {
        if of != Registers::Nobodys && (is_begun || is_ended || end > from) {
            self.stays.push(Stay {
                of,
                when: (begin, end.max(begin)),
                is_begun,
                is_ended,
            });
        }
    }

    /// How often a counter grew in the window.
    pub(super) fn count(&self, counter: &str) -> usize {
        match counter {
            "switches" => self.runs.iter().filter(|run| run.is_begun).count(),
            "xcalls" => self.asked.len(),
            _ => {
                let of_it = |mark: &&Mark| mark.counter == counter;
                self.marks.iter().filter(of_it).count()
            }
        }
    }
}
