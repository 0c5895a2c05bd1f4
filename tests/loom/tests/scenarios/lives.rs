//! An LWP forks, exits, or has its memory read and written, while a thief is at its registers.

use pcu9::kernel::NoAnswer;
use pcu9::pcu::{CoreDump, Policy};
use pcu9_loom::{FPU, INITIAL, Machine, Scenario, TRUSTING};

use crate::cast::{A, B, C, a_is_live_on_1_and_runs_on_0};

#[test]
fn fork_against_a_thief() {
    Scenario {
        name: "fork against a thief",
        machine: || Machine::new(3, TRUSTING, Policy::Lazy),
        asked: &[1],
        before: a_is_live_on_1_and_runs_on_0,
        cpu0: |k| {
            let (mut parent, mut child) = (k.current(), k.stopped(C));
            k.machine().pcu.fork(&mut parent, &mut child).unwrap();
            assert_eq!(k.memory(C, FPU), 11);
        },
        cpu1: |k| assert_eq!(k.use_unit(FPU, 21), INITIAL),
        after: |k| {
            let stats = k.machine().stats(FPU);
            k.note(match (stats.xcalls, stats.xcalls_raced) {
                (0, 0) => "copied from memory",
                (1, 0) => "copied by the holder",
                _ => "stolen while it was asked for",
            });
            let found = [A, B, C].map(|lwp| k.state_of(lwp, FPU));
            assert_eq!(found, [11, 21, 11]);
        },
        outcomes: &[
            "copied from memory",
            "copied by the holder",
            "stolen while it was asked for",
        ],
        preemptions: None,
    }
    .explore();
}

/// The memory is freed as soon as exit returns.
#[test]
fn exit_against_a_thief() {
    Scenario {
        name: "exit against a thief",
        machine: || Machine::new(2, TRUSTING, Policy::Lazy),
        asked: &[1],
        before: a_is_live_on_1_and_runs_on_0,
        cpu0: |k| k.exit(),
        cpu1: |k| assert_eq!(k.use_unit(FPU, 21), INITIAL),
        after: |k| {
            let stats = k.machine().stats(FPU);
            k.note(match (stats.xcalls, stats.xcalls_raced) {
                (0, 0) => "stolen before",
                (1, 0) => "discarded by the holder",
                _ => "stolen while it was asked for",
            });
            assert_eq!(k.state_of(B, FPU), 21);
        },
        outcomes: &[
            "stolen before",
            "discarded by the holder",
            "stolen while it was asked for",
        ],
        preemptions: None,
    }
    .explore();
}

/// What sigreturn does: memory is written by the owner's CPU, right after a thief's has.
#[test]
fn replace_against_a_thief() {
    Scenario {
        name: "replace against a thief",
        machine: || Machine::new(2, TRUSTING, Policy::Lazy),
        asked: &[1],
        before: a_is_live_on_1_and_runs_on_0,
        cpu0: |k| {
            let write = || -> Result<(), NoAnswer> {
                k.set_memory(A, FPU, 99);
                Ok(())
            };
            let pcu = &k.machine().pcu;
            pcu.replace(&mut k.current(), FPU, |_| write()).unwrap();
        },
        cpu1: |k| assert_eq!(k.use_unit(FPU, 21), INITIAL),
        after: |k| assert_eq!((k.state_of(A, FPU), k.state_of(B, FPU)), (99, 21)),
        outcomes: &[],
        preemptions: None,
    }
    .explore();
}

/// What a debugger does: saves a stopped LWP that is live on another CPU, and reads its memory.
#[test]
fn save_of_a_stopped_lwp_against_a_thief() {
    Scenario {
        name: "a debugger's save against a thief",
        machine: || Machine::new(3, TRUSTING, Policy::Lazy),
        asked: &[1],
        before: |k| {
            a_is_live_on_1_and_runs_on_0(k);
            k.be(0).switch(Some(C));
        },
        cpu0: |k| {
            let pcu = &k.machine().pcu;
            pcu.save_all(&mut k.stopped(A), CoreDump::Yes).unwrap();
            assert_eq!(k.memory(A, FPU), 11);
        },
        cpu1: |k| assert_eq!(k.use_unit(FPU, 21), INITIAL),
        after: |k| assert_eq!((k.state_of(A, FPU), k.state_of(B, FPU)), (11, 21)),
        outcomes: &[],
        preemptions: None,
    }
    .explore();
}
