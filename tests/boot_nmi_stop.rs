//! Once a CPU has panicked, an NMI stops the CPU that it reaches, for good; until then it does not.
//!
//! No leak rule: nobody uses the FPU.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [Run {
        cpu: "max",
        cpus: 2,
    }];
    pcu9_runner::boot_test("boot_nmi_stop", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    use core::sync::atomic::{AtomicU64, Ordering};

    use pcu9_testbed::cpu::{n_cpus, time};
    use pcu9_testbed::testing::{
        Case, move_to, nmis_on, prepare_uncounted, send_nmi, start, stop_as_in_a_panic,
    };

    pcu9_testbed::boot_tests! { it_stops_a_cpu_in_a_panic_alone }

    /// How far the last CPU has come.
    static ALIVE: AtomicU64 = AtomicU64::new(0);

    fn linger(ms: u64) {
        let end = time::ticks() + ms * time::ticks_per_ms();
        while time::ticks() < end {}
    }

    fn it_stops_a_cpu_in_a_panic_alone(case: &mut Case) {
        let victim = n_cpus() - 1;
        if victim == 0 {
            case.log(format_args!("a CPU that is alone has nobody to stop"));
            return;
        }
        move_to(0);
        // The CPU that it runs on ends before it does.
        let runs_on = prepare_uncounted("runs on", victim, 0, || {
            loop {
                ALIVE.fetch_add(1, Ordering::Relaxed);
            }
        });
        start(&runs_on);
        case.wait_until("the other CPU runs", || ALIVE.load(Ordering::Relaxed) > 0);
        let served = nmis_on(victim);
        send_nmi(victim);
        case.wait_until("it serves an NMI", || nmis_on(victim) > served);
        let before = ALIVE.load(Ordering::Relaxed);
        case.wait_until("it goes on", || ALIVE.load(Ordering::Relaxed) > before);

        let served = nmis_on(victim);
        case.expect("an NMI stops it", stop_as_in_a_panic(victim));
        let at_the_stop = ALIVE.load(Ordering::Relaxed);
        linger(50);
        case.expect_eq("it has stopped", ALIVE.load(Ordering::Relaxed), at_the_stop);
        case.expect_eq("NMIs served in a panic", nmis_on(victim) - served, 0);
    }
}
