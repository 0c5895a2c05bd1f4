//! The scenarios of migration and theft, a to f of `tests/tables/scenarios.toml`, placed by hand: what is counted on all CPUs is what
//! each policy predicts, exactly.
//!
//! Leak rule: as each case says. The timer is off; the director is on the last CPU, the LWPs on the others. Each LWP ends by an order
//! of its own, which is one more arrival: under `Deferred` its registers are linked still (`elided_restores`), or brought in again.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = ["max", "qemu64"].map(|cpu| Run { cpu, cpus: 4 });
    pcu9_runner::boot_test("boot_scenarios_moves", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicBool, Ordering};

    use pcu9::pcu::Policy::{self, Deferred, Eager, Lazy, Probe};
    use pcu9_testbed::counted;
    use pcu9_testbed::cpu;
    use pcu9_testbed::cpu::crosscall::n_pending;
    use pcu9_testbed::glue::{FPU, PCU, cpu_pcu, with_token};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::current;
    use pcu9_testbed::testing::holds::{
        ask_together, hold_at_switch_in, is_held, let_go, spin_until,
    };
    use pcu9_testbed::testing::{Case, Player, is_task_switched, poison_own_memory, yield_until};

    pcu9_testbed::boot_tests! {
        scenario_a_migrate_and_use,
        scenario_b_migrate_and_return_unstolen,
        scenario_c_steal_while_the_owner_is_away,
        scenario_d_steal_against_the_owners_request,
        scenario_e_the_requester_migrates_to_the_holder,
        scenario_f_two_cpus_ask_each_other_at_once,
    }

    fn load(seed: u64) -> impl FnOnce() + Send + 'static {
        move || {
            Pattern::random(seed).load();
            poison_own_memory();
        }
    }

    fn finds(seed: u64) -> impl FnOnce() + Send + 'static {
        move || assert_eq!(Pattern::store(), Pattern::random(seed))
    }

    /// Does a switch alone leave the gate closed over a state that is on another CPU?
    fn traps(policy: Policy) -> bool {
        matches!(policy, Lazy | Probe)
    }

    fn scenario_a_migrate_and_use(case: &mut Case) {
        case.trusting();
        // Saved by the CPU that is asked, or when it left, and loaded here.
        let lazy = counted! { traps: 2, inits: 1, xcalls: 1, saves: 1, restores: 1, releases: 2, discards: 1 };
        let predictions = [
            (Lazy, lazy),
            (Probe, counted! { probes: 1, ..lazy }),
            (
                Deferred,
                counted! { traps: 1, inits: 1, saves: 2, preloads: 1, restores: 1, elided_restores: 1, releases: 3, discards: 1 },
            ),
            (
                Eager,
                counted! { traps: 1, inits: 1, saves: 2, preloads: 2, restores: 2, releases: 3, discards: 1 },
            ),
        ];
        case.scenario(&predictions, |_, policy| {
            let a = Player::new("a", 0);
            a.does(load(1));
            a.goes_to(1);
            a.does(move || {
                assert_eq!(cpu::index(), 1);
                assert_eq!(is_task_switched(), traps(policy));
                finds(1)();
                assert_eq!(cpu_pcu(1).owner(FPU), Some((&*current()).into()));
                assert_eq!(cpu_pcu(0).owner(FPU), None);
            });
            a.ends();
        });
    }

    /// Meanwhile an LWP that does not use the FPU closes the gate of CPU 0. Under the policies that write back, the registers
    /// stay there, newer than memory, which is wrong; the others bring the state to CPU 1, used or not, and back.
    fn scenario_b_migrate_and_return_unstolen(case: &mut Case) {
        case.trusting();
        let predictions = [
            (
                Lazy,
                counted! { traps: 1, inits: 1, reenables_switch: 1, releases: 1, discards: 1 },
            ),
            (
                Probe,
                counted! { traps: 2, inits: 1, probes: 2, reenables_trap: 1, releases: 1, discards: 1 },
            ),
            (
                Deferred,
                counted! { traps: 1, inits: 1, saves: 3, preloads: 2, restores: 2, elided_restores: 1, releases: 4, discards: 1 },
            ),
            (
                Eager,
                counted! { traps: 1, inits: 1, saves: 3, preloads: 3, restores: 3, releases: 4, discards: 1 },
            ),
        ];
        case.scenario(&predictions, |_, policy| {
            let a = Player::new("a", 0);
            a.does(load(1));
            a.goes_to(1);
            a.does(move || {
                assert_eq!(is_task_switched(), traps(policy));
                let is_here = cpu_pcu(0).owner(FPU) == Some((&*current()).into());
                assert_eq!(is_here, traps(policy), "the registers stay on CPU 0");
            });
            let b = Player::new("integers", 0);
            a.goes_to(0);
            a.does(finds(1));
            a.ends();
            b.ends();
        });
    }

    fn scenario_c_steal_while_the_owner_is_away(case: &mut Case) {
        case.trusting();
        while_it_sleeps(case);
        while_it_runs_elsewhere(case);
        while_it_is_switched_in_elsewhere(case);
    }

    /// The owner comes back to the CPU, and takes its registers from the thief.
    fn while_it_sleeps(case: &mut Case) {
        let lazy = counted! { traps: 3, inits: 2, saves: 2, restores: 1, releases: 3, discards: 1 };
        let predictions = [
            (Lazy, lazy),
            (Probe, counted! { probes: 1, ..lazy }),
            (
                Deferred,
                counted! { traps: 2, inits: 2, saves: 3, preloads: 2, restores: 2, elided_restores: 1, releases: 5, discards: 2 },
            ),
            (
                Eager,
                counted! { traps: 2, inits: 2, saves: 3, preloads: 3, restores: 3, releases: 5, discards: 2 },
            ),
        ];
        case.scenario(&predictions, |_, policy| {
            let (owner, thief) = (Player::new("owner", 0), Player::new("thief", 0));
            owner.does(load(1));
            thief.does(load(2));
            owner.does(move || {
                assert_eq!(is_task_switched(), traps(policy));
                finds(1)();
            });
            owner.ends();
            thief.ends();
        });
    }

    /// The owner runs on CPU 1 and has not used the FPU there yet: no cross-call any more.
    fn while_it_runs_elsewhere(case: &mut Case) {
        let lazy = counted! { traps: 3, inits: 2, saves: 1, restores: 1, releases: 3, discards: 2 };
        let predictions = [
            (Lazy, lazy),
            (Probe, counted! { probes: 2, ..lazy }),
            (
                Deferred,
                counted! { traps: 2, inits: 2, saves: 3, preloads: 1, restores: 1, elided_restores: 2, releases: 5, discards: 2 },
            ),
            (
                Eager,
                counted! { traps: 2, inits: 2, saves: 3, preloads: 3, restores: 3, releases: 5, discards: 2 },
            ),
        ];
        case.scenario(&predictions, |_, _| {
            static IS_STOLEN: AtomicBool = AtomicBool::new(false);
            IS_STOLEN.store(false, Ordering::Release);
            let (owner, thief) = (Player::new("owner", 0), Player::new("thief", 0));
            owner.does(load(1));
            owner.goes_to(1);
            owner.begins(|| {
                spin_until(|| IS_STOLEN.load(Ordering::Acquire));
                finds(1)();
            });
            assert!(yield_until(|| owner.lwp().last_cpu() == Some(1)));
            thief.does(load(2));
            IS_STOLEN.store(true, Ordering::Release);
            owner.finishes();
            owner.ends();
            thief.ends();
        });
    }

    /// The owner is current on CPU 1, whose gate stands open for somebody else, and its switch-in finds its state nowhere. (PR
    /// port-arm/52603: the gate stayed open.)
    fn while_it_is_switched_in_elsewhere(case: &mut Case) {
        let lazy = counted! { traps: 4, inits: 3, saves: 2, restores: 1, releases: 4, discards: 2 };
        let predictions = [
            (Lazy, lazy),
            (Probe, counted! { probes: 2, ..lazy }),
            (
                Deferred,
                counted! { traps: 3, inits: 3, saves: 4, preloads: 2, restores: 2, elided_restores: 2, releases: 7, discards: 3 },
            ),
            (
                Eager,
                counted! { traps: 3, inits: 3, saves: 4, preloads: 4, restores: 4, releases: 7, discards: 3 },
            ),
        ];
        case.scenario(&predictions, |_, policy| {
            let (owner, thief) = (Player::new("owner", 0), Player::new("thief", 0));
            let other = Player::new("other", 1);
            owner.does(load(1));
            other.does(load(3));
            assert!(cpu_pcu(1).is_enabled(FPU), "the gate of CPU 1 is open");
            hold_at_switch_in(owner.lwp());
            owner.goes_to(1);
            owner.begins(move || {
                assert_eq!(is_task_switched(), traps(policy));
                finds(1)();
            });
            assert!(yield_until(is_held));
            thief.does(load(2));
            let_go();
            owner.finishes();
            owner.ends();
            other.ends();
            thief.ends();
        });
    }

    /// The owner's request to CPU 0 is on its way, and the thief is there with interrupts off: it takes the registers before the
    /// request is served, or after.
    fn scenario_d_steal_against_the_owners_request(case: &mut Case) {
        case.trusting();
        let common = counted! { traps: 2, loads: 1, inits: 2, saves: 1, restores: 1, xcalls: 1, releases: 3, discards: 2 };
        // Nobody is asked, so there is no race.
        let deferred = counted! { traps: 1, loads: 1, inits: 2, saves: 3, preloads: 1, restores: 1, elided_restores: 2, releases: 5, discards: 2 };
        let eager = counted! { preloads: 3, restores: 3, elided_restores: 0, ..deferred };
        for is_thief_first in [true, false] {
            let lazy = counted! { xcalls_raced: u64::from(is_thief_first), ..common };
            let predictions = [
                (Lazy, lazy),
                (Probe, counted! { probes: 2, ..lazy }),
                (Deferred, deferred),
                (Eager, eager),
            ];
            case.scenario(&predictions, |_, _| {
                let has_used = Arc::new(AtomicBool::new(false));
                let (owner, thief) = (Player::new("owner", 0), Player::new("thief", 0));
                owner.does(load(1));
                owner.goes_to(1);
                let is_ready = Arc::new(AtomicBool::new(false));
                thief.begins({
                    let (has_used, is_ready) = (Arc::clone(&has_used), Arc::clone(&is_ready));
                    move || {
                        let off = InterruptsOff::new();
                        is_ready.store(true, Ordering::Release);
                        spin_until(|| n_pending(0) > 0 || has_used.load(Ordering::Acquire));
                        let steal = || with_token(|token| PCU.load(token, FPU));
                        if is_thief_first {
                            assert_eq!(steal(), Ok(()));
                            drop(off);
                        } else {
                            drop(off);
                            spin_until(|| n_pending(0) == 0);
                            assert_eq!(steal(), Ok(()));
                        }
                        Pattern::random(2).load();
                    }
                });
                assert!(yield_until(|| is_ready.load(Ordering::Acquire)));
                owner.does(move || {
                    finds(1)();
                    has_used.store(true, Ordering::Release);
                });
                thief.finishes();
                owner.ends();
                thief.ends();
            });
        }
    }

    /// CPU 0 holds the registers and has interrupts off; the owner, which waits for it on CPU 1, is moved there.
    fn scenario_e_the_requester_migrates_to_the_holder(case: &mut Case) {
        case.trusting();
        let lazy = counted! { traps: 2, inits: 1, saves: 1, restores: 1, xcalls: 1, releases: 2, discards: 1 };
        let predictions = [
            (Lazy, lazy),
            (Probe, counted! { probes: 1, ..lazy }),
            (
                Deferred,
                counted! { traps: 1, inits: 1, saves: 2, preloads: 2, restores: 2, releases: 3, discards: 1 },
            ),
            (
                Eager,
                counted! { traps: 1, inits: 1, saves: 2, preloads: 2, restores: 2, releases: 3, discards: 1 },
            ),
        ];
        case.scenario(&predictions, |_, policy| {
            static IS_HELD: AtomicBool = AtomicBool::new(false);
            let owner = Player::new("owner", 0);
            let busy = Player::plain("busy", 0);
            owner.does(load(1));
            owner.goes_to(1);
            busy.begins(|| {
                let _off = InterruptsOff::new();
                IS_HELD.store(true, Ordering::Release);
                spin_until(|| !IS_HELD.load(Ordering::Acquire));
            });
            assert!(yield_until(|| IS_HELD.load(Ordering::Acquire)));
            owner.begins(move || {
                finds(1)();
                assert_eq!(
                    cpu::index(),
                    usize::from(!traps(policy)),
                    "where it used it"
                );
            });
            assert!(yield_until(|| n_pending(0) > 0 || owner.is_done()));
            assert_eq!(n_pending(0) > 0, traps(policy));
            // Who is done goes to sleep; moved before that, it would be on CPU 0 once more.
            assert!(traps(policy) || yield_until(|| owner.is_off_cpu()));
            owner.goes_to(0);
            assert!(yield_until(|| owner.is_off_cpu()), "it waits for CPU 0");
            IS_HELD.store(false, Ordering::Release);
            owner.finishes();
            busy.finishes();
            owner.ends();
            busy.ends();
        });
    }

    /// Both requests are published before either is served.
    fn scenario_f_two_cpus_ask_each_other_at_once(case: &mut Case) {
        case.trusting();
        let lazy = counted! { traps: 4, inits: 2, saves: 2, restores: 2, xcalls: 2, releases: 4, discards: 2 };
        let predictions = [
            (Lazy, lazy),
            (Probe, counted! { probes: 2, ..lazy }),
            (
                Deferred,
                counted! { traps: 2, inits: 2, saves: 4, preloads: 2, restores: 2, elided_restores: 2, releases: 6, discards: 2 },
            ),
            (
                Eager,
                counted! { traps: 2, inits: 2, saves: 4, preloads: 4, restores: 4, releases: 6, discards: 2 },
            ),
        ];
        case.scenario(&predictions, |_, policy| {
            let (a, b) = (Player::new("a", 0), Player::new("b", 1));
            a.does(load(1));
            b.does(load(2));
            a.goes_to(1);
            b.goes_to(0);
            if traps(policy) {
                ask_together(2);
            }
            a.begins(finds(1));
            b.begins(finds(2));
            a.finishes();
            b.finishes();
            assert_eq!(cpu_pcu(0).owner(FPU).is_some(), traps(policy));
            a.ends();
            b.ends();
        });
    }
}
