//! Every state that two CPUs and up to three LWPs with up to two units can get into, while `Pcu`'s own code runs: a breadth-first
//! search to the end, with I1 to I7 of `pcu9::pcu` checked in every state and over every step.
//!
//! # What runs
//!
//! An operation of an LWP (`trap`, `save`, `fork`, ...) and a job of a CPU (a switch hook, a cross-call that it serves,
//! `save_all_on_cpu`) is a coroutine that executes the crate. It stops at *cuts*, all of them calls of the seam, and the explorer
//! chooses who goes on (`choice.rs`): what is under way, up to its next cut; a new operation of a current LWP; the scheduler, which
//! takes an LWP from a CPU or gives one to an idle CPU; a cross-call that was published. A CPU at `IPL_PCU` runs its section and
//! nothing else; the other one runs in between. A direct switch is leaving and arriving in a row: between them the CPU
//! could also serve a call, which only adds states.
//!
//! A state is reached by replaying its path on the real machine, since the last moment at which nothing was under way: such
//! a moment is put back as bits. The longest shortest path is printed as the depth.
//!
//! # Where the cuts are, and why these are enough
//!
//! Two CPUs meet in an LWP's word alone: the holder of its registers stores it, the LWP's own sections look at it, and its memory
//! is read only behind it. All else that a section touches belongs to its CPU or to the LWP that it holds, and that is not believed
//! but asserted at every call of the seam (`World::look`, `unit.rs`, `check_step`). So:
//!
//! - Below `IPL_PCU` there is one cut before each raise, where the LWP can be preempted, moved, and overtaken by everything. From
//!   a lowering to the next raise only local code runs, and a section that only counted is no reason for another cut.
//! - Waiting for a cross-call is a cut.
//! - In a section there is a cut before the store of another LWP's word, and before a look at the own LWP's word while another CPU
//!   stands before a store of it. Looks at a word that nobody is about to store need no cut: the other CPU's section can
//!   be begun before, up to its store.
//! - A cut before a store is left out, and choices at one are left out, where whole sections in some order explain the outcome
//!   as well (`order.rs`): while a section stands before a store, only sections of an LWP whose word it has stored or is about
//!   to can tell that it is not over. As soon as one of them has looked, in both directions, everything may happen. This too is
//!   tested: with all cuts the same states between sections are reached, neither more nor fewer.
//!
//! # When two states are equal
//!
//! The key (`key.rs`) is a hash of 128 bits of the state written down, smallest under all namings of LWPs and CPUs; the crate
//! compares their names for equality alone. It holds all that the crate keeps but counters and Adaptive's habits, which nothing
//! explored here reads. Serials: a clean link that does not hold never will again, so only whether it holds is written. Values:
//! what is newest, by I4 at the place that the word names, is initial or not, and in whose colours; old values are never read
//! (a discard that makes memory valid is always preceded by a store to it). Domains: which LWPs share one.
//!
//! Of a coroutine the key holds the operation and its *notes* (`flight.rs`): of past sections only that there was one, and
//! each cross-call with its answer, since the code reads everything anew after a lowering, and a load even starts over; of the section
//! under way each look, each callback, and what the word was where another CPU could have changed it. That this is enough is
//! tested, not only argued: one in 64 of the second ways into a known state (with `PCU9_EXPLORER_AUDIT=all` every one, in the small
//! searches) is followed one step further, and must lead to the same keys as the first way did. This audit has found what
//! earlier keys left out.
//!
//! # What is asked of the whole graph
//!
//! Deadlock-freedom: from every state, what is under way can end without anything new being begun. And the search came by the
//! situations that made history (`witness.rs`), or it proves nothing about them.
//!
//! # What is not covered
//!
//! Three LWPs with two units, of which two share a domain and one does not, under Lazy and `DomainAware`: given up after four
//! million states; with one domain, and with three, the search ends. Operations other than loads: searched with one unit
//! only, and where there are three LWPs one at a time. The order of memory accesses between two cuts, and what a weak memory makes of
//! it: loom's part. More than two CPUs, three LWPs, two units. Units that refuse an area or whose use does not trap, kernel
//! threads, Adaptive and Probe, changes of rules at run time, debuggers: the model's part (`tests/model`). Starvation: an
//! LWP that is always overtaken is not a deadlock.
//!
//! `cargo test` runs sizes that end in seconds; `cargo test --test explorer -- --ignored` runs the large ones.
//! `PCU9_EXPLORER_LEVELS=1` prints each level.

