//! A thief takes the registers while their owner wants them elsewhere.

use pcu9::pcu::{LeakRule, Policy};
use pcu9_loom::{FPU, INITIAL, Machine, Scenario, TRUSTING};

use crate::cast::{A, B, C, a_is_live_on_1_and_runs_on_0};

#[test]
fn steal_against_remote_request() {
    Scenario {
        name: "a thief's use against the owner's request",
        machine: || Machine::new(2, TRUSTING, Policy::Lazy),
        asked: &[1],
        before: a_is_live_on_1_and_runs_on_0,
        cpu0: |k| assert_eq!(k.use_unit(FPU, 12), 11),
        cpu1: |k| assert_eq!(k.use_unit(FPU, 21), INITIAL),
        after: |k| {
            let stats = k.machine().stats(FPU);
            k.note(match (stats.xcalls, stats.xcalls_raced) {
                (0, 0) => "stolen before it was asked for",
                (1, 0) => "fetched",
                (1, 1) => "stolen while it was asked for",
                _ => "asked twice",
            });
            assert_eq!((k.state_of(A, FPU), k.state_of(B, FPU)), (12, 21));
        },
        outcomes: &[
            "stolen before it was asked for",
            "fetched",
            "stolen while it was asked for",
        ],
        preemptions: None,
    }
    .explore();
}

#[test]
fn wipe_at_a_switch_against_remote_request() {
    Scenario {
        name: "the leak rule's wipe at a switch against the owner's request",
        machine: || Machine::new(2, LeakRule::DomainAware, Policy::Lazy),
        asked: &[1],
        before: |k| {
            k.be(1).switch(Some(A));
            k.use_unit(FPU, 11);
            k.switch(None);
            k.be(0).switch(Some(A));
        },
        cpu0: |k| assert_eq!(k.use_unit(FPU, 12), 11),
        cpu1: |k| k.switch(Some(B)),
        after: |k| {
            let stats = k.machine().stats(FPU);
            k.note(match (stats.xcalls, stats.xcalls_raced) {
                (0, 0) => "evicted before it was asked for",
                (1, 0) => "fetched",
                (1, 1) => "evicted while it was asked for",
                _ => "asked twice",
            });
            assert_eq!((k.state_of(A, FPU), k.state_of(B, FPU)), (12, INITIAL));
        },
        outcomes: &[
            "evicted before it was asked for",
            "fetched",
            "evicted while it was asked for",
        ],
        preemptions: None,
    }
    .explore();
}

/// NetBSD's PR port-arm/52603: the thief clears the location while the switch looks at it, and the gate stays open over what
/// another LWP left on this CPU.
#[test]
fn steal_while_the_owner_is_switched_in_elsewhere() {
    Scenario {
        name: "a thief's use against the owner's switch-in elsewhere",
        machine: || Machine::new(3, TRUSTING, Policy::Lazy),
        asked: &[1],
        before: |k| {
            k.be(1).switch(Some(A));
            k.use_unit(FPU, 11);
            k.switch(Some(B));
            k.be(0).switch(Some(C));
            k.use_unit(FPU, 31);
        },
        cpu0: |k| {
            k.switch(Some(A));
            assert_eq!(k.use_unit(FPU, 12), 11);
        },
        cpu1: |k| assert_eq!(k.use_unit(FPU, 21), INITIAL),
        after: |k| {
            let stats = k.machine().stats(FPU);
            k.note(if stats.xcalls == 0 {
                "stolen first"
            } else {
                "asked for"
            });
            let found = [A, B, C].map(|lwp| k.state_of(lwp, FPU));
            assert_eq!(found, [12, 21, 31]);
        },
        outcomes: &["stolen first", "asked for"],
        preemptions: None,
    }
    .explore();
}

/// The same where the switch brings the state in by itself.
#[test]
fn steal_while_the_owner_is_preloaded_elsewhere() {
    Scenario {
        name: "a thief's use against the owner's preload elsewhere",
        machine: || Machine::new(3, TRUSTING, Policy::Lazy),
        asked: &[1],
        before: |k| {
            k.be(1).switch(Some(A));
            k.use_unit(FPU, 11);
            k.switch(Some(B));
            k.be(0).switch(Some(C));
            // Nobody is flushed, so that A stays live on CPU 1.
            let pcu = &k.machine().pcu;
            pcu.set_policy(&mut k.current(), [], FPU, Policy::Deferred)
                .unwrap();
        },
        cpu0: |k| {
            k.switch(Some(A));
            k.before_user();
            assert_eq!(k.use_unit(FPU, 12), 11);
        },
        cpu1: |k| assert_eq!(k.use_unit(FPU, 21), INITIAL),
        after: |k| {
            let stats = k.machine().stats(FPU);
            k.note(match (stats.xcalls, stats.xcalls_raced) {
                (0, 0) => "preloaded by the switch",
                (1, 0) => "fetched before user mode",
                _ => "stolen while it was asked for",
            });
            assert_eq!((k.state_of(A, FPU), k.state_of(B, FPU)), (12, 21));
        },
        outcomes: &[
            "preloaded by the switch",
            "fetched before user mode",
            "stolen while it was asked for",
        ],
        preemptions: None,
    }
    .explore();
}

#[test]
fn mutual_requests() {
    Scenario {
        name: "each CPU asks the other",
        machine: || Machine::new(2, TRUSTING, Policy::Lazy),
        asked: &[0, 1],
        before: |k| {
            k.be(1).switch(Some(A));
            k.use_unit(FPU, 11);
            k.be(0).switch(Some(B));
            k.use_unit(FPU, 21);
            k.be(1).switch(None);
            k.be(0).switch(Some(A));
            k.be(1).switch(Some(B));
        },
        cpu0: |k| assert_eq!(k.use_unit(FPU, 12), 11),
        cpu1: |k| assert_eq!(k.use_unit(FPU, 22), 21),
        after: |k| {
            let stats = k.machine().stats(FPU);
            k.note(match (stats.xcalls, stats.xcalls_raced) {
                (1, 0) => "one asked, and stole what the other wanted",
                (2, 0) => "both asked, both were served",
                (_, 0) => "asked more often",
                _ => "one was stolen while it was asked for",
            });
            assert_eq!((k.state_of(A, FPU), k.state_of(B, FPU)), (12, 22));
        },
        outcomes: &[
            "one asked, and stole what the other wanted",
            "both asked, both were served",
            "one was stolen while it was asked for",
        ],
        preemptions: Some(5),
    }
    .explore();
}
