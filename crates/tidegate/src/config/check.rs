//! The rules that involve more than one value, or the file system.
//!
//! Invariant: a rule is checked on the final values, and only when all that it involves are right, so that
//! one mistake is one error. Nothing is created or changed.

mod engine;
mod exposed;
mod listen;
mod web;

use std::collections::HashMap;

use super::error::Problem;
use super::kind::quote;
use super::load::Loader;
use super::origin::Place;
use super::schema::{self, Default as DefaultValue, KEYS, LISTEN, RESPOND, SECTIONS};
use super::tree::{Row, Tree};
use super::units::ByteSize;
use super::value::UNIX_PATH_MAX;

/// Checks what has been collected from all sources.
pub(crate) fn check(loader: &mut Loader) {
    // What was lost with the lines that are not TOML may be what a rule would miss.
    if loader.torn {
        return;
    }
    let mut found = missing(&loader.tree);
    loader.fill_rows();
    engine::resolve(&mut loader.tree);
    let tree = &loader.tree;
    found.extend(duplicates(tree, LISTEN, "name", |_| true));
    found.extend(duplicates(tree, LISTEN, "address", |address| !address.ends_with(":0")));
    found.extend(duplicates(tree, RESPOND, "path", |_| true));
    found.extend(bodies(tree));
    found.extend(folders(tree));
    found.extend(paths(tree));
    found.extend(sizes(tree));
    found.extend(listen::options(tree));
    found.extend(web::rules(tree));
    found.extend(exposed::secrets(tree));
    found.extend(engine::combinations(tree));
    found.extend(engine::processors(tree));
    for Finding { place, key, problem } in found {
        loader.error(place, key, problem);
    }
}

/// An error that is not yet in the loader.
struct Finding {
    place: Place,
    key: String,
    problem: Problem,
}

impl Finding {
    fn new(place: &Place, key: impl Into<String>, message: String) -> Self {
        Self { place: place.clone(), key: key.into(), problem: Problem::new(message) }
    }
}

/// Required keys that a row does not have.
fn missing(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for section in SECTIONS {
        for (idx, row) in tree.rows(section.path).iter().enumerate() {
            let required =
                schema::keys(section.path).filter(|key| matches!(key.default, DefaultValue::Required));
            for key in required.filter(|key| row.lacks(key.name())) {
                let path = format!("{}[{idx}].{}", section.path, key.name());
                let mut finding = Finding::new(&row.place, path, "missing".to_owned());
                finding.problem = finding.problem.allowed(key.allowed(&[]));
                found.push(finding);
            }
        }
    }
    found
}

/// Rows that share a value that has to be unique.
fn duplicates(tree: &Tree, section: &str, name: &str, counts: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut first: HashMap<&str, usize> = HashMap::new();
    let mut found = Vec::new();
    for (idx, row) in tree.rows(section).iter().enumerate() {
        let Some(setting) = row.get(name) else { continue };
        let Some(text) = setting.value.as_str().filter(|text| counts(text)) else { continue };
        let other = *first.entry(text).or_insert(idx);
        if other != idx {
            let owner = row_label(section, other, tree.rows(section).get(other));
            let message = format!("{} is already the {name} of {owner}", quote(text));
            found.push(Finding::new(&setting.place, format!("{section}[{idx}].{name}"), message));
        }
    }
    found
}

/// How a message names a row: by its name, or where that is what is wrong, by its position.
fn row_label(section: &str, idx: usize, row: Option<&Row>) -> String {
    match row.and_then(|row| row.text("name")) {
        Some(name) => format!("{section}[{idx}] ({name})"),
        None => format!("{section}[{idx}]"),
    }
}

/// Statuses whose answers have no content (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5).
fn bodies(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (idx, row) in tree.rows(RESPOND).iter().enumerate() {
        let (Some(status), Some(body)) = (row.get("status"), row.get("body")) else { continue };
        let bare = [204, 205, 304].iter().any(|bare| status.value == *bare);
        if bare && body.value != "" {
            let message = format!("an answer of status {} has no body", status.value);
            found.push(Finding::new(&body.place, format!("{RESPOND}[{idx}].body"), message));
        }
    }
    found
}

