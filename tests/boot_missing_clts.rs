//! A bug that QEMU hides: no CLTS before the restore. It is put into the unit, and on Bochs, as on a machine, the restore raises
//! `#NM`; on QEMU everything works. So a green run on QEMU says nothing of it, and the boot tests run on Bochs too.
//!
//! The runner says in the command line which emulator it is, and either answer is checked. Leak rule Trusting: no wipe, which would
//! fault before the restore does.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    use pcu9_runner::Run;
    let runs = [
        // Intel's: on AMD's the wipe of x87 pointers before the restore faults on QEMU too.
        Run {
            cpu: "Nehalem",
            cpus: 1,
        },
        Run {
            cpu: "Haswell",
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_missing_clts", &runs)
}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;

    use pcu9::pcu::UnitStats;
    use pcu9::x86_64::fpu::{SaveInstruction, features};
    use pcu9_testbed::option;
    use pcu9_testbed::registers::Pattern;
    use pcu9_testbed::testing::{
        Case, Counts, Slot, Turns, is_task_switched, new_domain, spawn, without_clts_before_restore,
    };

    pcu9_testbed::boot_tests! { the_first_use, a_restore }

    /// How many faults a restore raises with the gate closed.
    fn faults_expected(case: &mut Case) -> u64 {
        let checks_xrstor = match option("emulator") {
            Some("bochs") => true,
            Some("qemu") => false,
            other => {
                case.fail(format_args!(
                    "emulator={other:?} on the command line: neither bochs nor qemu"
                ));
                false
            }
        };
        u64::from(checks_xrstor || features().save_instruction() == SaveInstruction::Fxsave)
    }

    /// What an LWP saw.
    #[derive(Debug, PartialEq, Eq)]
    struct Seen {
        faults: u64,
        registers: Pattern,
        is_gate_open: bool,
    }

    /// The LWP's next use of the FPU, with the bug: it reads its registers.
    fn use_with_the_bug() -> Seen {
        let mut registers = Pattern::zeros();
        let faults = without_clts_before_restore(|| registers = Pattern::store());
        Seen {
            faults,
            registers,
            is_gate_open: !is_task_switched(),
        }
    }

    /// The initial image is restored.
    fn the_first_use(case: &mut Case) {
        case.trusting();
        let counts = Counts::begin();
        let seen = Arc::new(Slot::new());
        let result = Arc::clone(&seen);
        let user = spawn("user", 0, new_domain(), move || {
            result.put(use_with_the_bug());
        });
        case.join(&[user]);
        let expected = Seen {
            faults: faults_expected(case),
            registers: Pattern::INITIAL,
            is_gate_open: true,
        };
        case.expect_eq("the first use", seen.take(), Some(expected));
        case.expect_counts(
            &counts,
            UnitStats {
                traps: 1,
                inits: 1,
                discards: 1,
                releases: 1,
                ..UnitStats::default()
            },
        );
    }

    /// A state comes back that another LWP's use had pushed out.
    fn a_restore(case: &mut Case) {
        case.trusting();
        let counts = Counts::begin();
        let (seen, turns) = (Arc::new(Slot::new()), Arc::new(Turns::new()));
        let own = Pattern::random(1);
        let user = {
            let (result, turns) = (Arc::clone(&seen), Arc::clone(&turns));
            spawn("user", 0, new_domain(), move || {
                own.load();
                turns.next();
                turns.wait(2);
                result.put(use_with_the_bug());
            })
        };
        // It is gone, and its state with it, before the first one goes on.
        let other = spawn("other", 0, new_domain(), move || {
            turns.wait(1);
            Pattern::random(2).load();
            turns.next();
        });
        case.join(&[user, other]);
        let expected = Seen {
            faults: faults_expected(case),
            registers: own,
            is_gate_open: true,
        };
        case.expect_eq("the restored state", seen.take(), Some(expected));
        case.expect_counts(
            &counts,
            UnitStats {
                traps: 3,
                inits: 2,
                restores: 1,
                saves: 1,
                discards: 2,
                releases: 3,
                ..UnitStats::default()
            },
        );
    }
}
