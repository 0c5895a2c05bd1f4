//! `discard` throws the registers away, and memory becomes the state or there is none; `replace` puts another state there.
//!
//! Leak rules: as each case says. Placement is by hand and the timer off, so the counters are compared exactly.
//! What holds under every policy is looked at under each of them too.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "SandyBridge",
            cpus: 2,
        },
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_discard", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    use core::ptr::NonNull;

    use pcu9::kernel::{NoAnswer, Stopped};
    use pcu9::pcu::{CoreDump, Policy, UnitStats, Validity};
    use pcu9_testbed::cpu;
    use pcu9_testbed::glue::{FPU, KERNEL, PCU, cpu_pcu, with_token};
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::current;
    use pcu9_testbed::testing::{
        Case, Counts, image, is_task_switched, move_to, new_domain, policy, prepare, spawn, start,
        write_image,
    };

    pcu9_testbed::boot_tests! {
        every_policy:
            invalid_gives_the_initial_state,
            valid_gives_what_memory_holds,
            replace_gives_what_was_written;
        every_policy_and_rule:
            valid_where_nothing_was_saved_gives_what_the_area_was_prepared_with,
            a_state_in_memory_is_discarded_too,
            a_state_on_another_cpu_is_discarded_there,
            a_stopped_lwp_gets_what_its_holder_writes,
    }

    fn discard(validity: Validity) {
        let answer = with_token(|token| PCU.discard(token, FPU, validity));
        assert_eq!(answer, Ok(()));
        assert_eq!(current().pcu().valid_p(FPU), validity == Validity::Valid);
        assert!(is_task_switched(), "the next use traps");
        assert_eq!(cpu_pcu(cpu::index()).owner(FPU), None);
    }

    fn save_and_keep() {
        let answer = with_token(|token| PCU.save_all(token, CoreDump::No));
        assert_eq!(answer, Ok(()));
    }

    fn check(case: &mut Case, expected: UnitStats, f: fn()) {
        let counts = Counts::begin();
        let lwp = spawn("user", 0, new_domain(), f);
        case.join(&[lwp]);
        case.expect_counts(&counts, expected);
    }

    fn invalid_gives_the_initial_state(case: &mut Case) {
        let expected = UnitStats {
            traps: 2,
            inits: 2,
            releases: 2,
            discards: 2,
            ..UnitStats::default()
        };
        let f = || {
            Pattern::random(1).load();
            discard(Validity::Invalid);
            assert_eq!(Pattern::store(), Pattern::INITIAL);
        };
        case.trusting();
        check(case, expected, f);
        case.domain_aware();
        check(case, expected, f);
    }

    fn valid_gives_what_memory_holds(case: &mut Case) {
        let expected = UnitStats {
            traps: 2,
            inits: 1,
            restores: 1,
            saves: 1,
            releases: 2,
            discards: 2,
            ..UnitStats::default()
        };
        let f = || {
            Pattern::random(1).load();
            save_and_keep();
            Pattern::random(2).load();
            discard(Validity::Valid);
            assert_eq!(Pattern::store(), Pattern::random(1));
        };
        case.gives_up_by_hand(1);
        case.trusting();
        check(case, expected, f);
        case.domain_aware();
        check(case, expected, f);
    }

    fn valid_where_nothing_was_saved_gives_what_the_area_was_prepared_with(case: &mut Case) {
        case.domain_aware();
        case.gives_up_by_hand(1);
        let expected = UnitStats {
            traps: 1,
            restores: 1,
            releases: 1,
            discards: 1,
            ..UnitStats::default()
        };
        check(case, expected, || {
            discard(Validity::Valid);
            assert_eq!(Pattern::store(), Pattern::INITIAL);
        });
    }

    fn a_state_in_memory_is_discarded_too(case: &mut Case) {
        case.domain_aware();
        case.gives_up_by_hand(1);
        let expected = UnitStats {
            traps: 3,
            inits: 2,
            restores: 1,
            saves: 2,
            releases: 3,
            discards: 1,
            ..UnitStats::default()
        };
        check(case, expected, || {
            let save = || assert_eq!(with_token(|token| PCU.save(token, FPU)), Ok(()));
            Pattern::random(1).load();
            save();
            discard(Validity::Valid); // it is so already
            assert_eq!(Pattern::store(), Pattern::random(1));
            save();
            discard(Validity::Invalid);
            assert_eq!(Pattern::store(), Pattern::INITIAL);
        });
    }

    fn a_state_on_another_cpu_is_discarded_there(case: &mut Case) {
        if cpu::n_cpus() == 1 {
            case.log(format_args!(
                "one CPU: there is no other; nothing is tested"
            ));
            return;
        }
        case.domain_aware();
        case.gives_up_by_hand(1);
        let expected = UnitStats {
            traps: 3,
            inits: 2,
            restores: 1,
            saves: 1,
            releases: 3,
            discards: 3,
            xcalls: 2,
            ..UnitStats::default()
        };
        check(case, expected, || {
            Pattern::random(1).load();
            save_and_keep();
            Pattern::random(2).load();
            move_to(1);
            discard(Validity::Valid);
            assert_eq!(cpu_pcu(0).owner(FPU), None);
            // Policies that write through have saved the second one when it left CPU 0.
            let saved_last = match policy() {
                Policy::Deferred | Policy::Eager | Policy::AdaptiveWriteThrough => 2,
                _ => 1,
            };
            assert_eq!(Pattern::store(), Pattern::random(saved_last));
            move_to(0);
            discard(Validity::Invalid);
            assert_eq!(cpu_pcu(1).owner(FPU), None);
            assert_eq!(Pattern::store(), Pattern::INITIAL);
        });
    }

    fn replace_gives_what_was_written(case: &mut Case) {
        let expected = UnitStats {
            traps: 2,
            inits: 1,
            restores: 1,
            saves: 1,
            releases: 2,
            discards: 2,
            ..UnitStats::default()
        };
        let f = || {
            Pattern::random(1).load();
            save_and_keep();
            let image = image(&current());
            Pattern::random(2).load();
            let write = || {
                let lwp = current();
                assert!(!lwp.pcu().valid_p(FPU), "there is no state meanwhile");
                write_image(&lwp, &image);
                Ok::<(), NoAnswer>(())
            };
            let answer = with_token(|token| PCU.replace(token, FPU, |_| write()));
            assert_eq!(answer, Ok(()));
            assert!(is_task_switched(), "the next use traps");
            assert_eq!(Pattern::store(), Pattern::random(1));
        };
        case.gives_up_by_hand(1);
        case.trusting();
        check(case, expected, f);
        case.domain_aware();
        check(case, expected, f);
    }

    /// A new LWP is given registers before it runs.
    fn a_stopped_lwp_gets_what_its_holder_writes(case: &mut Case) {
        case.domain_aware();
        let expected = UnitStats {
            traps: 3,
            inits: 1,
            restores: 2,
            saves: 2,
            releases: 3,
            discards: 2,
            // Of the first one for the second, and of the second one when the first ends.
            wipes: 2,
            ..UnitStats::default()
        };
        check(case, expected, || {
            Pattern::random(1).load();
            save_and_keep();
            let image = image(&current());
            let lwp = prepare("new", 0, new_domain(), || {
                assert_eq!(Pattern::store(), Pattern::random(1));
            });
            // SAFETY: it has not run, and starts below, when the token is gone.
            let mut token = unsafe { Stopped::new(&KERNEL, NonNull::from(&*lwp)) };
            let write = || {
                write_image(&lwp, &image);
                Ok::<(), NoAnswer>(())
            };
            assert_eq!(PCU.replace(&mut token, FPU, |_| write()), Ok(()));
            assert!(!is_task_switched(), "the own gate stays open");
            start(&lwp);
            pcu9_testbed::sched::join(&lwp);
            assert_eq!(Pattern::store(), Pattern::random(1));
        });
    }
}
