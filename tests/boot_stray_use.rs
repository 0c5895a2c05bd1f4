//! The kernel's own use of the FPU, outside of what was given it, is reported with its address, and never served: no state is
//! loaded, no gate opened, nothing counted.
//!
//! Leak rule: as each case says.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        Run {
            cpu: "qemu64",
            cpus: 1,
        },
        Run {
            cpu: "max",
            cpus: 2,
        },
    ];
    pcu9_runner::boot_test("boot_stray_use", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;

    use pcu9::x86_64::{DeviceNotAvailable, UsedBy};
    use pcu9_testbed::glue::{FPU, cpu_pcu};
    use pcu9_testbed::lock::InterruptsOff;
    use pcu9_testbed::registers::{Pattern, touch};
    use pcu9_testbed::testing::{
        Case, Slot, Turns, is_task_switched, move_to, new_domain, spawn, stray_use, total_stats,
    };

    pcu9_testbed::boot_tests! {
        a_kernel_thread_without_a_state,
        the_kernel_under_an_lwp_with_a_state,
        a_use_that_is_an_lwps_own_is_its_units
    }

    /// What was reported is the instruction, and nothing was done for it.
    fn check(case: &mut Case) {
        let before = (total_stats(), cpu_pcu(0).owner(FPU));
        let (address, reported) = stray_use();
        case.expect_eq("the reported address", reported, Some(address));
        case.expect("the gate stays closed", is_task_switched());
        let after = (total_stats(), cpu_pcu(0).owner(FPU));
        case.expect_eq("counters and owner", after, before);
    }

    fn a_kernel_thread_without_a_state(case: &mut Case) {
        case.domain_aware();
        move_to(0);
        check(case);
        let off = InterruptsOff::new();
        check(case);
        drop(off);
    }

    /// The current LWP's state must not be loaded for the kernel, which runs with interrupts off over it.
    fn the_kernel_under_an_lwp_with_a_state(case: &mut Case) {
        case.trusting();
        move_to(0);
        let turns = Arc::new(Turns::new());
        let (others_turns, slot) = (Arc::clone(&turns), Arc::new(Slot::new()));
        let others_slot = Arc::clone(&slot);
        let victim = spawn("victim", 0, new_domain(), move || {
            let pattern = Pattern::random(1);
            pattern.load();
            turns.next();
            turns.wait(2);
            let off = InterruptsOff::new();
            let seen = stray_use();
            let is_closed = is_task_switched();
            drop(off);
            slot.put((seen, is_closed));
            assert_eq!(Pattern::store(), pattern, "the LWP goes on with its own");
        });
        let other = spawn("other", 0, new_domain(), move || {
            others_turns.wait(1);
            touch();
            others_turns.next();
        });
        case.join(&[victim, other]);
        let Some(((address, reported), is_closed)) = others_slot.take() else {
            return case.fail(format_args!("the victim left no result"));
        };
        case.expect_eq("the reported address", reported, Some(address));
        case.expect("the gate stays closed", is_closed);
    }

    /// No emulator has XFD: without it every `#NM` of an LWP is about the FPU.
    fn a_use_that_is_an_lwps_own_is_its_units(case: &mut Case) {
        // SAFETY: ring 0.
        let of_lwp = unsafe { DeviceNotAvailable::classify(UsedBy::Lwp, 7) };
        case.expect_eq("an LWP's", of_lwp, DeviceNotAvailable::Unit(FPU));
        // SAFETY: ring 0.
        let of_kernel = unsafe { DeviceNotAvailable::classify(UsedBy::Kernel, 7) };
        let bug = DeviceNotAvailable::KernelBug { rip: 7 };
        case.expect_eq("the kernel's", of_kernel, bug);
    }
}
