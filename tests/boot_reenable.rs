//! A trap while the LWP owns the unit here re-enables it and never reloads: the registers may be newer than memory.
//!
//! In each case memory holds a wrong image meanwhile, so a reload would show. Leak rules and policies: as each case says.
//! What holds under every policy is looked at under each of them too.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
        Run {
            cpu: "Haswell",
            cpus: 2,
        },
    ];
    pcu9_runner::boot_test("boot_reenable", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    use pcu9::pcu::{CoreDump, LoadError, Policy, UnitId, UnitStats};
    use pcu9_testbed::glue::{FPU, PCU, cpu_pcu, with_token};
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::yield_now;
    use pcu9_testbed::testing::{
        Case, Counts, is_task_switched, move_to, new_domain, poison_own_memory,
        set_task_switched_by_hand, spawn, spawn_plain,
    };

    pcu9_testbed::boot_tests! {
        every_policy_and_rule:
            a_trap_of_the_owner_reenables,
            a_load_of_the_owner_reenables,
            a_saved_owner_that_keeps_its_registers_needs_no_trap,
            what_is_no_unit_is_an_error;
        own_policies:
            a_trap_of_the_owner_after_a_switch_reenables,
    }

    const ROUNDS: u64 = 20;

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

    /// Somebody sets `CR0.TS` behind the back of `pcu9`.
    fn a_trap_of_the_owner_reenables(case: &mut Case) {
        case.domain_aware();
        let counts = Counts::begin();
        let lwp = spawn("user", 0, new_domain(), || {
            for seed in 0..ROUNDS {
                let pattern = Pattern::random(seed);
                pattern.load();
                poison_own_memory();
                set_task_switched_by_hand();
                assert_eq!(Pattern::store(), pattern);
                assert!(!is_task_switched(), "the trap opened the gate");
                assert!(cpu_pcu(0).is_enabled(FPU), "and the shadow says so");
            }
        });
        case.join(&[lwp]);
        let expected = UnitStats {
            traps: 1 + ROUNDS,
            spurious: ROUNDS,
            ..one_user()
        };
        case.expect_counts(&counts, expected);
    }

    /// Under `Probe` each slice begins with the gate closed, the owner's too.
    fn a_trap_of_the_owner_after_a_switch_reenables(case: &mut Case) {
        case.trusting();
        case.policy(Policy::Probe);
        move_to(0);
        let counts = Counts::begin();
        let user = spawn("user", 0, new_domain(), || {
            for seed in 0..ROUNDS {
                let pattern = Pattern::random(seed);
                pattern.load();
                poison_own_memory();
                yield_now();
                assert!(is_task_switched(), "each slice begins with the gate closed");
                assert_eq!(Pattern::store(), pattern);
                assert!(!is_task_switched(), "the trap opened the gate");
            }
        });
        let other = spawn_plain("kernel thread", 0, || {
            for _ in 0..ROUNDS {
                yield_now();
            }
        });
        case.join(&[user, other]);
        let expected = UnitStats {
            traps: 1 + ROUNDS,
            reenables_trap: ROUNDS,
            probes: ROUNDS,
            ..one_user()
        };
        case.expect_counts(&counts, expected);
        case.policy(Policy::Lazy);
    }

    fn a_load_of_the_owner_reenables(case: &mut Case) {
        case.domain_aware();
        let counts = Counts::begin();
        let lwp = spawn("user", 0, new_domain(), || {
            let pattern = Pattern::random(1);
            pattern.load();
            poison_own_memory();
            for _ in 0..ROUNDS {
                assert_eq!(with_token(|token| PCU.load(token, FPU)), Ok(()));
                assert_eq!(Pattern::store(), pattern);
            }
        });
        case.join(&[lwp]);
        let expected = UnitStats {
            loads: ROUNDS,
            reenables_load: ROUNDS,
            ..one_user()
        };
        case.expect_counts(&counts, expected);
    }

    /// `save_all` without a dump brings memory up to date, and the LWP goes on as if nothing had been.
    fn a_saved_owner_that_keeps_its_registers_needs_no_trap(case: &mut Case) {
        case.domain_aware();
        let counts = Counts::begin();
        let lwp = spawn("user", 0, new_domain(), || {
            for seed in 0..ROUNDS {
                let pattern = Pattern::random(seed);
                pattern.load();
                assert_eq!(
                    with_token(|token| PCU.save_all(token, CoreDump::No)),
                    Ok(())
                );
                poison_own_memory();
                assert!(!is_task_switched(), "the gate stays open");
                assert_eq!(Pattern::store(), pattern);
            }
        });
        case.join(&[lwp]);
        let expected = UnitStats {
            saves: ROUNDS,
            ..one_user()
        };
        case.expect_counts(&counts, expected);
    }

    fn what_is_no_unit_is_an_error(case: &mut Case) {
        const OTHER: UnitId = UnitId::new(1);
        case.domain_aware();
        let counts = Counts::begin();
        let lwp = spawn("user", 0, new_domain(), || {
            let answer = with_token(|token| PCU.load(token, OTHER));
            assert_eq!(answer, Err(LoadError::NoSuchUnit(OTHER)));
            assert!(is_task_switched(), "the gate is still closed");
        });
        case.join(&[lwp]);
        case.expect_counts(&counts, UnitStats::default());
    }
}
