//! A unit whose use traps by a page fault, `x86_64::scratch`, in a table with the FPU and the debug registers: on four CPUs, under
//! every policy.
//!
//! The LWPs are members of the annex: kernel threads whose switches, faults and preemption are the machine's own. Leak rule: as
//! each case says.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = ["max", "qemu64"].map(|cpu| Run { cpu, cpus: 4 });
    pcu9_runner::boot_test("boot_scratch", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;

    use pcu9::pcu::LoadError;
    use pcu9::pcu::{AcceptLazyFp, LeakRule, Policy, StateError, UnitStats, Validity};
    use pcu9::x86_64::fpu::FPU;
    use pcu9::x86_64::scratch::SCRATCH;
    use pcu9_testbed::cpu;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::{join, set_timer, yield_now};
    use pcu9_testbed::testing::annex::{self, Member, UNITS, operate, scratch, set_scratch};
    use pcu9_testbed::testing::{Case, Slot, difference, move_to, new_domain, policy};

    pcu9_testbed::boot_tests! {
        every_policy:
            the_first_use_faults_and_the_others_do_not,
            each_cpu_has_its_own,
            registers_follow_their_lwp_to_every_cpu,
            two_lwps_on_each_cpu_keep_all_units,
            a_child_has_what_its_parent_had,
            nothing_is_left_for_another_domain,
            exec_starts_over;
        own_policies:
            an_lwp_without_a_place_is_refused
    }

    const TRUSTING: LeakRule = LeakRule::Trusting(AcceptLazyFp);
    const LAST: usize = 511;

    /// Does the policy leave a state where it is until it is used?
    fn waits() -> bool {
        matches!(policy(), Policy::Lazy | Policy::Probe)
    }

    fn cpu_for(number: u64) -> usize {
        usize::try_from(number).expect("small") % cpu::n_cpus()
    }

    fn fill(seed: u64) {
        (0..=LAST).for_each(|n| set_scratch(n, seed ^ n as u64));
    }

    #[track_caller]
    fn assert_filled(seed: u64) {
        for n in 0..=LAST {
            assert_eq!(scratch(n), seed ^ n as u64, "register {n} of {seed:#x}");
        }
    }

    #[track_caller]
    fn assert_initial() {
        (0..=LAST).for_each(|n| assert_eq!(scratch(n), 0, "register {n} at the first use"));
    }

    fn the_first_use_faults_and_the_others_do_not(case: &mut Case) {
        annex::begin(LeakRule::DomainAware);
        let before = annex::stats(SCRATCH);
        let lwp = annex::spawn("alone", 0, &Member::alone(), |_| {
            assert!(!annex::is_window_open(), "closed before the first use");
            assert_initial();
            assert!(annex::is_window_open(), "open from then on");
            fill(7);
            assert_filled(7);
        });
        case.join(&[lwp]);
        let expected = UnitStats {
            traps: 1,
            inits: 1,
            releases: 1,
            discards: 1,
            ..UnitStats::default()
        };
        let counted = difference(annex::stats(SCRATCH), before);
        case.expect_eq("counted", counted, expected);
        annex::end(LeakRule::DomainAware);
    }

    /// One address, a frame for each CPU.
    fn each_cpu_has_its_own(case: &mut Case) {
        annex::begin(TRUSTING);
        let lwps = [0, 1, 2, 3].map(|cpu| {
            annex::spawn("on its CPU", cpu, &Member::alone(), move |_| {
                fill(cpu as u64 + 1);
            })
        });
        case.join(&lwps);
        for cpu in 0..4 {
            let seen = annex::past_the_gate(cpu)[LAST];
            case.expect_eq(
                "what the CPU's own frame holds",
                seen,
                (cpu as u64 + 1) ^ LAST as u64,
            );
        }
        annex::end(LeakRule::DomainAware);
    }

    fn registers_follow_their_lwp_to_every_cpu(case: &mut Case) {
        for rule in [TRUSTING, LeakRule::DomainAware] {
            annex::begin(rule);
            let before = annex::stats(SCRATCH);
            let lwp = annex::spawn("wanderer", 0, &Member::alone(), |_| {
                fill(0);
                for round in 1..20 {
                    move_to(round % cpu::n_cpus());
                    assert_filled(round as u64 - 1);
                    fill(round as u64);
                }
            });
            case.join(&[lwp]);
            let counted = difference(annex::stats(SCRATCH), before);
            if waits() {
                case.expect_eq("fetched from the CPU before", counted.xcalls, 19);
            }
            if matches!(policy(), Policy::Deferred | Policy::Eager) {
                case.expect_eq("traps", counted.traps, 1);
                case.expect_eq("cross-calls", counted.xcalls, 0);
            }
            case.expect_eq("restores", counted.restores, 19);
        }
        annex::end(LeakRule::DomainAware);
    }

    /// Preempted and moved at random, with the FPU in the same table: neither unit's registers ever go with the other's.
    fn two_lwps_on_each_cpu_keep_all_units(case: &mut Case) {
        const ROUNDS: u64 = 60;
        for rule in [TRUSTING, LeakRule::DomainAware] {
            annex::begin(rule);
            let before = [FPU, SCRATCH].map(annex::stats);
            let shared = new_domain();
            let lwps: alloc::vec::Vec<_> = (0..2 * cpu::n_cpus() as u64)
                .map(|lwp| {
                    let member = if lwp % 3 == 0 {
                        Member::alone()
                    } else {
                        Member::new(shared)
                    };
                    let cpu = cpu_for(lwp);
                    annex::spawn("of two", cpu, &member, move |_| {
                        assert_initial();
                        assert_eq!(Pattern::store(), Pattern::INITIAL);
                        for round in 0..ROUNDS {
                            let seed = lwp << 32 | round;
                            fill(seed);
                            Pattern::random(seed).load();
                            match (lwp + round) % 4 {
                                0 => yield_now(),
                                1 => move_to(cpu_for((lwp + round) / 4)),
                                _ => {}
                            }
                            assert_filled(seed);
                            assert_eq!(Pattern::store(), Pattern::random(seed), "{seed:#x}");
                        }
                    })
                })
                .collect();
            set_timer(true);
            case.join(&lwps);
            set_timer(false);
            for (unit, before) in [FPU, SCRATCH].into_iter().zip(before) {
                let c = difference(annex::stats(unit), before);
                case.expect_eq("failed loads", c.failed, 0);
                case.expect("they took the registers from each other", c.saves > ROUNDS);
                let given = c.inits + c.restores + c.elided_restores;
                case.expect_eq("states loaded, as against given up", c.releases, given);
            }
        }
        annex::end(LeakRule::DomainAware);
    }

    fn a_child_has_what_its_parent_had(case: &mut Case) {
        annex::begin(LeakRule::DomainAware);
        let parent = annex::spawn("parent", 0, &Member::alone(), |me| {
            fill(5);
            for (cpu, parent_moves) in [(0, false), (1, true)] {
                if parent_moves {
                    move_to(2);
                }
                let child = annex::fork(me, new_domain());
                assert!(child.pcu().valid_p(SCRATCH), "the child has a state");
                assert_eq!(child.pcu().live_cpu(SCRATCH), None, "and owns no CPU's");
                set_scratch(0, 99);
                let child = annex::spawn("child", cpu, &child, |_| {
                    assert_filled(5);
                    fill(6);
                });
                join(&child);
                assert_eq!(scratch(0), 99, "the parent's own");
                set_scratch(0, 5);
                assert_filled(5);
            }
        });
        case.join(&[parent]);
        annex::end(LeakRule::DomainAware);
    }

    /// By the frame itself: the window shows nothing to who has no right to it, whatever lies behind.
    fn nothing_is_left_for_another_domain(case: &mut Case) {
        static SEEN: Slot<[u64; 2]> = Slot::new();
        fn look(_: &Member) {
            SEEN.put([annex::past_the_gate(0)[0], scratch(0)]);
        }
        for (rule, finds_it) in [(TRUSTING, true), (LeakRule::DomainAware, false)] {
            for ends in [true, false] {
                annex::begin(rule);
                move_to(3);
                let leaver = Member::alone();
                let lwp = annex::spawn("leaver", 0, &leaver, move |_| {
                    fill(0xdead);
                    if !ends {
                        move_to(1);
                        let looker = annex::spawn("looker", 0, &Member::alone(), look);
                        join(&looker);
                        assert_filled(0xdead);
                    }
                });
                case.join(&[lwp]);
                if ends {
                    let looker = annex::spawn("looker", 0, &Member::alone(), look);
                    case.join(&[looker]);
                }
                // Behind the gate, and then by its own use.
                let behind = if finds_it { 0xdead } else { 0 };
                case.expect_eq(
                    "what the other domain finds",
                    SEEN.take(),
                    Some([behind, 0]),
                );
            }
        }
        annex::end(LeakRule::DomainAware);
    }

    fn exec_starts_over(case: &mut Case) {
        annex::begin(LeakRule::DomainAware);
        let lwp = annex::spawn("execs", 0, &Member::alone(), |me| {
            fill(3);
            assert_eq!(operate(me, |me| UNITS.exec(me, || ())), Ok(()));
            assert!(!annex::is_window_open(), "closed again");
            assert_initial();
            fill(4);
            let saved = operate(me, |me| UNITS.inspect(me, SCRATCH));
            assert_eq!(saved, Ok(Validity::Valid));
        });
        case.join(&[lwp]);
        annex::end(LeakRule::DomainAware);
    }

    fn an_lwp_without_a_place_is_refused(case: &mut Case) {
        annex::begin(LeakRule::DomainAware);
        let member = Member::alone();
        member.refuse_scratch();
        let lwp = annex::spawn("without", 0, &member, |me| {
            let refused = operate(me, |me| UNITS.load(me, SCRATCH));
            assert_eq!(refused, Err(LoadError::State(StateError::Refused)));
            assert!(!annex::is_window_open(), "nor does it reach anybody else's");
        });
        case.join(&[lwp]);
        case.expect_eq("handles left", Arc::strong_count(&member), 1);
        annex::end(LeakRule::DomainAware);
    }
}
