//! Boot tests: kernels of their own around the same machine, one file each.
//!
//! ```text
//! #![cfg_attr(target_os = "none", no_std, no_main)]
//! pcu9_testbed::boot_tests! {
//!     every_policy: first_use_traps_once, integers_never_trap;
//!     own_policies: eager_saves_always,
//! }
//!
//! fn first_use_traps_once(case: &mut Case) { .. }
//! ```
//!
//! Each case is a function that gets a [`Case`]; it passes if it reported no failure. The cases run in order on the LWP
//! `main`, a kernel thread without FPU state, with all CPUs up and the timer off. `case=TEXT` on the command line runs
//! those whose names contain the text. The last line is `N passed, N failed`; a run without a case fails, unless `case=` asked for
//! others.
//!
//! With `policies=all` the cases run once as they say, and then those of `every_policy` again under each other policy than `Lazy`;
//! those of `every_policy_and_rule` under each policy, with both leak rules. Their names are then `NAME/POLICY`: see [`is_exact`].
//!
//! [`programs`] runs programs of `qemu/programs` in user mode for a case.

pub mod annex;
pub mod board;
pub mod holds;
mod looks;
pub(crate) mod missing_clts;
pub(crate) mod nmi;
mod players;
pub(crate) mod poison;
mod policies;
pub mod programs;
mod sections;
pub(crate) mod sleepy;
mod stray;
pub mod stress;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::arch::asm;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use pcu9::pcu::{AcceptLazyFp, Costs, LeakRule, UnitStats};

use self::policies::{passes, rule_for};
use crate::exit::{Outcome, exit};
use crate::glue::{self, FPU, LwpFpu};
use crate::lwp::{Lwp, Start};
use crate::{cpu, line, sched};

pub use looks::{
    Counts, difference, image, is_task_switched, past_the_gate, poison_own_memory,
    set_task_switched_by_hand, write_image,
};
pub(crate) use nmi::in_nmi;
pub(crate) use sections::in_timer;
pub(crate) use stray::caught;
pub use stray::stray_use;

pub use missing_clts::without_clts_before_restore;
pub use nmi::{
    Nmis, nmi_at_each_step, nmi_here, nmi_over_user_gs, nmis, nmis_on, send_nmi, stop_as_in_a_panic,
};
pub use players::Player;
pub use poison::poison_frames;
pub use policies::{Under, assert_gate_closed, assert_gate_open, is_exact, policy};
pub use sections::{
    Found, TimerSection, TimerSections, timer_sections, timer_sections_on, use_all_registers,
    use_fpu_in_timer,
};
pub use sleepy::{let_copies_run, let_copies_sleep};

/// A boot test's case while it runs: what it prints and whether it failed.
#[derive(Debug)]
pub struct Case {
    /// The policy's name is a part of it.
    name: String,
    n_failures: u32,
    /// How many states the LWPs give up by hand.
    n_given_up: u64,
}

/// How long a wait may last: emulated CPUs share few real ones.
const LIMIT_MS: u64 = 60_000;

/// LWPs of the running case that have not ended.
static N_LIVE: AtomicU64 = AtomicU64::new(0);

/// A case: its name, its function, and how it is repeated.
pub type Entry = (&'static str, fn(&mut Case), Under);

impl Case {
    /// Prints a line for people.
    pub fn log(&self, text: fmt::Arguments<'_>) {
        line!("{}: {text}", self.name);
    }

    /// Notes a failure, with what was expected and what was seen; the case goes on.
    pub fn fail(&mut self, text: fmt::Arguments<'_>) {
        self.n_failures += 1;
        line!("{}: {text}", self.name);
    }

    /// Checks that two values are equal; `what` names them.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "what is compared is computed in the call"
    )]
    pub fn expect_eq<T: PartialEq + fmt::Debug>(&mut self, what: &str, seen: T, expected: T) {
        if seen != expected {
            self.fail(format_args!("{what}: expected {expected:?}, saw {seen:?}"));
        }
    }

    /// Checks a condition; `what` says what should hold.
    pub fn expect(&mut self, what: &str, holds: bool) {
        if !holds {
            self.fail(format_args!("expected: {what}"));
        }
    }

    /// Sleeps until `condition` holds, looking once a tick; a failure named `what`, and `false`, after a minute.
    pub fn wait_until(&mut self, what: &str, condition: impl Fn() -> bool) -> bool {
        let held = sleep_until(condition);
        if !held {
            self.fail(format_args!("expected within the time limit: {what}"));
        }
        held
    }

    /// Waits for the end of `lwps`, as [`wait_until`](Self::wait_until).
    pub fn join(&mut self, lwps: &[Arc<Lwp>]) -> bool {
        lwps.iter()
            .all(|lwp| self.wait_until("an LWP ends", || lwp.has_ended()))
    }

    /// Sets the leak rule `DomainAware`, or in a repetition with the other rule that one, and says so.
    pub fn domain_aware(&self) {
        self.leak_rule(LeakRule::DomainAware);
    }

    /// Sets the leak rule `Trusting`, or in a repetition with the other rule that one, and says so.
    pub fn trusting(&self) {
        self.leak_rule(LeakRule::Trusting(AcceptLazyFp));
    }

    fn leak_rule(&self, asked: LeakRule) {
        let rule = rule_for(asked);
        self.log(format_args!("{rule:?}, {:?}", policy()));
        glue::set_leak_rule(rule);
    }
}

