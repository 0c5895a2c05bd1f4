//! `CR0.TS` moves when it must and is never written with the value that it has.
//!
//! The first cases drive a small kernel of their own on this CPU, with a unit that stands before the FPU and looks at `CR0` at
//! each write: every step of a schedule says how often the gate opens and closes. The last one looks at `CR0.TS` from LWPs of
//! the testbed. Leak rules and policies: as each case says.
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
            cpu: "max",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_task_switched", &runs)
}

#[cfg(target_os = "none")]
#[path = "boot_task_switched/mini.rs"]
mod mini;

#[cfg(target_os = "none")]
mod kernel {
    use core::ptr::NonNull;

    use pcu9::kernel::IplPcu;
    use pcu9::pcu::{AcceptLazyFp, CoreDump, LeakRule, Policy, UnitStats, Validity};
    use pcu9::x86_64::fpu;
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::yield_now;
    use pcu9_testbed::testing::{
        Case, Counts, assert_gate_open, is_task_switched, move_to, new_domain, spawn, spawn_plain,
    };

    use super::mini::{AREA_WORDS, CPU_0, Lwp, Mini, UNIT, counted};

    pcu9_testbed::boot_tests! {
        own_policies:
            lazy_trusting, lazy_domain_aware, deferred_trusting, deferred_domain_aware, eager_trusting,
            probe_trusting;
        every_policy_and_rule:
            lwps_find_the_gate_as_it_must_be,
    }

    /// Who is current after a switch. A and B use the FPU, in different domains; the integer LWP does not, in A's domain.
    #[derive(Clone, Copy, Debug)]
    enum Who {
        A,
        B,
        Integer,
        Thread,
        Idle,
    }

    /// What happens next; but for the switch, to or by the current LWP.
    #[derive(Clone, Copy, Debug)]
    enum Do {
        SwitchTo(Who),
        Use,
        /// Its registers become other than the initial ones, which would neither be saved nor restored.
        Compute,
        Load,
        Save,
        SaveAll,
        Discard,
        SaveAllOnCpu,
        Exec,
        Exit,
    }

