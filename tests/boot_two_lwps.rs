//! Two LWPs on one CPU keep their registers over many switches, whatever is in them.
//!
//! Leak rules: each pair of patterns runs under both, as the log says. Placement is by hand and the timer off, so the counters
//! are compared exactly. Where the model has no AVX the case `ymm_survives` is not run, and the log says so.
//! What holds under every policy is looked at under each of them too.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "SandyBridge",
            cpus: 1,
        },
        Run {
            cpu: "qemu64",
            cpus: 2,
        },
        Run {
            cpu: "max",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_two_lwps", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::vec::Vec;

    use pcu9::pcu::UnitStats;
    use pcu9_testbed::line;
    use pcu9_testbed::registers::{Pattern, YmmPattern};
    use pcu9_testbed::report::has_avx;
    use pcu9_testbed::sched::yield_now;
    use pcu9_testbed::testing::{Case, Counts, Entry, Under, move_to, new_domain, run, spawn};

    pcu9_testbed::kernel_main!(begin);

    fn begin() {
        use Under::{EveryPolicy, EveryPolicyAndRule};
        let mut cases: Vec<Entry> = Vec::new();
        let mut add = |under, name, case| cases.push((name, case, under));
        add(
            EveryPolicy,
            "random_patterns_survive",
            random_patterns_survive,
        );
        add(EveryPolicy, "zeros_survive", zeros_survive);
        add(EveryPolicy, "mxcsr_alone_survives", mxcsr_alone_survives);
        let changing = changing_patterns_survive;
        add(EveryPolicyAndRule, "changing_patterns_survive", changing);
        if has_avx() {
            add(EveryPolicy, "ymm_survives", ymm_survives);
        } else {
            line!("NOT RUN: ymm_survives, since this CPU model has no AVX");
        }
        run(&cases)
    }

    const ROUNDS: u64 = 50;

    /// Makes one of two LWPs' work: it sets its registers, and finds them as they were after each switch.
    fn keep<P: PartialEq + core::fmt::Debug + Send + 'static>(
        pattern: P,
        load: fn(&P),
        store: fn() -> P,
    ) -> impl FnOnce() + Send + 'static {
        move || {
            load(&pattern);
            for round in 0..ROUNDS {
                yield_now();
                assert_eq!(store(), pattern, "after switch {round}");
            }
        }
    }

    /// Both LWPs come by turns, and each takes the registers from the other, `ROUNDS` times.
    ///
    /// The first of them ends with its registers live, so that the other one's last load finds nobody's.
    fn taken() -> UnitStats {
        UnitStats {
            traps: 2 * (1 + ROUNDS),
            inits: 2,
            restores: 2 * ROUNDS,
            saves: 2 * ROUNDS,
            releases: 2 * ROUNDS + 2,
            discards: 2,
            ..UnitStats::default()
        }
    }

    fn pair<P: PartialEq + core::fmt::Debug + Clone + Send + 'static>(
        case: &mut Case,
        patterns: &[P; 2],
        load: fn(&P),
        store: fn() -> P,
    ) {
        move_to(0);
        for is_trusting in [true, false] {
            if is_trusting {
                case.trusting();
            } else {
                case.domain_aware();
            }
            // In two domains: all switches but the very first find the other one's registers. Then in one domain: only the
            // first switch finds another one's, those of the pair before.
            let pairs = [
                ([new_domain(), new_domain()], 2 * ROUNDS + 1),
                ([new_domain(); 2], 1),
            ];
            for (domains, wipes) in pairs {
                let counts = Counts::begin();
                let [p, q] = patterns.clone();
                let first = spawn("first", 0, domains[0], keep(p, load, store));
                let second = spawn("second", 0, domains[1], keep(q, load, store));
                case.join(&[first, second]);
                let wipes = if is_trusting { 0 } else { wipes };
                case.expect_counts(&counts, UnitStats { wipes, ..taken() });
            }
        }
    }

    fn pair_of_patterns(case: &mut Case, patterns: &[Pattern; 2]) {
        pair(case, patterns, Pattern::load, Pattern::store);
    }

    fn random_patterns_survive(case: &mut Case) {
        for seed in 0..3 {
            let patterns = [Pattern::random(2 * seed), Pattern::random(2 * seed + 1)];
            pair_of_patterns(case, &patterns);
        }
    }

    fn zeros_survive(case: &mut Case) {
        pair_of_patterns(case, &[Pattern::zeros(), Pattern::random(1)]);
        pair_of_patterns(case, &[Pattern::random(2), Pattern::zeros()]);
        pair_of_patterns(case, &[Pattern::INITIAL, Pattern::zeros()]);
    }

    /// XSAVEOPT and `XSTATE_BV` do not tell that MXCSR has changed.
    fn mxcsr_alone_survives(case: &mut Case) {
        pair_of_patterns(case, &[1, 2].map(Pattern::with_rounding));
        pair_of_patterns(case, &[Pattern::with_rounding(3), Pattern::INITIAL]);
        pair_of_patterns(case, &[Pattern::INITIAL, Pattern::with_rounding(3)]);
        pair_of_patterns(case, &[Pattern::with_rounding(1), Pattern::random(1)]);
    }

    /// Each round has other patterns, so that an old image would show.
    fn changing_patterns_survive(case: &mut Case) {
        move_to(0);
        case.domain_aware();
        let counts = Counts::begin();
        let lwps = [1, 2].map(|lwp| {
            spawn("changes", 0, new_domain(), move || {
                for round in 0..ROUNDS {
                    let pattern = Pattern::random(1000 * lwp + round);
                    pattern.load();
                    yield_now();
                    assert_eq!(Pattern::store(), pattern, "after switch {round}");
                }
            })
        });
        case.join(&lwps);
        let wipes = 2 * ROUNDS + 1;
        case.expect_counts(&counts, UnitStats { wipes, ..taken() });
    }

    /// The XMM halves, which both sets of registers share, are another pattern's than the x87 stack.
    fn ymm_survives(case: &mut Case) {
        for seed in 0..3 {
            let patterns = [
                YmmPattern::random(2 * seed),
                YmmPattern::random(2 * seed + 1),
            ];
            pair(case, &patterns, YmmPattern::load, YmmPattern::store);
        }
        let patterns = [YmmPattern::zeros(), YmmPattern::random(7)];
        pair(case, &patterns, YmmPattern::load, YmmPattern::store);
    }
}
