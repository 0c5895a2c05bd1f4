//! The LWP itself moves, or the other CPU keeps silent.

use pcu9::pcu::{LoadError, Policy};
use pcu9_loom::{FPU, INITIAL, Machine, Scenario, TRUSTING, cpu_id};

use crate::cast::{A, B, a_is_live_on_1_and_runs_on_0};

#[test]
fn requester_migrates_to_the_holder_while_it_waits() {
    Scenario {
        name: "the requester migrates to the holder while it waits",
        machine: || Machine::new(2, TRUSTING, Policy::Lazy),
        asked: &[1],
        before: a_is_live_on_1_and_runs_on_0,
        cpu0: |k| {
            k.may_move_to(1);
            assert_eq!(k.use_unit(FPU, 12), 11);
            k.note(if k.is_on(1) { "migrated" } else { "stayed" });
        },
        cpu1: |k| k.leave_cpu(),
        after: |k| {
            let stats = k.machine().stats(FPU);
            k.note(if stats.reenables_trap + stats.reenables_switch == 0 {
                "loaded"
            } else {
                "found its registers again"
            });
            assert_eq!(k.state_of(A, FPU), 12);
        },
        outcomes: &["migrated", "stayed", "loaded", "found its registers again"],
        preemptions: None,
    }
    .explore();
}

/// A request that nobody answers is withdrawn; what it would have run never runs, or else the LWP would lose what it holds.
#[test]
fn withdrawn_cross_call() {
    Scenario {
        name: "a cross-call is withdrawn",
        machine: || Machine::new(2, TRUSTING, Policy::Lazy),
        asked: &[1],
        before: a_is_live_on_1_and_runs_on_0,
        cpu0: |k| {
            k.lose_patience();
            match k.try_use(FPU, 12) {
                Ok(found) => {
                    k.note("answered");
                    assert_eq!(found, 11);
                }
                Err(error) => {
                    k.note("withdrawn");
                    assert_eq!(error, LoadError::NoAnswer(cpu_id(1)));
                    k.be_patient();
                    assert_eq!(k.use_unit(FPU, 12), 11);
                }
            }
        },
        cpu1: |k| assert_eq!(k.use_unit(FPU, 21), INITIAL),
        after: |k| assert_eq!((k.state_of(A, FPU), k.state_of(B, FPU)), (12, 21)),
        outcomes: &["answered", "withdrawn"],
        preemptions: None,
    }
    .explore();
}
