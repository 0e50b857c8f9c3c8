//! What is not TOML: the parser's complaints, made fit for people.
//!
//! Invariant: a line is complained of once, and lines whose meaning was lost with it are known, so that
//! nothing is said about values that nobody wrote.

use std::collections::BTreeSet;

use toml::de::Error;

use super::error::{ConfigError, Problem};
use super::kind::quote;
use super::origin::{FileText, Source};

/// What the parser could not read.
#[derive(Debug)]
pub(crate) struct Torn {
    pub(crate) errors: Vec<ConfigError>,
    /// Lines, counted from 0, that hold what the parser made up, or keys of a section whose head is lost.
    pub(crate) lines: BTreeSet<usize>,
}

/// Sorts out what the parser said of a file.
pub(crate) fn torn(file: &FileText, errors: &[Error]) -> Torn {
    let mut torn = Torn { errors: Vec::new(), lines: BTreeSet::new() };
    for error in errors {
        let span = error.span().unwrap_or_default();
        if torn.lines.insert(file.line(span.start)) {
            let problem = problem(file, span.start, error.message());
            torn.errors.push(ConfigError::new(Source::File(file).place(span), "", problem));
        }
    }
    let mut lost = false;
    for (idx, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with('[') {
            lost = torn.lines.contains(&idx);
        } else if lost {
            torn.lines.insert(idx);
        }
    }
    torn
}

/// The parser guesses from the first letter what a value without quotes was to be (`info`: a float); we know
/// that most often it was to be a string.
fn problem(file: &FileText, offset: usize, message: &str) -> Problem {
    let plain = || Problem::plain(format!("not TOML: {message}"));
    let (start, line) = file.line_at(offset);
    let Some((key, value)) = line.split_once('=').filter(|(key, _)| offset > start + key.len()) else {
        return plain();
    };
    let value = value.split('#').next().unwrap_or_default().trim();
    if value.is_empty() {
        Problem::plain(format!("not TOML: no value for {}", key.trim()))
    } else if is_bare(value) && !is_number(value) {
        Problem::plain("not TOML: a string needs quotes".to_owned()).near(Some(quote(value)))
    } else {
        plain()
    }
}

/// What people write without quotes: words, paths, addresses, durations.
fn is_bare(value: &str) -> bool {
    value.chars().all(|char| char.is_alphanumeric() || " -_./:+%,*".contains(char))
}

/// What was to be a number, and is a wrong one.
fn is_number(value: &str) -> bool {
    let has_radix = ["0x", "0o", "0b"].iter().any(|prefix| value.starts_with(prefix));
    has_radix || value.bytes().all(|byte| byte.is_ascii_digit() || b"_+-.".contains(&byte))
}
