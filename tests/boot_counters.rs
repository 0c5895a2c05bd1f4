//! Counters lose nothing: not under timer interrupts, not while their LWPs are moved about, not while others zero them.
//!
//! Beside them each case counts with one shared number, by compare-exchange, and prints how often that had to try again.
//!
//! Leak rule: `DomainAware`; nobody uses the FPU.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [1, 2, 4, 8].map(|cpus| Run { cpu: "max", cpus });
    pcu9_runner::boot_test("boot_counters", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    use pcu9::percpu::CounterU64;
    use pcu9_testbed::cpu;
    use pcu9_testbed::glue::{HERE, KERNEL, PERCPU, TICKS};
    use pcu9_testbed::lwp::Lwp;
    use pcu9_testbed::sched::{self, yield_now};
    use pcu9_testbed::testing::{Case, move_to, spawn_plain};

    pcu9_testbed::boot_tests! {
        nothing_is_lost_under_interrupts_and_migration,
        an_addition_in_two_steps_loses,
        zero_is_not_lost_beside_additions,
        interrupts_count_too,
    }

    pcu9::dpcpu! {
        counter STATIC;
        static WORD: AtomicU64 = AtomicU64::new(7);
    }

    static SHARED: AtomicU64 = AtomicU64::new(0);
    static RETRIES: AtomicU64 = AtomicU64::new(0);

    /// Adds one by compare-exchange, as a lock-free shared counter does; counts the tries that failed.
    fn add_shared() {
        let mut seen = SHARED.load(Relaxed);
        while let Err(now) = SHARED.compare_exchange_weak(seen, seen + 1, Relaxed, Relaxed) {
            RETRIES.fetch_add(1, Relaxed);
            seen = now;
        }
    }

    /// Two LWPs for each CPU, which begin there.
    fn spawn_two_a_cpu(f: impl Fn(usize) + Clone + Send + 'static) -> Vec<Arc<Lwp>> {
        (0..2 * cpu::n_cpus())
            .map(|place| {
                let f = f.clone();
                spawn_plain("adds", place % cpu::n_cpus(), move || f(place))
            })
            .collect()
    }

    const BURSTS: usize = 20;
    /// A host that is busy elsewhere may let the first ones pass without a tick.
    const MOST_BURSTS: usize = 100 * BURSTS;
    const ADDS: u64 = 2_000;

    fn nothing_is_lost_under_interrupts_and_migration(case: &mut Case) {
        case.domain_aware();
        let n_cpus = cpu::n_cpus();
        let counter = Arc::new(CounterU64::alloc(&PERCPU).expect("room"));
        let migrations = move || {
            (0..n_cpus)
                .map(|cpu| sched::counters(cpu).migrations.load(Relaxed))
                .sum::<u64>()
        };
        let preemptions = move || {
            (0..n_cpus)
                .map(|cpu| sched::counters(cpu).preemptions.load(Relaxed))
                .sum::<u64>()
        };
        let before = (migrations(), preemptions());
        let was_preempted = move || preemptions() > before.1;
        let bursts = Arc::new(AtomicU64::new(0));
        sched::set_timer(true);
        let lwps = spawn_two_a_cpu({
            let (counter, bursts) = (Arc::clone(&counter), Arc::clone(&bursts));
            move |place| {
                for burst in 0..MOST_BURSTS {
                    if burst >= BURSTS && was_preempted() {
                        break;
                    }
                    bursts.fetch_add(1, Relaxed);
                    for _ in 0..ADDS {
                        STATIC.increment(HERE);
                        WORD.add(HERE, 3);
                        counter.add(HERE, 2);
                        add_shared();
                    }
                    move_to((place + 3 * burst) % cpu::n_cpus());
                }
            }
        });
        case.join(&lwps);
        sched::set_timer(false);
        let expected = bursts.load(Relaxed) * ADDS;
        case.expect_eq("the static counter", STATIC.fetch(&PERCPU), expected);
        case.expect_eq(
            "the allocated counter",
            counter.fetch(&PERCPU),
            2 * expected,
        );
        case.expect_eq(
            "the word",
            WORD.sum(&PERCPU),
            3 * expected + 7 * n_cpus as u64,
        );
        case.expect_eq("the shared counter", SHARED.load(Relaxed), expected);
        case.log(format_args!(
            "{n_cpus} CPUs, {expected} additions each, {} migrations, {} preemptions: 0 retries by counter(9), {} by one shared number",
            migrations() - before.0, preemptions() - before.1, RETRIES.load(Relaxed),
        ));
        if n_cpus > 1 {
            case.expect("LWPs migrated", migrations() - before.0 >= BURSTS as u64);
        }
        case.expect("the timer preempted", was_preempted());
        Arc::into_inner(counter)
            .expect("the LWPs have ended")
            .free(&PERCPU);
    }

    /// The counterpart that shows that a loss would be seen.
    fn an_addition_in_two_steps_loses(case: &mut Case) {
        case.domain_aware();
        let before = WORD.sum(&PERCPU);
        let lwps = spawn_two_a_cpu(|_| {
            for _ in 0..100 {
                let seen = WORD.get(HERE);
                yield_now();
                WORD.set(HERE, seen + 1);
            }
        });
        case.join(&lwps);
        let (counted, made) = (WORD.sum(&PERCPU) - before, 100 * lwps.len() as u64);
        case.log(format_args!("{counted} of {made} additions were counted"));
        case.expect("some are lost", counted < made);
    }

    /// What a fetch after a zero can show is what was added since the zero began.
    fn zero_is_not_lost_beside_additions(case: &mut Case) {
        static STOP: AtomicBool = AtomicBool::new(false);
        static BEGUN: AtomicU64 = AtomicU64::new(0);
        static MADE: AtomicU64 = AtomicU64::new(0);
        case.domain_aware();
        move_to(0);
        let counter = Arc::new(CounterU64::alloc(&PERCPU).expect("room"));
        sched::set_timer(true);
        let lwps: Vec<_> = (0..cpu::n_cpus())
            .map(|cpu| {
                let counter = Arc::clone(&counter);
                spawn_plain("adds", cpu, move || {
                    BEGUN.fetch_add(1, Relaxed);
                    while !STOP.load(Relaxed) {
                        MADE.fetch_add(1, Relaxed);
                        counter.add(HERE, 1);
                    }
                })
            })
            .collect();
        case.wait_until("all add", || BEGUN.load(Relaxed) == cpu::n_cpus() as u64);
        for _ in 0..10 {
            let n = MADE.load(Relaxed) + 1_000;
            case.wait_until("some are added", || MADE.load(Relaxed) > n);
            let before = MADE.load(Relaxed);
            let zeroed = counter.zero(&PERCPU, &KERNEL, HERE);
            let left = counter.fetch(&PERCPU);
            let since = MADE.load(Relaxed) - before;
            case.expect_eq("every CPU's answer", zeroed, Ok(()));
            // Each LWP may have counted its addition before and made it after.
            case.expect("no count from before", left <= since + cpu::n_cpus() as u64);
        }
        STOP.store(true, Relaxed);
        case.join(&lwps);
        sched::set_timer(false);
        case.expect_eq(
            "every CPU's answer",
            counter.zero(&PERCPU, &KERNEL, HERE),
            Ok(()),
        );
        case.expect_eq("what is left", counter.fetch(&PERCPU), 0);
    }

    fn interrupts_count_too(case: &mut Case) {
        case.domain_aware();
        let before = TICKS.fetch(&PERCPU);
        case.wait_until("ten ticks", || TICKS.fetch(&PERCPU) > before + 10);
    }
}
