//! Signals with the FPU's state in their frames, in ring 3: programs of `qemu/programs` under every policy, watched.
//!
//! A handler's registers are not the program's, what it edits in its frame is, and a frame that it corrupts ends the process with one
//! line, while nobody else's registers change and none is seen. No byte of a frame is the kernel's.
//! Leak rule: `DomainAware`, with the look at every switch, trap and return. The timer is on. Scenario r of
//! `tests/tables/scenarios.toml` is placed by hand: `Trusting`, the timer off.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "Haswell",
            cpus: 4,
        },
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
        Run {
            cpu: "max",
            cpus: 4,
        },
    ];
    pcu9_runner::boot_test("boot_signals", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;

    use pcu9::pcu::Policy;
    use pcu9::x86_64::fpu::foreign::Form;
    use pcu9::x86_64::fpu::{features, mxcsr_mask};
    use pcu9_testbed::counted;
    use pcu9_testbed::cpu::n_cpus;
    use pcu9_testbed::report::has_avx;
    use pcu9_testbed::serial::has_e9;
    use pcu9_testbed::testing::holds::spin_until;
    use pcu9_testbed::testing::programs::{Ended, Program, deaths, output};
    use pcu9_testbed::testing::{Case, Counts, let_copies_run, let_copies_sleep, poison_frames};
    use pcu9_testbed::{sched, watch};

    pcu9_testbed::boot_tests! {
        every_policy:
            handlers_destroy_edit_nest_and_repair,
            handlers_over_ymm,
            an_exception_of_sse_is_repaired,
            a_copy_that_sleeps_loses_nothing,
            corrupted_frames_end_their_process_alone,
            no_byte_of_a_frame_is_the_kernels;
        own_policies:
            scenario_r_a_signal_handler_destroys_all_registers,
    }

    /// `FP_XSTATE_MAGIC1`.
    const MAGIC1: u32 = 0x4650_5853;

    /// Runs programs to their end, watched; they must succeed.
    fn watched(case: &mut Case, programs: &[(&str, &[&str])]) {
        let programs = run(case, programs);
        case.expect_success(&programs);
    }

    /// Runs programs to their end, watched. The leak rule and the policy are the case's.
    fn run(case: &mut Case, programs: &[(&str, &[&str])]) -> Vec<Program> {
        case.domain_aware();
        let counts = Counts::begin();
        watch::start();
        sched::set_timer(true);
        let programs: Vec<_> = programs
            .iter()
            .map(|(name, arguments)| Program::start(name, arguments))
            .collect();
        case.wait_for_programs();
        sched::set_timer(false);
        let (looks, leaks) = watch::stop();
        case.log(format_args!("{looks} looks"));
        case.expect("looks", looks > 0);
        case.expect_eq("leaks", leaks, 0);
        case.expect_identities(&counts);
        programs
    }

    fn handlers_destroy_edit_nest_and_repair(case: &mut Case) {
        watched(case, &[("signals", &[]), ("signals", &[]), ("forkfp", &[])]);
        // Three children of each, ended by their parents.
        let ends: Vec<_> = deaths();
        case.expect_eq("ends of children", ends.len(), 4);
        let by_signal = ends
            .iter()
            .all(|end| end.starts_with("killed by signal 15: from process"));
        case.expect("they were ended by SIGTERM", by_signal);
    }

    fn handlers_over_ymm(case: &mut Case) {
        if !has_avx() {
            case.log(format_args!("NOT RUN: this CPU model has no AVX"));
            return;
        }
        watched(case, &[("sigymm", &[]), ("sigymm", &[]), ("ymm", &[])]);
    }

    fn an_exception_of_sse_is_repaired(case: &mut Case) {
        let programs = run(case, &[("signals", &["simd"]), ("signals", &["simd"])]);
        for program in programs {
            match program.ended() {
                Some(Ended::Exited(2)) if !has_e9() => case.log(format_args!(
                    "NOT RUN: this emulator raises no exception of SSE, as QEMU 7.2; Bochs does"
                )),
                ended => case.expect_eq("signals simd ended", ended, Some(Ended::Exited(0))),
            }
        }
    }

    /// The LWP sleeps while its frame is written and read, and goes on on another CPU.
    fn a_copy_that_sleeps_loses_nothing(case: &mut Case) {
        let_copies_sleep();
        let wide: &[(&str, &[&str])] = if has_avx() { &[("sigymm", &[])] } else { &[] };
        let plain: [(&str, &[&str]); 2] = [("signals", &[]), ("regs", &[])];
        watched(case, &[&plain, wide].concat());
        let n_moves = let_copies_run();
        case.log(format_args!("{n_moves} moves in copies"));
        case.expect("it moves in copies", n_moves > 500 || n_cpus() == 1);
        deaths();
    }

    /// What the kernel says of each corruption of `badframes all`, in its order.
    fn expected_words() -> Vec<String> {
        let image_bytes = Form::SignalFrame.bytes();
        let mxcsr = |n: u32| format!("MXCSR, at byte 24, has the bits {:#x},", 1_u64 << n);
        let nothing_at = |at: u64| format!("fpstate at {at:#x}: nothing can be read there");
        let length =
            |n: usize, needed: usize| format!("the image has {n} bytes where {needed} are needed");
        let forbidden = |n: u32| {
            format!(
                "XSTATE_BV, at byte 512, names components {:#x},",
                1_u64 << n
            )
        };
        let compacted = |n: u32| format!("XCOMP_BV, at byte 520, is {:#x}, not 0", 1_u64 << n);
        let reserved = |n: u32| format!("byte {n} of the header, reserved, is not 0");
        let magic1 = |word: u32| format!("first magic, at byte 464, is {word:#x}");
        let magic2 = |word: u32| format!("second magic, at byte {}, is {word:#x}", image_bytes - 4);
        let extended_size = |n: u32| format!("extended_size, at byte 468, is {n},");
        let xstate_size = |n: u32| format!("xstate_size, at byte 480, is {n},");
        let has_header = features().xcr0() != 0;

        let mut words = Vec::from([
            mxcsr(16),
            nothing_at(0x1234_5678_9000),
            "rip 0xffffffff80100000,".into(),
            "no stack for a signal's frame at 0x12345678".into(),
        ]);
        if has_header {
            words.extend([forbidden(62), reserved(528)]);
        }
        words.extend([
            nothing_at(0xffff_ffff_8010_0000),
            length(64, 512),
            "rip 0x4000000000000000,".into(),
            "cs 0x13 are not user mode's".into(),
            "no stack for a signal's frame at 0xffffffff8".into(),
            "no stack for a signal's frame at 0x7f".into(),
        ]);
        // AMD's processors have bit 17.
        words.extend((16..32).filter(|n| mxcsr_mask() & 1 << n == 0).map(mxcsr));
        if has_header {
            words.extend((528..576).map(reserved));
            words.extend((10..64).map(forbidden));
            words.extend((0..64).map(compacted));
            words.push(length(578, image_bytes));
            words.extend([1, !MAGIC1].map(magic1));
            words.extend([0, 579].map(extended_size));
            words.extend([0, 575, u32::MAX].map(xstate_size));
            words.extend([0, MAGIC1].map(magic2));
        }
        words
    }

    fn corrupted_frames_end_their_process_alone(case: &mut Case) {
        watched(case, &[("badframes", &["all"]), ("regs", &[])]);
        let ends = deaths();
        let expected = expected_words();
        case.expect_eq("processes that were ended", ends.len(), expected.len());
        for (end, words) in ends.iter().zip(&expected) {
            if !end.starts_with("killed by signal 11: ") || !end.contains(words.as_str()) {
                case.fail(format_args!("expected a line with `{words}`, saw `{end}`"));
            }
        }
        case.log(format_args!("{} corrupted frames", ends.len()));
    }

    /// The kernel's memory on the way has other contents each time; the frames have not.
    fn no_byte_of_a_frame_is_the_kernels(case: &mut Case) {
        poison_frames(true);
        output();
        let outputs = [(); 3].map(|()| {
            watched(case, &[("signals", &["frames"])]);
            output()
        });
        poison_frames(false);
        let [first, others @ ..] = outputs;
        case.expect_eq("lines about frames", first.len(), 6);
        for other in others {
            case.expect_eq("frames of another process", &other, &first);
        }
    }

    /// Ten signals, on a CPU where nobody else runs, with the timer off. For each the state is saved for the frame and thrown away;
    /// the handler's is initial, and thrown away for that in the frame, which is loaded. Under `Lazy` each of the two loads is a
    /// trap; the other policies bring the frame's state in on the way to user mode.
    fn scenario_r_a_signal_handler_destroys_all_registers(case: &mut Case) {
        const SIGNALS: u64 = 10;
        if n_cpus() < 2 {
            case.log(format_args!("NOT RUN: the director needs a CPU of its own"));
            return;
        }
        case.trusting();
        let lazy = counted! { traps: 1 + 2 * SIGNALS, inits: 1 + SIGNALS, saves: SIGNALS, restores: SIGNALS, releases: 1 + 2 * SIGNALS, discards: 1 + 2 * SIGNALS };
        let preloaded = counted! { traps: 1 + SIGNALS, preloads: SIGNALS, ..lazy };
        let predictions = [
            (Policy::Lazy, lazy),
            (Policy::Deferred, preloaded),
            (Policy::Eager, preloaded),
        ];
        case.scenario(&predictions, |case, _| {
            let program = Program::start("signals", &["ten"]);
            // Not on this CPU, which stays busy until it has begun elsewhere.
            spin_until(|| program.lwp().last_cpu().is_some());
            case.wait_for_programs();
            case.expect_success(&[program]);
        });
    }
}
