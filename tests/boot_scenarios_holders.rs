//! The scenarios of others than the LWP itself: a debugger (m), a core dump (n), a CPU that goes (o), the kernel (p), and whoever runs
//! next (s); letters of `tests/tables/scenarios.toml`. Placed by hand: what is counted on all CPUs is what each policy predicts, exactly.
//!
//! Leak rule: as each case says. Timer and director as in `boot_scenarios_moves`; the director is the debugger.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = ["max", "qemu64"].map(|cpu| Run { cpu, cpus: 4 });
    pcu9_runner::boot_test("boot_scenarios_holders", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicBool, Ordering};

    use pcu9::kernel::{CpuId, IplPcu, Kernel, NoAnswer};
    use pcu9::pcu::Policy::{self, Deferred, Eager, Lazy, Probe};
    use pcu9::pcu::{CoreDump, UnitStats, Validity};
    use pcu9_testbed::counted;
    use pcu9_testbed::cpu;
    use pcu9_testbed::cpu::crosscall::n_pending;
    use pcu9_testbed::cpu::hotplug::{bring_online, offline};
    use pcu9_testbed::glue::{FPU, KERNEL, PCU, cpu_pcu, with_token};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::without_preemption;
    use pcu9_testbed::testing::holds::spin_until;
    use pcu9_testbed::testing::{Case, Player, image, past_the_gate, write_image, yield_until};
    use pcu9_testbed::watch;

    pcu9_testbed::boot_tests! {
        scenario_m_a_debugger_reads_and_writes_from_a_third_cpu,
        scenario_n_core_dump_of_many_threads,
        scenario_o_a_cpu_goes_offline,
        scenario_p_kernel_sections_in_the_middle_of_everything,
        scenario_s_nobody_sees_anothers_registers,
    }

    fn loads(seed: u64) -> impl FnOnce() + Send + 'static {
        move || Pattern::random(seed).load()
    }

    fn finds(seed: u64) -> impl FnOnce() + Send + 'static {
        move || assert_eq!(Pattern::store(), Pattern::random(seed))
    }

    /// The LWP stopped on CPU 1, its registers are on CPU 0 as far as the policy leaves them there, and the debugger is on CPU 3.
    fn scenario_m_a_debugger_reads_and_writes_from_a_third_cpu(case: &mut Case) {
        case.trusting();
        let predictions = [
            // Asked: to read; to bring memory up to date, and to give up, for the edit; to give up, for the new image.
            (
                Lazy,
                counted! { traps: 3, inits: 1, saves: 2, restores: 2, xcalls: 4, releases: 3, discards: 3 },
            ),
            (
                Deferred,
                counted! { traps: 1, inits: 1, saves: 4, preloads: 3, restores: 3, elided_restores: 1, releases: 5, discards: 1 },
            ),
            (
                Eager,
                counted! { traps: 1, inits: 1, saves: 4, preloads: 4, restores: 4, releases: 5, discards: 1 },
            ),
        ];
        case.scenario(&predictions, |case, policy| {
            let mut lwp = Player::new("debugged", 0);
            lwp.does(loads(1));
            lwp.goes_to(1);
            lwp.does(|| ());
            let owner = cpu_pcu(0).owner(FPU);
            case.expect_eq("live on CPU 0", owner.is_some(), policy == Lazy);

            let read = PCU.inspect(&mut lwp.token(), FPU);
            case.expect_eq("it has a state", read, Ok(Validity::Valid));
            let first = image(lwp.lwp());
            let seen = Pattern::of_image(&first);
            case.expect_eq("what is read", seen, Pattern::random(1));
            case.expect_eq("and kept", cpu_pcu(0).owner(FPU).is_some(), policy == Lazy);

            // XMM3 is changed, and nothing else.
            let at = lwp.shared();
            let change = |validity| {
                assert_eq!(validity, Validity::Valid);
                let mut image = image(&at);
                image[160 + 16 * 3..][..16].fill(0x3c);
                write_image(&at, &image);
                Ok::<(), NoAnswer>(())
            };
            let edited = PCU.edit(&mut lwp.token(), FPU, |_, validity| change(validity));
            case.expect_eq("the edit", edited, Ok(()));
            let changed = Pattern::of_image(&image(lwp.lwp()));
            case.expect("it is another state", changed != Pattern::random(1));
            lwp.does(move || {
                assert_eq!(Pattern::store(), changed);
                loads(2)();
            });

            let write = || {
                write_image(&at, &first);
                Ok::<(), NoAnswer>(())
            };
            let replaced = PCU.replace(&mut lwp.token(), FPU, |_| write());
            case.expect_eq("the new image", replaced, Ok(()));
            lwp.does(finds(1));
            drop(at);
            lwp.ends();
        });
    }

    /// Six LWPs, of which three have their newest registers in CPUs under `Lazy`. All are dumped, and go on. At their ends three
    /// close the gate over the other three's registers.
    fn scenario_n_core_dump_of_many_threads(case: &mut Case) {
        case.trusting();
        let predictions = [
            (
                Lazy,
                counted! { traps: 12, inits: 6, saves: 9, restores: 6, xcalls: 3,
                reenables_switch: 3, releases: 12, discards: 3 },
            ),
            (
                Deferred,
                counted! { traps: 6, inits: 6, saves: 12, preloads: 12, restores: 12, releases: 18, discards: 6 },
            ),
            (
                Eager,
                counted! { traps: 6, inits: 6, saves: 12, preloads: 12, restores: 12, releases: 18, discards: 6 },
            ),
        ];
        case.scenario(&predictions, |case, policy| {
            let mut lwps: Vec<_> = (0..6).map(|n| Player::new("dumped", n % 3)).collect();
            for (lwp, seed) in lwps.iter().zip(0..) {
                lwp.does(loads(seed));
            }
            let n_live = || (0..3).filter(|&cpu| cpu_pcu(cpu).owner(FPU).is_some());
            let expected = if policy == Lazy { 3 } else { 0 };
            case.expect_eq("live", n_live().count(), expected);
            for (lwp, seed) in lwps.iter_mut().zip(0..) {
                let answer = PCU.save_all(&mut lwp.token(), CoreDump::Yes);
                case.expect_eq("the dump", answer, Ok(()));
                let seen = Pattern::of_image(&image(lwp.lwp()));
                case.expect_eq("what is dumped", seen, Pattern::random(seed));
                case.expect("it has its state", lwp.lwp().pcu().valid_p(FPU));
            }
            case.expect_eq("live", n_live().count(), 0);
            for (lwp, seed) in lwps.iter().zip(0..) {
                lwp.does(finds(seed));
            }
            for lwp in lwps {
                lwp.ends();
            }
        });
    }

    /// The registers are on CPU 2 when it goes, and the LWP is pinned to it.
    fn scenario_o_a_cpu_goes_offline(case: &mut Case) {
        case.trusting();
        let predictions = [
            (
                Lazy,
                counted! { traps: 3, inits: 1, saves: 2, restores: 2, xcalls: 1, releases: 3, discards: 1 },
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
        case.scenario(&predictions, |case, _| {
            let lwp = Player::new("pinned", 2);
            lwp.does(loads(1));
            case.expect_eq("offline", offline(2), Ok(()));
            case.expect_eq("CPU 2's owner", cpu_pcu(2).owner(FPU), None);
            let place = lwp.does(|| {
                finds(1)();
                cpu::index()
            });
            case.expect("it goes on elsewhere", place != 2);
            case.expect_eq("online", bring_online(2), Ok(()));
            let place = lwp.does(|| {
                finds(1)();
                cpu::index()
            });
            case.expect_eq("it is back", place, 2);
            lwp.ends();
        });
    }

    /// What the kernel does in a section: it finds initial registers, and fills them.
    fn use_in_section() {
        assert_eq!(Pattern::store(), Pattern::INITIAL);
        Pattern::random(99).load();
    }

    /// Runs `f` in an interrupt on CPU `cpu`, over whatever runs there.
    fn interrupt(cpu: usize, f: fn()) {
        let id = u16::try_from(cpu).ok().and_then(CpuId::new);
        // SAFETY: the only token here, and interrupts are on.
        let ipl = unsafe { IplPcu::raise(&KERNEL) };
        let answer = KERNEL.cross_call(ipl, id.expect("small"), &|_| f());
        assert_eq!(answer, Ok(()));
    }

    /// In a thread; in an interrupt over user state, and over a kernel thread's; and with another CPU's request in the middle.
    fn scenario_p_kernel_sections_in_the_middle_of_everything(case: &mut Case) {
        case.trusting();
        let lazy = counted! { traps: 2, inits: 1, saves: 1, restores: 1, sections: 1, releases: 2, discards: 1 };
        let deferred = counted! { saves: 2, elided_restores: 1, releases: 3, ..lazy };
        let eager = counted! { preloads: 1, restores: 2, elided_restores: 0, ..deferred };
        let predictions = [(Lazy, lazy), (Deferred, deferred), (Eager, eager)];
        case.scenario(&predictions, |_, _| in_a_thread());
        case.scenario(&predictions, |_, _| in_an_interrupt(Player::new("user", 0)));
        case.scenario(&predictions, |_, _| {
            let kthread = Player::prepared("kthread", 0, 0);
            kthread.start();
            in_an_interrupt(kthread);
        });
        // The owner's request finds the section in its owner's place, which has saved its state.
        let predictions = [
            (Lazy, counted! { xcalls: 1, xcalls_raced: 1, ..lazy }),
            (
                Deferred,
                counted! { traps: 1, inits: 1, saves: 2, preloads: 1, restores: 1, elided_restores: 1, sections: 1, releases: 3, discards: 1 },
            ),
            (
                Eager,
                counted! { traps: 1, inits: 1, saves: 2, preloads: 2, restores: 2, sections: 1, releases: 3, discards: 1 },
            ),
        ];
        case.scenario(&predictions, |_, _| with_a_request_in_the_middle());
    }

    fn in_a_thread() {
        let lwp = Player::new("user", 0);
        lwp.does(|| {
            loads(1)();
            without_preemption(|| {
                let answer = with_token(|token| PCU.section(token, FPU, |_| use_in_section()));
                assert_eq!(answer, Ok(()));
            });
            assert_eq!(past_the_gate(Pattern::store), Pattern::INITIAL);
            finds(1)();
        });
        lwp.ends();
    }

    fn in_an_interrupt(lwp: Player) {
        static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);
        static IS_LOADED: AtomicBool = AtomicBool::new(false);
        IS_INTERRUPTED.store(false, Ordering::Release);
        IS_LOADED.store(false, Ordering::Release);
        lwp.begins(|| {
            loads(1)();
            IS_LOADED.store(true, Ordering::Release);
            spin_until(|| IS_INTERRUPTED.load(Ordering::Acquire));
            finds(1)();
        });
        assert!(yield_until(|| IS_LOADED.load(Ordering::Acquire)));
        interrupt(0, || {
            let answer = PCU.section_in_interrupt(&KERNEL, FPU, None, |_| use_in_section());
            assert_eq!(answer, Ok(()));
            assert_eq!(past_the_gate(Pattern::store), Pattern::INITIAL);
        });
        IS_INTERRUPTED.store(true, Ordering::Release);
        lwp.finishes();
        lwp.ends();
    }

    fn with_a_request_in_the_middle() {
        let has_used = Arc::new(AtomicBool::new(false));
        let is_ready = Arc::new(AtomicBool::new(false));
        let owner = Player::new("owner", 0);
        let kernel = Player::plain("kernel", 0);
        owner.does(loads(1));
        owner.goes_to(1);
        let (used, ready) = (Arc::clone(&has_used), Arc::clone(&is_ready));
        kernel.begins(move || {
            without_preemption(|| {
                let off = InterruptsOff::new();
                ready.store(true, Ordering::Release);
                spin_until(|| n_pending(0) > 0 || used.load(Ordering::Acquire));
                let in_section = || {
                    use_in_section();
                    drop(off); // the request is served here
                    spin_until(|| n_pending(0) == 0 && used.load(Ordering::Acquire));
                    assert_eq!(Pattern::store(), Pattern::random(99));
                };
                let answer = with_token(|token| PCU.section(token, FPU, |_| in_section()));
                assert_eq!(answer, Ok(()));
            });
        });
        assert!(yield_until(|| is_ready.load(Ordering::Acquire)));
        owner.does(move || {
            finds(1)();
            has_used.store(true, Ordering::Release);
        });
        kernel.finishes();
        owner.ends();
        kernel.ends();
    }

    /// Two LWPs of two domains on one CPU; the registers are looked at behind the gate, before the first use of each turn: is
    /// there anything of the other one's?
    fn take_turns() -> bool {
        let (a, b) = (Player::new("a", 0), Player::new("b", 0));
        let peek = || past_the_gate(Pattern::store);
        a.does(loads(1));
        let seen_by_b = b.does(move || {
            let seen = peek();
            loads(2)();
            seen
        });
        let seen_by_a = a.does(move || {
            let seen = peek();
            finds(1)();
            seen
        });
        a.ends();
        b.ends();
        let mine = [Pattern::random(1), Pattern::INITIAL];
        seen_by_b != Pattern::INITIAL || !mine.contains(&seen_by_a)
    }

    fn scenario_s_nobody_sees_anothers_registers(case: &mut Case) {
        case.domain_aware();
        let lazy = counted! { traps: 3, inits: 2, saves: 2, restores: 1, wipes: 3, releases: 3, discards: 1 };
        let predictions: [(Policy, UnitStats); 4] = [
            (Lazy, lazy),
            (Probe, counted! { probes: 1, ..lazy }),
            (
                Deferred,
                counted! { traps: 2, inits: 2, saves: 3, preloads: 2, restores: 2, elided_restores: 1, wipes: 1, releases: 5, discards: 2 },
            ),
            (
                Eager,
                counted! { traps: 2, inits: 2, saves: 3, preloads: 3, restores: 3, wipes: 1, releases: 5, discards: 2 },
            ),
        ];
        case.scenario(&predictions, |case, _| {
            let is_seen = take_turns();
            case.expect("nothing of another is seen", !is_seen);
        });
        // Under every policy, and at every switch-in, with all of the register file.
        for policy in Policy::ALL {
            case.policy(policy);
            watch::start();
            let is_seen = take_turns();
            let (n_looks, n_leaks) = watch::stop();
            case.expect("nothing of another is seen", !is_seen);
            case.expect("somebody looked", n_looks >= 6);
            case.expect_eq("leaks", n_leaks, 0);
        }
        // Where it is allowed, it is seen: nobody is blind.
        case.trusting();
        case.policy(Lazy);
        let is_seen = take_turns();
        case.expect("Trusting shows it", is_seen);
    }
}
