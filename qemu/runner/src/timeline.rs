//! The timeline of `cargo demo`: what the kernel recorded, checked against its counters, drawn (`timeline.svg`), and written for
//! <https://ui.perfetto.dev> (`trace.json`, Chrome's trace-event format).
//!
//! The kernel compares its counters at every step of the unit, so that each event stands where its counter grew. What is drawn
//! of a window is therefore what the kernel counted in it, one element for each count: [`CpuTimeline::wrong`] says where not.

mod chrome;
mod colour;
mod lane;
mod style;
mod svg;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::protocol::{Happening, Lwp, Registers, What, Who, counted};

pub(crate) use chrome::trace;
pub(crate) use svg::picture;
pub(crate) use window::Window;

use lane::Lane;

/// What the kernel recorded of a CPU.
#[derive(Debug, Default)]
pub(crate) struct CpuTimeline {
    /// In the order in which it happened.
    pub(crate) events: Vec<Happening>,
    /// What the kernel says of them.
    pub(crate) account: Option<Account>,
}

/// What the kernel says of a CPU's timeline, and what it counted meanwhile. Times are nanoseconds since the timeline began.
#[derive(Debug, Default)]
pub(crate) struct Account(BTreeMap<String, u64>);

impl Account {
    pub(crate) fn new(pairs: Vec<(String, u64)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    fn get(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// Since when events were kept, if the run came so far.
    pub(crate) fn from(&self) -> u64 {
        self.get("from")
    }

    /// Until when.
    pub(crate) fn until(&self) -> u64 {
        self.get("until")
    }

    /// How many there was no room for.
    pub(crate) fn lost(&self) -> u64 {
        self.get("lost")
    }

    /// A counter's growth meanwhile.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        self.get(name)
    }
}

impl CpuTimeline {
    /// What the kernel counted meanwhile, and of which time.
    pub(crate) fn json(&self) -> Value {
        let account = self.account.as_ref();
        let counters = counted().map(|name| {
            let count = account.map_or(0, |account| account.counted(name));
            (name.to_owned(), Value::from(count))
        });
        json!({
            "from_ms": account.map(|account| ms(account.from())),
            "until_ms": account.map(|account| ms(account.until())),
            "lost": account.map(Account::lost),
            "counters": Value::Object(counters.collect()),
        })
    }

    /// What does not fit together.
    fn wrong(&self, cpu: usize) -> Vec<String> {
        let Some(account) = &self.account else {
            return vec![format!(
                "the kernel wrote no end of the timeline of CPU {cpu}"
            )];
        };
        let (events, announced) = (self.events.len() as u64, account.get("events"));
        if events != announced {
            return vec![format!(
                "the timeline of CPU {cpu} has {events} events, and the kernel announced {announced}"
            )];
        }
        let differs = |name: &str| {
            let of_it = |event: &&Happening| event.what.counter() == Some(name);
            let found = self.events.iter().filter(of_it).count() as u64;
            let counted = account.counted(name);
            let what = format!("the timeline of CPU {cpu} has {found} {name}");
            (found != counted).then(|| format!("{what}, and the kernel counted {counted}"))
        };
        counted().filter_map(differs).collect()
    }
}

/// Says what does not fit together in the timelines of a run that ended as it should.
pub(crate) fn wrong(timelines: &BTreeMap<usize, CpuTimeline>, cpus: u32) -> Vec<String> {
    let of_cpu = |cpu: usize| match timelines.get(&cpu) {
        None => vec![format!(
            "the kernel wrote no timeline of CPU {cpu}; --window none does without"
        )],
        Some(timeline) => timeline.wrong(cpu),
    };
    (0..cpus as usize).flat_map(of_cpu).collect()
}

/// Says that a run was over before the window that was asked for.
pub(crate) fn outside(timelines: &BTreeMap<usize, CpuTimeline>, window: Window) -> Option<String> {
    let accounts = || timelines.values().filter_map(|cpu| cpu.account.as_ref());
    let ended = accounts().map(Account::until).max()?;
    let begins = accounts().map(Account::from).min()?;
    let ms = ms(ended);
    (ended <= begins).then(|| {
        format!(
            "--window {window}: the run ended {ms:.1} ms after its first program began: an earlier window, or more --copies",
        )
    })
}

/// One run's timeline.
#[derive(Debug)]
pub(crate) struct Timeline<'a> {
    /// The policy's word.
    policy: &'a str,
    /// What ran, for people.
    title: String,
    cpus: &'a BTreeMap<usize, CpuTimeline>,
    names: Names,
}

