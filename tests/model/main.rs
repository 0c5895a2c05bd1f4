//! Random operations on up to 4 CPUs, 6 LWPs and 3 units against an oracle ("each LWP sees what it last wrote"), with
//! preemption and migration injected at every lowering of the level. A failure prints its seed;
//! `PCU9_SEED=N cargo test --test model` runs that one alone.
//!
//! Policies: all, of units and of LWPs, and changes from one to the other. Leak rules: both, and changes.

mod oracle;
mod steps;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pcu9::pcu::{LeakRule, Policy, UnitStats};
use pcu9_fake::{INITIAL, TRUSTING, UNITS, World};

use oracle::{ORACLE, Oracle, check, check_leaks, check_stats, units};
use steps::{act, preempt};

const SEEDS: u64 = 100;
const STEPS: usize = 250;
/// Makes a machine with so many CPUs and LWPs.
type Make<'a> = &'a dyn Fn(usize, usize) -> Box<World>;

/// One run on a machine of random size; if not `steady`, all policies come by.
fn run(seed: u64, make: Make<'_>, steady: bool) -> UnitStats {
    fastrand::seed(seed);
    let (n_cpus, n_lwps) = (fastrand::usize(1..=4), fastrand::usize(2..=6));
    let world = make(n_cpus, n_lwps);
    ORACLE.set(Oracle {
        expected: vec![[INITIAL; UNITS]; n_lwps],
        steady,
        ..Oracle::default()
    });
    if n_lwps > 3 {
        world.lwp(0).domain.set(0);
        world.lwp(1).domain.set(world.lwp(2).domain.get());
    }
    world.on_lowering(preempt);
    for _ in 0..STEPS {
        act(&world);
        check(&world);
        check_leaks(&world);
    }
    check_stats(&world);
    let mut sum = UnitStats::default();
    for cpu in &world.cpus {
        units().for_each(|unit| sum += cpu.pcu.stats(unit));
    }
    sum
}

/// Runs all seeds, or the one in `PCU9_SEED`; gives the sum of what happened.
fn run_all(name: &str, make: Make<'_>, steady: bool) -> UnitStats {
    let seed = env::var("PCU9_SEED").ok();
    let only: Option<u64> = seed.map(|seed| seed.parse().expect("PCU9_SEED is a number"));
    let mut sum = UnitStats::default();
    for seed in only.map_or(0..SEEDS, |seed| seed..seed + 1) {
        match catch_unwind(AssertUnwindSafe(|| run(seed, make, steady))) {
            Ok(stats) => sum += stats,
            Err(panic) => {
                eprintln!("failed with seed {seed}: PCU9_SEED={seed} cargo test --test model");
                resume_unwind(panic);
            }
        }
    }
    println!("{name}: {sum:?}");
    sum
}

fn run_policy(policy: Policy, rule: LeakRule, steady: bool) -> UnitStats {
    let make = |n_cpus, n_lwps| World::with_policy(n_cpus, n_lwps, UNITS, rule, policy);
    run_all(&format!("{policy:?}, {rule:?}"), &make, steady)
}

/// The run proves nothing where nothing happened.
fn assert_all_happened(counts: &[u64]) {
    let is_one_seed = env::var_os("PCU9_SEED").is_some();
    assert!(
        is_one_seed || counts.iter().all(|count| *count > 20),
        "{counts:?}"
    );
}

fn changing(policy: Policy) {
    for rule in [LeakRule::DomainAware, TRUSTING] {
        let sum = run_policy(policy, rule, false);
        let UnitStats {
            inits,
            restores,
            reenables_switch,
            spurious,
            failed,
            preloads,
            ..
        } = sum;
        let UnitStats {
            saves,
            wipes,
            xcalls,
            xcalls_raced,
            elided_restores,
            elided_saves,
            probes,
            ..
        } = sum;
        let gained = [
            inits,
            restores,
            reenables_switch,
            preloads,
            elided_restores,
            probes,
        ];
        assert_all_happened(&gained);
        assert_all_happened(&[
            saves,
            wipes,
            xcalls,
            xcalls_raced,
            elided_saves,
            spurious,
            failed,
        ]);
    }
}

#[test]
fn from_lazy_to_any_policy() {
    changing(Policy::Lazy);
}

#[test]
fn from_deferred_to_any_policy() {
    changing(Policy::Deferred);
}

#[test]
fn from_adaptive_to_any_policy() {
    changing(Policy::Adaptive);
}

/// Plain runs of one policy, with the hook on the way to user mode.
fn steady(policy: Policy, check: fn(UnitStats)) {
    for rule in [LeakRule::DomainAware, TRUSTING] {
        check(run_policy(policy, rule, true));
    }
}

#[test]
fn lazy_moves_nothing_without_a_use() {
    steady(Policy::Lazy, |sum| {
        assert_eq!((sum.preloads, sum.elided_restores), (0, 0), "{sum:?}");
    });
}

/// Every trap is a first use: of a new LWP, or of one whose state was discarded or initial.
fn no_trap_after_the_first_use(sum: UnitStats) {
    assert_eq!(sum.xcalls, 0, "{sum:?}");
    assert!(
        sum.traps <= sum.inits + sum.spurious + sum.failed,
        "{sum:?}"
    );
    assert_all_happened(&[sum.preloads, sum.restores, sum.inits]);
}

#[test]
fn deferred_never_traps_after_the_first_use_and_never_asks_another_cpu() {
    steady(Policy::Deferred, |sum| {
        no_trap_after_the_first_use(sum);
        assert_all_happened(&[sum.elided_restores]);
    });
}

#[test]
fn eager_never_traps_after_the_first_use_and_never_asks_another_cpu() {
    steady(Policy::Eager, |sum| {
        no_trap_after_the_first_use(sum);
        assert_eq!(sum.elided_restores, 0, "{sum:?}");
    });
}

#[test]
fn adaptive_that_writes_through_never_asks_another_cpu() {
    steady(Policy::AdaptiveWriteThrough, |sum| {
        assert_eq!(sum.xcalls, 0, "{sum:?}");
    });
}

#[test]
fn probe_never_opens_a_gate_without_a_use() {
    steady(Policy::Probe, |sum| {
        assert_eq!((sum.reenables_switch, sum.preloads), (0, 0), "{sum:?}");
        assert_all_happened(&[sum.probes, sum.reenables_trap]);
    });
}

#[test]
fn a_unit_whose_use_does_not_trap_is_always_in_place() {
    for rule in [LeakRule::DomainAware, TRUSTING] {
        let make = |n_cpus, n_lwps| World::with_untrappable_unit(n_cpus, n_lwps, rule);
        let sum = run_all(&format!("untrappable, {rule:?}"), &make, false);
        assert_all_happened(&[sum.preloads, sum.elided_restores, sum.saves, sum.failed]);
    }
}
