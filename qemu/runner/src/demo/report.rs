//! What a demo shows at its end: tables for people, and one JSON object for programs.

use serde_json::{Map, Value, json};

use super::compare::Verdict;
use super::run::{Row, Run};
use super::session::Counters;
use crate::cli::DemoArgs;
use crate::progress::print;
use crate::table;
use crate::timeline::CpuTimeline;
use crate::trace;

/// The counters in the table, with the words for them.
const ROWS: [(&str, &str); 20] = [
    ("context switches", "switches"),
    ("#NM traps", "traps"),
    ("preloads", "preloads"),
    ("initial loads", "inits"),
    ("restores", "restores"),
    ("elided restores", "elided_restores"),
    ("re-enables at a trap", "reenables_trap"),
    ("re-enables at switch-in", "reenables_switch"),
    ("re-enables by a load", "reenables_load"),
    ("saves", "saves"),
    ("elided saves", "elided_saves"),
    ("releases", "releases"),
    ("cross-calls", "xcalls"),
    ("  of these, too late", "xcalls_raced"),
    ("migrations", "migrations"),
    ("wipes", "wipes"),
    ("probes", "probes"),
    ("explicit loads", "loads"),
    ("spurious traps", "spurious"),
    ("failed loads", "failed"),
];

/// The counters in the JSON object: its key and the kernel's.
const KEYS: [(&str, &str); 21] = [
    ("switches", "switches"),
    ("traps", "traps"),
    ("inits", "inits"),
    ("restores", "restores"),
    ("reenables", "reenables_trap"),
    ("saves", "saves"),
    ("releases", "releases"),
    ("xcalls", "xcalls"),
    ("migrations", "migrations"),
    ("preloads", "preloads"),
    ("elided_restores", "elided_restores"),
    ("elided_saves", "elided_saves"),
    ("probes", "probes"),
    ("wipes", "wipes"),
    ("xcalls_raced", "xcalls_raced"),
    ("reenables_switch", "reenables_switch"),
    ("reenables_load", "reenables_load"),
    ("loads", "loads"),
    ("discards", "discards"),
    ("spurious", "spurious"),
    ("failed", "failed"),
];

impl Run {
    /// Prints the tables.
    pub(super) fn print(&self, args: &DemoArgs) {
        print(format_args!(
            "\n{} LWPs on {} CPUs ({}), policy {}, leak rule {}, {:.1} s\n",
            self.lwps,
            args.cpus,
            args.machine(),
            self.policy.word(),
            args.leak.word(),
            self.seconds
        ));
        print(self.compared());
        for core in &self.cores {
            print(format_args!(
                "  core file of {}: {}",
                core.whose,
                core.path.display()
            ));
        }
        if self.session.cpus.is_empty() {
            return;
        }
        print(self.per_cpu());
        let totals = self.session.totals();
        print(format_args!(
            "  For the same switches an eager kernel would have made {} saves and {} restores;\n  \
             this one made {} saves and {} loads ({} initial, {} restores).\n",
            totals.get("eager_saves"),
            totals.get("eager_restores"),
            totals.get("saves"),
            totals.get("inits") + totals.get("restores"),
            totals.get("inits"),
            totals.get("restores"),
        ));
        for identity in &self.identities {
            let word = if identity.holds() { "holds " } else { "BROKEN" };
            print(format_args!("  {word} {identity}"));
        }
        if let Some(path) = &args.trace {
            let (slices, lost) = trace::count(&self.session.traces);
            print(format_args!(
                "\n  {slices} slices are in {}",
                path.display()
            ));
            if lost > 0 {
                print(format_args!(
                    "  {lost} later ones are not: the kernel had no room for them"
                ));
            }
        }
        print("");
    }

    fn compared(&self) -> String {
        let mut rows = vec![
            ["program", "copies", "bytes", "compared with the host"]
                .map(String::from)
                .to_vec(),
        ];
        for row in &self.rows {
            rows.push(vec![
                row.name.clone(),
                row.copies.to_string(),
                row.bytes.to_string(),
                match &row.verdict {
                    Verdict::Identical => "identical".into(),
                    Verdict::Wrong(word) => word.to_uppercase(),
                    Verdict::Skipped(why) => format!("skipped: {why}"),
                },
            ]);
        }
        table::render(&rows, false)
    }

    fn per_cpu(&self) -> String {
        let cpus = &self.session.cpus;
        let totals = self.session.totals();
        let mut head = vec!["CPU".to_owned()];
        head.extend(cpus.keys().map(ToString::to_string));
        head.push("total".into());
        let mut rows = vec![head];
        for (words, name) in ROWS {
            let mut row = vec![words.to_owned()];
            row.extend(cpus.values().map(|counters| counters.get(name).to_string()));
            row.push(totals.get(name).to_string());
            rows.push(row);
        }
        table::render(&rows, true)
    }

    /// Returns the JSON object.
    pub(super) fn json(&self, args: &DemoArgs, ok: bool) -> Value {
        let totals = self.session.totals();
        let mut object = json!({
            "cpus": args.cpus,
            "lwps": self.lwps,
            "policy": self.policy.word(),
            "leak": args.leak.word(),
            "emulator": args.emulator.word(),
            "cpu_model": args.cpu,
            "programs": programs(&self.rows),
            "counters": counters(&totals),
            "per_cpu": self.session.cpus.values().map(counters).collect::<Vec<_>>(),
            "eager": {"saves": totals.get("eager_saves"), "restores": totals.get("eager_restores")},
            "seconds": self.seconds,
            "ok": ok,
        });
        let timelines = &self.session.timelines;
        if !timelines.is_empty() {
            object["timeline"] = timelines.values().map(CpuTimeline::json).collect();
        }
        object
    }
}

/// Returns the JSON of the programs.
pub(super) fn programs(rows: &[Row]) -> Vec<Value> {
    let program = |row: &Row| {
        let identical = match row.verdict {
            Verdict::Identical => Value::Bool(true),
            Verdict::Wrong(_) => Value::Bool(false),
            Verdict::Skipped(_) => Value::Null,
        };
        json!({"name": row.name, "copies": row.copies, "identical": identical})
    };
    rows.iter().map(program).collect()
}

/// Returns the JSON of the counters.
pub(super) fn counters(counters: &Counters) -> Value {
    let pairs = KEYS.map(|(key, name)| (key.to_owned(), Value::from(counters.get(name))));
    Value::Object(Map::from_iter(pairs))
}
