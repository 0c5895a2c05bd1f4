//! The README's table.

use std::fmt::Write as _;

use crate::sweep::{Kind, Regret, Results};

/// Where the table begins in a text.
pub const BEGIN: &str = "<!-- cargo simulate plot: begin -->";
/// Where it ends.
pub const END: &str = "<!-- cargo simulate plot: end -->";

/// What `Adaptive` costs to the best fixed policy, for each machine: Markdown, between the two lines.
pub fn markdown(results: &Results) -> String {
    let mut text = format!(
        "{BEGIN}\n| machine, costs in cycles | leak rule | cells | median | 95 % of cells | worst | mixed populations, worst |\n\
         |---|---|---|---|---|---|---|\n"
    );
    for regret in results.regrets() {
        let Regret {
            machine,
            leak,
            ratios,
            ..
        } = &regret;
        let table = results.table(machine);
        let costs = table.map_or_else(String::new, |table| table.to_string());
        let mixed = results
            .cells
            .iter()
            .filter(|cell| cell.kind == Kind::Mixed && cell.leak == *leak);
        let worst_mixed = mixed
            .filter_map(|cell| results.regret(cell, machine))
            .fold(0.0, f64::max);
        // A String takes everything.
        let _ = writeln!(
            text,
            "| {machine}: {costs} | {leak} | {} | {:.2} | {:.2} | {:.2} | {worst_mixed:.2} |",
            ratios.len(),
            regret.quantile(0.5),
            regret.quantile(0.95),
            regret.quantile(1.0),
        );
    }
    text + END
}