mod checks;
mod choice;
mod config;
mod facts;
mod flight;
mod key;
mod order;
mod search;
mod unit;
mod witness;
mod world;

use pcu9::pcu::{AcceptLazyFp, LeakRule, Policy, WriteBackAtIdle};

use config::{Config, Cuts, Fault, Kind, Uses};
use search::{Report, Search, Violation};
use witness::Witness;

/// How often the small searches audit a merge, where not all are audited.
const SELDOM: u64 = 64;
/// How often the large ones do.
const RARELY: u64 = 256;

const TRUSTING: LeakRule = LeakRule::Trusting(AcceptLazyFp);

/// Two LWPs of one domain and one of another, under NetBSD's policy; they only use their units.
const LAZY: Config = Config {
    policy: Policy::Lazy,
    rule: LeakRule::DomainAware,
    domains: [1, 2, 1],
    lwps: 3,
    units: 2,
    ops: &[Kind::Trap],
    uses: Uses::Always,
    at_once: usize::MAX,
    withdrawals: false,
    flushes: false,
    write_back_at_idle: WriteBackAtIdle::Off,
    cuts: Cuts::Needed,
    audit: SELDOM,
    fault: Fault::None,
};

/// The same under Linux's policy, where it makes a difference whether a loaded state was written.
const DEFERRED: Config = Config {
    policy: Policy::Deferred,
    uses: Uses::Chosen,
    ..LAZY
};

/// The same without the hook at switch-out: nothing is ever written through, so nobody asks whether a state was written.
const WITHOUT_SWITCH_OUT: Config = Config {
    uses: Uses::Always,
    fault: Fault::NoSwitchOut,
    ..DEFERRED
};

/// All operations; `load` is `trap` but for what it counts.
const ALL: &[Kind] = &[
    Kind::Trap,
    Kind::Load,
    Kind::Save,
    Kind::SaveAll,
    Kind::Dump,
    Kind::Discard,
    Kind::DiscardAll,
    Kind::Replace,
    Kind::BeforeUser,
    Kind::Exec,
    Kind::Exit,
    Kind::Fork,
];

/// More states than any of these searches has.
const LIMIT: usize = 50_000_000;

fn audits_all() -> bool {
    std::env::var_os("PCU9_EXPLORER_AUDIT").is_some_and(|value| value == "all")
}

/// Searches to the end, and sees that every kind of operation came to a good one.
fn explore(config: Config) -> &'static Witness {
    let audit = if audits_all() && config.audit == SELDOM {
        1
    } else {
        config.audit
    };
    let mut search = Search::new(Config { audit, ..config });
    let report = search
        .run(LIMIT)
        .unwrap_or_else(|Violation(path)| panic!("{config}\n{path}"));
    println!("{config}: {report}");
    let witness = &search.world().witness;
    for kind in config.ops {
        assert!(
            witness.has_completed(*kind),
            "{kind:?} never came to a good end"
        );
    }
    assert!(report.audited > 0, "no merge was audited");
    witness
}

/// The same, and all situations that cross-calls bring.
fn explore_cross_calls(config: Config) {
    let Witness {
        raced,
        mutual,
        migrated_to_holder,
        arrived_while_stolen,
        ..
    } = explore(config);
    let counts =
        [raced, mutual, migrated_to_holder, arrived_while_stolen].map(witness::Counter::get);
    assert!(
        !counts.contains(&0),
        "a situation was never reached: {counts:?}"
    );
}

/// The cuts that are left out change nothing: with all of them the same states are reached between sections.
fn leaves_out_nothing(config: Config) {
    let needed = count(config);
    let all = count(Config {
        cuts: Cuts::All,
        ..config
    });
    assert_eq!(needed.between, all.between);
    assert!(needed.states < all.states);
}

fn count(config: Config) -> Report {
    let report = Search::new(config).run(LIMIT);
    let report = report.unwrap_or_else(|Violation(path)| panic!("{config}\n{path}"));
    println!("{:?} cuts, {config}: {report}", config.cuts);
    report
}

#[test]
fn the_cuts_that_are_left_out_change_nothing() {
    leaves_out_nothing(Config { units: 1, ..LAZY });
    leaves_out_nothing(Config { lwps: 2, ..LAZY });
    leaves_out_nothing(Config {
        lwps: 2,
        rule: TRUSTING,
        domains: [1; 3],
        ..LAZY
    });
    leaves_out_nothing(Config {
        units: 1,
        ..WITHOUT_SWITCH_OUT
    });
}

