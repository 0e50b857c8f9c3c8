//! A record as one line for people.
//!
//! ```text
//! 2026-01-31T23:59:59.123Z INFO  worker 0[4711] tidegate_web: listening address=127.0.0.1:8080
//! ```
//!
//! What a record says never reaches the terminal as a control sequence: control characters are shown by their number. A
//! text of several lines, as a hex dump, follows indented below.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{Record, Severity};

/// Whether the text is coloured by ANSI sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// As a file wants it.
    Off,
    /// As a terminal wants it.
    On,
}

/// Appends a stored line in the form for people, newline included. A line that is no record is shown as it is.
///
/// ```
/// use tidegate_log::{Colour, render};
/// let line = br#"{"time":"2026-01-31T23:59:59Z","severity":"WARN","target":"a","body":"late","attributes":{"by":3}}"#;
/// let mut text = String::new();
/// render(line, Colour::Off, &mut text);
/// assert_eq!(text, "2026-01-31T23:59:59.000Z WARN  a: late by=3\n");
/// ```
pub fn render(line: &[u8], colour: Colour, out: &mut String) {
    match Record::parse(line) {
        Ok(record) => render_record(&record, colour, out),
        Err(_) => {
            push_clean(&String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)), out);
            out.push('\n');
        }
    }
}

/// Appends what a stored line says without who says it and when, newline included: the lines of an access log for programs
/// that read such. Several lines stay several; a line that is no record is shown as it is.
///
/// ```
/// use tidegate_log::render_body;
/// let line = br#"{"time":"2026-01-31T23:59:59Z","severity":"INFO","body":"192.0.2.1 - -","attributes":{"by":3}}"#;
/// let mut text = String::new();
/// render_body(line, &mut text);
/// assert_eq!(text, "192.0.2.1 - -\n");
/// ```
pub fn render_body(line: &[u8], out: &mut String) {
    let Ok(record) = Record::parse(line) else { return render(line, Colour::Off, out) };
    for line in record.body.lines() {
        push_clean(line, out);
        out.push('\n');
    }
}

/// Appends a record in the form for people, newline included.
pub fn render_record(record: &Record, colour: Colour, out: &mut String) {
    let paint = Paint { on: colour == Colour::On };
    paint.put(DIM, out, |out| push(out, format_args!("{:.3}", record.time)));
    out.push(' ');
    paint.put(severity_colour(record.severity), out, |out| push(out, format_args!("{:5}", record.severity)));
    if !record.resource.process.is_empty() {
        out.push(' ');
        push_clean(&record.resource.process, out);
        push(out, format_args!("[{}]", record.resource.pid));
    }
    if !record.target.is_empty() {
        out.push(' ');
        paint.put(DIM, out, |out| {
            push_clean(&record.target, out);
            out.push(':');
        });
    }
    let mut blocks = Vec::new();
    push_text("body", &record.body, &mut blocks, |text| {
        if !text.is_empty() {
            out.push(' ');
            push_clean(text, out);
        }
    });
    for (name, value) in &record.attributes {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        push_text(name, &text, &mut blocks, |text| {
            out.push(' ');
            paint.put(NAME, out, |out| push_clean(name, out));
            out.push('=');
            push_value(text, out);
        });
    }
    out.push('\n');
    for (name, text) in blocks {
        push(out, format_args!("    {}\n", Clean(name)));
        for line in text.lines() {
            push(out, format_args!("        {}\n", Clean(line)));
        }
    }
}

/// Puts a text of one line into the line, and one of several aside.
fn push_text<'a>(name: &'a str, text: &str, blocks: &mut Vec<(&'a str, String)>, inline: impl FnOnce(&str)) {
    if text.contains('\n') {
        blocks.push((name, text.to_owned()));
    } else {
        inline(text);
    }
}

/// A value with spaces or quotes in it is quoted, so that one sees where it ends.
fn push_value(text: &str, out: &mut String) {
    let plain = !text.is_empty() && !text.contains(|char: char| char.is_whitespace() || char == '"');
    if plain {
        push_clean(text, out);
    } else {
        push(out, format_args!("\"{}\"", Clean(&text.replace('"', "\\\""))));
    }
}

fn push_clean(text: &str, out: &mut String) {
    push(out, format_args!("{}", Clean(text)));
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string does not fail");
}

/// A text without its control characters, and without those that turn the direction of writing.
struct Clean<'a>(&'a str);

impl std::fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(is_unsafe) {
            let (clean, tail) = rest.split_at(at);
            f.write_str(clean)?;
            let Some(char) = tail.chars().next() else { break };
            write!(f, "{}", char.escape_unicode())?;
            rest = &tail[char.len_utf8()..];
        }
        f.write_str(rest)
    }
}

fn is_unsafe(char: char) -> bool {
    (char.is_control() && char != '\t') || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

struct Paint {
    on: bool,
}

impl Paint {
    fn put(&self, code: &str, out: &mut String, text: impl FnOnce(&mut String)) {
        if !self.on {
            return text(out);
        }
        push(out, format_args!("\u{1b}[{code}m"));
        text(out);
        out.push_str("\u{1b}[0m");
    }
}

const fn severity_colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Trace => "35",
        Severity::Debug => "34",
        Severity::Info => "32",
        Severity::Warn => "33",
        Severity::Error => "31",
        Severity::Fatal => "1;31",
    }
}

const DIM: &str = "2";
const NAME: &str = "36";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let mut text = String::new();
        render(line.as_bytes(), Colour::Off, &mut text);
        assert_eq!(text, expected);
    }

    #[test]
    fn process_target_body_and_attributes_are_in_one_line() {
        check(
            r#"{"time":"2026-01-31T23:59:59.123456789Z","severity":"INFO","target":"t","body":"hello","attributes":{"a":"x y","b":1,"c":"","d":true},"resource":{"process":"worker 0","pid":7},"seq":1}"#,
            "2026-01-31T23:59:59.123Z INFO  worker 0[7] t: hello a=\"x y\" b=1 c=\"\" d=true\n",
        );
        check("no record\n", "no record\n");
    }

    #[test]
    fn several_lines_follow_indented() {
        check(
            r#"{"time":"2026-01-31T23:59:59Z","severity":"DEBUG","body":"got","attributes":{"dump":"0000  00\n0010  01"}}"#,
            "2026-01-31T23:59:59.000Z DEBUG got\n    dump\n        0000  00\n        0010  01\n",
        );
    }

    #[test]
    fn a_record_cannot_command_the_terminal() {
        check(
            "{\"time\":\"2026-01-31T23:59:59Z\",\"severity\":\"ERROR\",\"body\":\"\\u001b[2J\\u009b\\u202eé\"}",
            "2026-01-31T23:59:59.000Z ERROR \\u{1b}[2J\\u{9b}\\u{202e}é\n",
        );
        check("\u{1b}c", "\\u{1b}c\n");
    }

    #[test]
    fn colours_are_only_there_when_wanted() {
        let line = br#"{"time":"2026-01-31T23:59:59Z","severity":"ERROR","body":"b"}"#;
        let mut text = String::new();
        render(line, Colour::On, &mut text);
        assert_eq!(text, "\u{1b}[2m2026-01-31T23:59:59.000Z\u{1b}[0m \u{1b}[31mERROR\u{1b}[0m b\n");
    }
}
