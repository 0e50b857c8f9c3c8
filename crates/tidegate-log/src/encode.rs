//! Writes records: an event with its fields becomes one line of JSON.
//!
//! Whatever is logged, a finished line has at most [`MAX_LINE_BYTES`](crate::MAX_LINE_BYTES): body and attributes have a
//! budget each, in bytes as they stand in the line, and a text over it is cut at a character and marked. The buffers are
//! reused, so that a thread which logs does not allocate for it after its first records.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use jiff::Timestamp;
use serde_json::Value;
use tracing::field::{Field, Visit};

use crate::{Record, Severity};

/// What stands in a record besides body and attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) time: Timestamp,
    pub(crate) severity: Severity,
    pub(crate) target: &'a str,
    /// The resource as a JSON object.
    pub(crate) resource: &'a str,
}

/// The buffers in which a line is made. Each thread that logs has one.
#[derive(Debug)]
pub(crate) struct Encoder {
    body: Bounded,
    attributes: Attributes,
    line: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { body: Bounded::new(BODY_BYTES), attributes: Attributes::new(), line: Vec::new() }
    }

    /// Begins a record.
    pub(crate) fn start(&mut self) -> &mut Self {
        self.body.clear();
        self.attributes.clear();
        self
    }

    /// Adds attributes as [`Attributes::encoded`] returned them, as far as the budget goes.
    pub(crate) fn inherit(&mut self, encoded: &[u8]) {
        self.attributes.append(encoded);
    }

    /// The record without its end: [`finish_line`] adds the sequence number.
    pub(crate) fn line(&mut self, head: &Head<'_>) -> &[u8] {
        self.line.clear();
        let attributes = self.attributes.encoded();
        envelope(&mut self.line, head, (&self.body.text, self.body.cut), attributes);
        &self.line
    }
}

