//! Rules change, or work behind the owner's back, while LWPs compute.

use pcu9::pcu::{LeakRule, Policy, PolicyError, WriteBackAtIdle};
use pcu9_loom::{DSP, FPU, INITIAL, Machine, Scenario, TRUSTING, cpu_id};

use crate::cast::{A, B, C};

/// The policy is in force on CPU 1 before CPU 1 is flushed, and after it was given up on.
#[test]
fn cpu_not_yet_flushed_after_a_change_of_policy() {
    Scenario {
        name: "one CPU is not yet flushed after a change of policy",
        machine: || Machine::new(3, TRUSTING, Policy::Lazy),
        asked: &[1],
        before: |k| {
            k.be(0).switch(Some(C));
            k.be(1).switch(Some(A));
            k.use_unit(FPU, 11);
        },
        cpu0: |k| {
            k.lose_patience();
            let cpus = [cpu_id(0), cpu_id(1)];
            let pcu = &k.machine().pcu;
            match pcu.set_policy(&mut k.current(), cpus, FPU, Policy::Deferred) {
                Ok(()) => k.note("flushed"),
                Err(error) => {
                    assert_eq!(error, PolicyError::NoAnswer(cpu_id(1)));
                    k.note("never flushed");
                }
            }
        },
        cpu1: |k| {
            assert_eq!(k.use_unit(FPU, 12), 11);
            k.switch(Some(B));
            assert_eq!(k.use_unit(FPU, 21), INITIAL);
            k.switch(Some(A));
            assert_eq!(k.use_unit(FPU, 13), 12);
        },
        after: |k| assert_eq!((k.state_of(A, FPU), k.state_of(B, FPU)), (13, 21)),
        outcomes: &["flushed", "never flushed"],
        preemptions: None,
    }
    .explore();
}

/// The same where the setter's CPU holds what the other one wants.
#[test]
fn flush_for_a_new_policy_against_the_owner() {
    Scenario {
        name: "the flush for a new policy against the owner",
        machine: || Machine::new(3, LeakRule::DomainAware, Policy::Lazy),
        asked: &[0, 1],
        before: |k| {
            k.be(0).switch(Some(A));
            k.use_unit(FPU, 11);
            k.switch(None);
            k.be(1).switch(Some(A));
        },
        cpu0: |k| {
            k.switch(Some(C));
            let cpus = [cpu_id(0), cpu_id(1)];
            let pcu = &k.machine().pcu;
            pcu.set_policy(&mut k.current(), cpus, FPU, Policy::Eager)
                .unwrap();
        },
        cpu1: |k| {
            assert_eq!(k.use_unit(FPU, 12), 11);
            k.switch(Some(B));
        },
        after: |k| assert_eq!((k.state_of(A, FPU), k.state_of(B, FPU)), (12, INITIAL)),
        outcomes: &[],
        preemptions: Some(4),
    }
    .explore();
}

/// The holder saves at idle, finds the state of one unit to be the initial one, and says so behind the owner's back, which says
/// the same of the other unit.
#[test]
fn write_back_at_idle_against_the_owner() {
    Scenario {
        name: "write-back at idle against the owner",
        machine: || Machine::with_two_units(2, TRUSTING, Policy::Lazy),
        asked: &[1],
        before: |k| {
            k.machine().pcu.set_write_back_at_idle(WriteBackAtIdle::On);
            k.be(1).switch(Some(A));
            k.use_unit(FPU, INITIAL);
            k.use_unit(DSP, 11);
            k.switch(Some(B));
            k.be(0).switch(Some(A));
        },
        cpu0: |k| {
            assert_eq!(k.use_unit(DSP, 12), 11);
            assert_eq!(k.use_unit(FPU, 13), INITIAL);
        },
        cpu1: |k| k.switch(None),
        after: |k| {
            k.machine().pcu.set_write_back_at_idle(WriteBackAtIdle::Off);
            assert_eq!((k.state_of(A, DSP), k.state_of(A, FPU)), (12, 13));
        },
        outcomes: &[],
        preemptions: None,
    }
    .explore();
}
