//! What is wrong with a configuration: all of it, each with its place.
//!
//! Invariant: a `ConfigErrors` holds at least one error, in the order of the file, then the variables, then
//! `--set`. It renders itself for people and for programs, and prints nothing.

use std::fmt;
use std::ops::Range;

use serde_json::{Value as Json, json};

use super::origin::{Excerpt, Origin, Place};

/// Everything that is wrong with a configuration.
///
/// Its `Display` is what a terminal should show: per error one line with the place, and below it the line of
/// the file with what is meant underlined.
#[derive(Debug)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    /// Further errors that were counted only.
    left_out: usize,
}

impl ConfigErrors {
    pub(crate) fn new(mut errors: Vec<ConfigError>, left_out: usize) -> Self {
        // Stable: what has no place of its own stays in the order in which it was found.
        errors.sort_by_key(|error| error.place.origin.rank());
        Self { errors, left_out }
    }

    /// The errors, in the order of their places. Never empty; at most 500, the rest is counted.
    #[must_use]
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }

    /// For programs: `[{"source", "file", "line", "column", "key", "message", "nearest", "allowed"}, …]`;
    /// what does not apply is `null`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        self.errors.iter().map(ConfigError::to_json).collect()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (idx, error) in self.errors.iter().enumerate() {
            if idx > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        if self.left_out > 0 {
            write!(f, "\nand {} more errors", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One thing that is wrong.
#[derive(Debug)]
pub struct ConfigError {
    place: Place,
    key: String,
    problem: Problem,
}

impl ConfigError {
    pub(crate) fn new(place: Place, key: impl Into<String>, problem: Problem) -> Self {
        Self { place, key: key.into(), problem }
    }

    /// Where the value came from, with line and column when that is a file.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.place.origin
    }

    /// The path of the key, as `--set` takes it: `"process.workers"`. Empty when the error is not one of a
    /// key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong, in one sentence without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.problem.message
    }

    /// What was probably meant.
    #[must_use]
    pub fn nearest(&self) -> Option<&str> {
        self.problem.nearest.as_deref()
    }

    /// What is allowed.
    #[must_use]
    pub fn allowed(&self) -> Option<&str> {
        self.problem.allowed.as_deref()
    }

    /// One element of [`ConfigErrors::to_json`].
    #[must_use]
    pub fn to_json(&self) -> Json {
        let origin = self.origin();
        let (file, position) = match origin {
            Origin::File { path, line, column } => (Some(path), (*line > 0).then_some((*line, *column))),
            _ => (None, None),
        };
        json!({
            "source": origin.to_string(),
            "file": file,
            "line": position.map(|(line, _)| line),
            "column": position.map(|(_, column)| column),
            "key": (!self.key.is_empty()).then_some(&self.key),
            "message": self.problem.message,
            "nearest": self.problem.nearest,
            "allowed": self.problem.allowed,
        })
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place.origin)?;
        if self.problem.names_key && !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem.message)?;
        if let Some(nearest) = &self.problem.nearest {
            write!(f, "; did you mean {nearest}?")?;
        }
        if let Some(allowed) = &self.problem.allowed {
            write!(f, " (allowed: {allowed})")?;
        }
        match (&self.place.excerpt, &self.place.origin) {
            (Some(excerpt), Origin::File { line, .. }) => write_excerpt(f, excerpt, *line),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// What is wrong, without the place and the key.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) message: String,
    nearest: Option<String>,
    allowed: Option<String>,
    /// Whether the key is to be written before the message, which does not name it.
    names_key: bool,
    /// The part of the value that is meant, when it is not all of it.
    part: Option<Part>,
}

/// A part of a value.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) span: Range<usize>,
    /// What follows the key: `[1].status`.
    pub(crate) label: String,
}

impl Problem {
    /// What is wrong with the value of a key.
    pub(crate) const fn new(message: String) -> Self {
        Self { message, nearest: None, allowed: None, names_key: true, part: None }
    }

    /// What is wrong when the message says itself with what.
    pub(crate) const fn plain(message: String) -> Self {
        Self { message, nearest: None, allowed: None, names_key: false, part: None }
    }

    /// What a later version will serve.
    pub(crate) fn not_yet(what: &str) -> Self {
        Self::new(format!("{what} is not yet supported"))
    }

    /// What is wrong with a part of the value.
    pub(crate) fn within(self, part: &str) -> Self {
        Self { message: format!("{part}: {}", self.message), ..self }
    }

    /// As [`allowed`](Self::allowed), unless it is said already.
    pub(crate) fn or_allowed(self, allowed: impl FnOnce() -> String) -> Self {
        Self { allowed: self.allowed.or_else(|| Some(allowed())), ..self }
    }

    pub(crate) fn near(self, nearest: Option<String>) -> Self {
        Self { nearest, ..self }
    }

    /// The same, of a part of the value; the innermost one is what stays.
    pub(crate) fn inside(self, span: Range<usize>, label: &str) -> Self {
        let part = match self.part {
            Some(inner) => Part { span: inner.span, label: format!("{label}{}", inner.label) },
            None => Part { span, label: label.to_owned() },
        };
        Self { part: Some(part), ..self }
    }

    /// Whether it is about a part of the value, of which it says itself what is allowed.
    pub(crate) const fn is_placed(&self) -> bool {
        self.part.is_some()
    }

    pub(crate) fn take_part(&mut self) -> Option<Part> {
        self.part.take()
    }

    pub(crate) fn allowed(self, allowed: String) -> Self {
        Self { allowed: Some(allowed), ..self }
    }
}

/// The line of the file, and carets under what is meant.
fn write_excerpt(f: &mut fmt::Formatter<'_>, excerpt: &Excerpt, line: u32) -> fmt::Result {
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    let margin = " ".repeat(excerpt.indent);
    let carets = "^".repeat(excerpt.width);
    write!(f, "\n{number} | {}\n{gutter} | {margin}{carets}", excerpt.text)
}
