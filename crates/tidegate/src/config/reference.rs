//! The tables of docs/configuration.md, written from the table of keys.
//!
//! Invariant: the file holds exactly this text between its two marks, which a test shows.

use std::fmt::Write as _;

use super::overlay::env_name;
use super::schema::{Default as DefaultValue, KEYS, Key, Now, SECTIONS, Section, keys};

/// Every key with its meaning, default, limits and whether a reload applies it: one Markdown table per
/// section.
#[must_use]
pub fn reference() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        // Writing to a string does not fail.
        let _ = write_section(&mut text, section);
    }
    text
}

/// The paths of all keys in the order of the file, each followed by those of the fields that its value has:
/// `"web.site.hsts"`, `"web.site.hsts.max_age"`. Whether a reload applies a change stands beside each.
pub fn key_paths() -> impl Iterator<Item = (String, bool)> {
    KEYS.iter().flat_map(|key| {
        let field = move |field: &str| (format!("{}.{field}", key.path), key.reload);
        let fields = key.kind.field_names().into_iter().map(field);
        std::iter::once((key.path.to_owned(), key.reload)).chain(fields)
    })
}

fn write_section(text: &mut String, section: &Section) -> std::fmt::Result {
    match (section.path, section.rows) {
        ("", _) => writeln!(text, "### The top of the file\n")?,
        (path, Some(max)) => {
            writeln!(
                text,
                "### `[[{path}]]`\n\n{} At most {max}. Variable of the whole array: `{}`.\n",
                section.doc,
                env_name(path)
            )?;
        }
        (path, None) => writeln!(text, "### `[{path}]`\n\n{}\n", section.doc)?,
    }
    writeln!(text, "| key | default | allowed | applied by | meaning |\n|---|---|---|---|---|")?;
    for key in keys(section.path) {
        let reload = if key.reload { "reload" } else { "restart" };
        let meaning = cell(&format!("{}{}", key.doc, not_yet(key)));
        writeln!(
            text,
            "| `{}` | {} | {} | {reload} | {meaning} |",
            key.name(),
            default(key),
            cell(&key.kind.allowed(&[], &[]))
        )?;
    }
    writeln!(text)
}

fn default(key: &Key) -> String {
    match key.default {
        DefaultValue::Value(text) => format!("`{text}`"),
        DefaultValue::Derived(text) => format!("`\"\"`: `{text}`"),
        DefaultValue::Required => "required".to_owned(),
        DefaultValue::Absent => "none".to_owned(),
    }
}

/// Which of the allowed values are of a later version.
fn not_yet(key: &Key) -> String {
    match key.now {
        Now::All => String::new(),
        Now::Except(literals) => format!(" **Not yet**: {}.", codes(literals)),
    }
}

fn codes(literals: &[&str]) -> String {
    let codes: Vec<String> = literals.iter().map(|literal| format!("`{literal}`")).collect();
    codes.join(", ")
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
