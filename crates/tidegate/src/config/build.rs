//! From the checked values to the typed `Config`, by way of its own JSON.
//!
//! Invariant: a tree without errors builds. The JSON is the one that the master hands to its children, so the
//! two ways into a `Config` cannot differ.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value as Json};

use super::Config;
use super::origin::Origin;
use super::schema::{LISTEN, SECTIONS, split};
use super::tree::{Row, Tree};

pub(crate) fn build(tree: &Tree, file: Option<PathBuf>) -> Result<Config, serde_json::Error> {
    let mut root = Map::new();
    let mut origins = BTreeMap::new();
    for (path, setting) in tree.settings() {
        let (section, name) = split(path);
        table(&mut root, section).insert(name.to_owned(), setting.value.clone());
        note(&mut origins, path.to_owned(), &setting.place.origin);
    }
    for section in SECTIONS.iter().filter(|section| section.rows.is_some()) {
        let rows = tree.rows(section.path);
        for (idx, row) in rows.iter().enumerate() {
            let label = label(section.path, idx, row.text("name"));
            for (name, setting) in row.settings() {
                note(&mut origins, format!("{label}.{name}"), &setting.place.origin);
            }
        }
        let (parent, name) = split(section.path);
        table(&mut root, parent).insert(name.to_owned(), rows.iter().map(object).collect());
    }
    let mut config: Config = serde_json::from_value(Json::Object(root))?;
    config.origins = origins;
    config.file = file;
    Ok(config)
}

/// How the keys of a row are called outside: `listen.web` by its name, `web.respond[0]` by its position.
pub(crate) fn label(section: &str, idx: usize, name: Option<&str>) -> String {
    match name {
        Some(name) if section == LISTEN => format!("{section}.{name}"),
        _ => format!("{section}[{idx}]"),
    }
}

/// Remembers an origin that is not the default.
fn note(origins: &mut BTreeMap<String, Origin>, key: String, origin: &Origin) {
    if *origin != Origin::Default {
        origins.insert(key, origin.clone());
    }
}

fn object(row: &Row) -> Json {
    Json::Object(row.settings().map(|(name, setting)| (name.to_owned(), setting.value.clone())).collect())
}

/// The table of a section, made when it is not there. A section is never also a key, which a test shows.
fn table<'a>(root: &'a mut Map<String, Json>, section: &str) -> &'a mut Map<String, Json> {
    if section.is_empty() {
        return root;
    }
    let entry = root.entry(section).or_insert_with(|| Json::Object(Map::new()));
    if !entry.is_object() {
        *entry = Json::Object(Map::new());
    }
    entry.as_object_mut().expect("made an object just above")
}
