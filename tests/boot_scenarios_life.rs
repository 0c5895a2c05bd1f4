//! The scenarios of fork, discard, replace, exec and exit, g to l of `tests/tables/scenarios.toml`, placed by hand: what is counted on
//! all CPUs is what each policy predicts, exactly.
//!
//! Leak rule: as each case says. Timer and director as in `boot_scenarios_moves`.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = ["max", "qemu64"].map(|cpu| Run { cpu, cpus: 4 });
    pcu9_runner::boot_test("boot_scenarios_life", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicBool, Ordering};

    use pcu9::kernel::{CpuId, NoAnswer};
    use pcu9::pcu::Policy::{Deferred, Eager, Lazy};
    use pcu9::pcu::{CoreDump, Location, Validity};
    use pcu9_testbed::counted;
    use pcu9_testbed::cpu::crosscall::{n_pending, set_bound_ms};
    use pcu9_testbed::glue::{FPU, PCU, cpu_pcu, exec, fork, with_token};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::lwp::Lwp;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::current;
    use pcu9_testbed::testing::holds::spin_until;
    use pcu9_testbed::testing::{
        Case, Player, image, is_task_switched, new_domain, prepare_uncounted, write_image,
        yield_until,
    };

    pcu9_testbed::boot_tests! {
        scenario_g_fork_with_live_state,
        scenario_h_a_discarded_state_stays_discarded,
        scenario_i_replace_then_load_gives_the_new_image,
        scenario_j_exec_with_a_steal_between,
        scenario_k_exit_and_the_memory_is_used_again,
        scenario_l_exit_of_an_lwp_that_failed_in_creation,
    }

    fn loads(seed: u64) -> impl FnOnce() + Send + 'static {
        move || Pattern::random(seed).load()
    }

    fn finds(seed: u64) -> impl FnOnce() + Send + 'static {
        move || assert_eq!(Pattern::store(), Pattern::random(seed))
    }

    /// Does the child own nothing, and have a state?
    fn expect_fresh(case: &mut Case, child: &Lwp) {
        let view = child.pcu().view(FPU);
        case.expect_eq(
            "where the child's state is",
            view.map(|view| (view.location, view.validity)),
            Some((Location::Nowhere, Validity::Valid)),
        );
    }

    /// The child has what the parent had at the fork, whatever the parent does before the child's first use. (Until 2020 NetBSD's
    /// child began with the initial state.)
    fn scenario_g_fork_with_live_state(case: &mut Case) {
        case.trusting();
        // The parent's registers are on the CPU on which it forks.
        let predictions = [
            (
                Lazy,
                counted! { traps: 2, inits: 1, saves: 1, restores: 1, releases: 2, discards: 2 },
            ),
            (
                Deferred,
                counted! { traps: 1, inits: 1, saves: 5, preloads: 1, restores: 1, elided_restores: 4, releases: 6, discards: 2 },
            ),
            (
                Eager,
                counted! { traps: 1, inits: 1, saves: 5, preloads: 5, restores: 5, releases: 6, discards: 2 },
            ),
        ];
        case.scenario(&predictions, |case, policy| {
            let parent = Player::new("parent", 0);
            let child = Arc::new(Player::prepared("child", 2, new_domain()));
            let born = Arc::clone(&child);
            parent.does(move || {
                loads(1)();
                assert_eq!(fork(born.lwp()), Ok(()));
                assert!(!is_task_switched(), "the parent keeps its registers");
                loads(2)();
            });
            expect_fresh(case, child.lwp());
            child.start();
            child.does(move || {
                assert_eq!(is_task_switched(), policy == Lazy);
                finds(1)();
                loads(3)();
            });
            parent.does(finds(2));
            Arc::into_inner(child).expect("the order is done").ends();
            parent.ends();
        });
        // They are on another CPU, where one cross-call has them saved and copied; under the other policies they came along.
        let predictions = [
            (
                Lazy,
                counted! { traps: 3, inits: 1, saves: 2, restores: 2, xcalls: 2, releases: 3, discards: 2 },
            ),
            (
                Deferred,
                counted! { traps: 1, inits: 1, saves: 6, preloads: 2, restores: 2, elided_restores: 4, releases: 7, discards: 2 },
            ),
            (
                Eager,
                counted! { traps: 1, inits: 1, saves: 6, preloads: 6, restores: 6, releases: 7, discards: 2 },
            ),
        ];
        case.scenario(&predictions, |case, policy| {
            let parent = Player::new("parent", 0);
            parent.does(loads(1));
            parent.goes_to(1);
            let child = Arc::new(Player::prepared("child", 2, new_domain()));
            let born = Arc::clone(&child);
            parent.does(move || {
                assert_eq!(fork(born.lwp()), Ok(()));
                let stays = cpu_pcu(0).owner(FPU) == Some((&*current()).into());
                assert_eq!(stays, policy == Lazy, "the registers stay on CPU 0");
            });
            expect_fresh(case, child.lwp());
            child.start();
            parent.does(loads(2));
            child.does(finds(1));
            Arc::into_inner(child).expect("the order is done").ends();
            parent.ends();
        });
    }

    /// The state is in memory and nowhere else when it is discarded. (Until 2013 `pcu_discard` found nothing loaded and did
    /// nothing, so that the state came back.)
    fn scenario_h_a_discarded_state_stays_discarded(case: &mut Case) {
        case.trusting();
        let predictions = [
            (
                Lazy,
                counted! { traps: 2, inits: 2, saves: 1, releases: 2, discards: 1 },
            ),
            (
                Deferred,
                counted! { traps: 2, inits: 2, saves: 2, elided_saves: 1, elided_restores: 1, releases: 3, discards: 1 },
            ),
            (
                Eager,
                counted! { traps: 2, inits: 2, saves: 2, elided_saves: 1, preloads: 1, restores: 1, releases: 3, discards: 1 },
            ),
        ];
        case.scenario(&predictions, |_, _| {
            let lwp = Player::new("discards", 0);
            lwp.does(|| {
                loads(1)();
                assert_eq!(with_token(|token| PCU.save(token, FPU)), Ok(()));
                assert_eq!(current().pcu().live_cpu(FPU), None);
                let answer = with_token(|token| PCU.discard(token, FPU, Validity::Invalid));
                assert_eq!(answer, Ok(()));
            });
            assert!(!lwp.lwp().pcu().valid_p(FPU));
            lwp.does(|| {
                assert_eq!(Pattern::store(), Pattern::INITIAL);
                loads(2)();
            });
            lwp.ends();
        });
    }

    /// The current LWP's state is replaced by `image`.
    fn replace(image: &[u8]) {
        let answer = with_token(|token| {
            PCU.replace(token, FPU, |_| {
                write_image(&current(), image);
                Ok::<(), NoAnswer>(())
            })
        });
        assert_eq!(answer, Ok(()));
        assert!(is_task_switched(), "the next use traps");
    }

    /// Loads a first state, gives its image, and loads a second one.
    fn image_of_the_first() -> Vec<u8> {
        loads(1)();
        let answer = with_token(|token| PCU.save_all(token, CoreDump::No));
        assert_eq!(answer, Ok(()));
        let first = image(&current());
        loads(2)();
        first
    }

    fn scenario_i_replace_then_load_gives_the_new_image(case: &mut Case) {
        case.trusting();
        // The old state is live on this CPU.
        let predictions = [
            (
                Lazy,
                counted! { traps: 2, inits: 1, saves: 1, restores: 1, releases: 2, discards: 2 },
            ),
            (
                Deferred,
                counted! { traps: 2, inits: 1, saves: 2, restores: 1, elided_restores: 1, releases: 3, discards: 2 },
            ),
            (
                Eager,
                counted! { traps: 2, inits: 1, saves: 2, preloads: 1, restores: 2, releases: 3, discards: 2 },
            ),
        ];
        case.scenario(&predictions, |_, _| {
            let lwp = Player::new("replaces", 0);
            lwp.does(|| {
                let first = image_of_the_first();
                replace(&first);
                finds(1)();
            });
            lwp.ends();
        });
        // It is live on another one.
        let predictions = [
            (
                Lazy,
                counted! { traps: 2, inits: 1, saves: 1, restores: 1, xcalls: 1, releases: 2, discards: 2 },
            ),
            (
                Deferred,
                counted! { traps: 2, inits: 1, saves: 3, preloads: 1, restores: 2, elided_restores: 1, releases: 4, discards: 2 },
            ),
            (
                Eager,
                counted! { traps: 2, inits: 1, saves: 3, preloads: 2, restores: 3, releases: 4, discards: 2 },
            ),
        ];
        case.scenario(&predictions, |_, _| {
            let lwp = Player::new("replaces", 0);
            let first = lwp.does(image_of_the_first);
            lwp.goes_to(1);
            lwp.does(move || {
                replace(&first);
                assert_eq!(cpu_pcu(0).owner(FPU), None);
                finds(1)();
            });
            lwp.ends();
        });
    }

    /// CPU 1 asks CPU 0 to throw the registers away, and a thief there saves them first: they must not come back.
    fn scenario_j_exec_with_a_steal_between(case: &mut Case) {
        case.trusting();
        let deferred = counted! { traps: 2, loads: 1, inits: 3, saves: 3, preloads: 1, restores: 1, elided_restores: 2, releases: 6, discards: 3 };
        let predictions = [
            (
                Lazy,
                counted! { traps: 2, loads: 1, inits: 3, saves: 1, xcalls: 1, xcalls_raced: 1, releases: 3, discards: 2 },
            ),
            (Deferred, deferred),
            (
                Eager,
                counted! { preloads: 3, restores: 3, elided_restores: 0, ..deferred },
            ),
        ];
        case.scenario(&predictions, |_, _| {
            static IS_READY: AtomicBool = AtomicBool::new(false);
            static HAS_EXECED: AtomicBool = AtomicBool::new(false);
            IS_READY.store(false, Ordering::Release);
            HAS_EXECED.store(false, Ordering::Release);
            let (owner, thief) = (Player::new("owner", 0), Player::new("thief", 0));
            owner.does(loads(1));
            owner.goes_to(1);
            thief.begins(|| {
                let off = InterruptsOff::new();
                IS_READY.store(true, Ordering::Release);
                spin_until(|| n_pending(0) > 0 || HAS_EXECED.load(Ordering::Acquire));
                assert_eq!(with_token(|token| PCU.load(token, FPU)), Ok(()));
                drop(off);
                loads(2)();
            });
            assert!(yield_until(|| IS_READY.load(Ordering::Acquire)));
            owner.does(|| {
                assert_eq!(exec(new_domain()), Ok(()));
                HAS_EXECED.store(true, Ordering::Release);
                assert!(!current().pcu().valid_p(FPU), "nothing is left");
                assert_eq!(Pattern::store(), Pattern::INITIAL);
                loads(3)();
            });
            thief.finishes();
            owner.ends();
            thief.ends();
        });
    }

    /// Somebody else uses the FPU where the registers of an LWP were that has ended, and whose memory is others' by now.
    fn expect_that_others_memory_stays(case: &mut Case, ended: Arc<Lwp>) {
        let area = ended.fpu_area().addr();
        // The CPU that it ran on lets it go a little later than it is off that.
        let is_alone = yield_until(|| Arc::strong_count(&ended) == 1);
        assert!(is_alone, "nobody else has it");
        drop(ended);
        // However many holes the heap has before it.
        let is_again = |lwp: &Arc<Lwp>| lwp.fpu_area().addr().abs_diff(area) < image(lwp).len();
        let mut next: Vec<Arc<Lwp>> = Vec::new();
        while !next.last().is_some_and(is_again) && next.len() < 500 {
            next.push(prepare_uncounted("next", 0, new_domain(), || ()));
        }
        case.expect(
            "the memory is used again",
            next.last().is_some_and(is_again),
        );
        let images = || next.iter().map(|lwp| image(lwp)).collect::<Vec<_>>();
        let before = images();
        let user = Player::new("user", 0);
        user.does(loads(2));
        case.expect("nobody saved to it", images() == before);
        user.ends();
    }

    fn scenario_k_exit_and_the_memory_is_used_again(case: &mut Case) {
        case.trusting();
        // The registers are live where it ends.
        let predictions = [
            (
                Lazy,
                counted! { traps: 2, inits: 2, releases: 2, discards: 2 },
            ),
            (
                Deferred,
                counted! { traps: 2, inits: 2, saves: 2, elided_restores: 2, releases: 4, discards: 2 },
            ),
            (
                Eager,
                counted! { traps: 2, inits: 2, saves: 2, preloads: 2, restores: 2, releases: 4, discards: 2 },
            ),
        ];
        case.scenario(&predictions, |case, _| {
            let lwp = Player::new("ends", 0);
            lwp.does(loads(1));
            let ended = lwp.ends();
            expect_that_others_memory_stays(case, ended);
        });
        // They are on another CPU, which is told.
        let predictions = [
            (
                Lazy,
                counted! { traps: 2, inits: 2, xcalls: 1, releases: 2, discards: 2 },
            ),
            (
                Deferred,
                counted! { traps: 2, inits: 2, saves: 2, preloads: 1, restores: 1, elided_restores: 1, releases: 4, discards: 2 },
            ),
            (
                Eager,
                counted! { traps: 2, inits: 2, saves: 2, preloads: 2, restores: 2, releases: 4, discards: 2 },
            ),
        ];
        case.scenario(&predictions, |case, _| {
            let lwp = Player::new("ends", 0);
            lwp.does(loads(1));
            lwp.goes_to(1);
            let ended = lwp.ends();
            case.expect_eq("CPU 0's owner", cpu_pcu(0).owner(FPU), None);
            expect_that_others_memory_stays(case, ended);
        });
    }

    /// The child is thrown away before it runs: it got a state, or the fork itself failed, since the CPU that holds the parent's
    /// registers does not answer.
    fn scenario_l_exit_of_an_lwp_that_failed_in_creation(case: &mut Case) {
        case.trusting();
        let predictions = [
            (
                Lazy,
                counted! { traps: 1, inits: 1, saves: 1, releases: 1, discards: 1 },
            ),
            (
                Deferred,
                counted! { traps: 1, inits: 1, saves: 3, elided_restores: 2, releases: 3, discards: 1 },
            ),
            (
                Eager,
                counted! { traps: 1, inits: 1, saves: 3, preloads: 2, restores: 2, releases: 3, discards: 1 },
            ),
        ];
        case.scenario(&predictions, |_, _| {
            let parent = Player::new("parent", 0);
            parent.does(|| {
                loads(1)();
                let child = prepare_uncounted("child", 0, new_domain(), || ());
                assert_eq!(fork(&child), Ok(()));
                assert!(child.pcu().valid_p(FPU));
            });
            parent.does(finds(1));
            parent.ends();
        });
        let predictions = [
            (
                Lazy,
                counted! { traps: 2, inits: 1, saves: 1, restores: 1, xcalls: 2, releases: 2, discards: 1 },
            ),
            // Nobody is asked, so the fork does not fail.
            (
                Deferred,
                counted! { traps: 1, inits: 1, saves: 4, preloads: 1, restores: 1, elided_restores: 2, releases: 4, discards: 1 },
            ),
            (
                Eager,
                counted! { traps: 1, inits: 1, saves: 4, preloads: 3, restores: 3, releases: 4, discards: 1 },
            ),
        ];
        case.scenario(&predictions, |_, policy| {
            static IS_DEAF: AtomicBool = AtomicBool::new(false);
            let parent = Player::new("parent", 0);
            let deaf = Player::plain("deaf", 0);
            parent.does(loads(1));
            parent.goes_to(1);
            deaf.begins(|| {
                let _off = InterruptsOff::new();
                IS_DEAF.store(true, Ordering::Release);
                spin_until(|| !IS_DEAF.load(Ordering::Acquire));
            });
            assert!(yield_until(|| IS_DEAF.load(Ordering::Acquire)));
            let bound = set_bound_ms(20);
            parent.does(move || {
                let child = prepare_uncounted("child", 0, new_domain(), || ());
                let cpu_0 = CpuId::new(0).expect("small");
                let answer = if policy == Lazy {
                    Err(NoAnswer(cpu_0))
                } else {
                    Ok(())
                };
                assert_eq!(fork(&child), answer);
                assert_eq!(child.pcu().valid_p(FPU), answer.is_ok());
            });
            set_bound_ms(bound);
            IS_DEAF.store(false, Ordering::Release);
            deaf.finishes();
            parent.does(finds(1));
            parent.ends();
            deaf.ends();
        });
    }
}
