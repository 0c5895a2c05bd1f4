//! Two CPUs steal from each other, 10,000 times each way: no value is ever lost, and nobody waits for ever.
//!
//! Leak rule: trusting, so that nothing is wiped between; what is left to its own course has its identities checked.
//! What holds under every policy is looked at under each of them too.

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
            cpus: 2,
        },
    ];
    pcu9_runner::boot_test("boot_steal", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    use core::sync::atomic::{AtomicBool, Ordering};

    use pcu9::pcu::UnitStats;
    use pcu9_testbed::cpu;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::yield_now;
    use pcu9_testbed::testing::{Case, Counts, is_exact, move_to, new_domain, spawn, spawn_plain};

    pcu9_testbed::boot_tests! {
        every_policy_and_rule:
            one_lwp_fetches_its_state_from_the_other_cpu,
            two_cpus_steal_from_each_other,
    }

    /// Two LWPs that each move so often, under `Lazy`: as many steals each way.
    const EACH_WAY: u64 = 10_000;

    /// Moves to the other CPU each time, finds its registers, and changes them.
    fn bounce(name: u64, n_moves: u64) {
        let begin = cpu::index();
        let mut pattern = Pattern::INITIAL;
        for round in 0..=n_moves {
            move_to(begin ^ (round & 1) as usize);
            assert_eq!(Pattern::store(), pattern, "in round {round}");
            pattern = Pattern::random(name << 32 | round);
            pattern.load();
        }
    }

    /// Each load finds its state live on the other CPU.
    fn one_lwp_fetches_its_state_from_the_other_cpu(case: &mut Case) {
        let n_moves = if is_exact() { 1_000 } else { 50 };
        case.trusting();
        let counts = Counts::begin();
        let lwp = spawn("bounces", 0, new_domain(), move || bounce(1, n_moves));
        case.join(&[lwp]);
        let expected = UnitStats {
            traps: 1 + n_moves,
            inits: 1,
            restores: n_moves,
            saves: n_moves,
            releases: 1 + n_moves,
            discards: 1,
            xcalls: n_moves,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
    }

    /// The LWPs change places, each on its own: a state is fetched from the other CPU, or was taken there by the LWP that
    /// came.
    fn two_cpus_steal_from_each_other(case: &mut Case) {
        const PARTS: u64 = 4;
        static DONE: AtomicBool = AtomicBool::new(false);
        let each_way = if is_exact() { EACH_WAY } else { EACH_WAY / 50 };
        case.trusting();
        DONE.store(false, Ordering::Relaxed);
        let counts = Counts::begin();
        // With nothing to do a CPU would halt and be woken each time, which takes an emulator much longer.
        let busy = [0, 1].map(|cpu| {
            spawn_plain("busy", cpu, || {
                while !DONE.load(Ordering::Relaxed) {
                    yield_now();
                }
            })
        });
        // In parts, so that a slow machine has time for each.
        for part in 0..PARTS {
            let lwps = [0, 1].map(|cpu| {
                spawn("bounces", cpu, new_domain(), move || {
                    bounce(2 * part + cpu as u64, each_way / PARTS);
                })
            });
            case.join(&lwps);
        }
        DONE.store(true, Ordering::Relaxed);
        case.join(&busy);
        case.expect_identities(&counts);
        let counted = counts.so_far();
        case.log(format_args!(
            "{} asked for, {} of these too late",
            counted.xcalls, counted.xcalls_raced
        ));
        let expected = UnitStats {
            traps: 2 * (PARTS + each_way),
            inits: 2 * PARTS,
            restores: 2 * each_way,
            saves: 2 * each_way,
            releases: 2 * (PARTS + each_way),
            discards: 2 * PARTS,
            // Who comes first is not said here.
            xcalls: counted.xcalls,
            xcalls_raced: counted.xcalls_raced,
            ..UnitStats::default()
        };
        case.expect_counts(&counts, expected);
        if is_exact() {
            case.expect("some were fetched", counted.xcalls > counted.xcalls_raced);
        }
    }
}
