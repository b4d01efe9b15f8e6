//! Tables of text: aligned columns under headings, numbers to the right.

use std::fmt;

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table that is printed when it is full.
#[derive(Debug)]
pub(super) struct Table {
    alignments: Vec<Align>,
    rows: Vec<Row>,
}

#[derive(Debug)]
enum Row {
    Cells(Vec<String>),
    /// Over the whole width, whatever the columns.
    Line(String),
}

impl Table {
    /// A table with these headings.
    pub(super) fn new(columns: &[(&str, Align)]) -> Self {
        let headings = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        Self { alignments: columns.iter().map(|&(_, align)| align).collect(), rows: vec![Row::Cells(headings)] }
    }

    /// Adds a row, a cell a column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(Row::Cells(cells.into_iter().collect()));
    }

    /// Adds a line over the whole width.
    pub(super) fn line(&mut self, text: impl Into<String>) {
        self.rows.push(Row::Line(text.into()));
    }

    /// Puts a line over the headings.
    pub(super) fn put_first(&mut self, text: impl Into<String>) {
        self.rows.insert(0, Row::Line(text.into()));
    }

    /// Whether there is nothing but headings.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.alignments.len()];
        for row in &self.rows {
            let Row::Cells(cells) = row else { continue };
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            let line = match row {
                Row::Line(text) => text.clone(),
                Row::Cells(cells) => {
                    let columns = cells.iter().zip(&self.alignments).zip(&widths);
                    let pad = |((cell, align), &width): ((&String, &Align), &usize)| match align {
                        Align::Left => format!("{cell:<width$}"),
                        Align::Right => format!("{cell:>width$}"),
                    };
                    columns.map(pad).collect::<Vec<_>>().join("  ")
                }
            };
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// What a condition's cell says.
pub(super) fn or_any(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "any".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::Align::{Left, Right};
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("Port", Left), ("Packets", Right), ("Link", Left)]);
        assert!(table.is_empty());
        table.row(["wan".into(), "7".into(), "up".into()]);
        table.line("a line that is longer than all the columns together");
        table.row(["customer".into(), "12345678".into(), String::new()]);
        assert_eq!(
            table.to_string(),
            "Port       Packets  Link\n\
             wan              7  up\n\
             a line that is longer than all the columns together\n\
             customer  12345678\n"
        );
    }
}
