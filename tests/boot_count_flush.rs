//! A flush between domains costs the same whether the last domain used the FPU or not: instructions, counted exactly (QEMU's
//! `-icount`, where a tick of the time stamp counter is an instruction), without debug assertions.
//!
//! Leak rules: both.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "max",
            cpus: 1,
        },
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_count_flush", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use core::arch::x86_64::_rdtsc;
    use core::hint::black_box;
    use core::ptr::NonNull;

    use pcu9::kernel::{IplPcu, Stopped};
    use pcu9_testbed::glue::{FPU, KERNEL, PCU, cpu_pcu, with_token};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::lwp::Lwp;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::testing::{
        Case, Slot, is_task_switched, move_to, new_domain, past_the_gate, prepare, spawn, start,
        stats,
    };

    pcu9_testbed::boot_tests! {
        domain_aware_costs_the_same_whoever_used_the_fpu,
        trusting_costs_the_same_whoever_used_the_fpu
    }

    /// What the last domain did before the flush.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Use {
        /// Its registers are live, and the gate is open.
        Live,
        /// Its registers were saved, and lie there still.
        Saved,
        /// It had a state, which is gone.
        Discarded,
        /// It never used the FPU.
        None,
    }

    const USES: [Use; 4] = [Use::Live, Use::Saved, Use::Discarded, Use::None];

    fn ticks() -> u64 {
        // SAFETY: reading the time stamp counter changes nothing.
        unsafe { _rdtsc() }
    }

    /// Instructions of one flush, as a scheduler calls it.
    #[inline(never)]
    fn count(stand_in: NonNull<Lwp>) -> u64 {
        let begin = ticks();
        // SAFETY: interrupts are off.
        let ipl = unsafe { IplPcu::assume(&KERNEL) };
        // SAFETY: it has not been started.
        let mut stand_in = unsafe { Stopped::new(&KERNEL, black_box(stand_in)) };
        PCU.flush(&ipl, &mut stand_in);
        ticks() - begin
    }

    fn costs_the_same(case: &mut Case) {
        move_to(0);
        let stand_in = prepare("stand-in", 0, 0, || ());
        // What is not measured: the first use of code and memory.
        let costs = [Use::None, Use::Live].into_iter().chain(USES).map(|used| {
            let (slot, stand_in) = (Arc::new(Slot::new()), Arc::clone(&stand_in));
            let result = Arc::clone(&slot);
            let lwp = spawn("user", 0, new_domain(), move || {
                let pattern = Pattern::random(7);
                if used != Use::None {
                    pattern.load();
                }
                let answer = with_token(|token| match used {
                    Use::Saved => PCU.save(token, FPU),
                    Use::Discarded => PCU.discard(token, FPU, pcu9::pcu::Validity::Invalid),
                    Use::Live | Use::None => Ok(()),
                });
                assert_eq!(answer, Ok(()));
                let off = InterruptsOff::new();
                let cost = count(NonNull::from(&*stand_in));
                let is_closed = is_task_switched() && !cpu_pcu(0).is_enabled(FPU);
                let registers = past_the_gate(Pattern::store);
                let owner = cpu_pcu(0).owner(FPU);
                drop(off);
                assert!(is_closed, "the gate is closed");
                assert_eq!(registers, Pattern::INITIAL, "nothing is left");
                assert_eq!(owner, None);
                let expected = match used {
                    Use::Live | Use::Saved => pattern,
                    Use::Discarded | Use::None => Pattern::INITIAL,
                };
                assert_eq!(Pattern::store(), expected, "nothing is lost");
                slot.put(cost);
            });
            case.join(&[lwp]);
            (used, result.take().unwrap_or(0))
        });
        let costs: alloc::vec::Vec<_> = costs.collect();
        let costs = &costs[2..];
        case.log(format_args!("{costs:?} instructions"));
        case.expect("flushes that are counted at all", costs[0].1 > 20);
        for &(used, cost) in costs {
            case.expect_eq("instructions", (used, cost), (used, costs[0].1));
        }
        case.expect("wipes are counted", stats(0).wipes >= 4);
        case.expect("the stand-in has no state", !stand_in.pcu().valid_p(FPU));
        start(&stand_in);
        case.join(&[stand_in]);
    }

    fn domain_aware_costs_the_same_whoever_used_the_fpu(case: &mut Case) {
        case.domain_aware();
        costs_the_same(case);
    }

    fn trusting_costs_the_same_whoever_used_the_fpu(case: &mut Case) {
        case.trusting();
        costs_the_same(case);
    }
}
