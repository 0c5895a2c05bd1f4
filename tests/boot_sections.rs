//! Kernel sections by the clock: the timer's handler fills every register while LWPs compute, are preempted and migrate, and while
//! they are in sections themselves. Nobody loses a register, nobody sees one of the kernel's.
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
        Run {
            cpu: "Haswell",
            cpus: 2,
        },
    ];
    pcu9_runner::boot_test("boot_sections", &runs)
}

#[cfg(target_os = "none")]
#[expect(clippy::cast_possible_truncation, reason = "a kernel for x86-64 alone")]
mod kernel {
    extern crate alloc;

    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use pcu9::pcu::LeakRule;
    use pcu9_testbed::cpu::{index, n_cpus, time};
    use pcu9_testbed::glue::{FPU, PCU, cpu_pcu, in_section, section};
    use pcu9_testbed::registers::RegisterFile;
    use pcu9_testbed::testing::{
        Case, Counts, Found, TimerSection, TimerSections, is_task_switched, move_to, new_domain,
        on, past_the_gate, spawn, spawn_plain, timer_sections, timer_sections_on,
        use_all_registers, use_fpu_in_timer, yield_until,
    };
    use pcu9_testbed::{sched, watch};

    pcu9_testbed::boot_tests! {
        every_policy_and_rule:
            the_timers_sections_take_nothing_and_leave_nothing,
            sections_nest_with_a_slot,
            sections_that_would_nest_without_a_slot_are_refused;
        every_policy:
            a_section_is_not_preempted_and_does_not_migrate;
        own_policies:
            a_section_without_an_owner_leaves_initial_registers,
            the_look_sees_a_section_that_is_not_wiped
    }

    const LWPS: u64 = 6;
    const GOOD: Found = Found {
        was_initial: true,
        kept: true,
    };

    /// Sections of the LWPs that did not find the initial state.
    static N_NOT_INITIAL: AtomicU64 = AtomicU64::new(0);

    /// Lets time pass without the FPU: `us` microseconds, or an interrupt of the timer and more.
    fn linger(us: u64) {
        let end = time::ticks() + us * time::ticks_per_ms() / 1000;
        while time::ticks() < end {}
    }

    /// Waits in a section until `condition` holds: the timer's interrupt comes inside.
    fn wait_inside(condition: impl Fn() -> bool) {
        let end = time::ticks() + 60_000 * time::ticks_per_ms();
        while !condition() {
            assert!(time::ticks() < end, "nothing comes into the section");
        }
    }

    /// How often the watch must have looked, where there is something to see.
    const LOOKS: u64 = 20;

    /// Have there been sections and looks enough? The sections may all have come to CPUs that idled.
    fn is_enough(goal: u64) -> bool {
        let is_seen = PCU.leak_rule() != LeakRule::DomainAware || watch::n_looks() >= LOOKS;
        is_seen && timer_sections().entered >= goal
    }

    /// One LWP's work: it computes, is interrupted, yields, migrates, has sections of its own.
    fn compute(lwp: u64, goal: u64) {
        let mut round = 0;
        while !is_enough(goal) {
            RegisterFile::load_random(lwp << 32 | round);
            match (lwp + round) % 5 {
                0 => sched::yield_now(),
                1 => move_to((lwp + round / 5) as usize % n_cpus()),
                2 => {
                    let found = section(|| use_all_registers(lwp << 32 | round));
                    let found = found.expect("an LWP is in no other section");
                    assert!(found.kept, "LWP {lwp}, round {round}");
                    N_NOT_INITIAL.fetch_add(u64::from(!found.was_initial), Ordering::Relaxed);
                }
                _ => linger(300),
            }
            let kept = RegisterFile::is_random(lwp << 32 | round);
            assert!(kept, "LWP {lwp}, round {round}");
            round += 1;
        }
    }

    /// Six LWPs, the timer on, until the timer's handler had `goal` sections.
    fn under_load(case: &mut Case, goal: u64) -> (TimerSections, (u64, u64)) {
        N_NOT_INITIAL.store(0, Ordering::Relaxed);
        watch();
        use_fpu_in_timer(TimerSection::WithSlot);
        sched::set_timer(true);
        let lwps: Vec<_> = (0..LWPS)
            .map(|lwp| {
                let cpu = lwp as usize % n_cpus();
                spawn("computes", cpu, new_domain(), move || compute(lwp, goal))
            })
            .collect();
        case.join(&lwps);
        sched::set_timer(false);
        use_fpu_in_timer(TimerSection::Off);
        let mut sections = timer_sections();
        sections.not_initial += N_NOT_INITIAL.load(Ordering::Relaxed);
        let result = (sections, unwatch());
        case.log(format_args!("{:?}, {} looks", result.0, result.1.0));
        result
    }