    /// What that does to the gate.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Gate {
        Stays,
        Opens,
        Closes,
        /// What lies behind the closed gate has to be saved, or wiped.
        OpensAndCloses,
    }

    use Do::{Compute, Discard, Exec, Exit, Load, Save, SaveAll, SaveAllOnCpu, SwitchTo, Use};
    use Gate::{Closes, Opens, OpensAndCloses, Stays};
    use Who::{A, B, Idle, Integer, Thread};

    type Step = (Do, Gate);

    impl Mini {
        fn lwp(&self, who: Who) -> Option<&Lwp> {
            self.lwps.get(who as usize)
        }

        /// Does one step; gives who is current then.
        fn act(&self, current: Who, step: Do) -> Who {
            if let SwitchTo(who) = step {
                self.switch(self.lwp(current), self.lwp(who));
                return who;
            }
            let lwp = self.lwp(current).expect("an LWP acts");
            let token = &mut self.token(lwp);
            match step {
                SwitchTo(_) => {}
                Use | Compute if !is_task_switched() => {
                    panic!("no trap comes while the gate is open")
                }
                Use | Compute => {
                    // SAFETY: the only token here, and it goes into the call.
                    let ipl = unsafe { IplPcu::raise(&self.kernel) };
                    assert_eq!(self.pcu.trap(ipl, token, UNIT), Ok(()));
                    if let Compute = step {
                        Pattern::random(1).load();
                    }
                }
                Load => assert_eq!(self.pcu.load(token, UNIT), Ok(())),
                Save => assert_eq!(self.pcu.save(token, UNIT), Ok(())),
                SaveAll => assert_eq!(self.pcu.save_all(token, CoreDump::No), Ok(())),
                Discard => assert_eq!(self.pcu.discard(token, UNIT, Validity::Invalid), Ok(())),
                SaveAllOnCpu => IplPcu::with(&self.kernel, |ipl| self.pcu.save_all_on_cpu(ipl)),
                Exec => assert_eq!(self.pcu.exec(token, || ()), Ok(())),
                Exit => assert_eq!(self.pcu.exit(self.token(lwp)), Ok(())),
            }
            current
        }
    }

    /// Runs a schedule on this CPU with interrupts off, and leaves the FPU as the testbed's own `pcu9` had it: initial, closed.
    fn run(case: &mut Case, policy: Policy, rule: LeakRule, schedule: &[Step]) {
        case.domain_aware();
        case.log(format_args!("in the small kernel: {rule:?}, {policy:?}"));
        move_to(0);
        let _off = InterruptsOff::new();
        let mini = Mini::new(policy, rule);
        assert!(
            fpu::features().area_bytes() <= 8 * AREA_WORDS,
            "areas are too short"
        );
        for lwp in &mini.lwps {
            // SAFETY: an area of that length, of an LWP that has not run.
            unsafe { fpu::prepare(NonNull::from(lwp).cast()) };
        }
        assert!(is_task_switched(), "nobody owns the FPU");
        let (mut current, mut is_open) = (Idle, false);
        for (number, &(step, gate)) in schedule.iter().enumerate() {
            let before = counted();
            current = mini.act(current, step);
            let after = counted();
            is_open = match gate {
                Stays => is_open,
                Opens => true,
                Closes | OpensAndCloses => false,
            };
            let moves = [
                u64::from(matches!(gate, Opens | OpensAndCloses)),
                u64::from(matches!(gate, Closes | OpensAndCloses)),
                0,
            ];
            let expected = (moves, is_open, is_open);
            let seen = (
                [0, 1, 2].map(|counter| after[counter] - before[counter]),
                !is_task_switched(),
                mini.kernel.is_open(),
            );
            if seen != expected {
                case.fail(format_args!(
                    "step {number}, {step:?}: ([opened, closed, in vain], open, shadow): expected {expected:?}, saw {seen:?}"
                ));
            }
        }
        for lwp in &mini.lwps {
            let answer = mini.pcu.discard_all(&mut mini.token(lwp));
            assert_eq!(answer, Ok(()));
        }
        // Wipes, and closes the gate.
        let token = &mut mini.token(&mini.lwps[0]);
        let answer = mini
            .pcu
            .set_leak_rule(token, [CPU_0], LeakRule::DomainAware);
        assert_eq!(answer, Ok(()));
        assert!(is_task_switched(), "the gate is closed in the end");
    }

    const TRUSTING: LeakRule = LeakRule::Trusting(AcceptLazyFp);

    fn lazy_trusting(case: &mut Case) {
        let schedule = [
            (SwitchTo(A), Stays),
            (Use, Opens),
            (SwitchTo(Idle), Stays),
            (SwitchTo(Thread), Stays),
            (SwitchTo(A), Stays),
            (SwitchTo(Integer), Closes),
            (SwitchTo(Idle), Stays),
            (SwitchTo(Integer), Stays),
            (SwitchTo(A), Opens),
            (SwitchTo(B), Closes),
            (Use, Opens), // the save of the one and the load of the other
            (SwitchTo(A), Closes),
            (SwitchTo(Thread), Stays),
            (SwitchTo(B), Opens),
            (SaveAll, Stays),
            (Load, Stays),
            (Save, Closes),
            (Save, Stays),
            (Load, Opens),
            (Discard, Closes),
            (Discard, Stays),
            (Use, Opens),
            (SaveAllOnCpu, Closes),
            (SaveAllOnCpu, Stays),
            (Use, Opens),
            (Exec, Closes),
            (Use, Opens),
            (Exit, Closes),
            (SwitchTo(A), Stays),
            (Exit, Stays),
        ];
        run(case, Policy::Lazy, TRUSTING, &schedule);
    }

    fn lazy_domain_aware(case: &mut Case) {
        let schedule = [
            (SwitchTo(A), Stays),
            (Use, Opens),
            (SwitchTo(Thread), Stays),
            (SwitchTo(B), Closes), // saved and wiped through the open gate
            (Use, Opens),
            (SwitchTo(A), Closes),
            (Use, Opens),
            (SwitchTo(Integer), Closes),
            (SwitchTo(B), OpensAndCloses),
            (SwitchTo(Thread), Stays),
            (SwitchTo(A), Stays),
            (Use, Opens),
            (Exit, Closes),
            (SwitchTo(B), OpensAndCloses),
        ];
        run(case, Policy::Lazy, LeakRule::DomainAware, &schedule);
    }

    /// Two users that take turns need no gate at all under a policy that preloads.
    const USERS_TAKE_TURNS: [Step; 13] = [
        (SwitchTo(A), Stays),
        (Compute, Opens),
        (SwitchTo(B), Closes),
        (Compute, Opens),
        (SwitchTo(A), Stays),
        (SwitchTo(Thread), Stays),
        (SwitchTo(B), Stays),
        (SwitchTo(Idle), Stays),
        (SwitchTo(A), Stays),
        (SwitchTo(A), Stays),
        (SwitchTo(Integer), Closes),
        (SwitchTo(A), Opens),
        (SwitchTo(B), Stays),
    ];

    fn deferred_trusting(case: &mut Case) {
        run(case, Policy::Deferred, TRUSTING, &USERS_TAKE_TURNS);
    }

    fn deferred_domain_aware(case: &mut Case) {
        let rule = LeakRule::DomainAware;
        run(case, Policy::Deferred, rule, &USERS_TAKE_TURNS);
    }

    fn eager_trusting(case: &mut Case) {
        run(case, Policy::Eager, TRUSTING, &USERS_TAKE_TURNS);
    }

    fn probe_trusting(case: &mut Case) {
        let schedule = [
            (SwitchTo(A), Stays),
            (Use, Opens),
            (SwitchTo(Thread), Stays),
            (SwitchTo(A), Closes),
            (Use, Opens),
            (SwitchTo(Idle), Stays),
            (SwitchTo(A), Closes),
            (SwitchTo(Idle), Stays),
            (SwitchTo(A), Stays),
            (SwitchTo(B), Stays),
            (Use, Opens),
            (SwitchTo(A), Closes),
        ];
        run(case, Policy::Probe, TRUSTING, &schedule);
    }

    /// A user, a kernel thread, an LWP without FPU, in this order, again and again.
    fn lwps_find_the_gate_as_it_must_be(case: &mut Case) {
        const ROUNDS: u64 = 50;
        case.trusting();
        move_to(0);
        let counts = Counts::begin();
        let domain = new_domain();
        let user = spawn("user", 0, domain, || {
            assert!(is_task_switched(), "closed before the first use");
            // Not the initial state, which no policy would bring in.
            Pattern::random(1).load();
            for _ in 0..ROUNDS {
                assert_gate_open("the owner is back");
                yield_now();
            }
        });
        let thread = spawn_plain("thread", 0, || {
            for _ in 0..ROUNDS {
                assert_gate_open("it is left so over a kernel thread");
                yield_now();
            }
        });
        let integer = spawn("integers", 0, domain, || {
            for _ in 0..ROUNDS {
                assert!(is_task_switched(), "closed over an LWP without FPU");
                yield_now();
            }
        });
        case.join(&[user, thread, integer]);
        let expected = UnitStats {
            traps: 1,
            inits: 1,
            reenables_switch: ROUNDS,
            releases: 1,
            discards: 1,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }
}
