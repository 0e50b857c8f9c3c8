//! Where a value stands: its origin for those who ask, and its place for those who have to mend it.
//!
//! Invariant: lines and columns count from 1, columns in characters. An excerpt is one line without control
//! characters, so that a file cannot write to the terminal what it likes.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Origin {
    /// Built in.
    Default,
    /// A line of the file.
    File {
        /// As it was given.
        path: String,
        /// From 1; 0 when the file as a whole is meant.
        line: u32,
        /// In characters, from 1; 0 when the file as a whole is meant.
        column: u32,
    },
    /// A variable of the environment.
    Env {
        /// `TIDEGATE_PROCESS_WORKERS`.
        name: String,
    },
    /// `--set` on the command line.
    Set {
        /// `process.workers=2`.
        text: String,
    },
}

impl Origin {
    /// The order in which errors are shown.
    pub(crate) fn rank(&self) -> (u8, u32, u32) {
        match self {
            Self::Default => (0, 0, 0),
            Self::File { line, column, .. } => (1, *line, *column),
            Self::Env { .. } => (2, 0, 0),
            Self::Set { .. } => (3, 0, 0),
        }
    }
}

impl fmt::Display for Origin {
    /// On one line, and without control characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0, .. } => f.write_str(&one_line(path)),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", one_line(path)),
            Self::Env { name } => f.write_str(&one_line(name)),
            Self::Set { text } => write!(f, "--set {}", one_line(text)),
        }
    }
}

/// An origin, and the line it is on.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) origin: Origin,
    pub(crate) excerpt: Option<Excerpt>,
}

/// A line of a file with a part of it marked.
#[derive(Clone, Debug)]
pub(crate) struct Excerpt {
    /// The line, or the part of a long one around the mark.
    pub(crate) text: String,
    /// Characters before the mark.
    pub(crate) indent: usize,
    /// Characters of the mark, at least 1.
    pub(crate) width: usize,
}

/// Where the values that are being read stand.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    Default,
    File(&'a FileText),
    Env(&'a str),
    Set(&'a str),
}

impl Source<'_> {
    /// The place of a range of the source. Only a file has lines.
    pub(crate) fn place(self, span: Range<usize>) -> Place {
        let origin = match self {
            Self::Default => Origin::Default,
            Self::File(file) => return file.place(span),
            Self::Env(name) => Origin::Env { name: name.to_owned() },
            Self::Set(text) => Origin::Set { text: text.to_owned() },
        };
        Place { origin, excerpt: None }
    }
}

/// A file in memory, with the start of every line.
#[derive(Debug)]
pub(crate) struct FileText {
    /// As it was given.
    pub(crate) path: String,
    pub(crate) text: String,
    /// In rising order, and the first is 0.
    line_starts: Vec<usize>,
}

impl FileText {
    pub(crate) fn new(path: String, text: String) -> Self {
        let after_newlines =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(idx, _)| idx + 1);
        let line_starts = std::iter::once(0).chain(after_newlines).collect();
        Self { path, text, line_starts }
    }

    /// The line that holds the offset, counted from 0.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// The offset and the text of the line that holds the offset, without its end.
    pub(crate) fn line_at(&self, offset: usize) -> (usize, &str) {
        let line = self.line(offset);
        let start = self.line_starts.get(line).copied().unwrap_or(0);
        let end = self.line_starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        (start, self.text.get(start..end).unwrap_or_default())
    }

    fn place(&self, span: Range<usize>) -> Place {
        // A parser that found the end too early points behind the newline, where there is nothing to show.
        let offset = span.start.min(self.text.trim_end_matches('\n').len());
        let line = self.line(offset);
        let (start, text) = self.line_at(offset);
        let end = start + text.len();
        let count = |from: usize, to: usize| self.text.get(from..to).map_or(0, |text| text.chars().count());
        let before = count(start, offset);
        let width = count(offset, span.end.clamp(offset, end)).max(1);
        Place {
            origin: Origin::File {
                path: self.path.clone(),
                line: number(line + 1),
                column: number(before + 1),
            },
            excerpt: Some(excerpt(text, before, width)),
        }
    }
}

/// A file of more lines than a `u32` counts is not read, see `file::MAX_FILE_BYTES`.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The line, cut to `EXCERPT` characters around the mark when it is longer.
fn excerpt(line: &str, before: usize, width: usize) -> Excerpt {
    let skip = if before + width > EXCERPT { before.saturating_sub(EXCERPT / 4) } else { 0 };
    let printable = |char: char| if char.is_control() { ' ' } else { char };
    let text: String = line.trim_end().chars().skip(skip).take(EXCERPT).map(printable).collect();
    let indent = before - skip;
    Excerpt { text, indent, width: width.min(EXCERPT - indent.min(EXCERPT - 1)) }
}

fn one_line(text: &str) -> String {
    let mut line: String =
        text.chars().take(EXCERPT).map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect();
    if text.chars().nth(EXCERPT).is_some() {
        line.push('…');
    }
    line
}

/// Characters of a line that are shown.
const EXCERPT: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, span: Range<usize>) -> (String, String, usize, usize) {
        let place = FileText::new("f".to_owned(), text.to_owned()).place(span);
        let excerpt = place.excerpt.unwrap();
        (place.origin.to_string(), excerpt.text, excerpt.indent, excerpt.width)
    }

    #[test]
    fn columns_are_characters() {
        assert_eq!(place("a = \"ä\"\nbü = 1\n", 9..12), ("f:2:1".to_owned(), "bü = 1".to_owned(), 0, 2));
        assert_eq!(place("ä = x", 5..6), ("f:1:5".to_owned(), "ä = x".to_owned(), 4, 1));
    }

    #[test]
    fn the_end_of_the_file_is_on_its_last_line() {
        assert_eq!(place("a =\n", 4..4), ("f:1:4".to_owned(), "a =".to_owned(), 3, 1));
        assert_eq!(place("", 0..0), ("f:1:1".to_owned(), String::new(), 0, 1));
    }

    #[test]
    fn a_mark_over_several_lines_ends_with_the_first() {
        assert_eq!(place("a = [\n1,\n]\n", 4..10), ("f:1:5".to_owned(), "a = [".to_owned(), 4, 1));
    }

    #[test]
    fn long_lines_are_cut_around_the_mark() {
        let (origin, text, indent, width) = place(&"x".repeat(1000), 500..999);
        assert_eq!((origin.as_str(), text.len(), indent, width), ("f:1:501", 120, 30, 90));
    }

    #[test]
    fn control_characters_are_not_shown() {
        assert_eq!(place("a\t= \u{1b}[31m\r\n", 4..5).1, "a =  [31m");
        assert_eq!(Origin::Set { text: "a=\n\u{1b}".to_owned() }.to_string(), "--set a=\u{fffd}\u{fffd}");
    }
}
