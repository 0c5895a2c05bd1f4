//! Tables for people, JSON for programs.

use std::io::{self, Write};

use anstyle::Style;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// How wide a table may be where nobody knows the terminal's width: in a pipe nothing is wrapped.
const PIPE_WIDTH: u16 = u16::MAX;

/// Where and how an answer is written.
pub(crate) struct Output {
    json: bool,
    width: u16,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let width = terminal_size::terminal_size().map_or(PIPE_WIDTH, |(width, _)| width.0);
        Self { json, width }
    }

    /// Writes a line above the tables, and an empty one; JSON has no such line.
    pub(crate) fn heading(&self, text: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        writeln!(anstream::stdout().lock(), "{text}\n")
    }

    /// Writes `value` as JSON if that was asked for, else what `table` makes of it.
    pub(crate) fn write<T: Serialize>(
        &self,
        value: &T,
        tables: impl FnOnce(&T) -> Vec<Table>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut out = anstream::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, value)?;
            writeln!(out)?;
            return Ok(());
        }
        for (index, mut table) in tables(value).into_iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            table.set_width(self.width);
            write(&mut out, &table)?;
        }
        Ok(())
    }
}

/// A table of left-aligned text, from column `numbers` on right-aligned.
pub(crate) fn table<S: ToString>(head: impl IntoIterator<Item = S>, numbers: usize) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(head.into_iter().map(|cell| cell.to_string()));
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= numbers {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The head is bold on a terminal; `anstream` takes that out elsewhere.
fn write(out: &mut impl Write, table: &Table) -> io::Result<()> {
    let bold = Style::new().bold();
    for (index, line) in table.lines().enumerate() {
        let line = line.trim_end();
        if index == 0 {
            writeln!(out, "{bold}{line}{bold:#}")?;
        } else {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
