//! Threads in ring 3: LWPs of one process, which share its address space and its domain, each with its own FPU state.
//!
//! The program `threads` and a C program with threads run under every policy, watched; the C programs of `qemu/programs/c`, static musl
//! binaries, under one.
//! Leak rule: `DomainAware`. The timer is on.

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
        Run {
            cpu: "qemu64",
            cpus: 4,
        },
        Run {
            cpu: "max",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_threads", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::vec::Vec;

    use pcu9_testbed::testing::programs::{Program, output};
    use pcu9_testbed::testing::{Case, Counts};
    use pcu9_testbed::{cpu, sched, watch};

    pcu9_testbed::boot_tests! {
        every_policy:
            threads_hold_their_own,
            threads_of_one_process_need_no_wipe;
        own_policies:
            c_programs_compute,
    }

    /// Runs programs to their end, watched; they must succeed. What was counted.
    fn watched(case: &mut Case, programs: &[&str]) -> Counts {
        case.domain_aware();
        let counts = Counts::begin();
        watch::start();
        sched::set_timer(true);
        let start = |name: &&str| Program::start(name, &[]);
        let programs: Vec<_> = programs.iter().map(start).collect();
        case.wait_for_programs();
        sched::set_timer(false);
        let (looks, leaks) = watch::stop();
        case.log(format_args!("{looks} looks"));
        case.expect("looks", looks > 0);
        case.expect_eq("leaks", leaks, 0);
        case.expect_identities(&counts);
        case.expect_success(&programs);
        counts
    }

    fn threads_hold_their_own(case: &mut Case) {
        output();
        watched(case, &["threads", "threads"]);
        case.expect_eq("lines of two programs", output().len(), 2 * 6);
    }

    /// They are one domain: what one leaves in the registers another may see, so nothing is wiped between them. What another
    /// process left before is, once on each CPU.
    fn threads_of_one_process_need_no_wipe(case: &mut Case) {
        let counts = watched(case, &["c_threads"]);
        let counted = counts.so_far();
        case.log(format_args!("{counted:?}"));
        case.expect(
            "a wipe on each CPU at most",
            counted.wipes <= cpu::n_cpus() as u64,
        );
        case.expect(
            "twelve threads and the first",
            counted.inits + counted.restores >= 13,
        );
    }

    fn c_programs_compute(case: &mut Case) {
        watched(
            case,
            &[
                "c_forktree",
                "c_linpack",
                "c_longdouble",
                "c_malloc",
                "c_rounding",
                "c_signals",
                "c_threads",
                "c_whetstone",
            ],
        );
    }
}