    /// Watches what LWPs find, unless the rule lets them find what others left.
    fn watch() {
        if PCU.leak_rule() == LeakRule::DomainAware {
            watch::start();
        }
    }

    /// What the watch has seen: looks and leaks.
    fn unwatch() -> (u64, u64) {
        let seen = watch::stop();
        if PCU.leak_rule() == LeakRule::DomainAware {
            seen
        } else {
            (0, 0)
        }
    }

    fn check_sections(case: &mut Case, sections: TimerSections) {
        case.expect_eq("sections that left something", sections.left_behind, 0);
        case.expect_eq(
            "sections over anything but initial",
            sections.not_initial,
            0,
        );
        case.expect_eq("sections that lost their registers", sections.lost, 0);
    }

    /// An LWP whose registers went to memory for a section, traps at its next use: it does not return to user mode before that.
    fn expect_identities(case: &mut Case, counts: &Counts) {
        case.gives_up_by_hand(counts.so_far().sections);
        case.expect_identities(counts);
    }

    fn the_timers_sections_take_nothing_and_leave_nothing(case: &mut Case) {
        case.domain_aware();
        let counts = Counts::begin();
        let goal = 200;
        let (sections, (looks, leaks)) = under_load(case, goal);
        check_sections(case, sections);
        case.expect("the timer's handler had sections", sections.entered >= goal);
        case.expect_eq("sections refused", sections.refused, 0);
        let is_watched = PCU.leak_rule() == LeakRule::DomainAware;
        case.expect(
            "looks, where there is something to see",
            !is_watched || looks >= LOOKS,
        );
        case.expect_eq("leaks", leaks, 0);
        expect_identities(case, &counts);
    }

    /// LWPs that have a state are in sections; the timer's handler comes into them, as `how` says, until there are more of what
    /// `arrived` counts.
    fn nest(case: &mut Case, how: TimerSection, arrived: fn(TimerSections) -> u64) {
        case.domain_aware();
        let counts = Counts::begin();
        watch();
        use_fpu_in_timer(how);
        let lwps: Vec<_> = (0..n_cpus())
            .map(|cpu| {
                spawn("nests", cpu, new_domain(), move || {
                    RegisterFile::load_random(cpu as u64);
                    for round in 0..4 {
                        let outer = cpu as u64 + 100 * (round + 1);
                        let result = section(|| {
                            let was_initial = RegisterFile::is_initial();
                            RegisterFile::load_random(outer);
                            let before = arrived(timer_sections_on(cpu));
                            wait_inside(|| arrived(timer_sections_on(cpu)) >= before + 3);
                            let is_open = cpu_pcu(cpu).is_enabled(FPU) && !is_task_switched();
                            (
                                was_initial,
                                RegisterFile::is_random(outer),
                                is_open,
                                in_section(),
                            )
                        });
                        assert_eq!(
                            result,
                            Ok((true, true, true, true)),
                            "CPU {cpu}, round {round}"
                        );
                        let kept = RegisterFile::is_random(cpu as u64);
                        assert!(kept, "CPU {cpu}, round {round}");
                    }
                })
            })
            .collect();
        case.join(&lwps);
        use_fpu_in_timer(TimerSection::Off);
        let (looks, leaks) = unwatch();
        let sections = timer_sections();
        case.log(format_args!("{sections:?}, {looks} looks"));
        check_sections(case, sections);
        case.expect(
            "sections arrived into sections",
            arrived(sections) >= 12 * n_cpus() as u64,
        );
        case.expect_eq("leaks", leaks, 0);
        expect_identities(case, &counts);
    }

    fn sections_nest_with_a_slot(case: &mut Case) {
        nest(case, TimerSection::WithSlot, |sections| sections.nested);
        case.expect_eq("sections refused", timer_sections().refused, 0);
    }

    fn sections_that_would_nest_without_a_slot_are_refused(case: &mut Case) {
        nest(case, TimerSection::WithoutSlot, |sections| sections.refused);
        case.expect_eq("sections inside others", timer_sections().nested, 0);
    }

