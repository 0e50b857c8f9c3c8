//! The rule that no folder which is served holds what the server keeps for itself.
//!
//! A site in the current folder is the way to try the server, and `data_dir` is there by default: without this rule whoever
//! knows the name of the database of accounts gets it. Invariant: paths are compared as the file system resolves them, since
//! the service follows no link that leads out of its root. What a dot in front of a name hides is not served.

use std::path::{Component, Path, PathBuf};

use super::{Finding, owned_paths};
use crate::config::kind::quote;
use crate::config::schema::{LISTEN, SITE};
use crate::config::tree::{Row, Setting, Tree};

/// Roots that would hand out secrets.
pub(super) fn secrets(tree: &Tree) -> Vec<Finding> {
    if !tree.rows(LISTEN).iter().any(|row| row.text("service") == Some("web")) {
        return Vec::new();
    }
    let secrets = secret_paths(tree);
    let mut found = Vec::new();
    for Served { root, key, folder, dot_files } in served(tree) {
        // One that is no folder has been found already.
        let Ok(folder) = std::fs::canonicalize(folder) else { continue };
        // The first is enough: what it says about it is to be done about all of them.
        let exposed = secrets.iter().find(|(_, path)| is_served(&folder, path, dot_files));
        if let Some((name, path)) = exposed {
            let message = format!(
                "{} would be served: {name} is {}; keep them apart, or in a folder whose name begins with a dot",
                quote(root.value.as_str().unwrap_or_default()),
                quote(path.display().to_string()),
            );
            found.push(Finding::new(&root.place, key, message));
        }
    }
    found
}

/// A folder of files for everybody.
struct Served<'a> {
    root: &'a Setting,
    key: String,
    folder: &'a str,
    dot_files: bool,
}

/// The folders that are named. A site that names none has that of `[web]`.
fn served(tree: &Tree) -> Vec<Served<'_>> {
    let is_set = |setting: &Setting| setting.value == true;
    let of_all = tree.get("web.dot_files").is_some_and(is_set);
    // What one of the sites that have it shows is shown.
    let shows = |row: &Row| row.lacks("root") && row.get("dot_files").is_some_and(is_set);
    let any_shows = of_all || tree.rows(SITE).iter().any(shows);
    let of_web = tree.get("web.root").map(|root| (root, "web.root".to_owned(), any_shows));
    let of_sites = tree.rows(SITE).iter().enumerate().filter_map(|(idx, row)| {
        Some((row.get("root")?, format!("{SITE}[{idx}].root"), row.get("dot_files").map_or(of_all, is_set)))
    });
    of_web
        .into_iter()
        .chain(of_sites)
        .filter_map(|(root, key, dot_files)| {
            let folder = root.value.as_str().filter(|folder| !folder.is_empty())?;
            Some(Served { root, key, folder, dot_files })
        })
        .collect()
}

/// What nobody may get, by its name, as the file system resolves it.
fn secret_paths(tree: &Tree) -> Vec<(String, PathBuf)> {
    let mut secrets = Vec::new();
    let mut add = |name: String, path: &str| secrets.push((name, resolved(Path::new(path))));
    if let Some(data_dir) = tree.text("data_dir") {
        add("data_dir".to_owned(), data_dir);
    }
    for owned in owned_paths(tree) {
        if ["accounts.database", "log.dir"].contains(&&*owned.key) {
            add(owned.key, &owned.path);
        }
    }
    for (idx, row) in tree.rows(LISTEN).iter().enumerate() {
        let Some(tls) = row.get("tls") else { continue };
        let further = tls.value["certificates"].as_array().into_iter().flatten();
        for key in std::iter::once(&tls.value).chain(further).filter_map(|pair| pair["key"].as_str()) {
            add(format!("{LISTEN}[{idx}].tls.key"), key);
        }
    }
    for (idx, row) in tree.rows(SITE).iter().enumerate() {
        if let Some(users) = row.get("basic_auth").and_then(|auth| auth.value["users"].as_str()) {
            add(format!("{SITE}[{idx}].basic_auth.users"), users);
        }
    }
    secrets
}

/// Whether a path, or something in it if it is a folder, has a name beneath the folder that is not hidden.
fn is_served(folder: &Path, path: &Path, dot_files: bool) -> bool {
    let Ok(beneath) = path.strip_prefix(folder) else { return false };
    let hides = |part: Component<'_>| {
        let name = part.as_os_str().as_encoded_bytes();
        name.starts_with(b".") && name != b".well-known"
    };
    dot_files || !beneath.components().any(hides)
}

/// A path without links, as far as it exists: what the server makes may not be there yet.
fn resolved(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|known| Some((std::fs::canonicalize(known).ok()?, known)));
    match existing.map(|(real, known)| (real, path.strip_prefix(known))) {
        Some((real, Ok(rest))) if !rest.as_os_str().is_empty() => real.join(rest),
        Some((real, _)) => real,
        None => path.to_owned(),
    }
}
