//! Random operations on up to 4 CPUs, 6 LWPs and 3 units against a sequential oracle ([`oracle`]): every LWP always reads back what
//! it last wrote, or the initial state after a discard. I1-I7 are checked at the end of every stretch at `IPL_PCU`
//! ([`invariants`]); wherever the level is lowered, others run, do something, and bring the LWP back on any CPU ([`run`]).
//!
//! Policies: all, of units and of LWPs, and changes from one to the other. Leak rules: both, and changes.
//!
//! A case is data ([`case`]): a failure shrinks to the shortest case that fails, and prints it, its trace, and its seed.
//!
//! - `PCU9_SEED=N cargo test --test model TEST` runs the case of that seed alone, shrinks it again and prints the same.
//! - `PCU9_CASES=M cargo test --test model` runs M cases a test instead of [`CASES`]; with a seed, the M from there on.

mod case;
mod held;
mod invariants;
mod life;
mod operations;
mod oracle;
mod run;
mod sections;

use std::cell::Cell;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pcu9::pcu::{Policy, UnitStats};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use case::{Case, LastUnit, Rules};
use invariants::sum;
use run::{Trace, play, take_trace};

/// How many cases a test runs.
const CASES: u64 = 1000;

/// A number in an environment variable.
fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
    )
}

/// Runs the cases of all seeds; gives the sum of what happened.
fn run_all(rules: Rules, last_unit: LastUnit) -> UnitStats {
    let seed = number("PCU9_SEED");
    let n_cases = number("PCU9_CASES").unwrap_or(if seed.is_some() { 1 } else { CASES });
    let first = seed.unwrap_or(0);
    let strategy = case::case(rules, last_unit);
    let total = Cell::new(UnitStats::default());
    for seed in first..first + n_cases {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config = Config {
            cases: 1,
            failure_persistence: None,
            max_shrink_iters: 50_000,
            ..Config::default()
        };
        let result = TestRunner::new_with_rng(config, rng).run(&strategy, |case| {
            let world = play(&case, Trace::Off);
            let mut so_far = total.get();
            run::units().for_each(|unit| so_far += sum(&world, unit));
            total.set(so_far);
            Ok(())
        });
        match result {
            Ok(()) => {}
            Err(TestError::Fail(reason, case)) => fail(seed, &case, &reason.to_string()),
            Err(error) => panic!("{error}"),
        }
    }
    total.get()
}

/// Runs the case that failed once more, for its trace.
fn fail(seed: u64, case: &Case, reason: &str) -> ! {
    let again = catch_unwind(AssertUnwindSafe(|| play(case, Trace::On)));
    let trace = take_trace().join("\n");
    assert!(
        again.is_err(),
        "seed {seed} failed once, and not again: {reason}\n{case:?}"
    );
    panic!("\nseed {seed}: PCU9_SEED={seed} runs this alone\n{case:?}\n{trace}\n=> {reason}");
}

/// The run proves nothing where nothing happened.
fn assert_all_happened(counts: &[u64]) {
    let is_whole = number("PCU9_SEED").is_none() && number("PCU9_CASES").is_none_or(|n| n >= CASES);
    assert!(
        !is_whole || counts.iter().all(|count| *count > 20),
        "{counts:?}"
    );
}

#[test]
fn rules_change_and_no_state_is_lost_or_seen_by_another_domain() {
    let sum = run_all(Rules::Change, LastUnit::Traps);
    let UnitStats {
        traps,
        loads,
        preloads,
        inits,
        restores,
        elided_restores,
        reenables_trap,
        reenables_load,
        reenables_switch,
        spurious,
        probes,
        failed,
        saves,
        elided_saves,
        releases,
        discards,
        wipes,
        sections,
        xcalls,
        xcalls_raced,
    } = sum;
    assert_all_happened(&[traps, loads, preloads, inits, restores, elided_restores]);
    assert_all_happened(&[reenables_trap, reenables_load, reenables_switch, spurious]);
    assert_all_happened(&[probes, failed, saves, elided_saves, releases, discards]);
    assert_all_happened(&[wipes, sections, xcalls, xcalls_raced]);
}

#[test]
fn rules_change_seldom_and_no_state_is_lost_or_seen_by_another_domain() {
    let sum = run_all(Rules::ChangeFromLazy, LastUnit::Traps);
    assert_all_happened(&[sum.traps, sum.restores, sum.reenables_switch, sum.saves]);
    assert_all_happened(&[sum.preloads, sum.wipes, sum.sections, sum.xcalls]);
}

#[test]
fn a_unit_whose_use_does_not_trap_is_always_in_place() {
    let sum = run_all(Rules::Change, LastUnit::DoesNotTrap);
    assert_all_happened(&[sum.preloads, sum.elided_restores, sum.saves, sum.failed]);
}

#[test]
fn lazy_moves_nothing_without_a_use() {
    let sum = run_all(Rules::Stay(Policy::Lazy), LastUnit::Traps);
    assert_eq!(
        (sum.preloads, sum.elided_restores, sum.failed),
        (0, 0, 0),
        "{sum:?}"
    );
    assert_all_happened(&[sum.xcalls, sum.reenables_switch]);
}

/// Every trap is a first use: of a new LWP, or of one whose state was discarded or initial.
fn no_trap_after_the_first_use(sum: UnitStats) {
    assert_eq!((sum.xcalls, sum.failed), (0, 0), "{sum:?}");
    assert!(sum.traps <= sum.inits + sum.spurious, "{sum:?}");
    assert_all_happened(&[sum.preloads, sum.restores, sum.inits]);
}

#[test]
fn deferred_never_traps_after_the_first_use_and_never_asks_another_cpu() {
    let sum = run_all(Rules::Stay(Policy::Deferred), LastUnit::Traps);
    no_trap_after_the_first_use(sum);
    assert_all_happened(&[sum.elided_restores]);
}

#[test]
fn eager_never_traps_after_the_first_use_and_never_asks_another_cpu() {
    let sum = run_all(Rules::Stay(Policy::Eager), LastUnit::Traps);
    no_trap_after_the_first_use(sum);
    assert_eq!(sum.elided_restores, 0, "{sum:?}");
}

#[test]
fn adaptive_asks_another_cpu_and_learns_not_to() {
    let sum = run_all(Rules::Stay(Policy::Adaptive), LastUnit::Traps);
    assert_all_happened(&[sum.xcalls, sum.elided_restores]);
}

#[test]
fn adaptive_that_writes_through_never_asks_another_cpu() {
    let sum = run_all(Rules::Stay(Policy::AdaptiveWriteThrough), LastUnit::Traps);
    assert_eq!(sum.xcalls, 0, "{sum:?}");
}

#[test]
fn probe_never_opens_a_gate_without_a_use() {
    let sum = run_all(Rules::Stay(Policy::Probe), LastUnit::Traps);
    assert_eq!((sum.reenables_switch, sum.preloads), (0, 0), "{sum:?}");
    assert_all_happened(&[sum.probes, sum.reenables_trap]);
}

#[test]
fn the_oracle_fits_a_screen() {
    let lines = include_str!("oracle.rs").lines();
    assert!(lines.filter(|line| !line.trim().is_empty()).count() <= 60);
}
