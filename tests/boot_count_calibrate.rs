//! The kernel measures at its start what moving a state costs. Where a tick of the time stamp counter is an instruction (QEMU's
//! `-icount`), what it finds is known: the trap's way in and out is many, the rest a few. Gate, registers and counters are
//! afterwards as before.
//!
//! Leak rule: `DomainAware`.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = ["max", "Haswell", "qemu64"].map(|cpu| Run { cpu, cpus: 1 });
    pcu9_runner::boot_test("boot_count_calibrate", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    use pcu9::pcu::Costs;
    use pcu9::x86_64::calibrate;
    use pcu9_testbed::cpu;
    use pcu9_testbed::glue::{FPU, calibrated, cpu_pcu};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::testing::{
        Case, is_task_switched, move_to, new_domain, past_the_gate, spawn, total_stats,
    };

    pcu9_testbed::boot_tests! {
        the_kernel_has_measured_all_costs,
        a_measurement_leaves_nothing_behind,
        the_fpu_is_an_lwps_afterwards
    }

    const UNKNOWN: Costs = Costs {
        trap: 0,
        restore: 0,
        save: 0,
        toggle: 0,
        cross_call: 0,
    };

    /// Measures on this CPU, with interrupts off, over registers that are nobody's.
    fn measure() -> Costs {
        let _off = InterruptsOff::new();
        assert_eq!(cpu_pcu(cpu::index()).owner(FPU), None);
        // SAFETY: ring 0, interrupts off; nobody owns the registers, which are initial, and the gate is closed.
        unsafe { calibrate(UNKNOWN) }
    }

    fn the_kernel_has_measured_all_costs(case: &mut Case) {
        case.domain_aware();
        let costs = calibrated();
        case.log(format_args!("{costs:?}"));
        let Costs {
            trap,
            restore,
            save,
            toggle,
            cross_call,
        } = costs;
        // The kernel pushes and pops 15 registers, and looks whose trap it is.
        case.expect(
            "a trap of 60 to 400 instructions",
            (60..400).contains(&trap),
        );
        case.expect("a restore of 1 to 60", (1..60).contains(&restore));
        case.expect("a save of 1 to 60", (1..60).contains(&save));
        case.expect("a toggle of 1 to 10", (1..10).contains(&toggle));
        case.expect_eq("no CPU to call", cross_call, Costs::ZEN3.cross_call);
    }

    fn a_measurement_leaves_nothing_behind(case: &mut Case) {
        case.domain_aware();
        move_to(0);
        // Leaves initial registers and the gate closed on every CPU.
        case.domain_aware();
        let before = total_stats();
        let measured = measure();
        case.expect_eq("the gate is closed", is_task_switched(), true);
        case.expect_eq("registers", past_the_gate(Pattern::store), Pattern::INITIAL);
        case.expect_eq("counters", total_stats(), before);
        case.expect_eq("I, not measured", measured.cross_call, 0);
        let again = measure();
        case.expect_eq("the same instructions again", again, measured);
    }

    fn the_fpu_is_an_lwps_afterwards(case: &mut Case) {
        case.domain_aware();
        let lwp = spawn("user", 0, new_domain(), || {
            let pattern = Pattern::random(3);
            pattern.load();
            assert_eq!(Pattern::store(), pattern);
        });
        case.join(&[lwp]);
    }
}