#[test]
fn lazy_two_lwps_two_units() {
    explore_cross_calls(Config { lwps: 2, ..LAZY });
    explore_cross_calls(Config {
        lwps: 2,
        rule: TRUSTING,
        domains: [1; 3],
        ..LAZY
    });
}

#[test]
fn lazy_three_lwps_one_unit() {
    let config = Config {
        units: 1,
        withdrawals: true,
        flushes: true,
        ..LAZY
    };
    explore_cross_calls(config);
    explore_cross_calls(Config {
        rule: TRUSTING,
        domains: [1; 3],
        ..config
    });
}

#[test]
fn lazy_all_operations() {
    explore_cross_calls(Config {
        lwps: 2,
        units: 1,
        ops: ALL,
        ..LAZY
    });
}

#[test]
fn deferred_three_lwps_two_units() {
    explore(DEFERRED);
    explore(Config {
        rule: TRUSTING,
        domains: [1; 3],
        ..DEFERRED
    });
}

#[test]
fn deferred_all_operations() {
    let config = Config {
        lwps: 2,
        units: 1,
        ops: ALL,
        withdrawals: true,
        flushes: true,
        ..DEFERRED
    };
    explore(config);
    explore(Config {
        write_back_at_idle: WriteBackAtIdle::On,
        ..config
    });
}

/// "A missing `switch_out` brings cross-calls back and corrupts nothing."
#[test]
fn deferred_without_switch_out() {
    explore_cross_calls(Config {
        units: 1,
        ..WITHOUT_SWITCH_OUT
    });
    explore_cross_calls(Config {
        lwps: 2,
        units: 1,
        ops: &[Kind::Trap, Kind::BeforeUser],
        ..WITHOUT_SWITCH_OUT
    });
}

#[test]
#[ignore = "large: some minutes; run by -- --ignored"]
fn large_lazy_three_lwps_two_units() {
    let config = Config {
        audit: RARELY,
        ..LAZY
    };
    explore_cross_calls(Config {
        rule: TRUSTING,
        domains: [1; 3],
        ..config
    });
    explore_cross_calls(Config {
        domains: [1, 2, 3],
        ..config
    });
}

#[test]
#[ignore = "large: some minutes; run by -- --ignored"]
fn large_deferred_without_switch_out() {
    explore_cross_calls(Config {
        lwps: 2,
        ops: &[Kind::Trap, Kind::BeforeUser],
        audit: RARELY,
        ..WITHOUT_SWITCH_OUT
    });
}

#[test]
#[ignore = "large: some minutes; run by -- --ignored"]
fn large_all_operations() {
    let config = Config {
        units: 1,
        ops: ALL,
        at_once: 1,
        audit: RARELY,
        ..LAZY
    };
    explore_cross_calls(config);
    explore(Config {
        policy: DEFERRED.policy,
        uses: DEFERRED.uses,
        ..config
    });
}

/// A machine that breaks its promises is found out, with this in the report.
fn caught(fault: Fault, said: &str) {
    let config = Config {
        lwps: 2,
        units: 1,
        domains: [1; 3],
        ops: &[Kind::Trap, Kind::Save],
        audit: u64::MAX,
        fault,
        ..LAZY
    };
    match Search::new(config).run(LIMIT) {
        Ok(report) => panic!("{fault:?} went unnoticed: {report}"),
        Err(Violation(path)) => {
            println!("{fault:?}:\n{path}");
            assert!(path.contains(said), "{fault:?}: {path}");
        }
    }
}

#[test]
fn waiting_at_ipl_pcu_is_a_deadlock() {
    caught(Fault::WaitAtIpl, "deadlock");
}

#[test]
fn a_lost_wakeup_is_a_deadlock() {
    caught(Fault::LostWakeup, "deadlock");
}

#[test]
fn a_cross_call_that_is_answered_unserved_never_ends() {
    caught(Fault::AnswerUnserved, "does not end");
}

#[test]
fn a_switch_at_ipl_pcu_is_found() {
    caught(Fault::SwitchAtIpl, "I3: ");
}

#[test]
fn a_missing_switchpoint_is_found() {
    caught(Fault::NoSwitchpoint, "reads unit");
}

#[test]
fn a_unit_that_does_not_save_is_found() {
    caught(Fault::SaveForgets, "I4");
}
