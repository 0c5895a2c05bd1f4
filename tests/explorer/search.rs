//! Breadth-first search over all states, and what is asked of the whole graph.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use xxhash_rust::xxh3::xxh3_64;

use super::choice::Choice;
use super::config::Config;
use super::world::{CPUS, LWPS, Snapshot, World};

/// Keys are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u128")
    }
    fn write_u128(&mut self, key: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
        let half = key as u64;
        self.0 = half;
    }
}

/// How to get to a state: the last moment before it at which nothing was under way, and the choices since.
#[derive(Clone)]
struct Route {
    from: Rc<Snapshot>,
    since: Vec<Choice>,
}

impl Route {
    fn replay(&self, world: &'static World) {
        world.restore(&self.from);
        for choice in &self.since {
            world.take(*choice);
        }
    }
}

/// A state that was found and not yet expanded.
struct Found {
    state: u32,
    route: Route,
}

/// A second way into a state, whose choices must lead where the first way's lead.
struct Merge {
    into: u32,
    route: Route,
}

/// The whole graph, as far as it is known.
#[derive(Default)]
struct Graph {
    states: HashMap<u128, u32, BuildHasherDefault<AsIs>>,
    /// The first way into each state.
    parents: Vec<(u32, Option<Choice>)>,
    /// A hash of the keys of all successors.
    successors: Vec<u64>,
    /// States in which nothing is under way.
    quiet: Vec<u32>,
    /// Steps that bring what is under way nearer to its end: to, from.
    finishing: Vec<(u32, u32)>,
}

/// What a search found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) states: usize,
    pub(crate) transitions: u64,
    pub(crate) depth: usize,
    pub(crate) audited: u64,
    pub(crate) seconds: f64,
    /// The states in which no CPU is in a section: how many, and the sum of their keys.
    pub(crate) between: (usize, u128),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            states,
            transitions,
            depth,
            audited,
            seconds,
            ..
        } = self;
        write!(
            f,
            "{states} states, {transitions} transitions, longest path {depth}, {audited} merges audited, {seconds:.1} s"
        )
    }
}

/// Something is wrong; the text holds the whole path.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

/// A search under way.
pub(crate) struct Search {
    world: &'static World,
    graph: Graph,
    start: Rc<Snapshot>,
}

impl Search {
    pub(crate) fn new(config: Config) -> Self {
        let world = World::new(config);
        Self {
            world,
            graph: Graph::default(),
            start: Rc::new(world.snapshot()),
        }
    }

