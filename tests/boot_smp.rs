//! Several CPUs: each is set up as the first one, and any of them can ask any other, all at the same time.
//!
//! Leak rules: as each case says.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "Nehalem",
            cpus: 2,
        },
        Run {
            cpu: "Haswell",
            cpus: 4,
        },
        Run {
            cpu: "max",
            cpus: 8,
        },
    ];
    pcu9_runner::boot_test("boot_smp", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use pcu9::kernel::{CpuId, IplPcu, Kernel, NoAnswer};
    use pcu9::pcu::Costs;
    use pcu9_testbed::cpu::{self, crosscall};
    use pcu9_testbed::glue::{FPU, KERNEL, N_UNITS, Testbed, calibrated, cpu_pcu};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::option_number;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::testing::{
        Case, Slot, is_task_switched, move_to, past_the_gate, spawn_plain, yield_until,
    };
    use x86_64::instructions::interrupts;
    use x86_64::registers::control::{Cr0, Cr4};

    pcu9_testbed::boot_tests! {
        all_cpus_run_and_are_alike,
        each_cpu_asks_each,
        what_asking_takes_was_measured,
        two_cpus_ask_each_other_at_the_same_time,
        all_cpus_ask_all_at_the_same_time,
        a_cpu_that_does_not_answer_is_given_up,
    }

    fn cpu_id(index: usize) -> CpuId {
        u16::try_from(index)
            .ok()
            .and_then(CpuId::new)
            .expect("a small number")
    }

    /// Runs `f` on CPU `cpu`, as `pcu9` does.
    fn ask(cpu: usize, f: &(dyn Fn(&IplPcu<'_, Testbed, N_UNITS>) + Sync)) -> Result<(), NoAnswer> {
        // SAFETY: the only token here, and it goes into the call.
        let ipl = unsafe { IplPcu::raise(&KERNEL) };
        KERNEL.cross_call(ipl, cpu_id(cpu), f)
    }

    fn all_cpus_run_and_are_alike(case: &mut Case) {
        case.domain_aware();
        let n_cpus = cpu::n_cpus();
        case.expect_eq("CPUs that run", Some(n_cpus as u64), option_number("cpus"));
        for cpu in 0..n_cpus {
            let seen = Arc::new(Slot::new());
            let slot = Arc::clone(&seen);
            let lwp = spawn_plain("looks", cpu, move || {
                let registers = past_the_gate(Pattern::store);
                slot.put((
                    cpu::index(),
                    Cr0::read_raw(),
                    Cr4::read_raw(),
                    is_task_switched(),
                    registers,
                ));
            });
            case.join(&[lwp]);
            let expected = (
                cpu,
                Cr0::read_raw(),
                Cr4::read_raw(),
                true,
                Pattern::INITIAL,
            );
            case.expect_eq("a CPU's state", seen.take(), Some(expected));
            case.expect("nobody owns its FPU", cpu_pcu(cpu).owner(FPU).is_none());
        }
    }

    fn what_asking_takes_was_measured(case: &mut Case) {
        let found = calibrated();
        case.log(format_args!("{found:?}"));
        let unmeasured = Costs::ZEN3.cross_call;
        case.expect("a cross-call's own figure", found.cross_call != unmeasured);
    }

    fn each_cpu_asks_each(case: &mut Case) {
        case.domain_aware();
        let n_cpus = cpu::n_cpus();
        for from in 0..n_cpus {
            move_to(from);
            for to in 0..n_cpus {
                let seen = Slot::new();
                let answer = ask(to, &|ipl| {
                    let here = KERNEL.cpu_id(ipl).index();
                    seen.put((here, cpu::index(), interrupts::are_enabled()));
                });
                case.expect_eq("an answer", answer, Ok(()));
                case.expect_eq("where it ran, and how", seen.take(), Some((to, to, false)));
                case.expect("interrupts are on again", interrupts::are_enabled());
                case.expect_eq("the CPU afterwards", cpu::index(), from);
            }
        }
    }

    /// LWPs on `cpus`, each of which asks every other one of them `rounds` times, all beginning together.
    fn ask_crosswise(case: &mut Case, cpus: &[usize], rounds: u64) {
        static N_BEGUN: AtomicU64 = AtomicU64::new(0);
        N_BEGUN.store(0, Ordering::Relaxed);
        let served: Arc<Vec<AtomicU64>> =
            Arc::new((0..cpu::n_cpus()).map(|_| AtomicU64::new(0)).collect());
        let n_lwps = cpus.len() as u64;
        let lwps: Vec<_> = cpus
            .iter()
            .map(|&own| {
                let served = Arc::clone(&served);
                let cpus = cpus.to_vec();
                spawn_plain("asks", own, move || {
                    N_BEGUN.fetch_add(1, Ordering::AcqRel);
                    while N_BEGUN.load(Ordering::Acquire) < n_lwps {
                        core::hint::spin_loop();
                    }
                    for _ in 0..rounds {
                        for &cpu in cpus.iter().filter(|&&cpu| cpu != own) {
                            ask(cpu, &|ipl| {
                                assert_eq!(KERNEL.cpu_id(ipl).index(), cpu);
                                // Not an atomic addition: it is one only if nothing else runs here meanwhile.
                                let n = served[cpu].load(Ordering::Relaxed);
                                served[cpu].store(n + 1, Ordering::Relaxed);
                            })
                            .expect("the CPU answers");
                        }
                    }
                })
            })
            .collect();
        case.join(&lwps);
        for &cpu in cpus {
            case.expect_eq(
                "cross-calls that a CPU served",
                served[cpu].load(Ordering::Relaxed),
                rounds * (n_lwps - 1),
            );
        }
    }

    fn two_cpus_ask_each_other_at_the_same_time(case: &mut Case) {
        case.trusting();
        ask_crosswise(case, &[0, 1], 2_000);
    }

    fn all_cpus_ask_all_at_the_same_time(case: &mut Case) {
        case.trusting();
        let cpus: Vec<_> = (0..cpu::n_cpus()).collect();
        // More emulated CPUs than real ones, all waiting at once, take their time.
        let rounds = if cpus.len() > 4 { 2 } else { 50 };
        ask_crosswise(case, &cpus, rounds);
    }

    /// The request is withdrawn and never runs, not even when the CPU comes back.
    fn a_cpu_that_does_not_answer_is_given_up(case: &mut Case) {
        static IS_DEAF: AtomicBool = AtomicBool::new(false);
        static WAKE_UP: AtomicBool = AtomicBool::new(false);
        static N_RAN: AtomicU64 = AtomicU64::new(0);
        case.domain_aware();
        move_to(0);
        let deaf = spawn_plain("deaf", 1, || {
            let _off = InterruptsOff::new();
            IS_DEAF.store(true, Ordering::Release);
            while !WAKE_UP.load(Ordering::Acquire) {
                core::hint::spin_loop();
            }
        });
        yield_until(|| IS_DEAF.load(Ordering::Acquire));
        let count = &|_: &IplPcu<'_, Testbed, N_UNITS>| {
            N_RAN.fetch_add(1, Ordering::Relaxed);
        };
        let bound = crosscall::set_bound_ms(20);
        let answer = ask(1, count);
        crosscall::set_bound_ms(bound);
        case.expect_eq("no answer", answer, Err(NoAnswer(cpu_id(1))));
        WAKE_UP.store(true, Ordering::Release);
        case.join(&[deaf]);
        case.expect_eq(
            "runs of what was withdrawn",
            N_RAN.load(Ordering::Relaxed),
            0,
        );
        case.expect_eq("the next answer", ask(1, count), Ok(()));
        case.expect_eq("runs", N_RAN.load(Ordering::Relaxed), 1);
    }
}
