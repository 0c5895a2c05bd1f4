//! Migration: a live state is fetched by one cross-call when it is used elsewhere, and by none when it is not.
//!
//! Leak rules: as each case says. Placement is by hand and the timer off, so the counters are compared exactly.
//! What holds under every policy is looked at under each of them too.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "Nehalem",
            cpus: 2,
        },
        Run {
            cpu: "Haswell",
            cpus: 4,
        },
        Run {
            cpu: "max",
            cpus: 2,
        },
    ];
    pcu9_runner::boot_test("boot_migration", &runs)
}

#[cfg(target_os = "none")]
#[expect(
    clippy::cast_possible_truncation,
    reason = "x86-64 only: a u64 fits in usize"
)]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;

    use pcu9::pcu::UnitStats;
    use pcu9_testbed::cpu;
    use pcu9_testbed::glue::{FPU, cpu_pcu};
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::{current, yield_now};
    use pcu9_testbed::testing::{
        Case, Counts, Turns, assert_gate_closed, assert_gate_open, difference, is_exact,
        is_task_switched, move_to, new_domain, poison_own_memory, spawn, stats,
    };

    pcu9_testbed::boot_tests! {
        every_policy_and_rule:
            live_state_follows_by_one_cross_call,
            there_and_back_unstolen_moves_nothing,
            there_and_back_over_an_lwp_that_uses_no_fpu_moves_nothing,
            a_state_stolen_meanwhile_is_in_memory,
            a_state_wiped_meanwhile_is_in_memory,
            a_round_trip_over_all_cpus_keeps_every_change,
    }

    /// One LWP that loads on CPU 0 and uses the state on CPU 1.
    fn follow(case: &mut Case) {
        let counts = Counts::begin();
        let before = [0, 1].map(stats);
        let lwp = spawn("user", 0, new_domain(), || {
            let pattern = Pattern::random(1);
            pattern.load();
            poison_own_memory();
            move_to(1);
            if is_exact() {
                assert_eq!(cpu_pcu(0).owner(FPU), Some((&*current()).into()));
            }
            assert_gate_closed("the state is elsewhere");
            assert_eq!(Pattern::store(), pattern);
            assert_eq!(cpu_pcu(0).owner(FPU), None);
            assert_eq!(cpu_pcu(1).owner(FPU), Some((&*current()).into()));
            assert_eq!(cpu::index(), 1);
        });
        case.join(&[lwp]);
        let on_0 = UnitStats {
            traps: 1,
            inits: 1,
            saves: 1,
            releases: 1,
            ..UnitStats::default()
        };
        let on_1 = UnitStats {
            traps: 1,
            restores: 1,
            xcalls: 1,
            releases: 1,
            discards: 1,
            ..UnitStats::default()
        };
        if is_exact() {
            case.expect_eq("on CPU 0", difference(stats(0), before[0]), on_0);
            case.expect_eq("on CPU 1", difference(stats(1), before[1]), on_1);
        }
        let mut sum = on_0;
        sum += on_1;
        case.expect_counts(&counts, sum);
    }

    fn live_state_follows_by_one_cross_call(case: &mut Case) {
        case.trusting();
        follow(case);
        case.domain_aware();
        follow(case);
    }

    /// What it takes to use the FPU once and end.
    fn one_user() -> UnitStats {
        UnitStats {
            traps: 1,
            inits: 1,
            releases: 1,
            discards: 1,
            ..UnitStats::default()
        }
    }

    fn there_and_back_unstolen_moves_nothing(case: &mut Case) {
        case.domain_aware();
        let counts = Counts::begin();
        let lwp = spawn("user", 0, new_domain(), || {
            let pattern = Pattern::random(1);
            pattern.load();
            poison_own_memory();
            for _ in 0..20 {
                move_to(1);
                assert_gate_closed("the state is elsewhere");
                move_to(0);
                assert_gate_open("the owner is back");
                assert_eq!(Pattern::store(), pattern);
            }
        });
        case.join(&[lwp]);
        case.expect_counts(&counts, one_user());
    }

    /// An LWP without use of the FPU runs on CPU 0 meanwhile, in the same domain, and finds the gate closed.
    fn there_and_back_over_an_lwp_that_uses_no_fpu_moves_nothing(case: &mut Case) {
        const ROUNDS: u64 = 20;
        case.domain_aware();
        let domain = new_domain();
        let turns = Arc::new(Turns::new());
        let others_turns = Arc::clone(&turns);
        let counts = Counts::begin();
        let user = spawn("user", 0, domain, move || {
            let pattern = Pattern::random(1);
            pattern.load();
            poison_own_memory();
            for round in 0..ROUNDS {
                move_to(1);
                turns.next();
                turns.wait(2 * round + 2);
                move_to(0);
                assert_eq!(Pattern::store(), pattern);
            }
        });
        // On CPU 1 until it is its turn, so that CPU 0 sees it once in each round.
        let other = spawn("integers", 1, domain, move || {
            for round in 0..ROUNDS {
                others_turns.wait(2 * round + 1);
                move_to(0);
                assert!(is_task_switched(), "the gate is closed over this LWP");
                move_to(1);
                others_turns.next();
            }
        });
        case.join(&[user, other]);
        let expected = UnitStats {
            reenables_switch: ROUNDS,
            ..one_user()
        };
        case.expect_counts(&counts, expected);
    }

    /// Another LWP takes the registers on CPU 0; nobody has to ask CPU 0 for them then.
    fn a_state_stolen_meanwhile_is_in_memory(case: &mut Case) {
        case.trusting();
        let turns = Arc::new(Turns::new());
        let thiefs_turns = Arc::clone(&turns);
        let counts = Counts::begin();
        let user = spawn("user", 0, new_domain(), move || {
            let pattern = Pattern::random(1);
            pattern.load();
            poison_own_memory();
            move_to(1);
            turns.next();
            turns.wait(2);
            assert_eq!(Pattern::store(), pattern);
        });
        let thief = spawn("thief", 1, new_domain(), move || {
            thiefs_turns.wait(1);
            move_to(0);
            assert_eq!(Pattern::store(), Pattern::INITIAL);
            Pattern::random(2).load();
            thiefs_turns.next();
        });
        case.join(&[user, thief]);
        let expected = UnitStats {
            traps: 3,
            inits: 2,
            restores: 1,
            saves: 1,
            releases: 3,
            discards: 2,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }

    /// An LWP of another domain comes to CPU 0, and does not even use the FPU.
    fn a_state_wiped_meanwhile_is_in_memory(case: &mut Case) {
        case.domain_aware();
        let turns = Arc::new(Turns::new());
        let others_turns = Arc::clone(&turns);
        let counts = Counts::begin();
        let user = spawn("user", 0, new_domain(), move || {
            let pattern = Pattern::random(1);
            pattern.load();
            poison_own_memory();
            move_to(1);
            turns.next();
            turns.wait(2);
            assert_eq!(Pattern::store(), pattern);
        });
        let other = spawn("integers", 1, new_domain(), move || {
            others_turns.wait(1);
            move_to(0);
            yield_now();
            others_turns.next();
        });
        case.join(&[user, other]);
        let expected = UnitStats {
            traps: 2,
            inits: 1,
            restores: 1,
            saves: 1,
            releases: 2,
            discards: 1,
            wipes: 1,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }

    fn a_round_trip_over_all_cpus_keeps_every_change(case: &mut Case) {
        const ROUNDS: u64 = 25;
        case.trusting();
        let n_cpus = cpu::n_cpus();
        let n_moves = ROUNDS * n_cpus as u64;
        let counts = Counts::begin();
        let lwp = spawn("user", 0, new_domain(), move || {
            let mut pattern = Pattern::INITIAL;
            for step in 0..=n_moves {
                move_to(step as usize % n_cpus);
                assert_eq!(Pattern::store(), pattern, "after {step} moves");
                pattern = Pattern::random(step);
                pattern.load();
                poison_own_memory();
            }
        });
        case.join(&[lwp]);
        let expected = UnitStats {
            traps: 1 + n_moves,
            inits: 1,
            restores: n_moves,
            saves: n_moves,
            releases: 1 + n_moves,
            discards: 1,
            xcalls: n_moves,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }
}