    pub(crate) fn world(&self) -> &'static World {
        self.world
    }

    /// Runs to the end, or to `limit` states.
    pub(crate) fn run(&mut self, limit: usize) -> Result<Report, Violation> {
        let begun = Instant::now();
        let mut report = Report {
            states: 1,
            transitions: 0,
            depth: 0,
            audited: 0,
            seconds: 0.0,
            between: (0, 0),
        };
        let route = Route {
            from: Rc::clone(&self.start),
            since: Vec::new(),
        };
        self.graph.states.insert(self.world.key(), 0);
        self.graph.parents.push((0, None));
        self.graph.quiet.push(0);
        let mut level = vec![Found { state: 0, route }];
        let mut merges = Vec::new();
        while !level.is_empty() {
            let mut next = Vec::new();
            // A merge is audited when the state that it led into has been expanded.
            let due = std::mem::take(&mut merges);
            for found in level {
                self.expand(&found, &mut report, &mut next, &mut merges)?;
            }
            for merge in due {
                self.audit(&merge, &mut report)?;
            }
            if !next.is_empty() {
                report.depth += 1;
            }
            report.states = self.graph.parents.len();
            if std::env::var_os("PCU9_EXPLORER_LEVELS").is_some() {
                println!(
                    "  level {}: {} new, {} states",
                    report.depth,
                    next.len(),
                    report.states
                );
            }
            if report.states > limit {
                return Err(Violation(format!("no end within {limit} states")));
            }
            level = next;
        }
        for merge in merges {
            self.audit(&merge, &mut report)?;
        }
        self.check_ends()?;
        report.seconds = begun.elapsed().as_secs_f64();
        Ok(report)
    }

    fn expand(
        &mut self,
        found: &Found,
        report: &mut Report,
        next: &mut Vec<Found>,
        merges: &mut Vec<Merge>,
    ) -> Result<(), Violation> {
        let mut keys = Vec::new();
        found.route.replay(self.world);
        let choices = self.world.choices();
        for (index, choice) in choices.into_iter().enumerate() {
            if index > 0 {
                found.route.replay(self.world);
            }
            self.step(found.state, choice)?;
            report.transitions += 1;
            let key = self.world.key();
            keys.push(key);
            let known = u32::try_from(self.graph.parents.len()).expect("fewer than 2^32 states");
            let to = match self.graph.states.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert(known);
                    self.graph.parents.push((found.state, Some(choice)));
                    let is_quiet = self.world.is_quiet();
                    if !self.world.cpus.iter().any(|cpu| cpu.own.raised.get()) {
                        report.between.0 += 1;
                        report.between.1 = report.between.1.wrapping_add(key);
                    }
                    if is_quiet {
                        self.graph.quiet.push(known);
                    }
                    let route = self.route_on(found, choice, is_quiet);
                    next.push(Found {
                        state: known,
                        route,
                    });
                    known
                }
                Entry::Occupied(entry) => {
                    let into = *entry.get();
                    if into != found.state
                        && report.transitions.is_multiple_of(self.world.config.audit)
                    {
                        let route = self.route_on(found, choice, self.world.is_quiet());
                        merges.push(Merge { into, route });
                    }
                    into
                }
            };
            if choice.finishes() && to != found.state {
                self.graph.finishing.push((to, found.state));
            }
        }
        let index = found.state as usize;
        if self.graph.successors.len() <= index {
            self.graph.successors.resize(index + 1, 0);
        }
        self.graph.successors[index] = digest(keys);
        Ok(())
    }

    fn route_on(&self, found: &Found, choice: Choice, is_quiet: bool) -> Route {
        if is_quiet {
            return Route {
                from: Rc::new(self.world.snapshot()),
                since: Vec::new(),
            };
        }
        let mut route = found.route.clone();
        route.since.push(choice);
        route
    }

    fn step(&self, from: u32, choice: Choice) -> Result<(), Violation> {
        let world = self.world;
        catch_unwind(AssertUnwindSafe(|| world.step(choice))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let what = text.unwrap_or_else(|| "a panic".into());
            Violation(format!("{what}\n{}{choice}\n", self.story(from)))
        })
    }

    /// Two ways into one state must go on alike: what the key leaves out must make no difference.
    fn audit(&self, merge: &Merge, report: &mut Report) -> Result<(), Violation> {
        let mut keys = Vec::new();
        merge.route.replay(self.world);
        for (index, choice) in self.world.choices().into_iter().enumerate() {
            if index > 0 {
                merge.route.replay(self.world);
            }
            self.step(merge.into, choice)?;
            keys.push(self.world.key());
        }
        report.audited += 1;
        if digest(keys) == self.graph.successors[merge.into as usize] {
            return Ok(());
        }
        let mut text = "two ways into one state go on differently; the first way:\n".to_string();
        text += &self.story(merge.into);
        text += "the second, since nothing was under way:\n";
        merge.route.replay(self.world);
        for choice in &merge.route.since {
            let _ = writeln!(text, "{choice}");
        }
        text += &self.world.picture();
        Err(Violation(text))
    }

    /// Deadlock-freedom: from every state, what is under way can come to its end without anything else being begun.
    fn check_ends(&self) -> Result<(), Violation> {
        let n_states = self.graph.parents.len();
        let mut starts = vec![0_usize; n_states + 1];
        for (to, _) in &self.graph.finishing {
            starts[*to as usize + 1] += 1;
        }
        for index in 0..n_states {
            starts[index + 1] += starts[index];
        }
        let mut froms = vec![0_u32; self.graph.finishing.len()];
        let mut cursor = starts.clone();
        for (to, from) in &self.graph.finishing {
            froms[cursor[*to as usize]] = *from;
            cursor[*to as usize] += 1;
        }
        let mut ends = vec![false; n_states];
        let mut open = self.graph.quiet.clone();
        while let Some(state) = open.pop() {
            if !std::mem::replace(&mut ends[state as usize], true) {
                open.extend(&froms[starts[state as usize]..starts[state as usize + 1]]);
            }
        }
        let Some(stuck) = ends.iter().position(|ends| !ends) else {
            return Ok(());
        };
        let stuck = u32::try_from(stuck).expect("fewer than 2^32 states");
        Err(Violation(format!(
            "deadlock: what is under way can never end\n{}",
            self.story(stuck)
        )))
    }

    /// The path to a state, for people.
    fn story(&self, state: u32) -> String {
        let mut path = Vec::new();
        let mut at = state;
        while let (parent, Some(choice)) = self.graph.parents[at as usize] {
            path.push(choice);
            at = parent;
        }
        let world = self.world;
        world.restore(&self.start);
        let mut text = String::new();
        for (number, choice) in path.iter().rev().enumerate() {
            world.take(*choice);
            let _ = write!(text, "{:3}. {choice}\n{}", number + 1, world.picture());
        }
        text
    }
}

fn digest(mut keys: Vec<u128>) -> u64 {
    keys.sort_unstable();
    keys.dedup();
    let bytes: Vec<u8> = keys.iter().flat_map(|key| key.to_le_bytes()).collect();
    xxh3_64(&bytes)
}

impl World {
    /// The state, for people.
    fn picture(&self) -> String {
        let mut text = String::new();
        for cpu in 0..CPUS {
            let own = &self.cpus[cpu].own;
            let level = if own.raised.get() { ", at IPL_PCU" } else { "" };
            let who = own
                .current
                .get()
                .map_or("idle".into(), |lwp| format!("lwp {lwp}"));
            let _ = writeln!(
                text,
                "       cpu {cpu}: {who}{level}; {:?}",
                self.cpu_state(cpu)
            );
        }
        for lwp in 0..LWPS {
            let flight = self.flight(super::flight::Who::Lwp(lwp));
            let doing = flight.map_or(String::new(), |flight| {
                format!("; in {}, {:?}", flight.what, flight.at)
            });
            let _ = writeln!(text, "       lwp {lwp}: {:?}{doing}", self.lwp_state(lwp));
        }
        text
    }
}
