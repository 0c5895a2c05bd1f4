//! The debug registers as a unit, `x86_64::debug`, which cannot be lazy: an LWP's breakpoints are met by it alone, wherever it runs.
//!
//! The LWPs are members of the annex, with the FPU and the scratch registers in the same table; what they watch is a page of the lower
//! half. Leak rule: as each case says.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = ["max", "qemu64"].map(|cpu| Run { cpu, cpus: 4 });
    pcu9_runner::boot_test("boot_debug_registers", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;

    use pcu9::pcu::{AcceptLazyFp, LeakRule, Policy};
    use pcu9::x86_64::debug::{Breakpoints, DEBUG};
    use pcu9::x86_64::fpu::FPU;
    use pcu9::x86_64::scratch::SCRATCH;
    use pcu9_testbed::cpu;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::{join, set_timer, yield_now};
    use pcu9_testbed::testing::annex::{
        self, Member, UNITS, on_write, operate, plain_address, scratch, set_plain, set_scratch,
        watch,
    };
    use pcu9_testbed::testing::{Case, Turns, difference, move_to, new_domain, policy};

    pcu9_testbed::boot_tests! {
        every_policy:
            a_watchpoint_follows_its_lwp_to_every_cpu,
            nobody_else_meets_it,
            lwps_that_watch_different_words_meet_their_own,
            nobody_meets_it_in_the_kernel_either,
            it_ends_with_its_lwp,
            a_child_has_its_parents_until_it_says_otherwise;
        own_policies:
            policies_that_wait_for_a_use_are_refused
    }

    fn cpu_for(number: u64) -> usize {
        usize::try_from(number).expect("small") % cpu::n_cpus()
    }

    const RULES: [LeakRule; 2] = [LeakRule::Trusting(AcceptLazyFp), LeakRule::DomainAware];

    /// The annex's pass sets each of the policies, and wants the refusal by name; here it is what stays in force.
    fn policies_that_wait_for_a_use_are_refused(case: &mut Case) {
        annex::begin(LeakRule::DomainAware);
        let lwp = annex::spawn("asks", 0, &Member::alone(), |me| {
            for policy in Policy::ALL {
                let result = operate(me, |me| UNITS.set_policy(me, [], DEBUG, policy));
                assert_eq!(
                    result.is_err(),
                    policy.needs_traps(),
                    "{policy:?}: {result:?}"
                );
                let in_force = UNITS.policy(DEBUG).expect("a unit");
                assert!(!in_force.needs_traps(), "{in_force:?} after {policy:?}");
                let other = operate(me, |me| UNITS.set_policy(me, [], SCRATCH, policy));
                assert_eq!(other, Ok(()), "of a unit whose use traps");
            }
        });
        case.join(&[lwp]);
        annex::end(LeakRule::DomainAware);
    }

    fn a_watchpoint_follows_its_lwp_to_every_cpu(case: &mut Case) {
        for rule in RULES {
            annex::begin(rule);
            let member = Member::alone();
            let lwp = annex::spawn("watcher", 0, &member, |me| {
                set_plain(1, 0);
                assert_eq!(me.n_hits(), 0, "nothing is watched yet");
                watch(me, &on_write(2, plain_address(1)));
                for round in 1..=12 {
                    set_plain(0, round);
                    set_plain(2, round);
                    assert_eq!(me.n_hits(), round - 1, "its neighbours are not watched");
                    set_plain(1, round);
                    assert_eq!(me.n_hits(), round, "met once a write, round {round}");
                    move_to(cpu_for(round));
                }
                watch(me, &Breakpoints::NONE);
                set_plain(1, 0);
                assert_eq!(me.n_hits(), 12, "no longer watched");
            });
            case.join(&[lwp]);
        }
        annex::end(LeakRule::DomainAware);
    }

    /// Others of the same domain and of another write to the same word, on all CPUs, before, while and after the watcher runs there.
    fn nobody_else_meets_it(case: &mut Case) {
        const ROUNDS: u64 = 40;
        for rule in RULES {
            annex::begin(rule);
            let domain = new_domain();
            let watcher = Member::new(domain);
            let mut members = Vec::new();
            let mut lwps = Vec::new();
            for place in 0..8_u64 {
                let member = if place % 2 == 0 {
                    Member::new(domain)
                } else {
                    Member::alone()
                };
                lwps.push(annex::spawn(
                    "bystander",
                    cpu_for(place),
                    &member,
                    move |me| {
                        for round in 0..ROUNDS {
                            set_plain(1, round);
                            yield_now();
                            set_plain(1, round);
                            move_to(cpu_for(place + round));
                        }
                        assert_eq!(me.n_hits(), 0);
                    },
                ));
                members.push(member);
            }
            lwps.push(annex::spawn("watcher", 0, &watcher, |me| {
                watch(me, &on_write(0, plain_address(1)));
                for round in 0..ROUNDS {
                    set_plain(1, round);
                    assert_eq!(me.n_hits(), round + 1);
                    move_to(cpu_for(round));
                }
            }));
            set_timer(true);
            case.join(&lwps);
            set_timer(false);
            case.expect_eq("the watcher's hits", watcher.n_hits(), ROUNDS);
            let others: u64 = members.iter().map(|member| member.n_hits()).sum();
            case.expect_eq("the others' hits", others, 0);
        }
        annex::end(LeakRule::DomainAware);
    }

    /// An LWP that arrives in the middle of a system call copies to user memory before anything was brought in for it: the gate is what
    /// keeps it from meeting what the one before watched, whose registers are still there, and which meets it again when it is back.
    fn nobody_meets_it_in_the_kernel_either(case: &mut Case) {
        const ROUNDS: u64 = 10;
        for rule in RULES {
            annex::begin(rule);
            let before = annex::stats(DEBUG);
            let domain = new_domain();
            let (watcher, caller) = (Member::new(domain), Member::new(domain));
            caller.stay_in_kernel();
            let both = Arc::new([Turns::new(), Turns::new()]);
            let meet = |own: usize| {
                let both = Arc::clone(&both);
                move || {
                    both[own].next();
                    both[1 - own].wait(1);
                }
            };
            let (first, second) = (meet(0), meet(1));
            let lwps = [
                annex::spawn("watcher", 0, &watcher, move |me| {
                    watch(me, &on_write(0, plain_address(1)));
                    first();
                    for round in 1..=ROUNDS {
                        yield_now();
                        set_plain(1, round);
                        assert_eq!(me.n_hits(), round);
                    }
                }),
                annex::spawn("in a system call", 0, &caller, move |me| {
                    second();
                    for round in 0..ROUNDS {
                        set_plain(1, round);
                        assert_eq!(me.n_hits(), 0, "round {round}");
                        yield_now();
                    }
                }),
            ];
            case.join(&lwps);
            if policy() != Policy::Eager {
                let counted = difference(annex::stats(DEBUG), before);
                case.expect("its registers stayed", counted.elided_restores > ROUNDS / 2);
            }
        }
        annex::end(LeakRule::DomainAware);
    }

    /// Each watches a word of its own, in a register of its own, on the same CPU; all units are in use.
    fn lwps_that_watch_different_words_meet_their_own(case: &mut Case) {
        const ROUNDS: u64 = 30;
        for rule in RULES {
            annex::begin(rule);
            let members: [Arc<Member>; 4] = [(); 4].map(|()| Member::alone());
            let all_are_here = Arc::new(Turns::new());
            let lwps = [0, 1, 2, 3].map(|own: usize| {
                let all_are_here = Arc::clone(&all_are_here);
                annex::spawn("one of four", 0, &members[own], move |me| {
                    watch(me, &on_write(own, plain_address(own)));
                    all_are_here.next();
                    all_are_here.wait(4);
                    for round in 0..ROUNDS {
                        set_scratch(own, round);
                        Pattern::random(round).load();
                        for word in 0..4 {
                            set_plain(word, round);
                            yield_now();
                        }
                        assert_eq!(me.n_hits(), round + 1, "of LWP {own}");
                        assert_eq!(scratch(own), round);
                        assert_eq!(Pattern::store(), Pattern::random(round));
                    }
                })
            });
            case.join(&lwps);
            for member in &members {
                case.expect_eq("hits", member.n_hits(), ROUNDS);
            }
            case.expect("the FPU was in use", annex::stats(FPU).saves > 0);
        }
        annex::end(LeakRule::DomainAware);
    }

    fn it_ends_with_its_lwp(case: &mut Case) {
        for rule in RULES {
            annex::begin(rule);
            let domain = new_domain();
            let watcher = annex::spawn("watcher", 1, &Member::new(domain), |me| {
                watch(me, &on_write(3, plain_address(0)));
                set_plain(0, 1);
                assert_eq!(me.n_hits(), 1);
            });
            case.join(&[watcher]);
            let next = Member::new(domain);
            let lwp = annex::spawn("next", 1, &next, |_| set_plain(0, 2));
            case.join(&[lwp]);
            case.expect_eq("the next one's hits", next.n_hits(), 0);
        }
        annex::end(LeakRule::DomainAware);
    }

    /// As with every unit; a kernel whose children shall have none discards the unit for them.
    fn a_child_has_its_parents_until_it_says_otherwise(case: &mut Case) {
        annex::begin(LeakRule::DomainAware);
        let parent = annex::spawn("parent", 0, &Member::alone(), |me| {
            watch(me, &on_write(1, plain_address(5)));
            let member = annex::fork(me, new_domain());
            let child = annex::spawn("child", 1, &member, |me| {
                set_plain(5, 1);
                assert_eq!(me.n_hits(), 1);
                watch(me, &Breakpoints::NONE);
                set_plain(5, 2);
                assert_eq!(me.n_hits(), 1);
            });
            join(&child);
            assert_eq!(me.n_hits(), 0, "what the child writes");
            set_plain(5, 3);
            assert_eq!(me.n_hits(), 1);
        });
        case.join(&[parent]);
        annex::end(LeakRule::DomainAware);
    }
}
