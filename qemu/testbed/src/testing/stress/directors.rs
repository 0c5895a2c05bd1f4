//! What is done to the stress' LWPs from outside: kernel threads without FPU state, each for one kind of thing.

use alloc::sync::Arc;

use pcu9::pcu::{AcceptLazyFp, LeakRule, Policy, PolicyError};
use pcu9_marks::{Choices, N_LWPS};

use super::tally::{Done, note};
use super::worker::{self, N_WORKERS};
use super::{is_over, now_ms, seed};
use crate::cpu::{self, hotplug};
use crate::glue::{FPU, PCU, PERCPU, with_token};
use crate::lwp::{ANYWHERE, Lwp};
use crate::testing::{Case, programs, spawn_plain};
use crate::{sched, watch};

/// Those that run.
pub(super) struct Directors([Arc<Lwp>; 3]);

/// At most so many CPUs are away at a time.
const MOST_AWAY: usize = 3;
/// A CPU that goes offline under the asker's feet does not answer; it is no longer asked the next time.
const MOST_TRIES: usize = 20;

impl Directors {
    /// Starts them. The one that takes CPUs away stays on the boot CPU, which does not go.
    pub(super) fn start() -> Self {
        let start = |name, number, direct: fn(Choices)| {
            let choices = Choices::new(seed(), N_LWPS + number, 0);
            spawn_plain(name, 0, move || direct(choices))
        };
        Self([
            start("pushes", 0, push),
            start("rules", 1, rule),
            start("plugs", 2, plug),
        ])
    }

    /// Waits for their ends.
    pub(super) fn join(self, case: &mut Case) {
        case.join(&self.0);
    }
}

/// Sleeps for 1 to `most` ticks, and says whether to go on.
fn pause(choices: &mut Choices, most: u64) -> bool {
    for _ in 0..=choices.below(most) {
        if is_over() {
            return false;
        }
        sched::sleep_a_tick();
    }
    !is_over()
}

/// Forces LWPs to other CPUs, and sends signals to processes.
fn push(mut choices: Choices) {
    while pause(&mut choices, 2) {
        for _ in 0..16 {
            let number = choices.below(u64::from(N_LWPS)) as usize;
            let lwp = if number < N_WORKERS {
                worker::lwp_of(number)
            } else {
                programs::any_lwp(number - N_WORKERS)
            };
            let Some(lwp) = lwp else { continue };
            let away_from = lwp.last_cpu().unwrap_or(0);
            let mask = match choices.below(8) {
                0 => ANYWHERE,
                _ => ANYWHERE & !(1 << away_from),
            };
            sched::set_pin(&lwp, mask);
            note(Done::Push);
        }
        for _ in 0..4 {
            programs::signal_any(choices.below(u64::from(N_LWPS)) as usize);
        }
    }
}

/// Changes the FPU's policy and the leak rule.
fn rule(mut choices: Choices) {
    let n_policies = Policy::ALL.len() as u64;
    while pause(&mut choices, 2) {
        set_policy(Policy::ALL[choices.below(n_policies) as usize]);
        if choices.below(2) == 0 {
            // Before the rule: what is seen under it is no leak.
            watch::look_away(true);
            set_leak_rule(LeakRule::Trusting(AcceptLazyFp));
        } else {
            set_leak_rule(LeakRule::DomainAware);
            watch::look_away(false);
        }
    }
    set_leak_rule(LeakRule::DomainAware);
    watch::look_away(false);
}

/// Calls `f` until no CPU fails to answer.
fn insist<E: core::fmt::Debug>(f: impl Fn() -> Result<(), E>) {
    let mut result = Ok(());
    for _ in 0..MOST_TRIES {
        result = f();
        if result.is_ok() {
            return;
        }
    }
    panic!("seed {}: after {MOST_TRIES} tries: {result:?}", seed());
}

fn set_leak_rule(rule: LeakRule) {
    insist(|| with_token(|token| PCU.set_leak_rule(token, PERCPU.started(), rule)));
    note(Done::Rule);
}

fn set_policy(policy: Policy) {
    insist(
        || match with_token(|token| PCU.set_policy(token, PERCPU.started(), FPU, policy)) {
            Err(error @ PolicyError::NoAnswer(_)) => Err(error),
            Err(error) => panic!("{error}"),
            Ok(()) => Ok(()),
        },
    );
    note(Done::Policy);
}

/// Takes CPUs away and brings them back.
fn plug(mut choices: Choices) {
    let others = cpu::n_cpus() - 1;
    let n_away = || (0..=others).filter(|&cpu| !hotplug::is_online(cpu)).count();
    // One CPU beside the boot CPU stays, so that everybody can leave a CPU.
    let most = MOST_AWAY.min(others.saturating_sub(1));
    while pause(&mut choices, 4) {
        if others == 0 {
            continue;
        }
        let cpu = 1 + choices.below(others as u64) as usize;
        if !hotplug::is_online(cpu) {
            bring_online(cpu);
        } else if n_away() < most {
            let begin = now_ms();
            if let Err(error) = hotplug::offline(cpu) {
                let ms = now_ms() - begin;
                panic!("seed {}: CPU {cpu} stays: {error:?} after {ms} ms", seed());
            }
            note(Done::Offline);
        }
    }
    (1..=others)
        .filter(|&cpu| !hotplug::is_online(cpu))
        .for_each(bring_online);
}

fn bring_online(cpu: usize) {
    if let Err(error) = hotplug::bring_online(cpu) {
        panic!("seed {}: CPU {cpu} does not come back: {error:?}", seed());
    }
    note(Done::Online);
}
