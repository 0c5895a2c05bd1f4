//! The stress: 64 LWPs, of which half are processes in user mode, on 8 CPUs; preempted, pushed from CPU to CPU, forking, starting over,
//! ending, with signals, kernel sections, every policy, both leak rules, and CPUs that go and come back, all at once.
//!
//! Each register of each LWP says whose it is and since when: `pcu9_testbed::testing::stress`. `stress=SECONDS` and `seed=NUMBER` on
//! the command line say how long and by which choices; there are floors for what must have happened in that time. `cargo verify`
//! runs it for ten minutes, `cargo verify --short` for one. Leak rule: changes all the time; while it is `DomainAware` there is
//! the look at every switch, trap and return.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [Run {
        cpu: "max",
        cpus: 8,
    }];
    pcu9_runner::boot_test("boot_stress", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    use pcu9_testbed::testing::{Case, stress};

    pcu9_testbed::boot_tests! { everything_at_once }

    fn everything_at_once(case: &mut Case) {
        stress::run(case);
    }
}
