//! The first use of the FPU traps, once and only once; who never uses it never traps.
//!
//! Leak rules: as each case says. Placement is by hand and the timer off, so the counters are compared exactly.
//! What holds under every policy is looked at under each of them too.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "max",
            cpus: 1,
        },
        Run {
            cpu: "Haswell",
            cpus: 4,
        },
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_first_use", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    use pcu9::pcu::UnitStats;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::yield_now;
    use pcu9_testbed::testing::{
        Case, Counts, assert_gate_open, is_task_switched, move_to, new_domain, spawn, spawn_plain,
    };

    pcu9_testbed::boot_tests! {
        every_policy_and_rule:
            the_first_use_traps_once,
            the_first_use_of_a_new_lwp_traps_where_another_has_just_used,
            no_trap_again_after_kernel_threads,
            no_trap_again_after_an_lwp_that_uses_no_fpu,
            an_integer_lwp_never_traps,
            an_integer_lwp_beside_an_fpu_user_never_traps,
            an_integer_lwp_beside_an_fpu_user_of_another_domain_never_traps,
    }

    /// What one LWP does that uses the FPU on one CPU, is never disturbed, and ends.
    fn one_user() -> UnitStats {
        UnitStats {
            traps: 1,
            inits: 1,
            releases: 1,
            discards: 1,
            ..UnitStats::default()
        }
    }

    const ROUNDS: u64 = 100;

    /// Uses the FPU all the time, yielding between.
    fn use_and_yield() {
        assert!(
            is_task_switched(),
            "the gate is closed before the first use"
        );
        assert_eq!(Pattern::store(), Pattern::INITIAL);
        let pattern = Pattern::random(1);
        pattern.load();
        for _ in 0..ROUNDS {
            yield_now();
            assert_gate_open("the owner comes back");
            assert_eq!(Pattern::store(), pattern);
        }
    }

    fn the_first_use_traps_once(case: &mut Case) {
        case.domain_aware();
        let counts = Counts::begin();
        let lwp = spawn("user", 0, new_domain(), || {
            assert!(
                is_task_switched(),
                "the gate is closed before the first use"
            );
            for seed in 0..ROUNDS {
                Pattern::random(seed).load();
                assert_eq!(Pattern::store(), Pattern::random(seed));
            }
        });
        case.join(&[lwp]);
        case.expect_counts(&counts, one_user());
    }

    fn the_first_use_of_a_new_lwp_traps_where_another_has_just_used(case: &mut Case) {
        case.trusting();
        move_to(0);
        let counts = Counts::begin();
        let lwps = [1, 2, 3].map(|seed| {
            spawn("user", 0, new_domain(), move || {
                assert!(
                    is_task_switched(),
                    "the gate is closed before the first use"
                );
                assert_eq!(Pattern::store(), Pattern::INITIAL);
                Pattern::random(seed).load();
            })
        });
        case.join(&lwps);
        let three = UnitStats {
            traps: 3,
            inits: 3,
            releases: 3,
            discards: 3,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, three);
    }

    fn no_trap_again_after_kernel_threads(case: &mut Case) {
        case.domain_aware();
        move_to(0);
        let counts = Counts::begin();
        let user = spawn("user", 0, new_domain(), use_and_yield);
        let other = spawn_plain("kernel thread", 0, || {
            for _ in 0..ROUNDS {
                yield_now();
            }
        });
        case.join(&[user, other]);
        // The gate stays open over a kernel thread, so that it is not even opened again.
        case.expect_counts(&counts, one_user());
    }

    /// Counts of a user and an integer LWP that take turns.
    fn beside(case: &mut Case, user_domain: u64, integer_domain: u64, expected: UnitStats) {
        move_to(0);
        let counts = Counts::begin();
        let user = spawn("user", 0, user_domain, || {
            assert_eq!(Pattern::store(), Pattern::INITIAL);
            let pattern = Pattern::random(1);
            pattern.load();
            for _ in 0..ROUNDS {
                yield_now();
                assert_eq!(Pattern::store(), pattern);
            }
        });
        let integer = spawn("integers", 0, integer_domain, || {
            for _ in 0..ROUNDS {
                assert!(is_task_switched(), "the gate is closed over this LWP");
                yield_now();
            }
        });
        case.join(&[user, integer]);
        case.expect_counts(&counts, expected);
    }

    /// The user finds its gate opened again at each switch, and never traps.
    fn undisturbed() -> UnitStats {
        UnitStats {
            reenables_switch: ROUNDS,
            ..one_user()
        }
    }

    fn no_trap_again_after_an_lwp_that_uses_no_fpu(case: &mut Case) {
        case.trusting();
        beside(case, new_domain(), new_domain(), undisturbed());
    }

    fn an_integer_lwp_never_traps(case: &mut Case) {
        case.trusting();
        let counts = Counts::begin();
        let lwp = spawn("integers", 0, new_domain(), || {
            for _ in 0..ROUNDS {
                assert!(is_task_switched(), "the gate is closed over this LWP");
                yield_now();
            }
        });
        case.join(&[lwp]);
        case.expect_counts(&counts, UnitStats::default());
    }

    fn an_integer_lwp_beside_an_fpu_user_never_traps(case: &mut Case) {
        case.domain_aware();
        let domain = new_domain();
        beside(case, domain, domain, undisturbed());
    }

    /// Every trap is the user's: it finds its registers saved and wiped each time that it comes back. What it leaves at
    /// its end is wiped as well.
    fn an_integer_lwp_beside_an_fpu_user_of_another_domain_never_traps(case: &mut Case) {
        case.domain_aware();
        let expected = UnitStats {
            traps: 1 + ROUNDS,
            restores: ROUNDS,
            saves: ROUNDS,
            releases: 1 + ROUNDS,
            wipes: ROUNDS + 1,
            ..one_user()
        };
        beside(case, new_domain(), new_domain(), expected);
    }
}
