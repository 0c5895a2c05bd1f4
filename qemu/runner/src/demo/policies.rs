//! `--policy all`: what every policy made of the same programs, side by side.

use serde_json::{Value, json};

use super::compare::Verdict;
use super::report::{counters, programs};
use super::run::{Row, Run};
use super::session::Counters;
use crate::cli::DemoArgs;
use crate::progress::print;
use crate::table;

/// The counters in the table, with the words for them.
const ROWS: [(&str, &str); 17] = [
    ("context switches", "switches"),
    ("#NM traps", "traps"),
    ("preloads", "preloads"),
    ("initial loads", "inits"),
    ("restores", "restores"),
    ("elided restores", "elided_restores"),
    ("re-enables at a trap", "reenables_trap"),
    ("re-enables at switch-in", "reenables_switch"),
    ("saves", "saves"),
    ("elided saves", "elided_saves"),
    ("releases", "releases"),
    ("cross-calls", "xcalls"),
    ("wipes", "wipes"),
    ("probes", "probes"),
    ("migrations", "migrations"),
    ("saves, had it been eager", "eager_saves"),
    ("restores, had it been eager", "eager_restores"),
];

/// Prints the table.
pub(super) fn show(args: &DemoArgs, runs: &[Run]) {
    print(format_args!(
        "\n{} LWPs on {} CPUs ({}), every policy in turn, leak rule {}, {:.1} s\n\n{}",
        runs.first().map_or(0, |run| run.lwps),
        args.cpus,
        args.machine(),
        args.leak.word(),
        seconds(runs),
        table(runs)
    ));
    for row in common(runs) {
        if let Verdict::Skipped(why) = row.verdict {
            print(format_args!("  {} is skipped: {why}", row.name));
        }
    }
}

fn table(runs: &[Run]) -> String {
    let row = |words: &str, cell: &dyn Fn(&Run) -> String| {
        let mut row = vec![words.to_owned()];
        row.extend(runs.iter().map(cell));
        row
    };
    let mut rows = vec![
        row("policy", &|run| run.policy.word().into()),
        row("identical to the host", &|run| identical(&run.rows)),
        row("identities that hold", &|run| {
            let holding = run.identities.iter().filter(|one| one.holds()).count();
            format!("{holding} of {}", run.identities.len())
        }),
    ];
    for (words, name) in ROWS {
        rows.push(row(words, &|run| {
            run.session.totals().get(name).to_string()
        }));
    }
    rows.push(row("seconds", &|run| format!("{:.1}", run.seconds)));
    rows.push(row("in all", &|run| {
        if run.is_ok { "ok" } else { "FAILED" }.into()
    }));
    table::render(&rows, true)
}

/// How many of the programs that ran were identical.
fn identical(rows: &[Row]) -> String {
    let count =
        |wanted: fn(&Verdict) -> bool| rows.iter().filter(|row| wanted(&row.verdict)).count();
    let skipped = count(|verdict| matches!(verdict, Verdict::Skipped(_)));
    let good = count(|verdict| *verdict == Verdict::Identical);
    format!("{good} of {}", rows.len() - skipped)
}

fn seconds(runs: &[Run]) -> f64 {
    runs.iter().map(|run| run.seconds).sum()
}

/// Returns the JSON object: the fields of a single run, with sums over the runs, and `runs`.
pub(super) fn json(args: &DemoArgs, runs: &[Run], ok: bool) -> Value {
    let mut totals = Counters::default();
    let mut per_cpu = vec![Counters::default(); args.cpus as usize];
    for run in runs {
        totals.add(&run.session.totals());
        for (cpu, counters) in &run.session.cpus {
            if let Some(sum) = per_cpu.get_mut(*cpu) {
                sum.add(counters);
            }
        }
    }
    json!({
        "cpus": args.cpus,
        "lwps": runs.first().map_or(0, |run| run.lwps),
        "policy": args.policy.word(),
        "leak": args.leak.word(),
        "emulator": args.emulator.word(),
        "cpu_model": args.cpu,
        "programs": programs(&common(runs)),
        "counters": counters(&totals),
        "per_cpu": per_cpu.iter().map(counters).collect::<Vec<_>>(),
        "eager": {"saves": totals.get("eager_saves"), "restores": totals.get("eager_restores")},
        "seconds": seconds(runs),
        "ok": ok,
        "runs": runs.iter().map(|run| run.json(args, run.is_ok)).collect::<Vec<_>>(),
    })
}

/// For each program the worst that any run made of it.
fn common(runs: &[Run]) -> Vec<Row> {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Wrong(_) => 2,
        Verdict::Identical => 1,
        Verdict::Skipped(_) => 0,
    };
    let mut all: Vec<Row> = Vec::new();
    for row in runs.iter().flat_map(|run| &run.rows) {
        match all.iter_mut().find(|one| one.name == row.name) {
            Some(one) if rank(&row.verdict) > rank(&one.verdict) => *one = row.clone(),
            Some(_) => {}
            None => all.push(row.clone()),
        }
    }
    all
}