/// Lets others run until `condition` holds; whether it did within a minute.
pub fn yield_until(condition: impl Fn() -> bool) -> bool {
    wait_with(condition, sched::yield_now)
}

/// Sleeps until `condition` holds, looking once a tick; whether it did within a minute. The CPU is free meanwhile.
pub fn sleep_until(condition: impl Fn() -> bool) -> bool {
    wait_with(condition, sched::sleep_a_tick)
}

fn wait_with(condition: impl Fn() -> bool, pause: impl Fn()) -> bool {
    let end = cpu::time::ticks() + LIMIT_MS * cpu::time::ticks_per_ms();
    loop {
        if condition() {
            return true;
        }
        if cpu::time::ticks() > end {
            return false;
        }
        pause();
    }
}

/// Runs the cases and ends the run; [`boot_tests!`](crate::boot_tests) calls it.
#[doc(hidden)]
pub fn run(cases: &[Entry]) -> ! {
    sched::set_timer(false);
    crate::report::boot();
    // The same figures on every machine, whatever was measured.
    glue::PCU.set_costs(Costs::ZEN3);
    let filter = crate::option("case");
    let (mut n_passed, mut n_failed) = (0, 0);
    for (pass, &(name, f, under)) in passes().flat_map(|p| cases.iter().map(move |c| (p, c))) {
        let name = pass.full_name(name);
        let rules = pass.rules(under);
        if rules.is_empty() || !name.contains(filter.unwrap_or("")) {
            continue;
        }
        let mut case = Case {
            name,
            n_failures: 0,
            n_given_up: 0,
        };
        let all_ended = rules.iter().all(|&other_rule| {
            pass.enter(other_rule);
            f(&mut case);
            sched::set_timer(false);
            case.wait_until("every LWP of the case ends", || {
                N_LIVE.load(Ordering::Acquire) == 0
            })
        });
        let name = &case.name;
        if case.n_failures == 0 {
            n_passed += 1;
            line!("test {name} ... ok");
        } else {
            n_failed += 1;
            line!("test {name} ... FAILED");
        }
        if !all_ended {
            line!("{name} left LWPs behind, so the cases after it are not run");
            break;
        }
    }
    line!("{n_passed} passed, {n_failed} failed");
    let has_run = n_passed > 0 || filter.is_some();
    exit(if has_run && n_failed == 0 {
        Outcome::Success
    } else {
        Outcome::Failure
    })
}

/// The pin mask of one CPU.
///
/// # Panics
///
/// When there is no such CPU.
pub fn on(cpu: usize) -> u64 {
    assert!(cpu < cpu::n_cpus(), "there is no CPU {cpu}");
    1 << cpu
}

/// A protection domain for tests that nobody else has.
pub fn new_domain() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Starts a kernel thread with FPU state, in `domain` (0: none), on CPU `cpu`: it plays a user LWP in ring 0.
///
/// # Panics
///
/// Without memory for it.
pub fn spawn(name: &str, cpu: usize, domain: u64, f: impl FnOnce() + Send + 'static) -> Arc<Lwp> {
    let lwp = prepare(name, cpu, domain, f);
    start(&lwp);
    lwp
}

/// As [`spawn`], without running it yet: see [`start`].
///
/// # Panics
///
/// Without memory for it.
pub fn prepare(name: &str, cpu: usize, domain: u64, f: impl FnOnce() + Send + 'static) -> Arc<Lwp> {
    prepare_uncounted(name, cpu, domain, counted(f))
}

/// As [`prepare`], for an LWP that may outlive its case.
///
/// # Panics
///
/// Without memory for it.
pub fn prepare_uncounted(
    name: &str,
    cpu: usize,
    domain: u64,
    f: impl FnOnce() + Send + 'static,
) -> Arc<Lwp> {
    let fpu = LwpFpu::with_area(domain).expect("no memory for an FPU area");
    let lwp = Lwp::with_start(name, None, Start::Kernel(Box::new(f)), fpu)
        .expect("no memory for a kernel thread");
    lwp.pin.store(on(cpu), Ordering::Relaxed);
    lwp
}

