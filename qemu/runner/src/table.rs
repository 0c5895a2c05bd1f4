//! Sets a table in columns.

/// Returns `rows` with columns as wide as they need to be: the first to the left, the others to the right where `right`.
pub(crate) fn render(rows: &[Vec<String>], right: bool) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let gap = " ".repeat(width - cell.chars().count());
            let parts = if right && column > 0 {
                [" ", &gap, cell]
            } else {
                [" ", cell, &gap]
            };
            line.extend(parts);
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn columns_are_aligned() {
        let rows =
            [["cpu", "0", "10"], ["traps", "123", "4"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(render(&rows, true), "  cpu     0 10\n  traps 123  4\n");
        assert_eq!(render(&rows, false), "  cpu   0   10\n  traps 123 4\n");
    }
}
