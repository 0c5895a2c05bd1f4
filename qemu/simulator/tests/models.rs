//! The models of other kernels do what those kernels' code does, on slices that are worked out by hand.
#![cfg(not(target_os = "none"))]

use pcu9::pcu::Policy;
use pcu9_simulator::{Contender, Counts, Leak, Slice, Table, Workload, replay};

/// Slices as text: `0a!` LWP a on CPU 0 uses the unit, `0a` it does not, `0k` a kernel thread, `_` before one the CPU idled, `-` behind
/// one that it stays in the kernel.
fn workload(text: &str) -> Workload {
    let slices = text.split_whitespace().map(|word| {
        let idled = word.starts_with('_');
        let word = word.trim_start_matches('_');
        let mut letters = word.chars();
        let cpu = letters
            .next()
            .and_then(|digit| digit.to_digit(10))
            .expect("a CPU");
        let lwp = match letters.next() {
            Some('k') => 3,
            letter => "abc".find(letter.expect("an LWP")).expect("a, b, c or k"),
        };
        let rest = letters.as_str();
        Slice {
            lwp: u32::try_from(lwp).expect("below 4"),
            gap: u32::from(idled),
            cpu: u16::try_from(cpu).expect("a digit"),
            uses: rest.contains('!'),
            enters_user: lwp != 3 && !rest.contains('-'),
        }
    });
    Workload {
        n_cpus: 2,
        domains: vec![1, 2, 3, 0],
        slices: slices.collect(),
    }
}

#[track_caller]
fn expect(
    contender: Contender,
    text: &str,
    [traps, restores, saves, toggles, cross_calls]: [u64; 5],
) {
    let expected = Counts {
        traps,
        restores,
        saves,
        toggles,
        cross_calls,
        wipes: 0,
    };
    let milan = Table::named("milan").expect("a machine");
    let counts = replay(&workload(text), contender, Leak::Trusting, &milan);
    assert_eq!(counts, expected, "{contender:?}: {text}");
}

#[test]
fn netbsd_moves_registers_when_somebody_else_traps_and_the_gate_at_every_switch() {
    let model = Contender::Netbsd;
    expect(model, "0a! 0b 0a!", [1, 1, 0, 2, 0]);
    expect(model, "0a! 0b! 0a!", [3, 3, 2, 2, 0]);
    expect(model, "0a! 0k 0a!", [1, 1, 0, 2, 0]);
    expect(model, "0a! _0a!", [1, 1, 0, 2, 0]);
    expect(model, "0a! 1a! 0a!", [3, 3, 2, 2, 2]);
}

#[test]
fn with_the_gate_left_alone_kernel_threads_and_idle_cost_nothing() {
    let model = Contender::NetbsdQuiet;
    expect(model, "0a! 0k 0a!", [1, 1, 0, 0, 0]);
    expect(model, "0a! _0a!", [1, 1, 0, 0, 0]);
    expect(model, "0a! 0b 0a!", [1, 1, 0, 2, 0]);
    // pcu9's own Lazy does the same.
    for text in [
        "0a! 0k 0a!",
        "0a! _0a!",
        "0a! 0b 0a!",
        "0a! 0b! 0a!",
        "0a! 1a! 0a!",
    ] {
        let milan = Table::named("milan").expect("a machine");
        let lazy = Contender::Pcu9(Policy::Lazy);
        let [ours, theirs] = [lazy, model]
            .map(|contender| replay(&workload(text), contender, Leak::Trusting, &milan));
        assert_eq!(ours, theirs, "{text}");
    }
}

#[test]
fn linux_restores_beforehand_after_more_than_five_uses_in_a_row() {
    let model = Contender::LinuxLazy;
    // Each use traps and is saved at the switch, and the gate closes for the next one.
    expect(model, "0a! 0b 0a! 0b", [2, 2, 2, 2, 0]);
    // The seventh is preloaded: the gate is opened for it, and closed behind it.
    let six = "0a! 0b 0a! 0b 0a! 0b 0a! 0b 0a! 0b 0a! 0b";
    expect(model, six, [6, 6, 6, 6, 0]);
    // Its registers are still there, so nothing is restored.
    expect(model, &format!("{six} 0a! 0b"), [6, 6, 7, 8, 0]);
    expect(model, &format!("{six} 0b! 0a! 0b"), [7, 8, 8, 7, 0]);
    // A slice without use begins the count anew.
    expect(
        model,
        "0a! 0b 0a! 0b 0a! 0b 0a! 0b 0a! 0b 0a 0b 0a! 0b",
        [6, 6, 6, 6, 0],
    );
}

#[test]
fn linux_defers_the_restore_to_user_mode_and_saves_whoever_was_there() {
    let model = Contender::LinuxDeferred;
    expect(model, "0a! 0k 0a!", [0, 1, 1, 0, 0]);
    expect(model, "0a! 0b 0a!", [0, 3, 2, 0, 0]);
    expect(model, "0a! 0b- 0a!", [0, 1, 1, 0, 0]);
    expect(model, "0a! 1a! 0a!", [0, 3, 2, 0, 0]);
}

#[test]
fn sel4s_flag_is_set_by_the_first_use_for_good() {
    let model = Contender::Sel4;
    expect(model, "0a! 0b 0a! 0b 0a", [1, 1, 0, 4, 0]);
    expect(model, "0a! 0b! 0a 0b", [2, 4, 3, 1, 0]);
    expect(model, "0a! 1a", [1, 2, 1, 2, 1]);
}

#[test]
fn eager_moves_everything_of_user_lwps() {
    expect(Contender::Eager, "0a! 0b 0k 0a", [0, 3, 2, 0, 0]);
}

/// The machine checks at each use that the registers are the LWP's own; here all LWPs use them everywhere, under each policy.
#[test]
fn no_policy_of_the_crate_loses_a_register() {
    use pcu9_simulator::synthetic::{Habit, Synthetic};
    let made = Synthetic {
        n_cpus: 3,
        n_lwps: 12,
        habits: vec![
            Habit::Uses { p: 0.7, run: 5.0 },
            Habit::Phases { on: 20, off: 30 },
        ],
        n_slices: 20_000,
        migration: 0.3,
        stay: 0.3,
        seed: 3,
    };
    let workload = made.make();
    let uses = workload.slices.iter().filter(|slice| slice.uses).count();
    assert!(uses > 8_000, "{uses}");
    for table in Table::all() {
        for leak in [Leak::Trusting, Leak::Domain] {
            for contender in Contender::ALL {
                let counts = replay(&workload, contender, leak, &table);
                assert!(counts.restores > 0);
                if contender == Contender::Pcu9(Policy::AdaptiveWriteThrough) {
                    assert_eq!(counts.cross_calls, 0);
                }
            }
        }
    }
}