/// From when to when, in nanoseconds since the timeline began.
pub(crate) type Stretch = (u64, u64);

impl<'a> Timeline<'a> {
    /// `program` names a job's program and copy.
    pub(crate) fn new(
        (policy, title): (&'a str, String),
        cpus: &'a BTreeMap<usize, CpuTimeline>,
        program: impl Fn(usize) -> Option<String>,
    ) -> Self {
        let names = Names::new(cpus.values().flat_map(|cpu| &cpu.events), program);
        Self {
            policy,
            title,
            cpus,
            names,
        }
    }

    fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.cpus.values().filter_map(|cpu| cpu.account.as_ref())
    }

    /// From where to where there are events, of any CPU.
    pub(crate) fn recorded(&self) -> Stretch {
        let from = self.accounts().map(Account::from).min().unwrap_or(0);
        let until = self.accounts().map(Account::until).max().unwrap_or(0);
        (from, until)
    }

    /// How many events there was no room for.
    pub(crate) fn lost(&self) -> u64 {
        self.accounts().map(Account::lost).sum()
    }

    /// How many events there are.
    pub(crate) fn n_events(&self) -> usize {
        self.cpus.values().map(|cpu| cpu.events.len()).sum()
    }

    fn lanes(&self, window: Stretch) -> Vec<Lane> {
        let lane = |(&cpu, timeline): (&usize, &CpuTimeline)| Lane::new(cpu, timeline, window);
        self.cpus.iter().map(lane).collect()
    }
}

/// Nanoseconds in milliseconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of a run are far below 2^52"
)]
fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// How LWPs are called.
#[derive(Debug)]
struct Names {
    programs: BTreeMap<usize, String>,
    /// Jobs of more than one LWP.
    several: BTreeSet<usize>,
}

impl Names {
    fn new<'a>(
        events: impl Iterator<Item = &'a Happening>,
        program: impl Fn(usize) -> Option<String>,
    ) -> Self {
        let mut first: BTreeMap<usize, u64> = BTreeMap::new();
        let mut several = BTreeSet::new();
        for event in events {
            let (What::Runs(lwp)
            | What::Switched(lwp)
            | What::Registers(Registers::Live(lwp) | Registers::Clean(lwp))) = event.what
            else {
                continue;
            };
            if let Who::Job(job) = lwp.who
                && *first.entry(job).or_insert(lwp.number) != lwp.number
            {
                several.insert(job);
            }
        }
        let name = |job| (job, program(job).unwrap_or_else(|| format!("job {job}")));
        let programs = first.into_keys().map(name).collect();
        Self { programs, several }
    }

    /// The program and its copy, without the LWP.
    fn program(&self, who: Who) -> &str {
        match who {
            Who::Job(job) => self.programs.get(&job).map_or("?", String::as_str),
            Who::Kernel => "kernel",
            Who::Idle => "idle",
        }
    }

    fn lwp(&self, lwp: Lwp) -> String {
        let program = self.program(lwp.who);
        match lwp.who {
            Who::Job(job) if self.several.contains(&job) => format!("{program}/{}", lwp.number),
            Who::Kernel => format!("kernel/{}", lwp.number),
            Who::Job(_) | Who::Idle => program.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
