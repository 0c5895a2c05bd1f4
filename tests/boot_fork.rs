//! Fork: the child begins with the registers that the parent had at the fork, wherever they were.
//!
//! Each case runs under both leak rules, as the log says. Placement is by hand and the timer off, so the counters are compared
//! exactly.
//! What holds under every policy is looked at under each of them too.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "max",
            cpus: 2,
        },
        Run {
            cpu: "qemu64",
            cpus: 4,
        },
    ];
    pcu9_runner::boot_test("boot_fork", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;

    use pcu9::pcu::UnitStats;
    use pcu9_testbed::glue::{FPU, PCU, cpu_pcu, fork, with_token};
    use pcu9_testbed::lwp::Lwp;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::{current, join};
    use pcu9_testbed::testing::{
        Case, Counts, assert_gate_closed, is_exact, is_task_switched, move_to, new_domain, prepare,
        spawn, start,
    };

    pcu9_testbed::boot_tests! {
        every_policy:
            parent_live_here,
            parent_live_on_another_cpu,
            parent_in_memory,
            parent_without_a_state,
            a_chain_of_children,
    }

    const OLD: u64 = 1;
    const NEW: u64 = 2;

    /// Makes a child that runs on CPU `cpu`, in a domain of its own, and must begin with `pattern`.
    fn child_that_finds(cpu: usize, pattern: &Pattern) -> Arc<Lwp> {
        let pattern = *pattern;
        prepare("child", cpu, new_domain(), move || {
            assert_gate_closed("the child's first use traps");
            assert_eq!(Pattern::store(), pattern, "the child's registers");
            Pattern::random(3).load();
        })
    }

    /// Starts `lwp` and sleeps until it has ended.
    fn run_to_the_end(lwp: &Arc<Lwp>) {
        start(lwp);
        join(lwp);
    }

    /// Runs `f` under both leak rules; `wipes` is what is counted under `DomainAware` in addition.
    fn under_both_rules(case: &mut Case, wipes: u64, expected: UnitStats, parent: fn()) {
        case.trusting();
        move_to(0);
        let counts = Counts::begin();
        let lwp = spawn("parent", 0, new_domain(), parent);
        case.join(&[lwp]);
        case.expect_counts(&counts, expected);

        case.domain_aware();
        let counts = Counts::begin();
        let lwp = spawn("parent", 0, new_domain(), parent);
        case.join(&[lwp]);
        case.expect_counts(&counts, UnitStats { wipes, ..expected });
    }

    /// The parent keeps its registers over the fork; what it does with them afterwards is not the child's.
    fn parent_live_here(case: &mut Case) {
        let expected = UnitStats {
            traps: 3,
            inits: 1,
            restores: 2,
            saves: 2,
            releases: 3,
            discards: 2,
            ..UnitStats::default()
        };
        under_both_rules(case, 2, expected, || {
            Pattern::random(OLD).load();
            let child = child_that_finds(0, &Pattern::random(OLD));
            assert_eq!(fork(&child), Ok(()));
            assert!(!is_task_switched(), "the parent's gate stays open");
            assert_eq!(cpu_pcu(0).owner(FPU), Some((&*current()).into()));
            assert!(child.pcu().valid_p(FPU), "the child has a state");
            assert_eq!(child.pcu().live_cpu(FPU), None);
            assert_eq!(Pattern::store(), Pattern::random(OLD));
            Pattern::random(NEW).load();
            run_to_the_end(&child);
            assert_eq!(Pattern::store(), Pattern::random(NEW));
        });
    }

    /// The registers stay where they are, on CPU 0; one cross-call has them saved and copied there.
    fn parent_live_on_another_cpu(case: &mut Case) {
        let expected = UnitStats {
            traps: 2,
            inits: 1,
            restores: 1,
            saves: 1,
            releases: 2,
            discards: 2,
            xcalls: 1,
            ..UnitStats::default()
        };
        under_both_rules(case, 0, expected, || {
            Pattern::random(OLD).load();
            move_to(1);
            let child = child_that_finds(1, &Pattern::random(OLD));
            assert_eq!(fork(&child), Ok(()));
            if is_exact() {
                assert_eq!(cpu_pcu(0).owner(FPU), Some((&*current()).into()));
            }
            assert_gate_closed("the state is elsewhere");
            move_to(0);
            assert_eq!(Pattern::store(), Pattern::random(OLD));
            Pattern::random(NEW).load();
            // On CPU 1, whose FPU is nobody's.
            run_to_the_end(&child);
            assert_eq!(Pattern::store(), Pattern::random(NEW));
        });
    }

    /// The parent's registers were saved and given up before; the fork copies memory, and loads nothing.
    fn parent_in_memory(case: &mut Case) {
        let expected = UnitStats {
            traps: 4,
            inits: 1,
            restores: 3,
            saves: 2,
            releases: 4,
            discards: 2,
            ..UnitStats::default()
        };
        case.gives_up_by_hand(1);
        under_both_rules(case, 2, expected, || {
            Pattern::random(OLD).load();
            assert_eq!(with_token(|token| PCU.save(token, FPU)), Ok(()));
            let child = child_that_finds(0, &Pattern::random(OLD));
            assert_eq!(fork(&child), Ok(()));
            assert!(is_task_switched(), "the gate is closed, as before");
            assert_eq!(Pattern::store(), Pattern::random(OLD));
            Pattern::random(NEW).load();
            run_to_the_end(&child);
            Pattern::random(NEW).load();
        });
    }

    fn parent_without_a_state(case: &mut Case) {
        let expected = UnitStats {
            traps: 1,
            inits: 1,
            releases: 1,
            discards: 1,
            ..UnitStats::default()
        };
        // What the child leaves is wiped when the parent comes back.
        under_both_rules(case, 1, expected, || {
            let child = child_that_finds(0, &Pattern::INITIAL);
            assert_eq!(fork(&child), Ok(()));
            assert!(!child.pcu().valid_p(FPU), "there is nothing to inherit");
            run_to_the_end(&child);
        });
    }

    /// Each child forks the next one before it uses the FPU itself: memory is copied from memory, ten times.
    fn a_chain_of_children(case: &mut Case) {
        const LENGTH: u64 = 10;
        fn child(place: u64) -> Arc<Lwp> {
            prepare("child", 0, new_domain(), move || {
                if place < LENGTH {
                    let next = child(place + 1);
                    assert_eq!(fork(&next), Ok(()));
                    run_to_the_end(&next);
                }
                assert_eq!(Pattern::store(), Pattern::random(OLD));
                Pattern::random(place).load();
            })
        }
        let expected = UnitStats {
            traps: 1 + LENGTH + 1,
            inits: 1,
            restores: LENGTH + 1,
            saves: 2,
            releases: LENGTH + 2,
            discards: LENGTH + 1,
            ..UnitStats::default()
        };
        // The parent, which is live, is evicted for the first child; each of the others finds what the one after it left.
        under_both_rules(case, 1 + LENGTH, expected, || {
            Pattern::random(OLD).load();
            let first = child(1);
            assert_eq!(fork(&first), Ok(()));
            Pattern::random(NEW).load();
            run_to_the_end(&first);
            assert_eq!(Pattern::store(), Pattern::random(NEW));
        });
    }
}
