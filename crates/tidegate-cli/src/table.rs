//! `Table`: rows for people, written as they come.
//!
//! The one invariant: nothing that a cell says commands the terminal, and a table without colour has no escape sequence.
//! Columns are as wide as the widest cell so far, numbers stand to the right.

use std::fmt::Write as _;

use tidegate::log::Colour;

/// A table of `N` columns.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    head: [Column; N],
    widths: [usize; N],
    colour: Colour,
    is_begun: bool,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    title: &'static str,
    is_number: bool,
}

/// A column of words.
pub(crate) const fn word(title: &'static str) -> Column {
    Column { title, is_number: false }
}

/// A column of numbers.
pub(crate) const fn number(title: &'static str) -> Column {
    Column { title, is_number: true }
}

/// What stands in a row of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// How much a cell wants to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As all others.
    Plain,
    /// It will pass.
    Notice,
    /// Somebody should look.
    Alarm,
}

impl Cell {
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        number.to_string().into()
    }
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(head: [Column; N], colour: Colour) -> Self {
        Self { head, widths: head.map(|column| column.title.len()), colour, is_begun: false }
    }

    /// Adds rows to the text, below the head when they are the first.
    pub(crate) fn write(&mut self, rows: &[[Cell; N]], text: &mut String) {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        if !self.is_begun {
            self.is_begun = true;
            self.write_row(&self.head.map(|column| column.title.into()), text);
        }
        for row in rows {
            self.write_row(row, text);
        }
    }

    fn write_row(&self, row: &[Cell; N], text: &mut String) {
        let mut gap = 0;
        for ((cell, column), width) in row.iter().zip(&self.head).zip(&self.widths) {
            let padding = width - cell.text.chars().count();
            let (before, after) = if column.is_number { (padding, 0) } else { (0, padding) };
            if !cell.text.is_empty() {
                text.extend(std::iter::repeat_n(' ', gap + before));
                self.write_cell(cell, text);
                gap = after + SPACE;
            } else {
                gap += padding + SPACE;
            }
        }
        text.push('\n');
    }

    fn write_cell(&self, cell: &Cell, text: &mut String) {
        let clean = cell.text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char });
        let code = match (self.colour, cell.tone) {
            (Colour::Off, _) | (_, Tone::Plain) => return text.extend(clean),
            (Colour::On, Tone::Notice) => YELLOW,
            (Colour::On, Tone::Alarm) => RED,
        };
        // Writing to a String does not fail.
        let _ = write!(text, "\u{1b}[{code}m");
        text.extend(clean);
        text.push_str("\u{1b}[0m");
    }
}

/// Between columns.
const SPACE: usize = 2;
const YELLOW: &str = "33";
const RED: &str = "31";

#[cfg(test)]
mod tests {
    use super::*;

    fn row(process: &str, pid: u64) -> [Cell; 2] {
        [process.into(), pid.into()]
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut text = String::new();
        let mut table = Table::new([word("PROCESS"), number("PID")], Colour::Off);
        table.write(&[row("a", 5), row("worker 10", 12_345_678)], &mut text);
        assert_eq!(text, "PROCESS         PID\na                 5\nworker 10  12345678\n");
    }

    #[test]
    fn rows_that_come_later_keep_the_columns_and_repeat_no_head() {
        let mut text = String::new();
        let mut table = Table::new([word("ID"), number("AGE")], Colour::Off);
        table.write(&[row("1.2", 1)], &mut text);
        table.write(&[row("1", 22_222)], &mut text);
        assert_eq!(text, "ID   AGE\n1.2    1\n1    22222\n");
    }

    #[test]
    fn lines_end_with_their_last_cell() {
        let mut text = String::new();
        let mut table = Table::new([word("A"), number("B"), word("NOTE")], Colour::Off);
        table.write(&[["long".into(), "".into(), "".into()], ["".into(), 1.into(), "n".into()]], &mut text);
        assert_eq!(text, "A     B  NOTE\nlong\n      1  n\n");
    }

    #[test]
    fn colour_is_no_part_of_the_width_and_cells_cannot_command_the_terminal() {
        let cells = [Cell::toned("\u{1b}[2J", Tone::Alarm), Cell::toned("x", Tone::Notice)];
        let mut text = String::new();
        Table::new([word("A"), word("B")], Colour::On).write(std::slice::from_ref(&cells), &mut text);
        assert_eq!(text, "A     B\n\u{1b}[31m\u{fffd}[2J\u{1b}[0m  \u{1b}[33mx\u{1b}[0m\n");
        text.clear();
        Table::new([word("A"), word("B")], Colour::Off).write(&[cells], &mut text);
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
