//! A kernel on one CPU: the FPU is set up and its gate closed before any LWP runs, LWPs take turns, the timer preempts.
//!
//! Leak rules: as each case says; the first two look at the machine as it booted.
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
    pcu9_runner::boot_test("boot_one_cpu", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use pcu9::pcu::{LeakRule, Policy};
    use pcu9::x86_64::fpu::{SaveInstruction, features};
    use pcu9_testbed::glue::{FPU, PCU, cpu_pcu};
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::testing::{
        Case, Counts, is_task_switched, new_domain, past_the_gate, spawn, spawn_plain,
    };
    use pcu9_testbed::{cpu, option_number, sched};
    use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
    use x86_64::registers::xcontrol::XCr0;

    pcu9_testbed::boot_tests! {
        own_policies:
            one_cpu_runs,
            the_fpu_is_ready_and_its_gate_closed;
        every_policy_and_rule:
            lwps_take_turns,
            the_timer_preempts,
    }

    fn one_cpu_runs(case: &mut Case) {
        case.log(format_args!("leak rule: {:?}, as booted", PCU.leak_rule()));
        case.expect_eq("CPUs asked for", option_number("cpus"), Some(1));
        case.expect_eq("CPUs that run", cpu::n_cpus(), 1);
        case.expect_eq("this CPU", cpu::index(), 0);
        case.expect_eq(
            "the leak rule at boot",
            PCU.leak_rule(),
            LeakRule::DomainAware,
        );
        case.expect_eq("the policy at boot", PCU.policy(FPU), Some(Policy::Lazy));
    }

    fn the_fpu_is_ready_and_its_gate_closed(case: &mut Case) {
        case.log(format_args!("leak rule: {:?}, as booted", PCU.leak_rule()));
        let cr0 = Cr0::read();
        case.expect(
            "CR0.MP and NE are set",
            cr0.contains(Cr0Flags::MONITOR_COPROCESSOR | Cr0Flags::NUMERIC_ERROR),
        );
        case.expect(
            "CR0.EM is clear",
            !cr0.contains(Cr0Flags::EMULATE_COPROCESSOR),
        );
        let cr4 = Cr4::read();
        case.expect(
            "CR4.OSFXSR and OSXMMEXCPT are set",
            cr4.contains(Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE),
        );
        let has_xsave = features().save_instruction() != SaveInstruction::Fxsave;
        case.expect_eq("CR4.OSXSAVE", cr4.contains(Cr4Flags::OSXSAVE), has_xsave);
        if has_xsave {
            case.expect_eq("XCR0", XCr0::read_raw(), features().xcr0());
        }
        case.expect("CR0.TS is set", is_task_switched());
        case.expect("the gate is closed", !cpu_pcu(0).is_enabled(FPU));
        case.expect("nobody owns the FPU", cpu_pcu(0).owner(FPU).is_none());
        case.expect_eq(
            "the registers",
            past_the_gate(Pattern::store),
            Pattern::INITIAL,
        );
    }

    /// Each adds its digit to a number when its turn has come.
    fn lwps_take_turns(case: &mut Case) {
        static DIGITS: AtomicU64 = AtomicU64::new(0);
        case.domain_aware();
        DIGITS.store(0, Ordering::Relaxed);
        let counts = Counts::begin();
        let lwps = [1, 2, 3].map(|digit| {
            spawn_plain("digit", 0, move || {
                for _ in 0..3 {
                    let digits = DIGITS.load(Ordering::Relaxed);
                    DIGITS.store(digits * 10 + digit, Ordering::Relaxed);
                    sched::yield_now();
                }
            })
        });
        case.join(&lwps);
        case.expect_eq("turns", DIGITS.load(Ordering::Relaxed), 123_123_123);
        case.expect_eq("traps of LWPs without FPU", counts.so_far().traps, 0);
    }

    /// Two LWPs that never yield end, because the timer takes the CPU from the one that waits for the other.
    fn the_timer_preempts(case: &mut Case) {
        case.trusting();
        let go = Arc::new(AtomicBool::new(false));
        let goes = Arc::clone(&go);
        let preemptions = || sched::counters(0).preemptions.load(Ordering::Relaxed);
        let before = preemptions();
        let counts = Counts::begin();
        let was_on = sched::set_timer(true);
        case.expect("the timer was off", !was_on);
        let waits = spawn("waits", 0, new_domain(), move || {
            let pattern = Pattern::random(1);
            pattern.load();
            while !go.load(Ordering::Acquire) {
                core::hint::spin_loop();
            }
            assert_eq!(Pattern::store(), pattern, "after preemption");
        });
        let acts = spawn("acts", 0, new_domain(), move || {
            Pattern::random(2).load();
            goes.store(true, Ordering::Release);
        });
        case.join(&[waits, acts]);
        case.expect("somebody was preempted", preemptions() > before);
        case.expect_identities(&counts);
    }
}
