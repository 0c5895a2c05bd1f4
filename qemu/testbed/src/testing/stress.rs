//! The stress: 64 LWPs whose registers say whose they are, and everything that can happen to them, all at once.
//!
//! Half of the LWPs are kernel threads with FPU state ([`worker`]), half are processes in user mode (the program `lives`). They are
//! preempted, move, fork, start over, end and begin anew, use the FPU in kernel sections, change their policies; meanwhile
//! [`directors`] push them to other CPUs, send signals, change the FPU's policy and the leak rule, and take CPUs away and bring them
//! back; and the timer's handler has kernel sections. Each LWP's choices follow from the seed, its number and its life.
//!
//! A register that does not hold what it should ends the run at once, with the seed, the LWP, and whose the found contents are. While
//! the leak rule is `DomainAware`, the [`watch`] looks for what another domain left. What happened is counted
//! ([`tally`]), and each kind has a floor.

mod directors;
mod tally;
mod worker;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pcu9::pcu::Policy;
use pcu9_marks::N_LWPS;

use self::directors::Directors;
use self::tally::Tally;
use self::worker::N_WORKERS;
use super::programs::{Ended, Program};
use super::{Case, Counts, TimerSection, sleep_until, timer_sections, use_fpu_in_timer};
use crate::cpu::{self, crosscall, time};
use crate::glue::{self, FPU};
use crate::{lwp, option_number, sched, watch};

/// No longer is anything begun.
static STOP: AtomicBool = AtomicBool::new(false);
static SEED: AtomicU64 = AtomicU64::new(0);

/// How long the stress lasts where the command line does not say so: as long as a test may.
const SECONDS: u64 = 10;
/// A CPU that shares one of the host's with others may take so long to answer.
const BOUND_MS: u64 = 60_000;
/// An LWP that does nothing for so long hangs.
const PATIENCE_MS: u64 = 60_000;
/// How often is told how far it is.
const REPORT_MS: u64 = 10_000;

fn seed() -> u64 {
    SEED.load(Ordering::Relaxed)
}

fn is_over() -> bool {
    STOP.load(Ordering::Acquire)
}

/// Milliseconds since the boot.
fn now_ms() -> u64 {
    time::nanoseconds() / 1_000_000
}

/// Runs the stress for `stress=SECONDS` of the command line, with the choices of `seed=NUMBER`, and checks everything.
///
/// # Panics
///
/// When a register is lost.
pub fn run(case: &mut Case) {
    let seconds = option_number("stress").unwrap_or(SECONDS).max(1);
    SEED.store(option_number("seed").unwrap_or(1), Ordering::Relaxed);
    case.log(format_args!(
        "seed {}: {N_LWPS} LWPs on {} CPUs for {seconds} s",
        seed(),
        cpu::n_cpus()
    ));
    case.domain_aware();
    let bound_ms = crosscall::set_bound_ms(BOUND_MS);
    use_fpu_in_timer(TimerSection::WithSlot);
    let n_lwps_before = lwp::count();
    let counts = Counts::begin();
    watch::start();
    let before = Tally::now();
    STOP.store(false, Ordering::Release);
    let begin = now_ms();
    let end = begin + seconds * 1000;
    // Nobody preempts this before all are there, or they would have most of the time for themselves.
    let programs = start_programs(end);
    let directors = Directors::start();
    worker::start_all();
    sched::set_timer(true);

    follow(case, begin, end, &before, &programs);

    STOP.store(true, Ordering::Release);
    directors.join(case);
    let is_quiet = sleep_until(worker::have_all_ended);
    case.expect("every LWP of the stress ends", is_quiet);
    case.wait_for_programs();
    case.expect_success(&programs);
    drop(programs);
    sched::set_timer(false);
    let happened = Tally::now().since(&before);
    case.log(format_args!("seed {}, {seconds} s: {happened}", seed()));
    for (kind, n, floor) in happened.below_floors(seconds) {
        case.fail(format_args!(
            "{n} {kind}, and {floor} are needed in {seconds} s"
        ));
    }
    expect_nothing_lost(case, &counts);
    expect_nothing_left(case, n_lwps_before);
    crosscall::set_bound_ms(bound_ms);
}

