//! A page of text: lines, some of which are to be noticed.

use std::fmt::Write;

use anstyle::Style;

/// Lines for a terminal, a pipe, or a program's own window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    width: usize,
    lines: Vec<(String, bool)>,
}

impl Page {
    /// An empty page whose lines should not be longer than `width` characters.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            lines: Vec::new(),
        }
    }

    /// How long a line may be.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Adds a line as it is.
    pub fn line(&mut self, text: impl Into<String>) {
        self.lines.push((text.into(), false));
    }

    /// Adds a line that is to be noticed.
    pub fn strong(&mut self, text: impl Into<String>) {
        self.lines.push((text.into(), true));
    }

    /// Adds a sentence, broken between words.
    pub fn wrapped(&mut self, text: &str) {
        let mut line = String::new();
        for word in text.split(' ') {
            let length = line.chars().count() + 1 + word.chars().count();
            if !line.is_empty() && length > self.width {
                self.line(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        self.line(line);
    }

    /// Keeps as many lines as `height` allows; the last one says how many there are not.
    pub fn cut(&mut self, height: usize) {
        if self.lines.len() <= height {
            return;
        }
        let kept = height.saturating_sub(1);
        let n_cut = self.lines.len() - kept;
        self.lines.truncate(kept);
        self.line(format!(".. {n_cut} more lines"));
    }

    /// How many lines there are.
    pub fn height(&self) -> usize {
        self.lines.len()
    }

    /// The lines as plain text.
    pub fn text(&self) -> String {
        self.lines
            .iter()
            .fold(String::new(), |all, (line, _)| all + line + "\n")
    }

    /// The lines for a terminal: what is to be noticed is bold, which shows on light and dark grounds alike; no colour is used.
    pub fn styled(&self) -> String {
        let bold = Style::new().bold();
        let mut all = String::new();
        for (line, is_strong) in &self.lines {
            let _ = match is_strong {
                true => writeln!(all, "{bold}{line}{bold:#}"),
                false => writeln!(all, "{line}"),
            };
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn a_page_is_cut_to_the_height_of_a_terminal() {
        let mut page = Page::new(80);
        (0..5).for_each(|n| page.line(n.to_string()));
        let whole = page.clone();
        page.cut(5);
        assert_eq!(page, whole);
        page.cut(3);
        assert_eq!(page.text(), "0\n1\n.. 3 more lines\n");
        page.cut(0);
        assert_eq!(page.height(), 1);
    }

    #[test]
    fn only_bold_is_used() {
        let mut page = Page::new(80);
        page.strong("head");
        page.line("row");
        assert_eq!(page.styled(), "\u{1b}[1mhead\u{1b}[0m\nrow\n");
        assert_eq!(page.text(), "head\nrow\n");
    }
}
