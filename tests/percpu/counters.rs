//! Counters: sums over present CPUs, and zero by each CPU itself.

use std::sync::atomic::Ordering::Relaxed;

use pcu9::kernel::NoAnswer;
use pcu9::percpu::CounterU64;

use crate::machine::{Machine, PACKETS, cpu};

#[test]
fn a_sum_counts_every_present_cpu_whatever_its_id() {
    let machine = Machine::new(&[0, 3, 150]);
    let counter = CounterU64::alloc(machine.percpu).expect("room");
    for (number, n) in [(0, 1), (3, 20), (150, 300)] {
        counter.add(machine.go_to(number), n);
        PACKETS.add(machine.go_to(number), 2 * n);
    }
    machine.percpu.set_offline(cpu(150)).expect("present");
    assert_eq!(counter.fetch(machine.percpu), 321);
    assert_eq!(PACKETS.fetch(machine.percpu), 642);
    assert_eq!(counter.fetch_on(machine.percpu, cpu(3)), Some(20));
    assert_eq!(counter.fetch_on(machine.percpu, cpu(4)), None);
}

#[test]
fn a_counter_wraps() {
    let machine = Machine::new(&[0, 1]);
    let counter = CounterU64::alloc(machine.percpu).expect("room");
    counter.add(machine.go_to(0), u64::MAX);
    counter.add(machine.go_to(1), 5);
    assert_eq!(counter.fetch(machine.percpu), 4);
}

#[test]
fn each_cpu_that_runs_zeroes_its_own_and_an_offline_one_is_zeroed() {
    let machine = Machine::new(&[0, 3, 8]);
    let counter = CounterU64::alloc(machine.percpu).expect("room");
    for number in [0, 3, 8] {
        counter.add(machine.go_to(number), 5);
        PACKETS.add(machine.go_to(number), 5);
    }
    machine.percpu.set_offline(cpu(8)).expect("present");
    let here = machine.go_to(0);
    counter
        .zero(machine.percpu, machine, here)
        .expect("answers");
    assert_eq!(counter.fetch(machine.percpu), 0);
    PACKETS
        .zero(machine.percpu, machine, here)
        .expect("answers");
    assert_eq!(PACKETS.fetch(machine.percpu), 0);
}

#[test]
fn a_cpu_that_does_not_answer_keeps_its_count_and_is_named() {
    let machine = Machine::new(&[0, 3, 8]);
    let counter = CounterU64::alloc(machine.percpu).expect("room");
    for number in [0, 3, 8] {
        counter.add(machine.go_to(number), 5);
    }
    machine.deaf.store(3, Relaxed);
    let here = machine.go_to(0);
    let answer = counter.zero(machine.percpu, machine, here);
    assert_eq!(answer, Err(NoAnswer(cpu(3))));
    assert_eq!(counter.fetch(machine.percpu), 5, "the others have done it");
}
