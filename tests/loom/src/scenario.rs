//! Runs a scenario in every interleaving, and says how many there were and what came of them.

use std::collections::BTreeMap;
use std::io::{Write, stderr};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use loom::model::Builder;
use loom::thread;

use crate::{Handle, Machine};

/// Thread switches and choices of a load in one execution; more than any scenario has, so that only an endless wait fails.
const MAX_BRANCHES: usize = 10_000;

/// Something that two CPUs do at once.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// For the line that says how much was explored.
    pub name: &'static str,
    /// Makes the machine.
    pub machine: fn() -> Machine,
    /// The CPUs that are sent cross-calls. A CPU that is not, need not look for any; a call to it would never be answered.
    pub asked: &'static [usize],
    /// What happened before, with one handle that plays all CPUs in turn.
    pub before: fn(&Handle),
    /// What CPU 0 does.
    pub cpu0: fn(&Handle),
    /// What CPU 1 does meanwhile.
    pub cpu1: fn(&Handle),
    /// Looks at the machine afterwards, when both CPUs idle.
    pub after: fn(&Handle),
    /// All that comes up by [`Handle::note`] in one execution or another. A scenario that never leads where its name says
    /// proves nothing.
    pub outcomes: &'static [&'static str],
    /// How many switches away from a context that could go on are explored; `None` is all.
    pub preemptions: Option<usize>,
}

/// What came up so far, in how many executions.
#[derive(Default)]
struct Seen {
    executions: u64,
    outcomes: BTreeMap<&'static str, u64>,
}

impl Scenario {
    /// Runs it in every interleaving, and prints how many there were.
    ///
    /// # Panics
    ///
    /// If an execution failed, or the outcomes are not those that are listed.
    pub fn explore(self) {
        let begun = Instant::now();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let sum = Arc::clone(&seen);
        let mut builder = Builder::new();
        builder.max_branches = MAX_BRANCHES;
        builder.preemption_bound = self.preemptions;
        // What the environment says would cut the exploration short without a word.
        builder.max_permutations = None;
        builder.max_duration = None;
        builder.check(move || {
            let outcomes = self.run();
            let mut seen = sum.lock().expect("nobody panics with it");
            seen.executions += 1;
            for outcome in outcomes {
                *seen.outcomes.entry(outcome).or_default() += 1;
            }
        });
        let seen = seen.lock().expect("nobody panics with it");
        let bound = self.preemptions.map_or_else(
            || "all".to_owned(),
            |n| format!("bounded to {n} preemptions"),
        );
        // Past the test harness, which would swallow it.
        let _ = writeln!(
            stderr(),
            "loom: {}: {} executions ({bound}) in {:.1} s: {:?}",
            self.name,
            seen.executions,
            begun.elapsed().as_secs_f64(),
            seen.outcomes
        );
        let mut expected = self.outcomes.to_vec();
        expected.sort_unstable();
        let came_up: Vec<_> = seen.outcomes.keys().copied().collect();
        assert_eq!(came_up, expected, "the outcomes of {:?}", self.name);
    }

    /// One execution; returns its outcomes.
    fn run(self) -> Vec<&'static str> {
        let mut machine = Box::new((self.machine)());
        self.asked
            .iter()
            .for_each(|&cpu| machine.is_asked[cpu] = true);
        let machine = NonNull::from(Box::leak(machine));
        // SAFETY: a leaked box, freed at the end of this function.
        let shared: &'static Machine = unsafe { machine.as_ref() };
        let cpu1 = self.cpu1;
        Handle::play(shared, 0, |handle| {
            (self.before)(handle);
            handle.be(0);
            shared
                .threads
                .lock()
                .expect("nobody panics with it")
                .push(thread::current());
            let second = thread::spawn(move || {
                Handle::play(shared, 1, |handle| {
                    // An interrupt may come before anything else does.
                    handle.serve();
                    cpu1(handle);
                    handle.end();
                });
            });
            shared
                .threads
                .lock()
                .expect("nobody panics with it")
                .push(second.thread().clone());
            handle.serve();
            (self.cpu0)(handle);
            handle.end();
            // Nobody is to be woken any more; waiting for the other thread is no sleep.
            shared
                .threads
                .lock()
                .expect("nobody panics with it")
                .clear();
            second.join().expect("loom ends an execution that panics");
            handle.settle();
            (self.after)(handle);
        });
        // SAFETY: made by `Box::leak`; the other thread has ended, and the handles with it.
        unsafe { Box::from_raw(machine.as_ptr()) }.into_outcomes()
    }
}
