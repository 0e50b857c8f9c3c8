//! What is in effect: every key with its value and where that came from.
//!
//! Invariant: the text is a configuration file, and loading it gives the same values again.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value as Json;

use super::Config;
use super::build::label;
use super::kind::literal;
use super::origin::Origin;
use super::schema::{self, Key, SECTIONS, Section};

/// One key of the configuration that is in effect.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effective {
    /// As `--set` takes it: `"process.workers"`, `"listen.web.address"`. Fixed answers are counted:
    /// `"web.respond[0].path"`.
    pub key: String,
    /// A string, a number, a boolean or an array: what a file would say. A path that was left empty is the
    /// one it stands for.
    pub value: Json,
    /// Where the value came from.
    pub origin: Origin,
    /// Whether a reload applies a change of it; otherwise it needs a restart.
    pub reload: bool,
    /// What the key means.
    pub doc: &'static str,
}

impl Effective {
    /// The value in TOML.
    #[must_use]
    pub fn literal(&self) -> String {
        literal(&self.value)
    }
}

impl Config {
    /// Every key in the order of the file.
    ///
    /// # Errors
    ///
    /// When a path is not UTF-8, which one that was loaded never is.
    pub fn effective(&self) -> Result<Vec<Effective>, serde_json::Error> {
        let config = serde_json::to_value(self)?;
        Ok(SECTIONS
            .iter()
            .flat_map(|section| self.tables(section, &config))
            .flat_map(|table| table.keys)
            .collect())
    }

    /// The configuration in effect as a file, each value with a comment that says where it came from, and
    /// whether a reload applies a change of it.
    ///
    /// # Errors
    ///
    /// When a path is not UTF-8, which one that was loaded never is.
    pub fn to_toml(&self) -> Result<String, serde_json::Error> {
        let config = serde_json::to_value(self)?;
        let mut text = String::new();
        for section in SECTIONS {
            for table in self.tables(section, &config) {
                // Writing to a string does not fail.
                let _ = table.write(section, &mut text);
            }
            for array in SECTIONS.iter().filter(|array| array.rows.is_some()) {
                // An array without tables has to be said, or the one built in comes back.
                let (parent, name) = schema::split(array.path);
                if parent == section.path && self.tables(array, &config).is_empty() {
                    let _ = writeln!(text, "{name} = []");
                }
            }
        }
        Ok(text)
    }

    /// The tables of a section: one, or as many as an array has.
    fn tables(&self, section: &Section, config: &Json) -> Vec<Table> {
        let pointer = format!("/{}", section.path.replace('.', "/"));
        let found = if section.path.is_empty() { Some(config) } else { config.pointer(&pointer) };
        match found {
            Some(Json::Array(rows)) => {
                let label = |(idx, row): (usize, &Json)| label(section.path, idx, row["name"].as_str());
                let labels = rows.iter().enumerate().map(label);
                labels.zip(rows).map(|(label, row)| self.table(section, &label, row)).collect()
            }
            Some(table) => vec![self.table(section, section.path, table)],
            None => Vec::new(),
        }
    }

    fn table(&self, section: &Section, label: &str, values: &Json) -> Table {
        let key = |key: &'static Key| {
            let path =
                if label.is_empty() { key.name().to_owned() } else { format!("{label}.{}", key.name()) };
            let value = values.get(key.name())?.clone();
            let derived =
                if value == "" { schema::derived(key, &self.data_dir.to_string_lossy()) } else { None };
            Some(Effective {
                origin: self.origins.get(&path).cloned().unwrap_or(Origin::Default),
                key: path,
                value: derived.map_or(value, Json::from),
                reload: key.reload,
                doc: key.doc,
            })
        };
        Table { keys: schema::keys(section.path).filter_map(key).collect() }
    }
}

/// The keys of one table of the file.
struct Table {
    keys: Vec<Effective>,
}

impl Table {
    fn write(&self, section: &Section, text: &mut String) -> std::fmt::Result {
        match (section.path, section.rows) {
            ("", _) => {}
            (path, Some(_)) => writeln!(text, "\n[[{path}]]")?,
            (path, None) => writeln!(text, "\n[{path}]")?,
        }
        for key in &self.keys {
            let (_, name) = schema::split(&key.key);
            let reload = if key.reload { "reload" } else { "restart" };
            let setting = format!("{name} = {}", key.literal());
            writeln!(text, "{setting:<COMMENT_COLUMN$} # {}; {reload}", key.origin)?;
        }
        Ok(())
    }
}

/// Where comments begin, unless the value is longer.
const COMMENT_COLUMN: usize = 40;
