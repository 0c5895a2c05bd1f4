//! CPUs go offline and come back, the machine sleeps and wakes, a CPU does not answer or is lost, and the kernel panics.
//!
//! A CPU that comes back starts as after a deep sleep: random bits in every register, the gate open, `XCR0`, `CR0` and `CR4` as after a
//! reset. Leak rule: as each case says. Placement is by hand and the timer off, so the counters are compared exactly; scenario o
//! (`boot_scenarios_holders`) has the flush itself under each policy.
//!
//! With `case=a_real_panic` and `crash=1` on its command line the kernel panics, for a reader of what it says.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = ["max", "qemu64"].map(|cpu| Run { cpu, cpus: 4 });
    pcu9_runner::boot_test("boot_offline", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use pcu9::kernel::{CpuId, NoAnswer};
    use pcu9::pcu::Policy::{Deferred, Eager, Lazy};
    use pcu9::pcu::{LoadError, StateError, Validity};
    use pcu9::percpu::CpuState;
    use pcu9_testbed::cpu::crosscall::{self, set_bound_ms};
    use pcu9_testbed::cpu::hotplug::{bring_online, is_online, n_lost, offline, reset, suspend};
    use pcu9_testbed::exit::as_from_a_panic;
    use pcu9_testbed::glue::{FPU, PCU, PERCPU, cpu_pcu, with_token};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::registers::{Pattern, YmmPattern};
    use pcu9_testbed::report::has_avx;
    use pcu9_testbed::sched::{set_timer, yield_now};
    use pcu9_testbed::testing::holds::spin_until;
    use pcu9_testbed::testing::{
        Case, Counts, Player, is_task_switched, move_to, new_domain, past_the_gate, spawn,
        yield_until,
    };
    use pcu9_testbed::{counted, cpu, option};

    pcu9_testbed::boot_tests! {
        every_policy:
            lwps_of_a_cpu_that_leaves_go_on_elsewhere;
        own_policies:
            a_cpu_comes_back_with_nothing_in_its_registers,
            cpus_leave_and_come_back_under_load,
            the_machine_sleeps_and_wakes,
            a_cpu_that_does_not_leave_is_reported_and_stays,
            a_cpu_that_was_reset_has_lost_what_it_held,
            a_panic_does_not_wait_for_what_others_hold,
            a_real_panic,
    }

    fn id(cpu: usize) -> CpuId {
        u16::try_from(cpu).ok().and_then(CpuId::new).expect("small")
    }

    fn finds(seed: u64) -> impl FnOnce() + Send + 'static {
        move || assert_eq!(Pattern::store(), Pattern::random(seed))
    }

    fn loads(seed: u64) -> impl FnOnce() + Send + 'static {
        move || Pattern::random(seed).load()
    }

    /// They are pinned to the CPU, and are back there when it is.
    fn lwps_of_a_cpu_that_leaves_go_on_elsewhere(case: &mut Case) {
        case.trusting();
        move_to(3);
        let counts = Counts::begin();
        let lwps = [1, 2, 3].map(|seed| {
            let player = Player::new("pinned", 2);
            player.does(loads(seed));
            player
        });
        case.expect_eq("offline", offline(2), Ok(()));
        case.expect_eq("its state", PERCPU.state(id(2)), CpuState::Offline);
        case.expect("it runs no LWPs", !is_online(2));
        case.expect("it owns nothing", cpu_pcu(2).owner(FPU).is_none());
        case.expect("its gate is closed", !cpu_pcu(2).is_enabled(FPU));
        for (player, seed) in lwps.iter().zip(1..) {
            let place = player.does(move || {
                finds(seed)();
                loads(seed + 10)();
                cpu::index()
            });
            case.expect("elsewhere", place != 2);
        }
        case.expect_eq("online", bring_online(2), Ok(()));
        case.expect_eq("its state", PERCPU.state(id(2)), CpuState::Started);
        for (player, seed) in lwps.into_iter().zip(11..) {
            let place = player.does(move || {
                finds(seed)();
                cpu::index()
            });
            case.expect_eq("back", place, 2);
            player.ends();
        }
        case.expect_identities(&counts);
    }

    fn a_cpu_comes_back_with_nothing_in_its_registers(case: &mut Case) {
        case.domain_aware();
        let predictions = [Lazy, Deferred, Eager].map(|policy| {
            (
                policy,
                counted! { traps: 1, inits: 1, releases: 1, discards: 1 },
            )
        });
        case.scenario(&predictions, |case, _| {
            let before = n_lost();
            case.expect_eq("offline", offline(1), Ok(()));
            case.expect_eq("online", bring_online(1), Ok(()));
            case.expect_eq("states lost", n_lost(), before);
            let lwp = spawn("first", 1, new_domain(), || {
                assert!(is_task_switched(), "the first use traps");
                assert_eq!(past_the_gate(Pattern::store), Pattern::INITIAL);
                assert_eq!(Pattern::store(), Pattern::INITIAL);
                if has_avx() {
                    assert_eq!(YmmPattern::store(), YmmPattern::zeros());
                }
            });
            case.join(&[lwp]);
        });
    }

    /// Twelve LWPs on three CPUs and more, preempted, while CPUs 1 and 2 come and go.
    fn cpus_leave_and_come_back_under_load(case: &mut Case) {
        static STOP: AtomicBool = AtomicBool::new(false);
        static ROUNDS: AtomicU64 = AtomicU64::new(0);
        const CHANGES: u64 = 12;
        case.domain_aware();
        for policy in [Lazy, Deferred] {
            case.policy(policy);
            STOP.store(false, Ordering::Release);
            let counts = Counts::begin();
            let before = ROUNDS.load(Ordering::Relaxed);
            move_to(3);
            set_timer(true);
            let lwps: alloc::vec::Vec<_> = (0..12_usize)
                .map(|place| {
                    spawn("keeps", place % 3, new_domain(), move || {
                        let mut seed = (place as u64) << 32;
                        Pattern::random(seed).load();
                        while !STOP.load(Ordering::Acquire) {
                            assert_eq!(Pattern::store(), Pattern::random(seed), "LWP {place}");
                            seed += 1;
                            Pattern::random(seed).load();
                            yield_now();
                            ROUNDS.fetch_add(1, Ordering::Relaxed);
                        }
                        assert_eq!(Pattern::store(), Pattern::random(seed), "LWP {place}");
                    })
                })
                .collect();
            for change in 0..CHANGES {
                let goes = 1 + usize::from(change % 2 == 0);
                case.expect_eq("offline", offline(goes), Ok(()));
                let n = ROUNDS.load(Ordering::Relaxed) + 20;
                case.wait_until("the others go on", || ROUNDS.load(Ordering::Relaxed) > n);
                case.expect_eq("online", bring_online(goes), Ok(()));
            }
            STOP.store(true, Ordering::Release);
            set_timer(false);
            case.join(&lwps);
            case.expect_identities(&counts);
            let counted = counts.so_far();
            case.log(format_args!(
                "{CHANGES} times, {} rounds, {} cross-calls, {} of these too late",
                ROUNDS.load(Ordering::Relaxed) - before,
                counted.xcalls,
                counted.xcalls_raced
            ));
        }
        case.policy(Lazy);
    }

    /// The registers of the boot CPU are spoiled meanwhile, and so are those of the others.
    fn the_machine_sleeps_and_wakes(case: &mut Case) {
        case.trusting();
        move_to(0);
        // Each is live on a CPU of its own, and comes back to it: a trap and a restore each.
        for (policy, predicted) in [
            (
                Lazy,
                counted! { traps: 8, inits: 4, saves: 4, restores: 4, releases: 8, discards: 4 },
            ),
            (
                Deferred,
                counted! { traps: 4, inits: 4, saves: 8, preloads: 4, restores: 4, elided_restores: 4, releases: 12, discards: 4 },
            ),
        ] {
            case.policy(policy);
            let counts = Counts::begin();
            let lwps = [0, 1, 2, 3].map(|cpu| {
                let player = Player::new("sleeps", cpu);
                player.does(loads(cpu as u64));
                player
            });
            case.expect_eq("suspend", suspend(), Ok(()));
            for (player, seed) in lwps.iter().zip(0..) {
                case.expect_eq("owned", player.lwp().pcu().live_cpu(FPU), None);
                player.does(finds(seed));
            }
            for player in lwps {
                player.ends();
            }
            case.expect_eq("counted", counts.so_far(), predicted);
        }
        case.policy(Lazy);
    }

    /// CPU 2 has interrupts off, and somebody's registers. Whoever wants them, and whoever wants it to leave, is told in time.
    fn a_cpu_that_does_not_leave_is_reported_and_stays(case: &mut Case) {
        static IS_DEAF: AtomicBool = AtomicBool::new(false);
        case.trusting();
        let predicted = counted! { traps: 2, loads: 1, inits: 1, failed: 1, saves: 1, restores: 1, xcalls: 2, releases: 2, discards: 1 };
        case.scenario(&[(Lazy, predicted)], |case, _| {
            let owner = Player::new("owner", 2);
            let deaf = Player::plain("deaf", 2);
            owner.does(loads(1));
            deaf.begins(|| {
                let _off = InterruptsOff::new();
                IS_DEAF.store(true, Ordering::Release);
                spin_until(|| !IS_DEAF.load(Ordering::Acquire));
            });
            assert!(yield_until(|| IS_DEAF.load(Ordering::Acquire)));
            let bound = set_bound_ms(20);
            owner.goes_to(1);
            let answer = owner.does(|| with_token(|token| PCU.load(token, FPU)));
            case.expect_eq("a load", answer, Err(LoadError::NoAnswer(id(2))));
            case.expect_eq("offline", offline(2), Err(crosscall::NoAnswer));
            set_bound_ms(bound);
            IS_DEAF.store(false, Ordering::Release);
            deaf.finishes();
            case.expect("it stays", yield_until(|| is_online(2)));
            case.expect_eq("its state", PERCPU.state(id(2)), CpuState::Started);
            owner.does(finds(1));
            owner.ends();
            deaf.ends();
        });
    }

    /// A reset without a word takes the newest state of CPU 2's owner with it: it is told, once it uses the FPU. The state of
    /// the others is where it was.
    fn a_cpu_that_was_reset_has_lost_what_it_held(case: &mut Case) {
        case.trusting();
        // The owner's load makes room first, and fails then.
        let predicted = counted! { traps: 3, loads: 1, inits: 2, restores: 1, saves: 2, failed: 1, releases: 3, discards: 1 };
        case.scenario(&[(Lazy, predicted)], |case, _| {
            let before = n_lost();
            let (other, owner) = (Player::new("other", 2), Player::new("owner", 2));
            other.does(loads(1));
            owner.does(loads(2));
            case.expect_eq("reset", reset(2), Ok(()));
            case.expect_eq("states lost", n_lost(), before + 1);
            case.expect("no state", !owner.lwp().pcu().valid_p(FPU));
            other.does(finds(1));
            let answer = owner.does(|| with_token(|token| PCU.load(token, FPU)));
            let refused = LoadError::State(StateError::Refused);
            case.expect_eq("the owner's next use", answer, Err(refused));
            owner.lwp().refuse_fpu_area(false);
            owner.ends();
            other.ends();
        });
    }

    /// What a panic finds: it asks, and is answered at once, although the bound is an hour.
    fn a_panic_does_not_wait_for_what_others_hold(case: &mut Case) {
        case.trusting();
        let predicted = counted! { traps: 3, inits: 2, saves: 2, restores: 1, xcalls: 3, releases: 3, discards: 2 };
        case.scenario(&[(Lazy, predicted)], |case, _| {
            let (mut here, mut there) = (Player::new("here", 3), Player::new("there", 1));
            here.does(loads(1));
            there.does(loads(2));
            let bound = set_bound_ms(3_600_000);
            let off = InterruptsOff::new();
            let (looks, n_lost) = as_from_a_panic(|| {
                let look = |player: &mut Player| PCU.inspect(&mut player.token(), FPU);
                (look(&mut here), look(&mut there))
            });
            drop(off);
            set_bound_ms(bound);
            case.expect_eq("what is here", looks.0, Ok(Validity::Valid));
            case.expect_eq("what is there", looks.1, Err(NoAnswer(id(1))));
            case.expect_eq("states lost", n_lost, 1);
            // Nothing has happened to it.
            here.does(finds(1));
            there.goes_to(2);
            there.does(finds(2));
            here.ends();
            there.ends();
        });
    }

    /// Panics, if `crash=1` asks for it, while each CPU holds somebody's registers.
    fn a_real_panic(case: &mut Case) {
        case.trusting();
        move_to(3);
        let lwps = [0, 1, 2, 3].map(|cpu| {
            let player = Player::new("holds", cpu);
            player.does(loads(cpu as u64));
            player
        });
        assert!(option("crash") != Some("1"), "a crash was asked for");
        let n_live = lwps
            .iter()
            .filter(|p| p.lwp().pcu().live_cpu(FPU).is_some());
        case.expect_eq("states that a crash would find", n_live.count(), 4);
        for player in lwps {
            player.ends();
        }
    }
}
