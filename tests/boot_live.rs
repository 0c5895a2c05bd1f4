//! A kernel that never stands still, for a reader that looks while it runs: LWPs count and use the FPU on every CPU, a CPU comes and
//! goes, and the kernel says again and again what the sum is.
//!
//! Each line `@live N total=T` is of a beat: `BEAT` of CPU 0 was set to N, and then the counter was fetched. With `hold=1` on the command
//! line this goes on for ever; without it the run ends after some beats as any other.
//!
//! Leak rule: as the case says.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [1, 4].map(|cpus| Run { cpu: "max", cpus });
    pcu9_runner::boot_test("boot_live", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    use pcu9::kernel::CpuId;
    use pcu9_testbed::glue::{self, HERE, PERCPU};
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::testing::{Case, move_to, new_domain, sleep_until, spawn};
    use pcu9_testbed::{cpu, line, option};

    pcu9_testbed::boot_tests! { the_sum_is_told_while_it_grows }

    pcu9::dpcpu! {
        counter PACKETS;
        static BEAT: AtomicU64 = AtomicU64::new(0);
    }

    /// A CPU that does not exist, whose area is at the end of the memory.
    const FAR: CpuId = const { CpuId::new(70).unwrap() };
    /// What that CPU has added.
    const FAR_PACKETS: u64 = 1 << 40;
    /// How many beats a run has that is not held.
    const BEATS: u64 = 2 * CHANGE;
    /// After so many beats the set of CPUs changes.
    const CHANGE: u64 = 64;
    /// What an LWP adds at once.
    const BURST: u64 = 500;

    static IS_OVER: AtomicBool = AtomicBool::new(false);

    fn sleep_ms(ms: u64) {
        let end = cpu::time::ticks() + ms * cpu::time::ticks_per_ms();
        sleep_until(|| cpu::time::ticks() >= end);
    }

    fn the_sum_is_told_while_it_grows(case: &mut Case) {
        case.domain_aware();
        move_to(0);
        let end = glue::add_cpu_at_the_end(FAR);
        line!("@area physical={end:#x}");
        PACKETS
            .on(&PERCPU, FAR)
            .expect("present")
            .store(FAR_PACKETS, Relaxed);
        let bursts = Arc::new(AtomicU64::new(0));
        let lwps: Vec<_> = (0..2 * cpu::n_cpus())
            .map(|place| {
                let bursts = Arc::clone(&bursts);
                let number = place as u64;
                spawn("adds", place % cpu::n_cpus(), new_domain(), move || {
                    while !IS_OVER.load(Relaxed) {
                        Pattern::random(number).load();
                        (0..BURST).for_each(|_| PACKETS.increment(HERE));
                        bursts.fetch_add(1, Relaxed);
                        sleep_ms(1);
                    }
                })
            })
            .collect();
        let is_held = option("hold") == Some("1");
        let boot = CpuId::new(0).expect("a small number");
        let beat = BEAT.on(&PERCPU, boot).expect("present");
        let mut last = 0;
        for n in 1.. {
            beat.store(n, Relaxed);
            let total = PACKETS.fetch(&PERCPU);
            line!("@live {n} total={total}");
            case.expect("the sum does not shrink", total >= last);
            last = total;
            // Now and then the set of CPUs changes: a reader has to notice.
            match n % (2 * CHANGE) {
                0 => PERCPU.set_offline(FAR).expect("it has data"),
                CHANGE => PERCPU.set_started(FAR).expect("it has data"),
                _ => {}
            }
            if !is_held && n == BEATS {
                break;
            }
            sleep_ms(5);
        }
        IS_OVER.store(true, Relaxed);
        case.join(&lwps);
        let expected = FAR_PACKETS + BURST * bursts.load(Relaxed);
        case.expect_eq("the sum", PACKETS.fetch(&PERCPU), expected);
        case.expect("something was added", last > FAR_PACKETS);
    }
}
