//! NMIs in the middle: before and after each step of a load and a save, inside kernel sections, between two instructions of whoever
//! computes, and where `gs` is not the kernel's. They change nothing, and get no section.
//!
//! Leak rule: domain aware, and in a repetition the other.

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
            cpus: 1,
        },
    ];
    pcu9_runner::boot_test("boot_nmi", &runs)
}

#[cfg(target_os = "none")]
#[expect(clippy::cast_possible_truncation, reason = "a kernel for x86-64 alone")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicBool, Ordering};

    use pcu9::pcu::UnitStats;
    use pcu9_testbed::cpu::n_cpus;
    use pcu9_testbed::glue::{FPU, cpu_pcu, in_section, section};
    use pcu9_testbed::lwp::Lwp;
    use pcu9_testbed::registers::RegisterFile;
    use pcu9_testbed::sched;
    use pcu9_testbed::testing::{
        Case, Counts, Found, TimerSection, is_task_switched, move_to, new_domain, nmi_at_each_step,
        nmi_here, nmi_over_user_gs, nmis, nmis_on, send_nmi, spawn, timer_sections,
        use_all_registers, use_fpu_in_timer,
    };

    pcu9_testbed::boot_tests! {
        every_policy_and_rule:
            at_each_step_of_load_and_save,
            a_storm_over_who_computes;
        every_policy:
            inside_a_section,
            inside_a_section_of_the_timer;
        own_policies:
            where_gs_is_the_users,
            one_comes_after_the_other
    }

    const LWPS: u64 = 5;

    /// Eight rounds of work: it computes, yields, migrates, has a section.
    fn compute(lwp: u64, n_rounds: u64) {
        for round in 0..n_rounds {
            RegisterFile::load_random(lwp << 32 | round);
            match (lwp + round) % 4 {
                0 => move_to((lwp + round / 4) as usize % n_cpus()),
                1 => {
                    let found = section(|| use_all_registers(lwp << 32 | round));
                    let (was_initial, kept) = (true, true);
                    assert_eq!(
                        found,
                        Ok(Found { was_initial, kept }),
                        "LWP {lwp}, round {round}"
                    );
                }
                _ => sched::yield_now(),
            }
            let kept = RegisterFile::is_random(lwp << 32 | round);
            assert!(kept, "LWP {lwp}, round {round}");
        }
    }

    fn start_all(n_rounds: u64) -> Vec<Arc<Lwp>> {
        (0..LWPS)
            .map(|lwp| {
                let cpu = lwp as usize % n_cpus();
                spawn("computes", cpu, new_domain(), move || {
                    compute(lwp, n_rounds);
                })
            })
            .collect()
    }

    fn total() -> u64 {
        (0..n_cpus()).map(nmis_on).sum()
    }

    /// Runs `f`; checks that NMIs came, at least so many by what was counted, that none got a section, and that the counters' identities hold.
    fn with_nmis(case: &mut Case, least: fn(UnitStats) -> u64, f: impl FnOnce(&mut Case)) {
        let (before, asked, counts) = (total(), nmis(), Counts::begin());
        f(case);
        // Where this LWP runs, each NMI that was sent has come, and its handler is over.
        (0..n_cpus()).for_each(move_to);
        let (n_came, refused) = (total() - before, nmis().refused - asked.refused);
        case.log(format_args!("{n_came} NMIs"));
        case.expect("NMIs came", n_came >= least(counts.so_far()));
        case.expect_eq("sections refused in NMIs", refused, n_came);
        case.expect_eq("sections entered in NMIs", nmis().served, 0);
        // An LWP whose registers went to memory for a section, traps at its next use.
        case.gives_up_by_hand(counts.so_far().sections);
        case.expect_identities(&counts);
    }

    fn at_each_step_of_load_and_save(case: &mut Case) {
        case.domain_aware();
        // Before and after each save and load, and the wipe at a section's end, at least.
        let least = |c: UnitStats| 2 * (c.saves + c.inits + c.restores + c.sections);
        with_nmis(case, least, |case| {
            sched::set_timer(true);
            nmi_at_each_step(|| {
                let lwps = start_all(16);
                case.join(&lwps);
            });
            sched::set_timer(false);
        });
    }

    /// From CPU 0 to itself and all the others, with no pause; itself, too, where it is alone.
    fn a_storm_over_who_computes(case: &mut Case) {
        static IS_OVER: AtomicBool = AtomicBool::new(false);
        case.domain_aware();
        IS_OVER.store(false, Ordering::Relaxed);
        with_nmis(
            case,
            |_| 100,
            |case| {
                sched::set_timer(true);
                let storm = spawn("storm", 0, new_domain(), || {
                    let mut n_sent = 0_u64;
                    while !IS_OVER.load(Ordering::Relaxed) || n_sent < 1000 {
                        send_nmi(n_sent as usize % n_cpus());
                        n_sent += 1;
                    }
                });
                let lwps = start_all(100);
                case.join(&lwps);
                IS_OVER.store(true, Ordering::Relaxed);
                case.join(&[storm]);
                sched::set_timer(false);
            },
        );
    }

    fn inside_a_section(case: &mut Case) {
        case.domain_aware();
        with_nmis(
            case,
            |_| 20,
            |case| {
                let lwp = spawn("is inside", 0, new_domain(), || {
                    RegisterFile::load_random(1);
                    let seen = section(|| {
                        RegisterFile::load_random(2);
                        (0..20).for_each(|_| nmi_here());
                        let is_open = cpu_pcu(0).is_enabled(FPU) && !is_task_switched();
                        (in_section(), is_open, RegisterFile::is_random(2))
                    });
                    assert_eq!(seen, Ok((true, true, true)));
                    assert!(!in_section() && is_task_switched());
                    assert!(RegisterFile::is_random(1));
                });
                case.join(&[lwp]);
            },
        );
    }

    fn inside_a_section_of_the_timer(case: &mut Case) {
        case.domain_aware();
        with_nmis(
            case,
            |c| 6 * c.sections,
            |case| {
                sched::set_timer(true);
                nmi_at_each_step(|| {
                    use_fpu_in_timer(TimerSection::WithSlot);
                    let lwps = start_all(8);
                    case.join(&lwps);
                    case.wait_until("the timer's handler has sections", || {
                        timer_sections().entered >= 20
                    });
                    use_fpu_in_timer(TimerSection::Off);
                });
                sched::set_timer(false);
            },
        );
        let sections = timer_sections();
        case.log(format_args!("{sections:?}"));
        case.expect_eq(
            "sections over anything but initial",
            sections.not_initial,
            0,
        );
        case.expect_eq("sections that lost their registers", sections.lost, 0);
        case.expect_eq("sections that left something", sections.left_behind, 0);
    }

    /// Between the entry from user mode and SWAPGS, and between SWAPGS and IRET: the base of `gs` is the user's, which may be
    /// anything.
    fn where_gs_is_the_users(case: &mut Case) {
        case.domain_aware();
        move_to(0);
        let kernels = nmi_over_user_gs(0).1;
        for users in [0, 1, 0x7fff_ffff_f000, 0xffff_8000_0000_0000, kernels] {
            let before = nmis_on(0);
            let (after, kernels_after) = nmi_over_user_gs(users);
            case.expect_eq("the user's base afterwards", after, users);
            case.expect_eq("the kernel's base afterwards", kernels_after, kernels);
            case.expect_eq("NMIs", nmis_on(0) - before, 1);
        }
        case.expect_eq("sections entered in NMIs", nmis().served, 0);
    }

    /// The IRET at the end of one lets the next one in.
    fn one_comes_after_the_other(case: &mut Case) {
        move_to(0);
        let before = nmis_on(0);
        (0..1000).for_each(|_| nmi_here());
        case.expect_eq("NMIs", nmis_on(0) - before, 1000);
    }
}