/// Folders that have to be there, or may not be something else.
fn folders(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(root) = tree.get("web.root")
        && let Some(path) = root.value.as_str().filter(|path| !path.is_empty())
    {
        found.extend(web::no_folder(path).map(|why| Finding::new(&root.place, "web.root", why)));
    }
    // Neither has to exist: both are made at the start.
    for key in ["data_dir", "log.dir"] {
        if let Some(setting) = tree.get(key)
            && let Some(path) = setting.value.as_str()
            && std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir())
        {
            found.push(Finding::new(&setting.place, key, format!("{} is not a folder", quote(path))));
        }
    }
    found
}

/// Paths that are too long for a socket, or the same twice.
fn paths(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut owners: HashMap<String, String> = HashMap::new();
    for Owned { path, is_socket, place, key } in owned_paths(tree) {
        if is_socket && path.len() > UNIX_PATH_MAX {
            let message = format!(
                "{}: {} bytes, and a Unix socket has at most {UNIX_PATH_MAX}",
                quote(&path),
                path.len()
            );
            found.push(Finding::new(&place, key, message));
            continue;
        }
        match owners.get(&path) {
            // Two listeners of one address have been found already.
            Some(owner) if owner.starts_with(LISTEN) && key.starts_with(LISTEN) => {}
            Some(owner) => {
                found.push(Finding::new(
                    &place,
                    key,
                    format!("{} is already the path of {owner}", quote(&path)),
                ));
            }
            None => {
                owners.insert(path, key);
            }
        }
    }
    found
}

/// A path that the server makes or writes at.
struct Owned {
    path: String,
    is_socket: bool,
    place: Place,
    key: String,
}

/// The paths of files and sockets that may not be the same, with what empty ones stand for.
fn owned_paths(tree: &Tree) -> Vec<Owned> {
    let mut owned = Vec::new();
    for key in KEYS.iter().filter(|key| matches!(key.default, DefaultValue::Derived(_))) {
        let (Some(setting), Some(data_dir)) = (tree.get(key.path), tree.get("data_dir")) else { continue };
        let said = setting.value.as_str().filter(|text| !text.is_empty());
        let derived = || schema::derived(key, data_dir.value.as_str()?);
        let place = if said.is_some() { &setting.place } else { &data_dir.place };
        if let Some(text) = said.map(str::to_owned).or_else(derived) {
            let path = text.strip_prefix("sqlite:").unwrap_or(&text).to_owned();
            let is_socket = ["process.control_socket", "log.socket"].contains(&key.path);
            owned.push(Owned { path, is_socket, place: place.clone(), key: key.path.to_owned() });
        }
    }
    for (idx, row) in tree.rows(LISTEN).iter().enumerate() {
        if let Some(setting) = row.get("address")
            && let Some(text) = setting.value.as_str()
            && let Some(path) = text.strip_prefix("unix:").or_else(|| text.strip_prefix("unixgram:"))
        {
            let key = format!("{LISTEN}[{idx}].address");
            owned.push(Owned { path: path.to_owned(), is_socket: true, place: setting.place.clone(), key });
        }
    }
    owned
}

/// All files together cannot be smaller than one.
fn sizes(tree: &Tree) -> Vec<Finding> {
    let size = |path: &str| tree.text(path).and_then(|text| text.parse::<ByteSize>().ok());
    let (Some(file), Some(total)) = (size("log.max_file_bytes"), size("log.max_total_bytes")) else {
        return Vec::new();
    };
    let Some(setting) = tree.get("log.max_total_bytes").filter(|_| total < file) else { return Vec::new() };
    let message = format!("\"{total}\" is less than log.max_file_bytes, which is \"{file}\"");
    vec![Finding::new(&setting.place, "log.max_total_bytes", message)]
}