/// The fields of an event: `message` is the body, all others are attributes.
impl Visit for Encoder {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == BODY_FIELD {
            self.body.format(format_args!("{value:?}"));
        } else {
            self.attributes.record_debug(field, value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == BODY_FIELD {
            self.body.format(format_args!("{value}"));
        } else {
            self.attributes.record_str(field, value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.attributes.record_i64(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.attributes.record_u64(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.attributes.record_f64(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.attributes.record_bool(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.attributes.record_error(field, value);
    }
}

/// The members of a JSON object, without the braces.
#[derive(Debug)]
pub(crate) struct Attributes {
    members: Vec<u8>,
    text: Bounded,
    cut: u32,
}

impl Attributes {
    pub(crate) const fn new() -> Self {
        Self { members: Vec::new(), text: Bounded::new(ATTRIBUTE_BYTES), cut: 0 }
    }

    /// The members so far, separated by commas.
    pub(crate) fn encoded(&mut self) -> &[u8] {
        let cut = std::mem::take(&mut self.cut);
        if cut > 0 {
            // The budget leaves room for this.
            self.comma();
            push_json(&mut self.members, &format_args!("\"attributes_cut\":{cut}"));
        }
        &self.members
    }

    fn clear(&mut self) {
        self.members.clear();
        self.cut = 0;
    }

    fn append(&mut self, encoded: &[u8]) {
        if encoded.is_empty() {
            return;
        }
        if self.members.len() + encoded.len() > ATTRIBUTES_BYTES {
            self.cut += 1;
            return;
        }
        self.comma();
        self.members.extend_from_slice(encoded);
    }

    fn comma(&mut self) {
        if !self.members.is_empty() {
            self.members.push(b',');
        }
    }

    /// Writes the name of a member; false when the budget is used up.
    fn begin(&mut self, name: &str) -> bool {
        if self.members.len() + NAME_BYTES + VALUE_LEAST_BYTES > ATTRIBUTES_BYTES {
            self.cut += 1;
            return false;
        }
        self.comma();
        // A raw identifier as a field name is written with its prefix.
        push_text(&mut self.members, name.strip_prefix("r#").unwrap_or(name), false, NAME_BYTES);
        self.members.push(b':');
        true
    }

    fn number(&mut self, name: &str, number: fmt::Arguments<'_>) {
        if self.begin(name) {
            push_json(&mut self.members, &number);
        }
    }

    fn formatted(&mut self, name: &str, value: fmt::Arguments<'_>) {
        if self.begin(name) {
            self.text.clear();
            self.text.format(value);
            let room = (ATTRIBUTES_BYTES - self.members.len()).min(ATTRIBUTE_BYTES);
            push_text(&mut self.members, &self.text.text, self.text.cut, room);
        }
    }
}

impl Visit for Attributes {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.formatted(field.name(), format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.formatted(field.name(), format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field.name(), format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field.name(), format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for what is not finite.
        if value.is_finite() {
            self.number(field.name(), format_args!("{value:?}"));
        } else {
            self.formatted(field.name(), format_args!("{value}"));
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field.name(), format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.formatted(field.name(), format_args!("{}", Chain(value)));
    }
}

/// An error with its sources, as `bind 0.0.0.0:80: permission denied`.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        // A cycle of sources would be a bug of the error type, and not a reason to hang.
        std::iter::successors(self.0.source(), |error| error.source())
            .take(16)
            .try_for_each(|error| write!(f, ": {error}"))
    }
}

/// A text that takes no more than its limit, and says whether it was given more.
#[derive(Debug)]
struct Bounded {
    text: String,
    max_bytes: usize,
    cut: bool,
}

impl Bounded {
    const fn new(max_bytes: usize) -> Self {
        Self { text: String::new(), max_bytes, cut: false }
    }

    fn clear(&mut self) {
        self.text.clear();
        self.cut = false;
    }

    fn format(&mut self, value: fmt::Arguments<'_>) {
        // An error means: the limit was reached (which is remembered), or the value's own formatting failed, and then what
        // it wrote before is all there is to say.
        if self.write_fmt(value).is_err() {
            self.cut = true;
        }
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.max_bytes - self.text.len();
        if part.len() <= room {
            self.text.push_str(part);
            return Ok(());
        }
        self.text.push_str(&part[..char_boundary(part, room)]);
        self.cut = true;
        Err(fmt::Error)
    }
}

/// Makes a record that no event stands behind. It lacks its end, as those of [`Encoder::line`].
pub(crate) fn notice(head: &Head<'_>, body: &str, attributes: &[(&str, Value)]) -> Vec<u8> {
    let mut members = Attributes::new();
    for (name, value) in attributes {
        match value {
            Value::String(text) => members.formatted(name, format_args!("{text}")),
            other => members.formatted_json(name, other),
        }
    }
    let mut line = Vec::new();
    envelope(&mut line, head, (body, false), members.encoded());
    line
}

impl Attributes {
    /// A value of any shape: as it is when it fits, as the beginning of its text otherwise.
    fn formatted_json(&mut self, name: &str, value: &Value) {
        let text = value.to_string();
        let room = ATTRIBUTES_BYTES.saturating_sub(self.members.len() + NAME_BYTES).min(ATTRIBUTE_BYTES);
        if text.len() <= room.max(VALUE_LEAST_BYTES) {
            self.number(name, format_args!("{text}"));
        } else {
            self.formatted(name, format_args!("{text}"));
        }
    }
}

/// Writes a parsed record again; longer parts than a record may have are cut.
pub(crate) fn record_line(record: &Record) -> Vec<u8> {
    let resource = resource_json(&record.resource);
    let head =
        Head { time: record.time, severity: record.severity, target: &record.target, resource: &resource };
    let attributes: Vec<_> =
        record.attributes.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let mut line = notice(&head, &record.body, &attributes);
    finish_line(&mut line, record.seq);
    line
}

/// The resource as a JSON object.
pub(crate) fn resource_json(resource: &crate::Resource) -> String {
    serde_json::to_string(resource).expect("a struct of strings and numbers has a JSON form")
}

/// Ends a line that [`Encoder::line`] or [`notice`] began.
pub(crate) fn finish_line(line: &mut Vec<u8>, seq: u64) {
    push_json(line, &format_args!(",\"seq\":{seq}}}\n"));
}

fn envelope(line: &mut Vec<u8>, head: &Head<'_>, (body, cut): (&str, bool), attributes: &[u8]) {
    let (name, number) = (head.severity.name(), head.severity.number());
    push_json(line, &format_args!("{{\"time\":\"{:.9}\",\"severity\":\"{name}\",", head.time));
    push_json(line, &format_args!("\"severity_number\":{number},\"target\":"));
    push_text(line, head.target, false, NAME_BYTES);
    line.extend_from_slice(b",\"body\":");
    push_text(line, body, cut, BODY_BYTES);
    line.extend_from_slice(b",\"attributes\":{");
    line.extend_from_slice(attributes);
    line.extend_from_slice(b"},\"resource\":");
    line.extend_from_slice(head.resource.as_bytes());
}

/// Appends what is JSON already.
fn push_json(line: &mut Vec<u8>, json: &dyn fmt::Display) {
    write!(line, "{json}").expect("writing to a vector does not fail");
}

/// Appends a JSON string of at most `max_bytes`, quotes included. A text that is longer, or of which the caller has `cut`
/// something already, ends with the mark.
fn push_text(line: &mut Vec<u8>, text: &str, cut: bool, max_bytes: usize) {
    let room = max_bytes - 2;
    // No character takes more than six times its bytes when it is escaped.
    let fits = !cut && (text.len() <= room / 6 || escaped_bytes(text) <= room);
    if fits {
        serde_json::to_writer(&mut *line, text).expect("writing to a vector does not fail");
        return;
    }
    let mut left = room - CUT_MARK.len();
    let end = text.char_indices().find_map(|(index, char)| {
        let bytes = escaped_char_bytes(char);
        if bytes > left {
            return Some(index);
        }
        left -= bytes;
        None
    });
    serde_json::to_writer(&mut *line, &text[..end.unwrap_or(text.len())])
        .expect("writing to a vector does not fail");
    line.pop();
    line.extend_from_slice(CUT_MARK.as_bytes());
    line.push(b'"');
}

/// The last end of a character at or before the index.
pub(crate) fn char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0)
}

fn escaped_bytes(text: &str) -> usize {
    text.chars().map(escaped_char_bytes).sum()
}

const fn escaped_char_bytes(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => char.len_utf8(),
    }
}

/// The field of an event that holds its text, as `tracing` names it.
const BODY_FIELD: &str = "message";
/// What stands where a text was cut.
const CUT_MARK: &str = "…[cut]";
/// The budget of the body.
const BODY_BYTES: usize = 30 << 10;
/// The budget of all attributes together; the note that some were cut comes on top.
const ATTRIBUTES_BYTES: usize = 28 << 10;
/// The budget of one attribute.
const ATTRIBUTE_BYTES: usize = 16 << 10;
/// The budget of a name: of an attribute, or the target.
const NAME_BYTES: usize = 256;
/// An attribute is begun only when there is room for this much of its value; every number fits.
const VALUE_LEAST_BYTES: usize = 400;

// The rest of the line is names of fields, a time, numbers and a resource of at most 128 characters.
const _: () = assert!(BODY_BYTES + ATTRIBUTES_BYTES + NAME_BYTES + 2048 < crate::MAX_LINE_BYTES);

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
