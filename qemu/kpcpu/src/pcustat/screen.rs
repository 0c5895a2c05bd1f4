//! Where answers go: a terminal, where each takes the place of the one before; a pipe, where they follow each other; JSON.
//!
//! The terminal is used as any program that prints lines uses it: no mode is changed, no other screen shown, the cursor never hidden. So
//! however the program ends, there is nothing to put back, and the last answer stays.

use std::io::{self, Write};
use std::time::Instant;

use console::Term;
use pcu9_kpcpu::stat::Page;
use serde::Serialize;

use crate::Result;
use crate::answer::{Answer, Asked};

pub(crate) struct Screen {
    json: bool,
    term: Term,
    /// Can the cursor be moved?
    is_terminal: bool,
    /// How many lines are to be replaced, and how wide the terminal was when they were written.
    drawn: Option<(usize, u16)>,
}

impl Screen {
    pub(crate) fn new(json: bool) -> Self {
        let term = Term::buffered_stdout();
        let is_dumb = std::env::var_os("TERM").is_none_or(|name| name == "dumb");
        Self {
            json,
            is_terminal: term.is_term() && !is_dumb,
            term,
            drawn: None,
        }
    }

    /// Writes the only answer.
    pub(crate) fn once(&self, answer: &Answer) -> Result<()> {
        if self.json {
            let mut out = io::stdout().lock();
            serde_json::to_writer_pretty(&mut out, answer)?;
            writeln!(out)?;
            return Ok(());
        }
        let mut page = Page::new(self.width());
        answer.add_to(&mut page);
        Ok(print(&page)?)
    }

    /// Writes an answer that is not the first.
    pub(crate) fn again(&mut self, now: &Asked, before: &Asked, begun: Instant) -> Result<()> {
        if self.json {
            return json_line(&now.line(before, begun));
        }
        let mut page = Page::new(self.width());
        now.add_to(&mut page, before, begun);
        if self.is_terminal {
            return Ok(self.replace(page)?);
        }
        if self.drawn.replace((0, 0)).is_some() {
            writeln!(io::stdout())?;
        }
        Ok(print(&page)?)
    }

    /// Writes a line that stays.
    pub(crate) fn line(&self, text: &str, json: &impl Serialize) -> Result<()> {
        if self.json {
            return json_line(json);
        }
        Ok(writeln!(io::stdout(), "{text}")?)
    }

    /// How wide a line may be: in a pipe nothing is cut or broken.
    fn width(&self) -> usize {
        let size = self.term.size_checked();
        size.map_or(usize::MAX, |(_, columns)| usize::from(columns))
    }

    fn replace(&mut self, mut page: Page) -> io::Result<()> {
        let (rows, columns) = self.term.size();
        // The last line is the cursor's.
        page.cut(usize::from(rows).saturating_sub(1).max(1));
        match self.drawn {
            Some((lines, width)) if width == columns => self.term.move_cursor_up(lines)?,
            // Lines were broken anew when the terminal's width changed: nobody knows where they are.
            Some(_) => self.term.clear_screen()?,
            None => {}
        }
        for line in page.styled().lines() {
            self.term.write_str(line)?;
            self.term.write_str(CLEAR_REST)?;
        }
        self.term.clear_to_end_of_screen()?;
        self.term.flush()?;
        self.drawn = Some((page.height(), columns));
        Ok(())
    }
}

fn json_line(value: &impl Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    Ok(writeln!(out)?)
}

/// Clears what an earlier answer left in this line, and begins the next one. ECMA-48, `EL`.
const CLEAR_REST: &str = "\u{1b}[K\n";

/// Bold on a terminal; `anstream` takes that out elsewhere.
fn print(page: &Page) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    write!(out, "{}", page.styled())?;
    out.flush()
}
