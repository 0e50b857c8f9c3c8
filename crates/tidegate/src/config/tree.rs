//! The values collected from all sources, each with its place, before they become a `Config`.
//!
//! Invariant: every key is here at most once, with the value of the last source that had it. A key of which a
//! value was refused is `broken`: rules that involve it are not checked, so that one mistake is one error.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::origin::Place;

/// A canonical value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) value: Json,
    pub(crate) place: Place,
}

/// One element of an array of tables.
#[derive(Debug)]
pub(crate) struct Row {
    /// By the name within the row: `"address"`.
    settings: BTreeMap<&'static str, Setting>,
    broken: BTreeSet<&'static str>,
    /// The head of the table.
    pub(crate) place: Place,
}

impl Row {
    pub(crate) const fn new(place: Place) -> Self {
        Self { settings: BTreeMap::new(), broken: BTreeSet::new(), place }
    }

    pub(crate) fn set(&mut self, name: &'static str, setting: Option<Setting>) {
        match setting {
            Some(setting) => {
                self.settings.insert(name, setting);
            }
            None => {
                self.broken.insert(name);
            }
        }
    }

    /// The setting, unless a value of it was refused.
    pub(crate) fn get(&self, name: &str) -> Option<&Setting> {
        self.settings.get(name).filter(|_| !self.broken.contains(name))
    }

    /// The text of a setting, `None` also where there is none.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|setting| setting.value.as_str())
    }

    /// Whether nothing was said about the name, right or wrong.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        !self.settings.contains_key(name) && !self.broken.contains(name)
    }

    pub(crate) fn settings(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        self.settings.iter().map(|(name, setting)| (*name, setting))
    }
}

/// All values.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// By path; keys of arrays are in `rows`.
    settings: BTreeMap<&'static str, Setting>,
    broken: BTreeSet<&'static str>,
    /// By the path of the section.
    rows: BTreeMap<&'static str, Vec<Row>>,
}

impl Tree {
    pub(crate) fn set(&mut self, path: &'static str, setting: Option<Setting>) {
        match setting {
            Some(setting) => {
                self.settings.insert(path, setting);
            }
            None => {
                self.broken.insert(path);
            }
        }
    }

    /// The setting, unless a value of it was refused.
    pub(crate) fn get(&self, path: &str) -> Option<&Setting> {
        self.settings.get(path).filter(|_| !self.broken.contains(path))
    }

    /// The text of a setting, `None` also where it was refused.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.get(path).and_then(|setting| setting.value.as_str())
    }

    pub(crate) fn settings(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        self.settings.iter().map(|(path, setting)| (*path, setting))
    }

    pub(crate) fn rows(&self, section: &str) -> &[Row] {
        self.rows.get(section).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn rows_mut(&mut self, section: &'static str) -> &mut Vec<Row> {
        self.rows.entry(section).or_default()
    }

    /// The listener of a name, by its position.
    pub(crate) fn row_named(&self, section: &str, name: &str) -> Option<usize> {
        self.rows(section).iter().position(|row| row.text("name") == Some(name))
    }
}