/// Makes an LWP that never runs, for the registers of a kernel section that an interrupt came into.
fn prepare_slot() -> Arc<Lwp> {
    prepare_uncounted("slot", 0, 0, || ())
}

/// Lets a prepared LWP run.
pub fn start(lwp: &Arc<Lwp>) {
    sched::make_ready(Arc::clone(lwp));
}

/// Starts a kernel thread without FPU state on CPU `cpu`.
pub fn spawn_plain(name: &str, cpu: usize, f: impl FnOnce() + Send + 'static) -> Arc<Lwp> {
    sched::spawn_lwp(name, on(cpu), LwpFpu::none(), counted(f))
}

/// Counts the LWP that runs `f` as one of the case until `f` returns.
fn counted(f: impl FnOnce() + Send + 'static) -> Box<dyn FnOnce() + Send> {
    N_LIVE.fetch_add(1, Ordering::AcqRel);
    Box::new(|| {
        f();
        N_LIVE.fetch_sub(1, Ordering::AcqRel);
    })
}

/// Moves the LWP that calls this to CPU `cpu`.
///
/// # Panics
///
/// When it does not get there within a minute.
pub fn move_to(cpu: usize) {
    sched::set_pin(&sched::current(), on(cpu));
    assert!(
        yield_until(|| cpu::index() == cpu),
        "the LWP does not get to CPU {cpu}"
    );
}

/// Two LWPs in registers, as a scheduler has them at hand: whatever they are, and at the cost of no instruction.
#[inline]
pub fn at_hand(from: NonNull<Lwp>, to: NonNull<Lwp>) {
    // SAFETY: there is no instruction.
    unsafe { asm!("/* {} {} */", in(reg) from.as_ptr(), in(reg) to.as_ptr(), options(nostack)) };
}

/// The FPU's counters of CPU `cpu`.
pub fn stats(cpu: usize) -> UnitStats {
    glue::cpu_pcu(cpu).stats(FPU)
}

/// The FPU's counters, summed over the CPUs.
pub fn total_stats() -> UnitStats {
    (0..cpu::n_cpus()).fold(UnitStats::default(), |mut sum, cpu| {
        sum += stats(cpu);
        sum
    })
}

/// A place where LWPs wait for each other: each call of [`wait`](Self::wait) waits until the counter has a value.
#[derive(Debug, Default)]
pub struct Turns(AtomicU64);

impl Turns {
    /// Makes one at 0.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Waits, yielding, until it is turn `n`; panics after a minute.
    ///
    /// # Panics
    ///
    /// When turn `n` does not come.
    pub fn wait(&self, n: u64) {
        assert!(
            yield_until(|| self.0.load(Ordering::Acquire) >= n),
            "turn {n} does not come"
        );
    }

    /// Says that the next turn has come.
    pub fn next(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// The turn.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// A result that one LWP leaves for another.
#[derive(Debug)]
pub struct Slot<T>(crate::lock::IrqLock<Option<T>>);

impl<T> Slot<T> {
    /// Makes an empty one.
    pub const fn new() -> Self {
        Self(crate::lock::IrqLock::new(None))
    }

    /// Leaves a value.
    pub fn put(&self, value: T) {
        *self.0.lock() = Some(value);
    }

    /// Takes the value.
    pub fn take(&self) -> Option<T> {
        self.0.lock().take()
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The names of what `lwps` are, for log lines.
pub fn names(lwps: &[Arc<Lwp>]) -> String {
    lwps.iter()
        .map(|lwp| lwp.name.as_str())
        .collect::<alloc::vec::Vec<_>>()
        .join(", ")
}

/// Makes a boot test: a kernel that runs the functions named here, each a case, in this order. Before them stands under which
/// policies, as in [`Under`](crate::testing::Under): `every_policy_and_rule:`, `every_policy:` or `own_policies:`, which may be
/// left out where it is so for all.
#[macro_export]
macro_rules! boot_tests {
    ($($case:ident),+ $(,)?) => {
        $crate::boot_tests! { own_policies: $($case),+ }
    };
    ($($under:ident: $($case:ident),+ $(,)?);+) => {
        fn boot_test_main() {
            $crate::testing::run(&[$($((
                stringify!($case),
                $case as fn(&mut $crate::testing::Case),
                $crate::boot_tests!(@ $under),
            )),+),+])
        }
        $crate::kernel_main!(boot_test_main);
    };
    (@ every_policy_and_rule) => { $crate::testing::Under::EveryPolicyAndRule };
    (@ every_policy) => { $crate::testing::Under::EveryPolicy };
    (@ own_policies) => { $crate::testing::Under::OwnPolicies };
}
