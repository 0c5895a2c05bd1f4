//! One run: the machine of a case, who is in the middle of what, and the trace.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use pcu9::pcu::UnitId;
use pcu9_fake::{INITIAL, UNITS, World, cpu_id, unit, value};

use super::case::{Case, FirstLwp, Hook, LastUnit, Lowering, Step, Turn};
use super::invariants::{self, Seen};
use super::operations;
use super::oracle::Oracle;

thread_local! {
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

/// What the model knows besides the machine.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) oracle: Oracle,
    pub(crate) seen: Seen,
    /// LWPs in the middle of an operation, theirs or somebody else's on them.
    pub(crate) busy: Vec<usize>,
    /// Of these, the ones that somebody else keeps from running.
    pub(crate) held: Vec<usize>,
    /// The kernel sections that are under way, and on which CPUs.
    pub(crate) sections: Vec<(usize, UnitId)>,
    /// The unit that the LWP on a CPU has, with the gate open, and is about to ask for once more.
    pub(crate) keeps: Option<(usize, UnitId)>,
    /// CPUs that may hold another domain's registers, since a change of the leak rule has not reached them yet.
    pub(crate) excused: Vec<bool>,
    /// What comes at the next lowerings, for each operation that is under way.
    lowerings: Vec<VecDeque<Lowering>>,
    /// The domains that may see a value: its writer's, and those of the writer's children.
    viewers: HashMap<u64, Vec<u64>>,
    n_writes: u32,
    pub(crate) n_units: usize,
    /// Its lines, if there is to be one.
    trace: Option<Vec<String>>,
}

/// Does a run leave a trace?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    Off,
    On,
}

pub(crate) fn run<R>(f: impl FnOnce(&mut Run) -> R) -> R {
    RUN.with_borrow_mut(|run| f(run.as_mut().expect("a run")))
}

/// The trace of the last run on this thread.
pub(crate) fn take_trace() -> Vec<String> {
    RUN.with_borrow_mut(|run| run.take().and_then(|run| run.trace).unwrap_or_default())
}

/// Adds a line to the trace, indented by how deep it happens in the middle of other things.
pub(crate) fn trace(line: impl FnOnce() -> String) {
    run(|run| {
        let depth = 2 * run.lowerings.len();
        if let Some(trace) = &mut run.trace {
            trace.push(format!("{:depth$}{}", "", line()));
        }
    });
}

impl Run {
    /// Nothing will be let in any more in the operation that is under way.
    pub(crate) fn is_undisturbed(&self) -> bool {
        self.lowerings.last().is_none_or(VecDeque::is_empty)
    }

    /// May user mode of `domain` see this in a register?
    pub(crate) fn may_see(&self, domain: u64, seen: u64) -> bool {
        let viewers = self.viewers.get(&seen);
        seen == INITIAL || viewers.is_some_and(|viewers| viewers.contains(&domain))
    }

    pub(crate) fn add_viewer(&mut self, seen: u64, domain: u64) {
        self.viewers.entry(seen).or_default().push(domain);
    }

    /// A value that nobody wrote before, for `domain` to write.
    pub(crate) fn new_value(&mut self, domain: u64) -> u64 {
        self.n_writes += 1;
        let value = value(domain, self.n_writes);
        self.add_viewer(value, domain);
        value
    }
}

/// Runs a case to its end; the machine is as the case left it.
pub(crate) fn play(case: &Case, wanted: Trace) -> Box<World> {
    let &Case {
        n_cpus,
        n_lwps,
        n_units,
        rule,
        ..
    } = case;
    let world = match case.last_unit {
        LastUnit::Traps => World::new(n_cpus, n_lwps, n_units, rule),
        LastUnit::DoesNotTrap => World::with_last_unit_untrappable(n_cpus, n_lwps, n_units, rule),
    };
    match case.first_lwp {
        FirstLwp::Thread if n_lwps > 1 => world.lwp(0).domain.set(world.lwp(1).domain.get()),
        FirstLwp::KernelThread => world.lwp(0).domain.set(0),
        FirstLwp::Thread | FirstLwp::Process => {}
    }
    world.switch(0, Some(0));
    for (index, policy) in (0..n_units).zip(case.policies) {
        let unit = nth_unit(index);
        if world.traps(unit) || !policy.needs_traps() {
            let all = (0..n_cpus).map(cpu_id);
            let mut current = world.current(0);
            world
                .pcu
                .set_policy(&mut current, all, unit, policy)
                .expect("all CPUs answer");
        }
    }
    world.switch(0, None);
    RUN.set(Some(Run {
        oracle: Oracle::new(n_lwps),
        seen: Seen::new(&world),
        busy: Vec::new(),
        held: Vec::new(),
        sections: Vec::new(),
        keeps: None,
        excused: vec![false; n_cpus],
        lowerings: Vec::new(),
        viewers: HashMap::new(),
        n_writes: 0,
        n_units,
        trace: (wanted == Trace::On).then(Vec::new),
    }));
    world.log.take();
    world.on_section_end(section_ends);
    world.on_lowering(lowered);
    for step in &case.steps {
        act(&world, step);
        invariants::check_counters(&world);
    }
    world
}

