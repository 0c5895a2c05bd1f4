//! What the design promises of the state that is moved, on traces of the testbed (`traces/README.md`).
#![cfg(not(target_os = "none"))]

use std::fs;
use std::path::Path;

use pcu9::pcu::Policy;
use pcu9_simulator::{Contender, Counts, Leak, Table, Workload, optimum, replay, trace};

fn read(name: &str) -> Workload {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let text = fs::read_to_string(folder.join(name)).expect("the trace is there");
    trace::parse(&text).expect("a trace")
}

fn under(policy: Policy, workload: &Workload, machine: &Table) -> Counts {
    replay(workload, Contender::Pcu9(policy), Leak::Trusting, machine)
}

/// Does the policy restore at most 5 per cent more than the clairvoyant?
fn is_close(counts: &Counts, best: &Counts) -> bool {
    counts.restores * 100 <= best.restores * 105
}

#[test]
fn where_nearly_every_slice_computes_little_more_is_restored_than_must_be() {
    let workload = read("computing.trace");
    let (entering, using) = workload.user_slices();
    assert!(
        entering > 3_000 && using * 100 >= entering * 96,
        "{using} of {entering}"
    );
    let best = optimum(&workload);
    for machine in Table::all() {
        for policy in [Policy::Deferred, Policy::Adaptive] {
            let counts = under(policy, &workload, &machine);
            assert!(
                is_close(&counts, &best),
                "{} {policy:?}: {counts:?}, {best:?}",
                machine.name
            );
        }
    }
}

#[test]
fn adaptive_restores_little_more_beside_a_fixed_set_of_others() {
    let workload = read("integers.trace");
    let (entering, using) = workload.user_slices();
    assert!(using * 10 <= entering * 6, "{using} of {entering}");
    let best = optimum(&workload);
    for machine in Table::all() {
        let counts = under(Policy::Adaptive, &workload, &machine);
        assert!(
            is_close(&counts, &best),
            "{}: {counts:?}, {best:?}",
            machine.name
        );
    }
}

#[test]
fn hardly_ever_is_another_cpu_asked() {
    let mut asked_by_lazy = 0;
    for name in ["computing.trace", "integers.trace", "phased.trace"] {
        let workload = read(name);
        let slices = workload.slices.len() as u64;
        for machine in Table::all() {
            let asked = |policy| under(policy, &workload, &machine).cross_calls;
            let adaptive = asked(Policy::Adaptive);
            assert!(
                adaptive * 100 <= slices,
                "{name} {}: {adaptive} of {slices}",
                machine.name
            );
            for policy in [Policy::Deferred, Policy::AdaptiveWriteThrough] {
                assert_eq!(asked(policy), 0, "{name} {} {policy:?}", machine.name);
            }
            asked_by_lazy += asked(Policy::Lazy);
        }
    }
    assert!(asked_by_lazy > 0, "LWPs migrate");
}
