//! An answer to the question, whichever it is: a page for people, JSON for programs, and rates since the one before.

use std::collections::BTreeMap;
use std::time::Instant;

use pcu9_kpcpu::Kpcpu;
use pcu9_kpcpu::stat::{Before, Page, Sample};
use serde::Serialize;

use crate::Result;
use crate::cli::Question;
use crate::data::{Copies, Counters};
use crate::lwp::Place;

/// What was read.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Answer {
    Cpus(Sample),
    Lwp(Box<Place>),
    Counters(Counters),
    Dpcpu(Copies),
}

/// An answer, and when it was given.
pub(crate) struct Asked {
    pub(crate) answer: Answer,
    pub(crate) at: Instant,
}

impl Asked {
    pub(crate) fn now(kernel: &mut Kpcpu, question: Option<&Question>) -> Result<Self> {
        let answer = Answer::ask(kernel, question)?;
        let at = Instant::now();
        Ok(Self { answer, at })
    }
}

impl Answer {
    pub(crate) fn ask(kernel: &mut Kpcpu, question: Option<&Question>) -> Result<Self> {
        Ok(match question {
            None => Self::Cpus(Sample::take(kernel)?),
            Some(Question::Lwp { number, .. }) => {
                Self::Lwp(Box::new(Place::read(kernel, *number)?))
            }
            Some(Question::Counters) => Self::Counters(Counters::read(kernel)?),
            Some(Question::Dpcpu { name, cpu }) => Self::Dpcpu(Copies::read(kernel, name, *cpu)?),
        })
    }

    pub(crate) fn add_to(&self, page: &mut Page) {
        match self {
            Self::Cpus(sample) => sample.add_to(page, None),
            Self::Lwp(place) => place.add_to(page),
            Self::Counters(counters) => counters.add_to(page, None),
            Self::Dpcpu(copies) => copies.add_to(page),
        }
    }
}

impl Asked {
    /// The page of an answer that is not the first, to the question first asked at `begun`.
    pub(crate) fn add_to(&self, page: &mut Page, before: &Self, begun: Instant) {
        let elapsed = self.at - before.at;
        match (&self.answer, &before.answer) {
            (Answer::Cpus(now), Answer::Cpus(sample)) => {
                now.add_to(page, Some(Before { sample, elapsed }));
            }
            (Answer::Counters(now), Answer::Counters(before)) => {
                now.add_to(page, Some((before, elapsed)));
            }
            (now, _) => {
                let seconds = (self.at - begun).as_secs_f64();
                page.line(format!("after {seconds:.1} s"));
                page.line("");
                now.add_to(page);
            }
        }
    }

    /// The same for programs.
    pub(crate) fn line<'a>(&'a self, before: &'a Self, begun: Instant) -> Line<'a> {
        let elapsed = self.at - before.at;
        let rates = match (&self.answer, &before.answer) {
            (Answer::Cpus(now), Answer::Cpus(sample)) => {
                Some(Rates::Cpus(now.rates(Before { sample, elapsed })))
            }
            (Answer::Counters(now), Answer::Counters(before)) => {
                Some(Rates::Counters(now.rates(before, elapsed)))
            }
            _ => None,
        };
        Line {
            seconds: (self.at - begun).as_secs_f64(),
            elapsed: elapsed.as_secs_f64(),
            answer: &self.answer,
            rates,
        }
    }
}

/// One of many answers in JSON.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    /// Since the first.
    seconds: f64,
    /// Since the one before.
    elapsed: f64,
    answer: &'a Answer,
    /// What was counted since then, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<Rates<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Rates<'a> {
    Cpus(BTreeMap<u32, BTreeMap<String, BTreeMap<String, f64>>>),
    Counters(BTreeMap<&'a str, f64>),
}