/// One operation, with what is let in.
pub(crate) fn act(world: &World, step: &Step) {
    let cpu = usize::from(step.cpu) % world.cpus.len();
    run(|run| run.lowerings.push(step.lowerings.clone().into()));
    operations::perform(world, cpu, &step.op);
    run(|run| run.lowerings.pop());
}

fn section_ends(world: &World, cpu: usize) {
    for line in world.log.take() {
        trace(|| format!("  {line}"));
    }
    invariants::check(world, cpu);
}

/// The level was lowered in the middle of an operation: others have their turn, and the LWP comes back anywhere.
pub(crate) fn lowered(world: &World) {
    let cpu = world.here.get();
    let Some(lwp) = world.current_on(cpu) else {
        return;
    };
    let next = |run: &mut Run| run.lowerings.last_mut().and_then(VecDeque::pop_front);
    let Some(lowering) = run(next) else { return };
    run(|run| run.busy.push(lwp));
    world.on_lowering(lowered);
    // Nobody is preempted in a kernel section (P7).
    let may_switch = !world.cpus[cpu].pcu.in_section();
    if let (Turn::IsPreempted { by }, true) = (lowering.turn, may_switch) {
        trace(|| format!("- lwp {lwp} is preempted"));
        let by = by.and_then(|by| idle_lwp(world, by));
        switch(world, cpu, by, Hook::Called);
    }
    for step in &lowering.steps {
        act(world, step);
    }
    if let Some(cpu) = world.cpu_of(lwp) {
        world.here.set(cpu);
    } else {
        let n_cpus = world.cpus.len();
        let is_free = |cpu: &usize| !world.cpus[*cpu].pcu.in_section();
        let mut from_there =
            (0..n_cpus).map(|skip| (usize::from(lowering.back_on) + skip) % n_cpus);
        let cpu = from_there.find(is_free).expect("it left one that is free");
        trace(|| format!("- lwp {lwp} goes on"));
        switch(world, cpu, Some(lwp), Hook::Called);
    }
    run(|run| assert_eq!(run.busy.pop(), Some(lwp)));
}

/// The LWP with that number, if it runs nowhere and is in the middle of nothing.
pub(crate) fn idle_lwp(world: &World, number: u8) -> Option<usize> {
    let lwp = usize::from(number) % world.n_lwps();
    let is_idle = world.cpu_of(lwp).is_none() && run(|run| !run.busy.contains(&lwp));
    is_idle.then_some(lwp)
}

pub(crate) fn switch(world: &World, cpu: usize, to: Option<usize>, switch_out: Hook) {
    trace(|| match (to, switch_out) {
        (Some(to), Hook::Called) => format!("cpu {cpu}: switch to lwp {to}"),
        (Some(to), Hook::LeftOut) => format!("cpu {cpu}: switch to lwp {to} without switch_out"),
        (None, Hook::Called) => format!("cpu {cpu}: switch to idle"),
        (None, Hook::LeftOut) => format!("cpu {cpu}: switch to idle without switch_out"),
    });
    if to.is_some_and(|to| world.lwp(to).domain.get() != 0) {
        // Whatever the CPU missed, it must be right after this.
        run(|run| run.excused[cpu] = false);
    }
    match switch_out {
        Hook::Called => world.switch(cpu, to),
        Hook::LeftOut => world.switch_without_switch_out(cpu, to),
    }
}

pub(crate) fn nth_unit(index: usize) -> UnitId {
    unit(u8::try_from(index % UNITS).expect("few units"))
}

/// The units of the machine's table.
pub(crate) fn units() -> impl Iterator<Item = UnitId> {
    (0..run(|run| run.n_units)).map(nth_unit)
}
