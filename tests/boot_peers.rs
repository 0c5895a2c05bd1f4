//! What other projects' tests of their FPU switching assert, written anew: see `tests/tables/peers.toml`.
//!
//! Leak rule: as each case says, and in a repetition the other. The timer is on where the original is preempted.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = ["max", "qemu64"].map(|cpu| Run { cpu, cpus: 4 });
    pcu9_runner::boot_test("boot_peers", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use pcu9::pcu::{LoadError, StateError, Validity};
    use pcu9_testbed::glue::{FPU, PCU, with_token};
    use pcu9_testbed::registers::{HARMONIC, Pattern, RegisterFile, harmonic};
    use pcu9_testbed::sched::{counters, current, set_pin, set_timer, sleep_a_tick, yield_now};
    use pcu9_testbed::testing::{
        Case, Counts, Player, is_exact, move_to, new_domain, on, spawn, yield_until,
    };

    pcu9_testbed::boot_tests! {
        every_policy_and_rule:
            linux_xstate_context_switch,
            sel4_fpu0000_one_thread,
            sel4_fpu0001_four_threads_are_preempted,
            sel4_fpu0002_threads_move_while_they_compute,
            sel4_fpu0004_disabled_used_enabled_and_the_old_contents,
            illumos_spawn_fpu,
            zephyr_fpu_sharing,
    }

    /// `xstate.c`: five threads on CPU 0 hand the turn round ten times; each loads random contents into every register, and finds
    /// them when the turn comes back.
    fn linux_xstate_context_switch(case: &mut Case) {
        const ROUNDS: u64 = 10;
        case.domain_aware();
        move_to(3);
        let counts = Counts::begin();
        let threads = [0, 1, 2, 3, 4].map(|_| Player::new("thread", 0));
        for round in 0..=ROUNDS {
            for (thread, number) in threads.iter().zip(0..) {
                thread.does(move || {
                    if round > 0 {
                        let loaded = RegisterFile::random(number << 32 | (round - 1));
                        assert_eq!(RegisterFile::store(), loaded, "thread {number}");
                    }
                    RegisterFile::random(number << 32 | round).load();
                });
            }
        }
        for thread in threads {
            thread.ends();
        }
        case.expect_identities(&counts);
        if is_exact() {
            let counted = counts.so_far();
            case.expect_eq("first uses", counted.inits, 5);
            case.expect_eq("taken from each other", counted.restores, 5 * ROUNDS);
        }
    }

    /// `FPU0000`: one thread, and its arithmetic is right.
    fn sel4_fpu0000_one_thread(case: &mut Case) {
        case.domain_aware();
        let lwp = spawn("computes", 1, new_domain(), || {
            assert_eq!(harmonic(), HARMONIC);
        });
        case.join(&[lwp]);
    }

    fn preemptions(cpu: usize) -> u64 {
        counters(cpu).preemptions.load(Ordering::Relaxed)
    }

    /// `FPU0001`: four threads compute the same. The original fails where they were preempted less than 20 times, since it has
    /// shown nothing then; so does this.
    fn sel4_fpu0001_four_threads_are_preempted(case: &mut Case) {
        const ENOUGH: u64 = 20;
        static N_RIGHT: AtomicU64 = AtomicU64::new(0);
        case.domain_aware();
        move_to(3);
        N_RIGHT.store(0, Ordering::Relaxed);
        let before = preemptions(0);
        let is_enough = move || preemptions(0) - before >= 2 * ENOUGH;
        let counts = Counts::begin();
        set_timer(true);
        let threads = [0, 1, 2, 3].map(|_| {
            spawn("computes", 0, new_domain(), move || {
                while !is_enough() || N_RIGHT.load(Ordering::Relaxed) < 100 {
                    assert_eq!(harmonic(), HARMONIC);
                    N_RIGHT.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        case.join(&threads);
        set_timer(false);
        let n = preemptions(0) - before;
        case.log(format_args!(
            "{n} preemptions, {} results",
            N_RIGHT.load(Ordering::Relaxed)
        ));
        case.expect("at least 20 preemptions", n >= ENOUGH);
        case.expect_identities(&counts);
        let counted = counts.so_far();
        case.expect(
            "the registers changed hands",
            counted.restores + counted.elided_restores >= ENOUGH,
        );
    }

    /// `FPU0002`: 100 times the threads are moved to another CPU in the middle of their computation. Two threads on three CPUs: the
    /// one that comes takes the registers of the one that left, or nobody does.
    fn sel4_fpu0002_threads_move_while_they_compute(case: &mut Case) {
        static STOP: AtomicBool = AtomicBool::new(false);
        case.domain_aware();
        move_to(3);
        STOP.store(false, Ordering::Relaxed);
        let migrations = || -> u64 {
            let of = |cpu| counters(cpu).migrations.load(Ordering::Relaxed);
            (0..3).map(of).sum()
        };
        let before = migrations();
        let counts = Counts::begin();
        let n_rounds = if is_exact() { 100 } else { 20 };
        let threads = [0, 1].map(|cpu| {
            spawn("computes", cpu, new_domain(), || {
                while !STOP.load(Ordering::Relaxed) {
                    assert_eq!(harmonic(), HARMONIC);
                }
            })
        });
        for round in 0..=n_rounds {
            for (place, thread) in threads.iter().enumerate() {
                set_pin(thread, on((place + round) % 3));
            }
            // All have got there; in round 0, have begun.
            let is_there = |place: usize| threads[place].last_cpu() == Some((place + round) % 3);
            assert!(yield_until(|| (0..2).all(is_there)));
        }
        STOP.store(true, Ordering::Relaxed);
        case.join(&threads);
        let n = migrations() - before;
        case.expect("each moved in each round", n >= 2 * n_rounds as u64);
        case.expect_identities(&counts);
        let counted = counts.so_far();
        case.log(format_args!(
            "{n} migrations, {} cross-calls",
            counted.xcalls
        ));
        if is_exact() {
            case.expect("states were fetched", counted.xcalls > counted.xcalls_raced);
        }
    }

    /// `FPU0003` and `FPU0004`: a thread whose FPU is disabled faults at its next use; enabled again it goes on with the old
    /// contents. Here the kernel refuses the area, and whoever asks for the unit is told.
    fn sel4_fpu0004_disabled_used_enabled_and_the_old_contents(case: &mut Case) {
        case.domain_aware();
        move_to(3);
        let counts = Counts::begin();
        let thread = Player::new("thread", 0);
        for seed in 0..5 {
            thread.does(move || {
                Pattern::random(seed).load();
                // Disabled: what is in the registers is put away, and the next use is refused.
                assert_eq!(with_token(|token| PCU.save(token, FPU)), Ok(()));
                current().refuse_fpu_area(true);
                let use_it = || with_token(|token| PCU.load(token, FPU));
                let refused = LoadError::State(StateError::Refused);
                assert_eq!(use_it(), Err(refused));
                assert_eq!(use_it(), Err(refused), "as often as it is tried");
                let looked = with_token(|token| PCU.inspect(token, FPU));
                assert_eq!(looked, Ok(Validity::Valid));
                current().refuse_fpu_area(false);
                assert_eq!(Pattern::store(), Pattern::random(seed));
            });
        }
        thread.ends();
        case.expect_eq("uses that were refused", counts.so_far().failed, 10);
    }

    /// `spawn_fpu`: a new thread has the default control words and registers, and still has them after it was preempted often,
    /// beside four siblings that hammer all registers of the same CPU.
    fn illumos_spawn_fpu(case: &mut Case) {
        static STOP: AtomicBool = AtomicBool::new(false);
        case.trusting();
        move_to(3);
        STOP.store(false, Ordering::Relaxed);
        let counts = Counts::begin();
        set_timer(true);
        let siblings = [1, 2, 3, 4].map(|seed| {
            spawn("hammers", 0, new_domain(), move || {
                let mut seed = seed << 32;
                while !STOP.load(Ordering::Relaxed) {
                    RegisterFile::random(seed).load();
                    assert_eq!(RegisterFile::store(), RegisterFile::random(seed));
                    seed += 1;
                }
            })
        });
        let before = preemptions(0);
        for _ in 0..3 {
            let new = spawn("new", 0, new_domain(), || {
                assert_eq!(RegisterFile::store(), RegisterFile::INITIAL);
                let end = preemptions(0) + 25;
                while preemptions(0) < end {
                    assert_eq!(RegisterFile::store(), RegisterFile::INITIAL);
                }
            });
            case.join(&[new]);
        }
        STOP.store(true, Ordering::Relaxed);
        case.join(&siblings);
        set_timer(false);
        case.expect("preemptions", preemptions(0) - before >= 75);
        case.expect_identities(&counts);
    }

    /// `load_store.c`: two threads fill all registers; the one of higher priority, which wakes at each tick, preempts the other
    /// at any instruction, and both verify. Now and then the lower one gives the FPU up (`k_float_disable`) and begins anew.
    fn zephyr_fpu_sharing(case: &mut Case) {
        const WAKE_UPS: u64 = 60;
        const GIVES_UP_EVERY: u64 = 100;
        case.domain_aware();
        move_to(3);
        let has_ended = Arc::new(AtomicBool::new(false));
        let counts = Counts::begin();
        set_timer(true);
        let low = spawn("low", 0, new_domain(), {
            let has_ended = Arc::clone(&has_ended);
            move || {
                let mut loops = 0;
                let mut loaded = RegisterFile::INITIAL;
                while !has_ended.load(Ordering::Relaxed) || loops <= GIVES_UP_EVERY {
                    assert_eq!(RegisterFile::store(), loaded, "low, loop {loops}");
                    loops += 1;
                    loaded = RegisterFile::random(loops);
                    loaded.load();
                    if loops % GIVES_UP_EVERY == 0 {
                        let answer = with_token(|token| PCU.discard(token, FPU, Validity::Invalid));
                        assert_eq!(answer, Ok(()));
                        loaded = RegisterFile::INITIAL;
                    }
                }
            }
        });
        let high = spawn("high", 0, new_domain(), || {
            for round in 0..WAKE_UPS {
                let loaded = RegisterFile::random(1 << 32 | round);
                loaded.load();
                sleep_a_tick();
                assert_eq!(RegisterFile::store(), loaded, "high, round {round}");
                yield_now();
            }
        });
        case.join(&[high]);
        has_ended.store(true, Ordering::Relaxed);
        case.join(&[low]);
        set_timer(false);
        let counted = counts.so_far();
        case.expect("the lower one gave up", counted.inits > 2);
        case.expect(
            "the registers changed hands",
            counted.restores + counted.elided_restores >= WAKE_UPS / 2,
        );
    }
}
