//! What a switch between LWPs costs of whom nobody uses the FPU: instructions, counted exactly (QEMU's `-icount`, where a tick of
//! the time stamp counter is an instruction), without debug assertions.
//!
//! Leak rules: both.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    pcu9_runner::boot_test(
        "boot_count_hit",
        &[Run {
            cpu: "max",
            cpus: 1,
        }],
    )
}

#[cfg(target_os = "none")]
mod kernel {
    use core::arch::x86_64::_rdtsc;
    use core::ptr::NonNull;

    use pcu9::kernel::{Current, IplPcu};
    use pcu9_testbed::glue::{KERNEL, PCU};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::lwp::Lwp;
    use pcu9_testbed::testing::{Case, at_hand, new_domain, prepare, start, total_stats};
    use x86_64::registers::control::{Cr0, Cr0Flags};

    pcu9_testbed::boot_tests! { domain_aware_costs_at_most_12, trusting_costs_at_most_12 }

    const TIMES: u64 = 1000;
    /// The bound of the design; its goal is 8.
    const BOUND: u64 = 12;

    /// All hooks that a kernel must call at a switch.
    #[expect(clippy::inline_always, reason = "they stand in the scheduler itself")]
    #[inline(always)]
    fn hooks(from: NonNull<Lwp>, to: NonNull<Lwp>) {
        // SAFETY: interrupts are off.
        let ipl = unsafe { IplPcu::assume(&KERNEL) };
        // SAFETY: neither LWP runs; the two play a switch that begins and ends with the LWP that really runs.
        PCU.switch_out(&ipl, &mut unsafe { Current::new(&KERNEL, from) });
        // SAFETY: as above.
        PCU.switchpoint(&ipl, Some(&mut unsafe { Current::new(&KERNEL, to) }));
    }

    fn ticks() -> u64 {
        // SAFETY: reading the time stamp counter changes nothing.
        unsafe { _rdtsc() }
    }

    /// Instructions of `TIMES` turns of a loop around `f`.
    #[inline(never)]
    fn count(f: impl Fn(NonNull<Lwp>, NonNull<Lwp>), a: NonNull<Lwp>, b: NonNull<Lwp>) -> u64 {
        let begin = ticks();
        for _ in 0..TIMES {
            at_hand(a, b);
            f(a, b);
        }
        ticks() - begin
    }

    fn costs_at_most(case: &mut Case) {
        let a = prepare("a", 0, new_domain(), || ());
        let b = prepare("b", 0, new_domain(), || ());
        let before = total_stats();
        let (with, without, ts) = {
            let _off = InterruptsOff::new();
            let (from, to) = (NonNull::from(&*a), NonNull::from(&*b));
            let without = count(|_, _| (), from, to);
            let with = count(hooks, from, to);
            (with, without, Cr0::read().contains(Cr0Flags::TASK_SWITCHED))
        };
        let cost = (with - without).div_ceil(TIMES);
        case.log(format_args!(
            "{cost} instructions a switch: {with} with the hooks, {without} without, {TIMES} times"
        ));
        case.expect("a cost that is counted at all", cost > 0);
        case.expect("at most 12 instructions", cost <= BOUND);
        case.expect("the gate stays closed", ts);
        case.expect_eq("counters", total_stats(), before);
        start(&a);
        start(&b);
        case.join(&[a, b]);
    }

    fn domain_aware_costs_at_most_12(case: &mut Case) {
        case.domain_aware();
        costs_at_most(case);
    }

    fn trusting_costs_at_most_12(case: &mut Case) {
        case.trusting();
        costs_at_most(case);
    }
}
