//! What the design promises of `Adaptive` holds, looked for in JSON as `cargo simulate sweep` writes it, so that a change of the rule, or
//! of what a switch moves, does not go unnoticed. A part of the cells; the command looks at all.
#![cfg(not(target_os = "none"))]

use pcu9_simulator::sweep::{Kind, Results};

/// Each so-many-th cell of the grid, a number that has no part in common with its sides.
const STEP: usize = 7;

#[test]
fn the_promises_hold_over_the_grid_and_a_worse_result_is_noticed() {
    let json = serde_json::to_string(&Results::compute(STEP, |_, _| ())).expect("plain data");
    let results: Results = serde_json::from_str(&json).expect("what was written");
    let violations: Vec<String> = results.check().iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    // Enough of each kind that the promises say something.
    for (kind, at_least) in [(Kind::Uses, 200), (Kind::Phases, 20), (Kind::Mixed, 20)] {
        let n = results
            .cells
            .iter()
            .filter(|cell| cell.kind == kind)
            .count();
        assert!(n >= at_least, "{kind:?}: {n} cells");
    }

    // As many traps as under `Lazy`, and as many restores as under `Eager`: every promise is broken.
    let mut worse = results;
    for cell in &mut worse.cells {
        let [lazy, eager] = ["lazy", "eager"].map(|policy| cell.counts[policy]);
        for (name, counts) in &mut cell.counts {
            if name.starts_with("adaptive@") {
                counts.traps = lazy.traps;
                counts.restores = eager.restores;
                counts.saves = eager.saves;
            }
        }
    }
    let noticed: Vec<String> = worse.check().iter().map(ToString::to_string).collect();
    for (machine, promise) in [
        ("milan, trusting", "regret in the worst cell"),
        ("milan, trusting", "regret in 95 per cent of the cells"),
        ("milan, trusting", "mixed populations that cost more"),
        ("milan, domain", "regret in the worst cell"),
    ] {
        let is_it = |text: &&String| text.starts_with(machine) && text.contains(promise);
        assert!(
            noticed.iter().any(|text| is_it(&text)),
            "{machine}: {promise}: {noticed:?}"
        );
    }
}
