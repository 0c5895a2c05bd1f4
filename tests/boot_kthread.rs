//! A kernel thread with FPU state of its own, among user LWPs: it asks for it by a load, and keeps it over switches, preemption and
//! migration, as they keep theirs. One without is reported with the address of the instruction that used the FPU.
//!
//! Leak rule: domain aware, and in a repetition the other.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "max",
            cpus: 4,
        },
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_kthread", &runs)
}

#[cfg(target_os = "none")]
#[expect(clippy::cast_possible_truncation, reason = "a kernel for x86-64 alone")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;

    use pcu9::pcu::{LeakRule, LoadError, StateError};
    use pcu9::x86_64::{DeviceNotAvailable, UsedBy};
    use pcu9_testbed::cpu::n_cpus;
    use pcu9_testbed::glue::{FPU, PCU, cpu_pcu, with_token};
    use pcu9_testbed::registers::RegisterFile;
    use pcu9_testbed::testing::{
        Case, Counts, Slot, Turns, is_task_switched, move_to, new_domain, past_the_gate, spawn,
        spawn_plain, stray_use,
    };
    use pcu9_testbed::{sched, watch};

    pcu9_testbed::boot_tests! {
        every_policy_and_rule:
            it_keeps_its_registers_among_user_lwps,
            its_load_takes_nothing_from_who_left_the_gate_open;
        every_policy:
            user_lwps_do_not_find_its_registers;
        own_policies:
            one_without_is_reported_with_the_address,
            one_without_is_refused_a_load
    }

    /// A kernel thread: in no protection domain.
    const NO_DOMAIN: u64 = 0;
    const ROUNDS: u64 = 40;

    /// What a kernel thread does once, before it uses the FPU.
    fn opt_in() {
        assert_eq!(with_token(|token| PCU.load(token, FPU)), Ok(()));
        assert!(
            RegisterFile::is_initial(),
            "it begins with the initial state"
        );
    }

    fn compute(lwp: u64) {
        for round in 0..ROUNDS {
            let seed = lwp << 32 | round;
            RegisterFile::load_random(seed);
            match (lwp + round) % 3 {
                0 => move_to((lwp + round / 3) as usize % n_cpus()),
                _ => sched::yield_now(),
            }
            assert!(RegisterFile::is_random(seed), "LWP {lwp}, round {round}");
        }
    }

    fn it_keeps_its_registers_among_user_lwps(case: &mut Case) {
        case.domain_aware();
        let counts = Counts::begin();
        if PCU.leak_rule() == LeakRule::DomainAware {
            watch::start();
        }
        sched::set_timer(true);
        let threads = 0..2_u64;
        let users = 2..6_u64;
        let cpu = |lwp: u64| lwp as usize % n_cpus();
        let mut lwps: Vec<_> = threads
            .map(|lwp| {
                spawn("kthread", cpu(lwp), NO_DOMAIN, move || {
                    opt_in();
                    compute(lwp);
                })
            })
            .collect();
        lwps.extend(users.map(|lwp| spawn("user", cpu(lwp), new_domain(), move || compute(lwp))));
        // Those that never ask for a state come in between, and leave everything as it is.
        lwps.push(spawn_plain("plain", 0, || {
            (0..ROUNDS).for_each(|_| sched::yield_now());
        }));
        case.join(&lwps);
        sched::set_timer(false);
        let (looks, leaks) = watch::stop();
        if PCU.leak_rule() == LeakRule::DomainAware {
            case.log(format_args!("{looks} looks"));
            case.expect_eq("leaks", leaks, 0);
        }
        case.expect_eq("explicit loads", counts.so_far().loads, 2);
        case.expect_identities(&counts);
    }

    /// Over a kernel thread the gate stays as the LWP before it left it. So what makes the registers the thread's own is its load,
    /// not a trap.
    fn its_load_takes_nothing_from_who_left_the_gate_open(case: &mut Case) {
        case.domain_aware();
        move_to(0);
        let turns = Arc::new(Turns::new());
        let (users, threads) = (Arc::clone(&turns), Arc::clone(&turns));
        let user = spawn("user", 0, new_domain(), move || {
            RegisterFile::load_random(1);
            users.next();
            users.wait(2);
            assert!(RegisterFile::is_random(1), "the user's registers");
        });
        let thread = spawn("kthread", 0, NO_DOMAIN, move || {
            threads.wait(1);
            opt_in();
            RegisterFile::load_random(2);
            threads.next();
            sched::yield_now();
            assert!(RegisterFile::is_random(2), "the kernel thread's registers");
        });
        case.join(&[user, thread]);
    }

    /// Under the rule that looks at domains: what a kernel thread leaves is no user's to see.
    fn user_lwps_do_not_find_its_registers(case: &mut Case) {
        case.domain_aware();
        move_to(0);
        let turns = Arc::new(Turns::new());
        let (users, threads) = (Arc::clone(&turns), Arc::clone(&turns));
        let found = Arc::new(Slot::new());
        let result = Arc::clone(&found);
        let thread = spawn("kthread", 0, NO_DOMAIN, move || {
            opt_in();
            RegisterFile::load_random(1);
            threads.next();
            threads.wait(2);
            assert!(RegisterFile::is_random(1), "the kernel thread's registers");
        });
        let user = spawn("user", 0, new_domain(), move || {
            users.wait(1);
            // A new LWP: the gate is closed, and what lies behind it is what an attacker would read.
            let is_closed = is_task_switched();
            found.put((
                is_closed,
                past_the_gate(RegisterFile::store) == RegisterFile::INITIAL,
            ));
            users.next();
        });
        case.join(&[thread, user]);
        case.expect_eq(
            "closed, and initial behind it",
            result.take(),
            Some((true, true)),
        );
    }

    fn one_without_is_reported_with_the_address(case: &mut Case) {
        case.domain_aware();
        let seen = Arc::new(Slot::new());
        let result = Arc::clone(&seen);
        let with = spawn("kthread with", 0, NO_DOMAIN, || {
            opt_in();
            RegisterFile::load_random(1);
            sched::yield_now();
            assert!(RegisterFile::is_random(1));
        });
        case.join(&[with]);
        let without = spawn_plain("kthread without", 0, move || {
            let before = (is_task_switched(), cpu_pcu(0).owner(FPU).is_some());
            let (address, reported) = stray_use();
            let after = (is_task_switched(), cpu_pcu(0).owner(FPU).is_some());
            seen.put((before, after, address, reported));
        });
        case.join(&[without]);
        let Some((before, after, address, reported)) = result.take() else {
            return case.fail(format_args!("the kernel thread left no result"));
        };
        case.log(format_args!(
            "the instruction at {address:#x}: {reported:x?}"
        ));
        case.expect_eq("gate and owner before", before, (true, false));
        case.expect_eq("gate and owner after", after, before);
        case.expect_eq("the reported address", reported, Some(address));
        // SAFETY: ring 0.
        let whose = unsafe { DeviceNotAvailable::classify(UsedBy::Kernel, address) };
        case.expect_eq(
            "whose",
            whose,
            DeviceNotAvailable::KernelBug { rip: address },
        );
        // SAFETY: ring 0.
        let whose = unsafe { DeviceNotAvailable::classify(UsedBy::Lwp, address) };
        case.expect_eq("whose", whose, DeviceNotAvailable::Unit(FPU));
    }

    /// It has no area, and neither a load nor a trap that is served by mistake gives it a state.
    fn one_without_is_refused_a_load(case: &mut Case) {
        case.domain_aware();
        let seen = Arc::new(Slot::new());
        let result = Arc::clone(&seen);
        let thread = spawn_plain("kthread without", 0, move || {
            let answer = with_token(|token| PCU.load(token, FPU));
            seen.put((answer, cpu_pcu(0).owner(FPU).is_some(), is_task_switched()));
        });
        case.join(&[thread]);
        let refused = Err(LoadError::State(StateError::Refused));
        case.expect_eq("the load", result.take(), Some((refused, false, true)));
    }
}
