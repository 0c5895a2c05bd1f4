//! Exit: what an LWP leaves in the registers is thrown away, never saved into memory that is somebody else's by then.
//!
//! Leak rules: as each case says. Placement is by hand and the timer off, so the counters are compared exactly, but for the
//! race, where the identities are checked.
//! What holds under every policy is looked at under each of them too.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "SandyBridge",
            cpus: 4,
        },
        Run {
            cpu: "qemu64",
            cpus: 2,
        },
    ];
    pcu9_runner::boot_test("boot_exit", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;

    use pcu9::pcu::UnitStats;
    use pcu9::x86_64::fpu::features;
    use pcu9_testbed::cpu;
    use pcu9_testbed::glue::{FPU, cpu_pcu};
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::testing::{
        Case, Counts, Turns, image, is_exact, move_to, new_domain, prepare, spawn, start,
    };

    pcu9_testbed::boot_tests! {
        every_policy:
            nothing_is_saved_into_memory_that_is_used_again;
        every_policy_and_rule:
            exit_while_another_waits_for_the_unit,
            exit_with_the_registers_on_another_cpu,
            exit_while_another_cpu_takes_the_registers,
            many_end_with_live_registers,
    }

    /// New LWPs get the area of one that ended with live registers; others then use the FPU where those were.
    fn reuse(case: &mut Case, wipes: u64) {
        move_to(0);
        let counts = Counts::begin();
        let first = spawn("first", 0, new_domain(), || Pattern::random(1).load());
        let area = first.fpu_area().addr();
        case.join(&[first]);
        let next: Vec<_> = (0..24)
            .map(|_| {
                prepare("next", 0, new_domain(), || {
                    assert_eq!(Pattern::store(), Pattern::INITIAL);
                })
            })
            .collect();
        case.expect(
            "an area is used again",
            next.iter()
                .any(|lwp| lwp.fpu_area().addr().abs_diff(area) < features().area_bytes()),
        );
        let before: Vec<_> = next.iter().map(|lwp| image(lwp)).collect();
        let user = spawn("user", 0, new_domain(), || Pattern::random(2).load());
        case.join(&[user]);
        let after: Vec<_> = next.iter().map(|lwp| image(lwp)).collect();
        case.expect("the new LWPs' memory is as it was", before == after);
        next.iter().for_each(start);
        case.join(&next);
        let n = 2 + next.len() as u64;
        let expected = UnitStats {
            traps: n,
            inits: n,
            releases: n,
            discards: n,
            wipes,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }

    fn nothing_is_saved_into_memory_that_is_used_again(case: &mut Case) {
        case.trusting();
        reuse(case, 0);
        case.domain_aware();
        reuse(case, 25); // all but the first
    }

    /// The one that waits has its state in memory; it gets it back, and nobody saves anything.
    fn exit_while_another_waits_for_the_unit(case: &mut Case) {
        case.trusting();
        move_to(0);
        let turns = Arc::new(Turns::new());
        let others_turns = Arc::clone(&turns);
        let counts = Counts::begin();
        let waits = spawn("waits", 0, new_domain(), move || {
            Pattern::random(1).load();
            turns.next();
            turns.wait(2);
            assert_eq!(Pattern::store(), Pattern::random(1));
        });
        let owner = spawn("owner", 0, new_domain(), move || {
            others_turns.wait(1);
            Pattern::random(2).load();
            others_turns.next();
        });
        case.join(&[waits, owner]);
        let expected = UnitStats {
            traps: 3,
            inits: 2,
            restores: 1,
            saves: 1,
            releases: 3,
            discards: 2,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }

    fn exit_with_the_registers_on_another_cpu(case: &mut Case) {
        case.domain_aware();
        let counts = Counts::begin();
        let lwp = spawn("owner", 0, new_domain(), || {
            Pattern::random(1).load();
            move_to(1);
        });
        case.join(&[lwp]);
        case.expect("CPU 0 owns nothing", cpu_pcu(0).owner(FPU).is_none());
        let next = spawn("next", 0, new_domain(), || {
            assert_eq!(Pattern::store(), Pattern::INITIAL);
        });
        case.join(&[next]);
        let expected = UnitStats {
            traps: 2,
            inits: 2,
            releases: 2,
            discards: 2,
            xcalls: 1,
            wipes: 1,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }

    /// CPU 1 throws the registers on CPU 0 away while another LWP takes them there.
    fn exit_while_another_cpu_takes_the_registers(case: &mut Case) {
        let n_rounds = if is_exact() { 150 } else { 15 };
        case.trusting();
        let counts = Counts::begin();
        for round in 0..n_rounds {
            let ready = Arc::new(Turns::new());
            let thiefs_ready = Arc::clone(&ready);
            let ends = spawn("ends", 0, new_domain(), move || {
                Pattern::random(round).load();
                move_to(1);
                ready.next();
                ready.wait(2);
                // The cross-call of the exit comes a little later each time.
                for _ in 0..round * 20 {
                    core::hint::black_box(());
                }
            });
            let thief = spawn("thief", 0, new_domain(), move || {
                thiefs_ready.next();
                thiefs_ready.wait(2);
                assert_eq!(Pattern::store(), Pattern::INITIAL);
                let pattern = Pattern::random(!round);
                pattern.load();
                assert_eq!(Pattern::store(), pattern);
            });
            case.join(&[ends, thief]);
        }
        case.expect_identities(&counts);
        let counted = counts.so_far();
        case.expect_eq("initial loads", counted.inits, 2 * n_rounds);
        if is_exact() {
            case.expect_eq("restores", counted.restores, 0);
            case.expect_eq(
                "states given up, either saved or discarded",
                counted.saves + counted.discards,
                counted.releases,
            );
        }
        case.log(format_args!(
            "{} of {n_rounds} were asked for, of these {} too late",
            counted.xcalls, counted.xcalls_raced
        ));
    }

    fn many_end_with_live_registers(case: &mut Case) {
        case.trusting();
        let counts = Counts::begin();
        let n_cpus = cpu::n_cpus();
        let lwps: Vec<_> = (0..100)
            .map(|n| {
                spawn("short", n % n_cpus, new_domain(), move || {
                    assert_eq!(Pattern::store(), Pattern::INITIAL);
                    Pattern::random(n as u64).load();
                })
            })
            .collect();
        case.join(&lwps);
        for cpu in 0..n_cpus {
            case.expect("nobody owns the FPU", cpu_pcu(cpu).owner(FPU).is_none());
        }
        let expected = UnitStats {
            traps: 100,
            inits: 100,
            releases: 100,
            discards: 100,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }
}
