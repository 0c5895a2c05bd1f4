//! What an addition to a counter costs: instructions, counted exactly (QEMU's `-icount`), on 1 CPU up to all of them at once.
//!
//! A dpcpu increment is one instruction, and so is one by `lock` to a shared number: what differs is what no emulator shows,
//! the lock and the cache line that travels. `boot_counters` prints how often a shared number has to be tried again.
//!
//! Leak rule: `DomainAware`; nobody uses the FPU.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [1, 8].map(|cpus| Run { cpu: "max", cpus });
    pcu9_runner::boot_test("boot_count_counter", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::arch::x86_64::_rdtsc;
    use core::hint::black_box;
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use pcu9::percpu::CounterU64;
    use pcu9_testbed::cpu;
    use pcu9_testbed::glue::{HERE, PERCPU};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::testing::{Case, spawn_plain};

    pcu9_testbed::boot_tests! { an_increment_is_one_instruction }

    pcu9::dpcpu! {
        counter COUNT;
    }

    static SHARED: AtomicU64 = AtomicU64::new(0);
    const TIMES: u64 = 100_000;

    /// Instructions of `TIMES` turns of a loop around `f`, with interrupts off, by the executing CPU: under `-icount` the CPUs
    /// take turns of their own, and the counter runs for all of them together, so the smallest of many short stretches is
    /// what this CPU alone did.
    #[inline(never)]
    fn stretch(f: impl Fn()) -> u64 {
        const SHORT: u64 = 1000;
        let mut least = u64::MAX;
        for _ in 0..TIMES / SHORT {
            let _off = InterruptsOff::new();
            // SAFETY: reading the time stamp counter changes nothing.
            let begin = unsafe { _rdtsc() };
            for _ in 0..SHORT {
                f();
                // Keeps the compiler from making several turns into one.
                black_box(());
            }
            // SAFETY: as above.
            least = least.min(unsafe { _rdtsc() } - begin);
        }
        least * (TIMES / SHORT)
    }

    fn per_addition(with: u64, without: u64) -> u64 {
        with.checked_sub(without)
            .map_or(u64::MAX, |cost| cost.div_ceil(TIMES))
    }

    fn an_increment_is_one_instruction(case: &mut Case) {
        case.domain_aware();
        let counter = Arc::new(CounterU64::alloc(&PERCPU).expect("room"));
        let mut additions = 0;
        for n in 1..=cpu::n_cpus() {
            let costs: Arc<[[AtomicU64; 3]; 8]> = Arc::default();
            let lwps: Vec<_> = (0..n)
                .map(|cpu| {
                    let (counter, costs) = (Arc::clone(&counter), Arc::clone(&costs));
                    spawn_plain("adds", cpu, move || {
                        let name = black_box(&*counter);
                        let empty = stretch(|| ());
                        let all = [
                            stretch(|| COUNT.increment(HERE)),
                            stretch(|| name.add(HERE, 1)),
                            stretch(|| {
                                SHARED.fetch_add(1, Relaxed);
                            }),
                        ];
                        for (cost, with) in costs[cpu].iter().zip(all) {
                            cost.store(per_addition(with, empty), Relaxed);
                        }
                    })
                })
                .collect();
            case.join(&lwps);
            additions += n as u64 * TIMES;
            let most = |place: usize| costs.iter().map(|cpu| cpu[place].load(Relaxed)).max();
            let (dpcpu, counter9, shared) = (most(0), most(1), most(2));
            case.log(format_args!(
                "{n} CPUs: instructions an addition: dpcpu {dpcpu:?}, counter {counter9:?}, shared atomic {shared:?}"
            ));
            case.expect_eq("a dpcpu increment", dpcpu, Some(1));
            case.expect_eq("an addition to a shared atomic", shared, Some(1));
            case.expect(
                "an allocated counter's",
                counter9.is_some_and(|cost| cost <= 2),
            );
        }
        case.expect_eq("nothing is lost", COUNT.fetch(&PERCPU), additions);
        case.expect_eq("nothing is lost", counter.fetch(&PERCPU), additions);
        case.expect_eq("nothing is lost", SHARED.load(Relaxed), additions);
    }
}
