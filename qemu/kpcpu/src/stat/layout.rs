//! Tables as wide as the terminal: columns that do not fit are left out, the least important first, and named.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::page::Page;

/// Between two columns.
const GAP: usize = 2;

/// A column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    head: String,
    is_number: bool,
    /// 0 is never left out; of the others the highest goes first.
    rank: u32,
}

impl Column {
    /// A column of text, to the left.
    pub fn text(head: impl Into<String>) -> Self {
        Self {
            head: head.into(),
            is_number: false,
            rank: 0,
        }
    }

    /// A column of numbers, to the right.
    pub fn number(head: impl Into<String>) -> Self {
        Self {
            is_number: true,
            ..Self::text(head)
        }
    }

    /// The same column, that may be left out: of all these the one with the highest rank first.
    #[must_use]
    pub fn rank(mut self, rank: u32) -> Self {
        self.rank = rank;
        self
    }
}

/// A table before it has a width.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// Rows that are to be noticed.
    marked: Vec<usize>,
}

impl Layout {
    /// A table with these columns and no rows yet.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            columns: columns.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Adds a row; cells that it lacks are empty.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Lets the last row be noticed.
    pub fn mark(&mut self) {
        self.marked.extend(self.rows.len().checked_sub(1));
    }

    /// Adds the table to `page`, as wide as that is at most: columns are left out, and then cells are broken.
    pub fn add_to(&self, page: &mut Page) {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let mut left_out = Vec::new();
        while self.width(&shown) > page.width() {
            let rank = |&place: &usize| self.columns[shown[place]].rank;
            let least = (0..shown.len()).max_by_key(rank);
            let Some(least) = least.filter(|place| rank(place) > 0) else {
                break;
            };
            left_out.push(shown.remove(least));
        }
        let fits = self.width(&shown) <= page.width();
        let table = self.table(&shown, page.width());
        for (number, line) in table.lines().enumerate() {
            // Where a cell was broken a line is no row.
            let is_marked = fits && number > 0 && self.marked.contains(&(number - 1));
            match number {
                0 => page.strong(line.trim_end()),
                _ if is_marked => page.strong(line.trim_end()),
                _ => page.line(line.trim_end()),
            }
        }
        if !left_out.is_empty() {
            left_out.sort_unstable();
            let names = left_out
                .iter()
                .map(|&place| self.columns[place].head.as_str());
            let names = names.collect::<Vec<_>>().join(", ");
            page.line("");
            page.wrapped(&format!("left out for lack of width: {names}"));
        }
    }

    fn width(&self, shown: &[usize]) -> usize {
        let widths = shown.iter().map(|&place| {
            let cells = self.rows.iter().filter_map(|row| row.get(place));
            let widest = cells.map(|cell| console::measure_text_width(cell)).max();
            let head = console::measure_text_width(&self.columns[place].head);
            widest.unwrap_or(0).max(head) + GAP
        });
        widths.sum::<usize>().saturating_sub(GAP)
    }

    fn table(&self, shown: &[usize], width: usize) -> Table {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            // The last column's gap is cut off.
            .set_width(u16::try_from(width.saturating_add(GAP)).unwrap_or(u16::MAX))
            .set_header(shown.iter().map(|&place| self.columns[place].head.clone()));
        for row in &self.rows {
            let cell = |&place: &usize| row.get(place).cloned().unwrap_or_default();
            table.add_row(shown.iter().map(cell));
        }
        for (column, &place) in table.column_iter_mut().zip(shown) {
            column.set_padding((0, 2));
            if self.columns[place].is_number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::{Column, Layout};
    use crate::stat::Page;

    fn text(width: usize) -> String {
        let mut layout = Layout::new([
            Column::text("CPU"),
            Column::text("STATE").rank(2),
            Column::text("OWNER"),
            Column::number("TRAPS").rank(1),
            Column::number("WIPES").rank(3),
        ]);
        layout.row(["0", "started", "12 mandelbrot", "123", "7"]);
        layout.row(["1", "offline", "-"]);
        let mut page = Page::new(width);
        layout.add_to(&mut page);
        page.text()
    }

    #[test]
    fn everything_that_fits_is_shown() {
        let all = "\
CPU  STATE    OWNER          TRAPS  WIPES
0    started  12 mandelbrot    123      7
1    offline  -
";
        assert_eq!(text(41), all);
        assert_eq!(text(usize::MAX), all);
    }

    #[test]
    fn what_does_not_fit_is_left_out_by_rank_and_named() {
        assert_eq!(
            text(40),
            "\
CPU  STATE    OWNER          TRAPS
0    started  12 mandelbrot    123
1    offline  -

left out for lack of width: WIPES
"
        );
        assert_eq!(
            text(28),
            "\
CPU  OWNER          TRAPS
0    12 mandelbrot    123
1    -

left out for lack of width:
STATE, WIPES
"
        );
    }

    #[test]
    fn cells_are_broken_where_even_the_rest_does_not_fit() {
        let said = text(12);
        assert!(said.lines().all(|line| line.len() <= 12), "{said}");
        assert!(said.contains("CPU") && said.contains("OWNER"), "{said}");
    }
}
