//! What a demo shows at its end: tables for people, and one JSON object for programs.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::compare::Verdict;
use super::identities::Identity;
use super::session::{Counters, Session};
use crate::cli::DemoArgs;
use crate::error::{During, Result};
use crate::table;

/// The counters in the table, with the words for them.
const ROWS: [(&str, &str); 15] = [
    ("context switches", "switches"),
    ("#NM traps", "traps"),
    ("initial loads", "inits"),
    ("restores", "restores"),
    ("re-enables at a trap", "reenables_trap"),
    ("re-enables at switch-in", "reenables_switch"),
    ("re-enables by a load", "reenables_load"),
    ("saves", "saves"),
    ("releases", "releases"),
    ("cross-calls", "xcalls"),
    ("migrations", "migrations"),
    ("wipes", "wipes"),
    ("explicit loads", "loads"),
    ("spurious traps", "spurious"),
    ("failed loads", "failed"),
];

/// The counters in the JSON object: its key and the kernel's.
const KEYS: [(&str, &str); 9] = [
    ("switches", "switches"),
    ("traps", "traps"),
    ("inits", "inits"),
    ("restores", "restores"),
    ("reenables", "reenables_trap"),
    ("saves", "saves"),
    ("releases", "releases"),
    ("xcalls", "xcalls"),
    ("migrations", "migrations"),
];

/// A program's line in the table.
#[derive(Debug)]
pub(crate) struct Row {
    /// The program.
    pub(crate) name: String,
    /// How many copies were to run.
    pub(crate) copies: u32,
    /// How much the host's run wrote.
    pub(crate) bytes: usize,
    /// What came of it.
    pub(crate) verdict: Verdict,
}

/// Everything that a demo found out, as far as it came.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The programs.
    pub(crate) rows: Vec<Row>,
    /// How many LWPs were to share the CPUs.
    pub(crate) lwps: usize,
    /// What the guest said.
    pub(crate) session: Session,
    /// The equations that were checked.
    pub(crate) identities: Vec<Identity>,
    /// How long the guest ran.
    pub(crate) seconds: f64,
}

impl Report {
    /// Prints the tables.
    pub(crate) fn print(&self, args: &DemoArgs) {
        println!(
            "\n{} LWPs on {} CPUs ({}), policy {}, leak rule {}, {:.1} s\n",
            self.lwps,
            args.cpus,
            args.cpu,
            args.policy.word(),
            args.leak.word(),
            self.seconds
        );
        println!("{}", self.programs());
        if self.session.cpus.is_empty() {
            return;
        }
        println!("{}", self.counters());
        let totals = self.session.totals();
        println!(
            "  For the same switches an eager kernel would have made {} saves and {} restores;\n  \
             this one made {} saves and {} loads ({} initial, {} restores).\n",
            totals.get("eager_saves"),
            totals.get("eager_restores"),
            totals.get("saves"),
            totals.get("inits") + totals.get("restores"),
            totals.get("inits"),
            totals.get("restores"),
        );
        for identity in &self.identities {
            let word = if identity.holds() { "holds " } else { "BROKEN" };
            println!("  {word} {identity}");
        }
        println!();
    }

    fn programs(&self) -> String {
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

    fn counters(&self) -> String {
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

    /// Writes the JSON object to `path`.
    pub(crate) fn write_json(&self, args: &DemoArgs, ok: bool, path: &Path) -> Result<()> {
        let mut text = self.json(args, ok).to_string();
        text.push('\n');
        fs::write(path, text).during(format_args!("--json {}", path.display()))
    }

    /// Returns the JSON object.
    pub(crate) fn json(&self, args: &DemoArgs, ok: bool) -> Value {
        let program = |row: &Row| {
            let identical = match row.verdict {
                Verdict::Identical => Value::Bool(true),
                Verdict::Wrong(_) => Value::Bool(false),
                Verdict::Skipped(_) => Value::Null,
            };
            json!({"name": row.name, "copies": row.copies, "identical": identical})
        };
        let totals = self.session.totals();
        json!({
            "cpus": args.cpus,
            "lwps": self.lwps,
            "policy": args.policy.word(),
            "leak": args.leak.word(),
            "cpu_model": args.cpu,
            "programs": self.rows.iter().map(program).collect::<Vec<_>>(),
            "counters": counters(&totals),
            "per_cpu": self.session.cpus.values().map(counters).collect::<Vec<_>>(),
            "eager": {"saves": totals.get("eager_saves"), "restores": totals.get("eager_restores")},
            "seconds": self.seconds,
            "ok": ok,
        })
    }
}

fn counters(counters: &Counters) -> Value {
    let pairs = KEYS.map(|(key, name)| (key.to_owned(), Value::from(counters.get(name))));
    Value::Object(Map::from_iter(pairs))
}
