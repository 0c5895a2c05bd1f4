//! Variables: initial values, this CPU's copy, other CPUs' copies.

use std::sync::atomic::Ordering::Relaxed;

use pcu9::kernel::Kernel;
use pcu9::percpu::{CpuState, Pinned};
use proptest::prelude::{any, proptest};

use crate::machine::{CPU_PCU, DEPTH, Lwp, Machine, PCPU, TICKS, cpu};

#[test]
fn every_cpu_begins_with_the_initial_value() {
    let machine = Machine::new(&[0, 2]);
    TICKS.set(machine.go_to(0), 4);
    machine.add(9).expect("a new CPU");
    for (number, value) in [(0, 4), (2, 1000), (9, 1000)] {
        assert_eq!(TICKS.get(machine.go_to(number)), value, "cpu {number}");
        let pcpu = PCPU.on(machine.percpu, cpu(number)).expect("present");
        assert_eq!(pcpu.extension.interrupts.load(Relaxed), 77);
        assert_eq!(pcpu.cpu(), u32::from(number));
    }
}

#[test]
fn this_cpu_and_others_see_the_same_copies() {
    let machine = Machine::new(&[1, 70]);
    let here = machine.go_to(70);
    TICKS.add(here, u64::MAX); // wraps
    TICKS.increment(here);
    TICKS.increment(here);
    // SAFETY: the machine stays where it is.
    let pinned = unsafe { Pinned::assume(here) };
    assert_eq!(TICKS.here(&pinned).load(Relaxed), 1001);
    let other = TICKS.on(machine.percpu, cpu(1)).expect("present");
    assert_eq!(other.load(Relaxed), 1000);
    assert!(std::ptr::eq(
        TICKS.here(&pinned),
        TICKS.on(machine.percpu, cpu(70)).expect("present")
    ));
    assert_eq!(TICKS.sum(machine.percpu), 2001);
}

#[test]
fn what_is_not_sync_is_reached_at_ipl_pcu() {
    let machine = Machine::new(&[0, 1]);
    machine.raised(|ipl| DEPTH.at_ipl(machine.go_to(1), ipl).set(6));
    let depths =
        [0, 1].map(|number| machine.raised(|ipl| DEPTH.at_ipl(machine.go_to(number), ipl).get()));
    assert_eq!(depths, [5, 6]);
}

#[test]
fn the_block_knows_its_cpu_its_lwps_and_its_pcu() {
    let machine = Machine::new(&[0, 4]);
    let here = machine.go_to(4);
    assert_eq!(PCPU.this_cpu(here), 4);
    assert!(PCPU.this_lwp(here).is_null());
    let [mut lwp, mut idle] = [1, 2].map(|priority| Lwp { priority });
    let (lwp, idle) = (&raw mut lwp, &raw mut idle);
    machine.raised(|ipl| {
        let pinned = Pinned::at_ipl(here, ipl);
        let pcpu = PCPU.here(&pinned);
        pcpu.set_current(lwp);
        pcpu.set_idle(idle);
        assert_eq!((pcpu.current(), pcpu.idle()), (lwp, idle));
        let own = machine.this_cpu_pcu(ipl);
        assert!(std::ptr::eq(own, CPU_PCU.here(&pinned)));
    });
    assert_eq!(PCPU.this_lwp(here), lwp);
    // SAFETY: it is the one above, which nobody changes.
    assert_eq!(unsafe { &*PCPU.this_lwp(here) }.priority, 1);
    assert!(PCPU.this_lwp(machine.go_to(0)).is_null());
}

proptest! {
    /// Whatever CPUs do in whatever order, each word is what its own CPU made of it.
    #[test]
    fn copies_are_each_cpus_own(steps in proptest::collection::vec((0usize..4, 0usize..4, any::<u64>()), 0..200)) {
        let numbers = [0, 7, 64, 130];
        let machine = Machine::new(&numbers);
        let mut expected = [1000u64; 4];
        for (place, what, n) in steps {
            let here = machine.go_to(numbers[place]);
            let word = &mut expected[place];
            match what {
                0 => { TICKS.add(here, n); *word = word.wrapping_add(n); }
                1 => { TICKS.increment(here); *word = word.wrapping_add(1); }
                2 => { TICKS.set(here, n); *word = n; }
                _ => assert_eq!(TICKS.get(here), *word),
            }
        }
        for (number, word) in numbers.into_iter().zip(expected) {
            assert_eq!(TICKS.on(machine.percpu, cpu(number)).expect("present").load(Relaxed), word);
        }
        assert_eq!(TICKS.sum(machine.percpu), expected.into_iter().fold(0, u64::wrapping_add));
    }

    /// The table says of every id what was done to it last.
    #[test]
    fn states_are_those_of_the_last_change(changes in proptest::collection::vec((0u16..200, 1u8..4), 0..100)) {
        let machine = Machine::new(&[0]);
        let mut expected = vec![CpuState::Absent; 200];
        expected[0] = CpuState::Started;
        for (number, change) in changes {
            let state = &mut expected[usize::from(number)];
            let is_absent = *state == CpuState::Absent;
            let (done, after) = match change {
                1 => (machine.add(number).is_ok() == is_absent, if is_absent { CpuState::Present } else { *state }),
                2 => (machine.percpu.set_started(cpu(number)).is_ok() != is_absent, CpuState::Started),
                _ => (machine.percpu.set_offline(cpu(number)).is_ok() != is_absent, CpuState::Offline),
            };
            assert!(done, "cpu {number}: change {change} of {state:?}");
            if change == 1 || !is_absent { *state = after; }
        }
        let seen: Vec<_> = (0..200).map(|number| machine.percpu.state(cpu(number))).collect();
        assert_eq!(seen, expected);
    }
}
