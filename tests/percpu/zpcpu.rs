//! Allocations: their bytes are every CPU's own, nobody else's, and used again.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64};

use pcu9::percpu::{NoRoom, Pinned, Zeroable, Zpcpu};
use proptest::prelude::{any, proptest};

use crate::machine::{Machine, STRIDE, TICKS, cpu};

#[test]
fn an_allocation_is_zero_on_every_cpu_now_and_later() {
    let machine = Machine::new(&[0, 5]);
    let first = Zpcpu::<AtomicU64>::alloc(machine.percpu).expect("room");
    first.add(machine.go_to(5), 3);
    machine.add(6).expect("a new CPU");
    assert_eq!(first.get(machine.go_to(6)), 0);
    assert_eq!(first.sum(machine.percpu), 3);
    let name = first.name();
    first.free(machine.percpu);
    let again = Zpcpu::<AtomicU64>::alloc(machine.percpu).expect("room");
    assert_eq!(again.name(), name, "what was given back is used again");
    assert_eq!(again.sum(machine.percpu), 0, "and is zero again");
}

#[test]
fn two_cpus_never_share_a_cache_line() {
    let machine = Machine::new(&[0, 1, 2]);
    let object = Zpcpu::<[AtomicU8; 3]>::alloc(machine.percpu).expect("room");
    let mut lines: Vec<_> = [0, 1, 2]
        .map(|number| {
            let at = object.on(machine.percpu, cpu(number)).expect("present");
            std::ptr::from_ref(at).addr() / 64
        })
        .into();
    lines.dedup();
    assert_eq!(lines.len(), 3);
    assert!(object.on(machine.percpu, cpu(3)).is_none());
}

#[test]
fn this_cpus_object_is_the_one_that_others_see() {
    let machine = Machine::new(&[2, 9]);
    let object = Zpcpu::<[AtomicU16; 4]>::alloc(machine.percpu).expect("room");
    // SAFETY: the machine stays where it is.
    let pinned = unsafe { Pinned::assume(machine.go_to(9)) };
    object.here(&pinned)[2].store(7, Relaxed);
    let seen = [2, 9]
        .map(|number| object.on(machine.percpu, cpu(number)).expect("present")[2].load(Relaxed));
    assert_eq!(seen, [0, 7]);
}

#[test]
fn when_the_areas_are_full_the_error_says_so() {
    let machine = Machine::new(&[0]);
    assert_eq!(
        Zpcpu::<[AtomicU64; STRIDE / 8]>::alloc(machine.percpu).err(),
        Some(NoRoom { bytes: STRIDE })
    );
    let mut all = Vec::new();
    let error = loop {
        match Zpcpu::<[AtomicU64; 16]>::alloc(machine.percpu) {
            Ok(object) => all.push(object),
            Err(error) => break error,
        }
    };
    assert_eq!(error, NoRoom { bytes: 128 });
    assert!(all.len() >= 50, "{} allocations", all.len());
    assert_eq!(
        TICKS.get(machine.go_to(0)),
        1000,
        "variables are not touched"
    );
    let one = all.swap_remove(17);
    let name = one.name();
    one.free(machine.percpu);
    let again = Zpcpu::<[AtomicU64; 16]>::alloc(machine.percpu).expect("room");
    assert_eq!(again.name(), name);
}

/// An object that fills a cache line.
#[repr(align(64))]
struct Line(AtomicU64);

// SAFETY: zero is a number, and it needs no drop.
unsafe impl Zeroable for Line {}

#[test]
fn an_allocation_is_aligned_as_its_type_is() {
    let machine = Machine::new(&[0]);
    let _word = Zpcpu::<AtomicU64>::alloc(machine.percpu).expect("room");
    let line = Zpcpu::<Line>::alloc(machine.percpu).expect("room");
    let line = line.on(machine.percpu, cpu(0)).expect("present");
    assert_eq!(std::ptr::from_ref(line).addr() % 64, 0);
    assert_eq!(line.0.load(Relaxed), 0);
}

#[test]
fn all_that_is_given_back_can_be_had_again() {
    let machine = Machine::new(&[0]);
    let fill = || {
        std::iter::from_fn(|| Zpcpu::<AtomicU64>::alloc(machine.percpu).ok()).collect::<Vec<_>>()
    };
    let first = fill();
    let n = first.len();
    assert!(n > 500);
    for word in first {
        word.free(machine.percpu);
    }
    assert_eq!(fill().len(), n);
}

proptest! {
    /// A model: allocations of three sizes come and go; no two overlap, each keeps its value on each CPU.
    #[test]
    fn allocations_never_overlap(steps in proptest::collection::vec((0u8..4, any::<u8>()), 0..150)) {
        let numbers = [0, 66];
        let machine = Machine::new(&numbers);
        let mut words: Vec<(Zpcpu<AtomicU64>, [u64; 2])> = Vec::new();
        let mut rows: Vec<(Zpcpu<[AtomicU8; 24]>, [u8; 2])> = Vec::new();
        for (what, n) in steps {
            match what {
                0 => {
                    let word = Zpcpu::<AtomicU64>::alloc(machine.percpu).expect("room");
                    let values = [u64::from(n), u64::from(n) << 32];
                    for (number, value) in numbers.into_iter().zip(values) {
                        assert_eq!(word.get(machine.go_to(number)), 0);
                        word.set(machine.go_to(number), value);
                    }
                    words.push((word, values));
                }
                1 => {
                    let row = Zpcpu::<[AtomicU8; 24]>::alloc(machine.percpu).expect("room");
                    let values = [n, !n];
                    for (number, value) in numbers.into_iter().zip(values) {
                        for byte in row.on(machine.percpu, cpu(number)).expect("present") {
                            assert_eq!(byte.swap(value, Relaxed), 0);
                        }
                    }
                    rows.push((row, values));
                }
                2 if !words.is_empty() => words.swap_remove(usize::from(n) % words.len()).0.free(machine.percpu),
                3 if !rows.is_empty() => rows.swap_remove(usize::from(n) % rows.len()).0.free(machine.percpu),
                _ => {}
            }
            for (place, number) in numbers.into_iter().enumerate() {
                let here = machine.go_to(number);
                assert!(words.iter().all(|(word, values)| word.get(here) == values[place]));
                assert!(rows.iter().all(|(row, values)| row.on(machine.percpu, cpu(number))
                    .expect("present").iter().all(|byte| byte.load(Relaxed) == values[place])));
            }
        }
    }
}
