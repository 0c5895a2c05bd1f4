//! A debugger in ring 3: the program `tracer` reads and changes the registers of a child that stands still.
//!
//! The debugger runs on CPU 0 and the child on CPU 1, where its registers may be live: the kernel holds the LWP and fetches them.
//! Leak rule: `DomainAware`. The timer is on.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "max",
            cpus: 2,
        },
        Run {
            cpu: "qemu64",
            cpus: 4,
        },
        Run {
            cpu: "Haswell",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_ptrace", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    use pcu9::pcu::Policy;
    use pcu9_testbed::testing::programs::{Program, pin_forked};
    use pcu9_testbed::testing::{Case, Counts, policy};
    use pcu9_testbed::{cpu, sched, watch};

    pcu9_testbed::boot_tests! {
        every_policy:
            registers_live_on_another_cpu,
            debuggers_and_children_anywhere,
    }

    /// What `tracer` has for rounds of reading and changing; each reads twice before it changes.
    const ROUNDS: u64 = 12;

    /// Runs what `start` starts to its end, watched; it must succeed. What was counted.
    fn watched<const N: usize>(case: &mut Case, start: impl FnOnce() -> [Program; N]) -> Counts {
        case.domain_aware();
        let counts = Counts::begin();
        watch::start();
        sched::set_timer(true);
        let programs = start();
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

    fn registers_live_on_another_cpu(case: &mut Case) {
        if cpu::n_cpus() < 2 {
            case.log(format_args!("NOT RUN: there is one CPU"));
            return;
        }
        pin_forked(Some(1));
        let counts = watched(case, || [Program::start_on(0, "tracer", &[])]);
        pin_forked(None);
        let counted = counts.so_far();
        case.log(format_args!("{counted:?}"));
        // Nobody else uses CPU 1, so the registers stay there until they are asked for.
        if matches!(policy(), Policy::Lazy | Policy::Probe) {
            case.expect("a cross-call in each round", counted.xcalls >= ROUNDS);
        }
    }

    fn debuggers_and_children_anywhere(case: &mut Case) {
        let start = || ["tracer", "tracer", "regs", "tracer"].map(|name| Program::start(name, &[]));
        watched(case, start);
    }
}
