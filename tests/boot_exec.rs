//! Exec and a new LWP start from the initial state, whoever computed on the CPU before.
//!
//! Each case runs under both leak rules, as the log says. Placement is by hand and the timer off. Where programs run in user mode, the
//! timer is on, the leak rule `DomainAware`, and there is the look at every switch, trap and return.
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
            cpus: 2,
        },
    ];
    pcu9_runner::boot_test("boot_exec", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicBool, Ordering};

    use pcu9::pcu::UnitStats;
    use pcu9_testbed::glue::{EXECS, FPU, PERCPU, cpu_pcu, exec};
    use pcu9_testbed::lwp::Lwp;
    use pcu9_testbed::registers::{Pattern, YmmPattern};
    use pcu9_testbed::report::has_avx;
    use pcu9_testbed::sched::{self, current, yield_now};
    use pcu9_testbed::testing::programs::Program;
    use pcu9_testbed::testing::{
        Case, Counts, is_task_switched, move_to, new_domain, past_the_gate, spawn,
    };
    use pcu9_testbed::watch;

    pcu9_testbed::boot_tests! {
        every_policy:
            a_new_lwp_starts_from_the_initial_state,
            exec_starts_from_the_initial_state,
            exec_with_the_state_in_memory,
            exec_with_the_state_on_another_cpu,
            exec_without_a_state,
            programs_begin_in_the_place_of_others,
    }

    static QUIET: AtomicBool = AtomicBool::new(false);

    /// LWPs on CPU 0 that have loaded noise, and load more each time they come.
    fn siblings() -> [Arc<Lwp>; 3] {
        QUIET.store(false, Ordering::Release);
        [1, 2, 3].map(|seed| {
            spawn("sibling", 0, new_domain(), move || {
                while !QUIET.load(Ordering::Acquire) {
                    Pattern::random(seed).load();
                    if has_avx() {
                        YmmPattern::random(seed).load();
                    }
                    yield_now();
                }
            })
        })
    }

    fn assert_initial() {
        assert_eq!(Pattern::store(), Pattern::INITIAL);
        if has_avx() {
            assert_eq!(YmmPattern::store(), YmmPattern::zeros());
        }
    }

    /// Runs `f` in an LWP on CPU 0, with noisy siblings and without, under both rules.
    fn everywhere(case: &mut Case, f: fn()) {
        move_to(0);
        for is_trusting in [true, false] {
            if is_trusting {
                case.trusting();
            } else {
                case.domain_aware();
            }
            let counts = Counts::begin();
            let siblings = siblings();
            for _ in 0..5 {
                // In this order the siblings run before it, since `main` is on the same CPU.
                yield_now();
                let lwp = spawn("new", 0, new_domain(), f);
                case.join(&[lwp]);
            }
            QUIET.store(true, Ordering::Release);
            case.join(&siblings);
            let lwp = spawn("new", 0, new_domain(), f);
            case.join(&[lwp]);
            case.expect_identities(&counts);
        }
    }

    fn a_new_lwp_starts_from_the_initial_state(case: &mut Case) {
        everywhere(case, || {
            assert!(is_task_switched(), "the first use traps");
            assert_initial();
            yield_now();
            assert_initial();
        });
    }

    fn exec_starts_from_the_initial_state(case: &mut Case) {
        everywhere(case, || {
            Pattern::random(10).load();
            if has_avx() {
                YmmPattern::random(10).load();
            }
            assert_eq!(exec(new_domain()), Ok(()));
            assert!(
                !current().pcu().valid_p(FPU),
                "nothing is left of the state"
            );
            assert!(is_task_switched(), "the first use after exec traps");
            assert_initial();
            Pattern::random(11).load();
            yield_now();
            assert_eq!(Pattern::store(), Pattern::random(11));
        });
    }

    fn exec_with_the_state_in_memory(case: &mut Case) {
        everywhere(case, || {
            Pattern::random(10).load();
            yield_now(); // to the siblings, who take the registers
            assert_eq!(exec(new_domain()), Ok(()));
            assert!(is_task_switched(), "the first use after exec traps");
            assert_initial();
        });
    }

    /// Another CPU holds the registers; it is told to throw them away.
    fn exec_with_the_state_on_another_cpu(case: &mut Case) {
        for is_trusting in [true, false] {
            if is_trusting {
                case.trusting();
            } else {
                case.domain_aware();
            }
            let counts = Counts::begin();
            let lwp = spawn("user", 0, new_domain(), || {
                Pattern::random(10).load();
                move_to(1);
                assert_eq!(exec(new_domain()), Ok(()));
                assert_eq!(cpu_pcu(0).owner(FPU), None);
                assert_initial();
                Pattern::random(11).load();
                move_to(0);
                assert_eq!(Pattern::store(), Pattern::random(11));
            });
            case.join(&[lwp]);
            let expected = UnitStats {
                traps: 3,
                inits: 2,
                restores: 1,
                saves: 1,
                releases: 3,
                discards: 2,
                xcalls: 2,
                // What it was before exec, on CPU 0, when it comes back there.
                wipes: u64::from(!is_trusting),
                ..UnitStats::default()
            };
            case.expect_counts(&counts, expected);
        }
    }

    /// In user mode: the program says itself what is wrong, and `cargo demo` compares what it writes with the host's.
    fn programs_begin_in_the_place_of_others(case: &mut Case) {
        case.domain_aware();
        let counts = Counts::begin();
        watch::start();
        sched::set_timer(true);
        let before = EXECS.fetch(&PERCPU);
        let programs = [(); 3].map(|()| Program::start("lives", &[]));
        case.wait_for_programs();
        sched::set_timer(false);
        let (looks, leaks) = watch::stop();
        case.expect_success(&programs);
        case.expect("looks", looks > 0);
        case.expect_eq("leaks", leaks, 0);
        // Each begins two others, and its four children one each.
        case.expect_eq("programs begun", EXECS.fetch(&PERCPU) - before, 3 * 6);
        case.expect_identities(&counts);
    }

    /// The old domain's registers are wiped by exec itself, before anybody switches.
    fn exec_without_a_state(case: &mut Case) {
        case.domain_aware();
        move_to(0);
        let domain = new_domain();
        let counts = Counts::begin();
        let noise = spawn("noise", 0, domain, || Pattern::random(1).load());
        case.join(&[noise]);
        let lwp = spawn("same domain", 0, domain, || {
            assert_eq!(past_the_gate(Pattern::store), Pattern::random(1));
            assert_eq!(exec(new_domain()), Ok(()));
            assert_eq!(past_the_gate(Pattern::store), Pattern::INITIAL);
            assert_initial();
        });
        case.join(&[lwp]);
        let expected = UnitStats {
            traps: 2,
            inits: 2,
            releases: 2,
            discards: 2,
            wipes: 1,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }
}
