//! The table of the mutants that live.

use std::fmt::Write as _;

use serde::Deserialize;

/// What stands above the rows.
const HEADER: &str = "\
# The mutants that live: the tests do not notice them, because there is nothing to notice. One line says why.
#
# `cargo verify --only mutants` writes this table anew into target/mutants and fails when the two differ. A mutant is named by its
# file, the line of code that it changes, and the change, not by its line number.
";

/// A mutant that no test noticed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Survivor {
    pub(super) file: String,
    /// The line that is changed, without its indentation.
    pub(super) code: String,
    pub(super) mutation: String,
}

/// All rows, in the order of the file.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    #[serde(default)]
    equivalent: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    file: String,
    code: String,
    mutation: String,
    /// Why it is no gap; empty in a table that was just made.
    why: String,
}

/// What a run says of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// One line each.
    pub(super) complaints: Vec<String>,
    /// The table as it should be, arguments to be filled in.
    pub(super) table: Table,
}

impl Table {
    pub(super) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Pairs each survivor with its row. A line may hold the same mutant twice, and so may the table.
    pub(super) fn judge(mut self, survivors: Vec<Survivor>) -> Judged {
        let mut complaints = Vec::new();
        let mut rows = Vec::new();
        for survivor in survivors {
            let row = self.equivalent.iter().position(|row| row.is(&survivor));
            let row = row
                .map(|index| self.equivalent.remove(index))
                .unwrap_or(Row {
                    file: survivor.file,
                    code: survivor.code,
                    mutation: survivor.mutation,
                    why: String::new(),
                });
            if row.why.trim().is_empty() {
                complaints.push(format!("{} lives, and nothing argues why", row.name()));
            }
            rows.push(row);
        }
        let left = self.equivalent.iter();
        complaints
            .extend(left.map(|row| format!("{} is argued, but no such mutant lives", row.name())));
        Judged {
            complaints,
            table: Self { equivalent: rows },
        }
    }

    pub(super) fn render(&self) -> String {
        let mut text = HEADER.to_owned();
        for row in &self.equivalent {
            text.push_str("\n[[equivalent]]\n");
            for (key, value) in [
                ("file", &row.file),
                ("code", &row.code),
                ("mutation", &row.mutation),
                ("why", &row.why),
            ] {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{key} = {}", toml::Value::from(value.as_str()));
            }
        }
        text
    }
}

impl Row {
    fn is(&self, survivor: &Survivor) -> bool {
        (&self.file, &self.code, &self.mutation)
            == (&survivor.file, &survivor.code, &survivor.mutation)
    }

    fn name(&self) -> String {
        format!("{}: `{}`: {}", self.file, self.code, self.mutation)
    }
}

#[cfg(test)]
mod tests {
    use super::{Survivor, Table};
    use crate::place::checkout;
    use crate::verify::mutants::TABLE;
    use std::fs;

    fn survivor(code: &str) -> Survivor {
        Survivor {
            file: "src/a.rs".into(),
            code: code.into(),
            mutation: "replace | with ^ in f".into(),
        }
    }

    /// A table of `rows` equal rows, all of them argued.
    fn table(code: &str, rows: usize) -> Table {
        let judged = Table::default().judge(vec![survivor(code); rows]);
        let text = judged
            .table
            .render()
            .replace("why = \"\"", "why = \"no common bit\"");
        Table::parse(&text).expect("a table")
    }

    #[test]
    fn the_same_mutant_twice_in_a_line_wants_two_rows() {
        let complaints = |rows, lives| {
            let survivors = vec![survivor("a | b"); lives];
            table("a | b", rows).judge(survivors).complaints.len()
        };
        assert_eq!(
            [complaints(2, 2), complaints(1, 2), complaints(2, 1)],
            [0, 1, 1]
        );
    }

    #[test]
    fn code_with_quotes_and_backslashes_survives_the_table() {
        let code = r#"f('\\', "x")"#;
        let judged = table(code, 1).judge(vec![survivor(code)]);
        assert_eq!(judged.complaints, [""; 0]);
        assert_eq!(Table::parse(&judged.table.render()), Ok(judged.table));
    }

    #[test]
    fn the_projects_table_is_as_it_would_be_written_argues_every_row_and_quotes_todays_code() {
        let text = fs::read_to_string(checkout().join(TABLE)).expect("the table");
        let table = Table::parse(&text).expect("a table");
        assert_eq!(text, table.render());
        for row in &table.equivalent {
            assert!(
                !row.why.trim().is_empty() && !row.why.contains('\n'),
                "{}",
                row.name()
            );
            let source = fs::read_to_string(checkout().join(&row.file)).expect("a source file");
            let is_there = source.lines().any(|line| line.trim() == row.code);
            assert!(is_there, "{}: no such line", row.name());
        }
    }
}
