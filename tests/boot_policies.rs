//! Every policy under both leak rules: eight LWPs keep their registers on all CPUs, preempted and migrated.
//!
//! What each policy promises is asserted from the counters: `Deferred` and `Eager` never ask another CPU and trap at first uses
//! only. `Adaptive` is looked at by hand: who finds its gate open, and who has to trap.

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
            cpus: 4,
        },
    ];
    pcu9_runner::boot_test("boot_policies", &runs)
}

#[cfg(target_os = "none")]
#[expect(
    clippy::cast_possible_truncation,
    reason = "x86-64 only: a u64 fits in usize"
)]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicU64, Ordering};

    use pcu9::pcu::{Policy, UnitStats};
    use pcu9_testbed::cpu::{n_cpus, time};
    use pcu9_testbed::glue::{self, PCU, with_token};
    use pcu9_testbed::lwp::Lwp;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::sched::{self, counters, set_pin, set_timer, yield_now};
    use pcu9_testbed::testing::{
        Case, Counts, is_task_switched, move_to, new_domain, spawn, yield_until,
    };

    pcu9_testbed::boot_tests! {
        lazy_trusting,
        lazy_domain_aware,
        deferred_trusting,
        deferred_domain_aware,
        eager_trusting,
        eager_domain_aware,
        adaptive_trusting,
        adaptive_domain_aware,
        adaptive_write_through_trusting,
        adaptive_write_through_domain_aware,
        probe_trusting,
        probe_domain_aware,
        everything_changes_under_load,
        adaptive_preloads_who_always_computes,
        adaptive_loads_nothing_for_who_never_computes,
        adaptive_follows_who_computes_in_phases,
        the_policy_of_one_lwp_is_its_own,
    }

    const ALL_CPUS: u64 = u64::MAX;
    const LWPS: u64 = 8;

    /// Lets time pass without the FPU: preemption may come.
    fn linger() {
        let end = time::ticks() + time::ticks_per_ms() / 20;
        while time::ticks() < end {}
    }

    /// One LWP's work: its registers are as it left them, wherever it goes on.
    fn keep_registers(name: u64, n_rounds: u64, each_round: fn(u64)) {
        // From now on it may run on any CPU.
        set_pin(&sched::current(), ALL_CPUS);
        let mut pattern = Pattern::INITIAL;
        for round in 0..n_rounds {
            assert_eq!(Pattern::store(), pattern, "LWP {name}, round {round}");
            pattern = Pattern::random(name << 32 | round);
            pattern.load();
            match (name + round) % 4 {
                0 => yield_now(),
                1 => linger(),
                2 => {
                    move_to((name + round) as usize / 4 % n_cpus());
                    set_pin(&sched::current(), ALL_CPUS);
                }
                // What was just loaded may be preempted before it is seen.
                _ => {}
            }
            each_round(round);
        }
        assert_eq!(Pattern::store(), pattern, "LWP {name} at its end");
    }

    fn start_all(n_rounds: u64, each_round: fn(u64)) -> Vec<Arc<Lwp>> {
        // Two LWPs share each domain.
        let domains: Vec<_> = (0..LWPS / 2).map(|_| new_domain()).collect();
        (0..LWPS)
            .map(|name| {
                let cpu = name as usize % n_cpus();
                let domain = domains[name as usize / 2];
                spawn("keeps", cpu, domain, move || {
                    keep_registers(name, n_rounds, each_round);
                })
            })
            .collect()
    }

    fn migrations() -> u64 {
        (0..n_cpus())
            .map(|cpu| counters(cpu).migrations.load(Ordering::Relaxed))
            .sum()
    }

    /// Runs the LWPs with the timer on.
    fn under_load(case: &mut Case, policy: Policy) {
        case.policy(policy);
        let before = migrations();
        let counts = Counts::begin();
        set_timer(true);
        let lwps = start_all(60, |_| ());
        case.join(&lwps);
        set_timer(false);
        case.expect_identities(&counts);
        let counted = counts.so_far();
        let n_migrations = migrations() - before;
        case.log(format_args!(
            "{n_migrations} migrations, {} traps, {} preloads, {} restores, {} saves, {} cross-calls",
            counted.traps, counted.preloads, counted.restores, counted.saves, counted.xcalls
        ));
        case.expect("LWPs migrated", n_migrations > LWPS);
        // Where a policy looks at what it saves, who is switched out in the initial state has a first use again.
        case.expect("first uses", counted.inits >= LWPS);
        match policy {
            Policy::Deferred | Policy::Eager => {
                case.expect_eq("cross-calls", counted.xcalls, 0);
                case.expect_eq("traps but for first uses", counted.traps, counted.inits);
                case.expect_eq("restores by a trap", counted.restores, counted.preloads);
            }
            Policy::AdaptiveWriteThrough => {
                case.expect_eq("cross-calls", counted.xcalls, 0);
            }
            Policy::Lazy | Policy::Probe => {
                case.expect_eq("preloads", counted.preloads, 0);
                case.expect_eq("first uses", counted.inits, LWPS);
            }
            _ => {}
        }
        if policy == Policy::Eager {
            case.expect_eq("restores left out", counted.elided_restores, 0);
        }
        if policy != Policy::Probe
            && policy != Policy::Adaptive
            && policy != Policy::AdaptiveWriteThrough
        {
            case.expect_eq("probes", counted.probes, 0);
        }
        case.policy(Policy::Lazy);
    }

    fn lazy_trusting(case: &mut Case) {
        case.trusting();
        under_load(case, Policy::Lazy);
    }

    fn lazy_domain_aware(case: &mut Case) {
        case.domain_aware();
        under_load(case, Policy::Lazy);
    }

    fn deferred_trusting(case: &mut Case) {
        case.trusting();
        under_load(case, Policy::Deferred);
    }

    fn deferred_domain_aware(case: &mut Case) {
        case.domain_aware();
        under_load(case, Policy::Deferred);
    }

    fn eager_trusting(case: &mut Case) {
        case.trusting();
        under_load(case, Policy::Eager);
    }

    fn eager_domain_aware(case: &mut Case) {
        case.domain_aware();
        under_load(case, Policy::Eager);
    }

    fn adaptive_trusting(case: &mut Case) {
        case.trusting();
        under_load(case, Policy::Adaptive);
    }

    fn adaptive_domain_aware(case: &mut Case) {
        case.domain_aware();
        under_load(case, Policy::Adaptive);
    }

    fn adaptive_write_through_trusting(case: &mut Case) {
        case.trusting();
        under_load(case, Policy::AdaptiveWriteThrough);
    }

    fn adaptive_write_through_domain_aware(case: &mut Case) {
        case.domain_aware();
        under_load(case, Policy::AdaptiveWriteThrough);
    }

    fn probe_trusting(case: &mut Case) {
        case.trusting();
        under_load(case, Policy::Probe);
    }

    fn probe_domain_aware(case: &mut Case) {
        case.domain_aware();
        under_load(case, Policy::Probe);
    }

    /// A generator of small numbers, the same in every run.
    fn pick(state: &AtomicU64, n: u64) -> u64 {
        let next = |x: u64| {
            x.wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407)
        };
        let before = state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |x| Some(next(x)));
        (before.unwrap_or(0) >> 33) % n
    }

    static CHOICE: AtomicU64 = AtomicU64::new(20_261_121);

    fn any_policy() -> Policy {
        Policy::ALL[pick(&CHOICE, Policy::ALL.len() as u64) as usize]
    }

    /// `main` changes the unit's policy and the leak rule, each LWP its own policy, and nothing is lost.
    fn everything_changes_under_load(case: &mut Case) {
        case.domain_aware();
        case.log(format_args!(
            "then policies and rules by chance, from a fixed seed"
        ));
        let counts = Counts::begin();
        set_timer(true);
        let lwps = start_all(300, |round| {
            if round % 7 == 0 {
                let policy = (pick(&CHOICE, 3) > 0).then(any_policy);
                let answer = with_token(|token| PCU.set_lwp_policy(token, policy));
                assert_eq!(answer, Ok(()));
            }
        });
        let mut n_changes = 0;
        while !lwps.iter().all(|lwp| lwp.has_ended()) {
            match pick(&CHOICE, 4) {
                0 => case.trusting(),
                1 => case.domain_aware(),
                _ => glue::set_policy(any_policy()),
            }
            n_changes += 1;
            sched::sleep_a_tick();
        }
        set_timer(false);
        case.join(&lwps);
        case.log(format_args!("{n_changes} changes"));
        case.expect("changes under load", n_changes > 5);
        case.policy(Policy::Lazy);
        case.expect_identities(&counts);
        let counted = counts.so_far();
        case.expect("first uses", counted.inits >= LWPS);
    }

    /// A slice of an LWP: whether it began with the gate open, and what it did.
    fn slice(uses: bool) -> bool {
        yield_now();
        let began_open = !is_task_switched();
        if uses {
            Pattern::store();
        }
        began_open
    }

    /// An LWP on CPU 0, in domain `domain`, that takes the registers from everybody else at each turn until `done`.
    fn rival(domain: u64, done: &Arc<AtomicU64>) -> Arc<Lwp> {
        let done = Arc::clone(done);
        spawn("rival", 0, domain, move || {
            let answer = with_token(|token| PCU.set_lwp_policy(token, Some(Policy::Lazy)));
            assert_eq!(answer, Ok(()));
            let pattern = Pattern::random(9);
            pattern.load();
            while done.load(Ordering::Acquire) == 0 {
                assert_eq!(Pattern::store(), pattern);
                yield_now();
            }
        })
    }

    /// Runs `f` on CPU 0 under `Adaptive` beside a rival, in one domain and in two.
    fn adaptive(case: &mut Case, f: fn()) {
        move_to(0);
        for is_same_domain in [true, false] {
            if is_same_domain {
                case.trusting();
            } else {
                case.domain_aware();
            }
            case.policy(Policy::Adaptive);
            let done = Arc::new(AtomicU64::new(0));
            let domain = new_domain();
            let other = if is_same_domain { domain } else { new_domain() };
            let rival = rival(other, &done);
            let lwp = spawn("adapts", 0, domain, f);
            yield_until(|| lwp.has_ended());
            done.store(1, Ordering::Release);
            case.join(&[lwp, rival]);
        }
        case.policy(Policy::Lazy);
    }

    fn adaptive_preloads_who_always_computes(case: &mut Case) {
        adaptive(case, || {
            Pattern::random(1).load();
            let warm_up = (0..20).filter(|_| slice(true)).count();
            assert!(warm_up < 20, "it begins in trap mode");
            let n_open = (0..400).filter(|_| slice(true)).count();
            assert!(
                n_open >= 390,
                "{n_open} of 400 slices began with the gate open"
            );
            assert_eq!(Pattern::store(), Pattern::random(1));
        });
    }

    /// It computes once, and never again: nothing is ever brought in for it.
    fn adaptive_loads_nothing_for_who_never_computes(case: &mut Case) {
        adaptive(case, || {
            Pattern::random(1).load();
            let n_open = (0..400).filter(|_| slice(false)).count();
            assert_eq!(n_open, 0, "slices that began with the gate open");
            assert_eq!(Pattern::store(), Pattern::random(1));
        });
        case.trusting();
        case.policy(Policy::Adaptive);
        let counts = Counts::begin();
        let lwp = spawn("integers", 0, new_domain(), || {
            assert!((0..100).all(|_| !slice(false)), "the gate is never open");
        });
        case.join(&[lwp]);
        case.expect_counts(&counts, UnitStats::default());
        case.policy(Policy::Lazy);
    }

    fn adaptive_follows_who_computes_in_phases(case: &mut Case) {
        adaptive(case, || {
            Pattern::random(1).load();
            for phase in 0..3 {
                for _ in 0..30 {
                    slice(true);
                }
                let n_open = (0..30).filter(|_| slice(true)).count();
                assert!(
                    n_open >= 29,
                    "phase {phase}: preloaded in {n_open} of 30 slices"
                );
                // The next probe finds no use; then it costs nothing any more, though its use is remembered for a while.
                for _ in 0..400 {
                    slice(false);
                }
                let n_open = (0..100).filter(|_| slice(false)).count();
                assert_eq!(n_open, 0, "phase {phase}: preloaded for nothing");
            }
            assert_eq!(Pattern::store(), Pattern::random(1));
        });
    }

    /// Two LWPs take turns: the one with `Eager` of its own never traps, the other one, under the unit's `Lazy`, always.
    fn the_policy_of_one_lwp_is_its_own(case: &mut Case) {
        const TURNS: usize = 50;
        case.trusting();
        case.policy(Policy::Lazy);
        move_to(0);
        let counts = Counts::begin();
        let eager = spawn("eager", 0, new_domain(), || {
            let answer = with_token(|token| PCU.set_lwp_policy(token, Some(Policy::Eager)));
            assert_eq!(answer, Ok(()));
            Pattern::random(1).load();
            assert!((0..TURNS).all(|_| slice(true)), "never a trap");
            assert_eq!(Pattern::store(), Pattern::random(1));
        });
        let lazy = spawn("lazy", 0, new_domain(), || {
            Pattern::random(2).load();
            assert!((0..TURNS).all(|_| !slice(true)), "always a trap");
            assert_eq!(Pattern::store(), Pattern::random(2));
        });
        case.join(&[eager, lazy]);
        case.expect_identities(&counts);
        let counted = counts.so_far();
        case.expect_eq("traps", counted.traps, 2 + TURNS as u64);
        case.expect_eq("preloads", counted.preloads, TURNS as u64);
    }
}