    /// P7. Somebody waits for the CPU, and somebody else wants the LWP to go to another.
    fn a_section_is_not_preempted_and_does_not_migrate(case: &mut Case) {
        static INSIDE: AtomicBool = AtomicBool::new(false);
        static IS_CALLED: AtomicBool = AtomicBool::new(false);
        static TURNS: AtomicU64 = AtomicU64::new(0);
        case.domain_aware();
        INSIDE.store(false, Ordering::Relaxed);
        IS_CALLED.store(false, Ordering::Relaxed);
        TURNS.store(0, Ordering::Relaxed);
        move_to(n_cpus() - 1);
        use_fpu_in_timer(TimerSection::WithSlot);
        sched::set_timer(true);
        let waiting = spawn("waits", 0, new_domain(), || {
            RegisterFile::load_random(1);
            yield_until(|| {
                TURNS.fetch_add(1, Ordering::Relaxed);
                INSIDE.load(Ordering::Relaxed)
            });
            for _ in 0..3 {
                sched::yield_now();
                TURNS.fetch_add(1, Ordering::Relaxed);
            }
            assert!(RegisterFile::is_random(1));
        });
        let inside = spawn("is inside", 0, new_domain(), || {
            RegisterFile::load_random(2);
            // What waits has begun.
            assert!(yield_until(|| TURNS.load(Ordering::Relaxed) > 0));
            let result = section(|| {
                RegisterFile::load_random(3);
                INSIDE.store(true, Ordering::Release);
                let (cpu, turns) = (index(), TURNS.load(Ordering::Relaxed));
                let before = timer_sections_on(cpu).nested;
                wait_inside(|| timer_sections_on(cpu).nested >= before + 5);
                wait_inside(|| n_cpus() == 1 || IS_CALLED.load(Ordering::Acquire));
                let stayed = index() == cpu && TURNS.load(Ordering::Relaxed) == turns;
                (turns, stayed && RegisterFile::is_random(3))
            });
            let (turns, is_alone) = result.expect("an LWP is in no other section");
            assert!(is_alone, "nobody else ran here");
            sched::yield_now();
            assert!(
                yield_until(|| TURNS.load(Ordering::Relaxed) > turns),
                "who waited has its turn afterwards"
            );
            assert!(RegisterFile::is_random(2));
        });
        if case.wait_until("it is in its section", || INSIDE.load(Ordering::Acquire)) {
            // It moves when it has left the section, if there is another CPU at all.
            sched::set_pin(&inside, on(n_cpus() - 1));
            IS_CALLED.store(true, Ordering::Release);
        }
        case.join(&[Arc::clone(&inside), waiting]);
        sched::set_timer(false);
        use_fpu_in_timer(TimerSection::Off);
        case.expect_eq("where it ended", inside.last_cpu(), Some(n_cpus() - 1));
        check_sections(case, timer_sections());
    }

    /// Nobody's state is there to be saved, and nobody's registers to be wiped.
    fn a_section_without_an_owner_leaves_initial_registers(case: &mut Case) {
        case.domain_aware();
        let counts = Counts::begin();
        let lwp = spawn_plain("kernel", 0, || {
            for seed in 0..20 {
                assert_eq!(section(|| use_all_registers(seed)), Ok(GOOD), "{seed}");
                assert!(is_task_switched(), "the gate is closed again");
                let left = past_the_gate(RegisterFile::store);
                assert_eq!(left, RegisterFile::INITIAL, "{seed}");
            }
        });
        case.join(&[lwp]);
        let counted = counts.so_far();
        case.expect_eq("sections", counted.sections, 20);
        case.expect_eq("saves", counted.saves, 0);
        case.expect_eq("traps", counted.traps, 0);
    }

    fn the_look_sees_a_section_that_is_not_wiped(case: &mut Case) {
        case.domain_aware();
        watch::take_wipe_out(true);
        let (sections, (_, leaks)) = under_load(case, 20);
        watch::take_wipe_out(false);
        case.log(format_args!("{leaks} leaks seen"));
        case.expect("leaks are seen without the wipe", leaks > 0);
        case.expect("sections notice it", sections.not_initial > 0);
        case.expect("and it is seen behind them", sections.left_behind > 0);
    }
}