/// Starts the processes, which live until `end`.
fn start_programs(end: u64) -> Vec<Program> {
    let start = |number: u16| {
        let words = [u64::from(number), seed(), end, 0].map(|word| word.to_string());
        Program::start("lives", &words.each_ref().map(String::as_str))
    };
    (N_WORKERS as u16..N_LWPS).map(start).collect()
}

/// Waits for the end of the time, and looks meanwhile whether all LWPs go on.
fn follow(case: &mut Case, begin: u64, end: u64, before: &Tally, programs: &[Program]) {
    let mut next_report = begin + REPORT_MS;
    let mut rounds: Vec<(u64, u64)> = (0..N_WORKERS).map(|_| (0, begin)).collect();
    while now_ms() < end {
        sched::sleep_a_tick();
        let now = now_ms();
        expect_no_loss();
        for (program, number) in programs.iter().zip(N_WORKERS..) {
            if let Some(ended) = program.ended()
                && (ended != Ended::Exited(0) || now_ms() < end)
            {
                lost(&format!("LWP {number}"), &format!("{ended:?}"));
            }
        }
        for (number, last) in rounds.iter_mut().enumerate() {
            let n = worker::rounds(number);
            if n != last.0 {
                *last = (n, now);
            }
            assert!(
                now - last.1 < PATIENCE_MS,
                "seed {}: LWP {number} hangs after {n} rounds",
                seed()
            );
        }
        if now >= next_report {
            next_report = now + REPORT_MS;
            case.log(format_args!(
                "{} s: {}",
                (now - begin) / 1000,
                Tally::now().since(before)
            ));
        }
    }
}

/// Ends the run if somebody has seen what was not his.
fn expect_no_loss() {
    let leaks = watch::n_leaks();
    if leaks > 0 {
        lost(
            "the watch",
            &format!("{leaks} times registers of another domain"),
        );
    }
    let sections = timer_sections();
    if sections.not_initial + sections.lost + sections.left_behind > 0 {
        lost("the timer's handler", &format!("{sections:?}"));
    }
}

/// Checks what the kernel's own sections, the watch and the counters say.
fn expect_nothing_lost(case: &mut Case, counts: &Counts) {
    let (looks, leaks) = watch::stop();
    case.expect("looks into the registers", looks > 0);
    case.expect_eq("registers of another domain that were seen", leaks, 0);
    use_fpu_in_timer(TimerSection::Off);
    let sections = timer_sections();
    case.expect_eq(
        "timer's sections that found something",
        sections.not_initial,
        0,
    );
    case.expect_eq("timer's sections that lost something", sections.lost, 0);
    case.expect_eq(
        "timer's sections that left something",
        sections.left_behind,
        0,
    );
    case.policy(Policy::Lazy);
    case.domain_aware();
    case.expect_identities(counts);
}

/// Checks that all CPUs are back and hold nobody's registers, and that no LWP is left.
fn expect_nothing_left(case: &mut Case, n_lwps_before: usize) {
    for cpu in 0..cpu::n_cpus() {
        case.expect("every CPU is online", cpu::hotplug::is_online(cpu));
        case.expect(
            "no CPU has an owner",
            glue::cpu_pcu(cpu).owner(FPU).is_none(),
        );
    }
    let is_alone = sleep_until(|| lwp::count() <= n_lwps_before);
    if !is_alone {
        let left = lwp::count() - n_lwps_before;
        case.fail(format_args!("{left} LWPs are left behind"));
    }
}

/// Ends the run: LWP `who` has found `what`.
fn lost(who: &str, what: &dyn core::fmt::Display) -> ! {
    panic!("seed {}: {who}: {what}", seed())
}
