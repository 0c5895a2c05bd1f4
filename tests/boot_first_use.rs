//! The first use of the FPU traps, once and only once; who never uses it never traps.
//!
//! Leak rules: as each case says.

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
            cpu: "Haswell",
            cpus: 4,
        },
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_first_use", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::testing::{Case, new_domain, spawn, total_stats};

    pcu9_testbed::boot_tests! { the_first_use_traps_once, an_integer_lwp_never_traps }

    fn the_first_use_traps_once(case: &mut Case) {
        case.domain_aware();
        let before = total_stats();
        let lwp = spawn("user", 0, new_domain(), || {
            for seed in 0..100 {
                Pattern::random(seed).load();
                assert_eq!(Pattern::store(), Pattern::random(seed));
            }
        });
        case.join(&[lwp]);
        let after = total_stats();
        case.expect_eq("traps", after.traps - before.traps, 1);
        case.expect_eq("initial loads", after.inits - before.inits, 1);
        case.expect_eq("restores", after.restores - before.restores, 0);
    }

    fn an_integer_lwp_never_traps(case: &mut Case) {
        case.trusting();
        let before = total_stats();
        let lwp = spawn("integers", 0, new_domain(), || {
            for _ in 0..100 {
                pcu9_testbed::sched::yield_now();
            }
        });
        case.join(&[lwp]);
        case.expect_eq("traps", total_stats().traps - before.traps, 0);
    }
}
