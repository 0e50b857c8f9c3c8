//! What is laid over the file: variables of the environment, then `--set`.
//!
//! Invariant: a variable of our prefix is either known, or reserved for the program itself, or an error. A
//! value is TOML; where the key holds a string, the quotes may be left out, and what is not TOML is a string.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;

use toml::Spanned;
use toml::de::DeValue;

use super::error::Problem;
use super::kind::quote;
use super::load::{Loader, is_row, join, unknown_key};
use super::nearest::nearest;
use super::origin::Source;
use super::schema::{self, Item, KEYS, Key, LISTEN, SECTIONS, Section};

/// What the names of our variables begin with.
pub(crate) const ENV_PREFIX: &str = "TIDEGATE_";

/// Variables that the program sets for its own processes: no part of the configuration.
pub const RESERVED_ENV: [&str; 2] = ["TIDEGATE_ROLE", "TIDEGATE_FDS"];

/// Beginnings of the names of such variables.
pub const RESERVED_ENV_PREFIXES: [&str; 3] = ["TIDEGATE_CHILD_", "TIDEGATE_UPGRADE_", "TIDEGATE_TEST_"];

/// What a name in a source stands for.
enum Target {
    Key(&'static Key),
    Section(&'static Section),
    /// A key of the listener at this position.
    Listener(usize, &'static Key),
}

/// Lays the environment over what is known so far, in the order of the names.
pub(crate) fn environment(loader: &mut Loader, env: &[(OsString, OsString)]) {
    let mut ours: Vec<&(OsString, OsString)> =
        env.iter().filter(|(name, _)| name.as_encoded_bytes().starts_with(ENV_PREFIX.as_bytes())).collect();
    // A whole array comes before the keys of its elements: it is the shorter name.
    ours.sort();
    for (name, value) in ours {
        let shown = name.to_string_lossy();
        let source = Source::Env(&shown);
        let target = name
            .to_str()
            .map_or_else(|| Err(Problem::plain("not UTF-8".to_owned())), |name| of_env(loader, name));
        match (target, value.to_str()) {
            (Ok(None), _) => {}
            (Ok(Some(target)), Some(value)) => assign(loader, &target, value, source),
            (Ok(Some(_)), None) => {
                loader.error(source.place(0..0), "", Problem::plain("not UTF-8".to_owned()))
            }
            (Err(problem), _) => loader.error(source.place(0..0), "", problem),
        }
    }
}

/// Lays `--set` over what is known so far, in order.
pub(crate) fn set(loader: &mut Loader, settings: &[String]) {
    for setting in settings {
        let source = Source::Set(setting);
        let Some((path, value)) = setting.split_once('=') else {
            let problem = Problem::plain("no value".to_owned()).allowed("--set KEY=VALUE".to_owned());
            loader.error(source.place(0..0), "", problem);
            continue;
        };
        let path = path.trim();
        match of_path(loader, path) {
            Ok(target) => assign(loader, &target, value.trim(), source),
            Err(problem) => loader.error(source.place(0..0), path, problem),
        }
    }
}

/// The variable of a key: `TIDEGATE_PROCESS_WORKERS` of `process.workers`.
pub(crate) fn env_name(path: &str) -> String {
    format!("{ENV_PREFIX}{}", path.to_uppercase().replace(['.', '-'], "_"))
}

/// What a variable stands for; `None` when it is reserved.
fn of_env(loader: &Loader, name: &str) -> Result<Option<Target>, Problem> {
    if RESERVED_ENV.contains(&name) || RESERVED_ENV_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Ok(None);
    }
    let keys = KEYS.iter().filter(|key| !is_row(key)).map(|key| (env_name(key.path), Target::Key(key)));
    let arrays = SECTIONS.iter().filter(|section| section.rows.is_some());
    let arrays = arrays.map(|section| (env_name(section.path), Target::Section(section)));
    let listeners = loader.tree.rows(LISTEN).iter().enumerate().flat_map(|(idx, row)| {
        let listener = row.text("name").unwrap_or_default();
        schema::keys(LISTEN).map(move |key| {
            (env_name(&format!("{LISTEN}.{listener}.{}", key.name())), Target::Listener(idx, key))
        })
    });
    let known: Vec<(String, Target)> = keys.chain(arrays).chain(listeners).collect();
    let near = nearest_env(name, &known);
    match known.into_iter().find(|(known, _)| known == name) {
        Some((_, target)) => Ok(Some(target)),
        None => Err(Problem::plain("unknown variable".to_owned()).near(near)),
    }
}

/// The nearest name; the prefix, which all have, does not count.
fn nearest_env(name: &str, known: &[(String, Target)]) -> Option<String> {
    let tail = |name| str::strip_prefix(name, ENV_PREFIX).unwrap_or(name);
    let near = nearest(tail(name), known.iter().map(|(known, _)| tail(known.as_str())));
    near.map(|near| format!("{ENV_PREFIX}{near}"))
}

/// What the path of a `--set` stands for.
fn of_path(loader: &Loader, path: &str) -> Result<Target, Problem> {
    let (section, name) = schema::split(path);
    match schema::lookup(section, name) {
        Some(Item::Key(key)) if !is_row(key) => return Ok(Target::Key(key)),
        Some(Item::Section(section)) if !path.is_empty() => return Ok(Target::Section(section)),
        _ => {}
    }
    if let Some(listener) = section.strip_prefix("listen.") {
        let Some(idx) = loader.tree.row_named(LISTEN, listener) else {
            let names = loader.tree.rows(LISTEN).iter().filter_map(|row| row.text("name"));
            let near = nearest(listener, names).map(quote);
            return Err(Problem::plain(format!("no listener is named {}", quote(listener))).near(near));
        };
        return match schema::lookup(LISTEN, name) {
            Some(Item::Key(key)) => Ok(Target::Listener(idx, key)),
            _ => Err(unknown_key(LISTEN, name)),
        };
    }
    if let Some(array) = SECTIONS.iter().find(|known| known.path == section && known.rows.is_some()) {
        let form = match array.path {
            LISTEN => "listen.NAME.KEY=VALUE, or listen=[…]".to_owned(),
            path => format!("{path}=[…]"),
        };
        return Err(Problem::plain(format!("{section} is an array of tables")).allowed(form));
    }
    if SECTIONS.iter().any(|known| known.path == section) {
        return Err(unknown_key(section, name));
    }
    let sections: Vec<&str> =
        SECTIONS.iter().map(|known| known.path).filter(|path| !path.is_empty()).collect();
    let near = nearest(section, sections.iter().copied()).map(|near| quote(join(near, name)));
    let problem = Problem::plain(format!("no section is named {}", quote(section)));
    Err(if near.is_some() { problem.near(near) } else { problem.allowed(sections.join(", ")) })
}

fn assign(loader: &mut Loader, target: &Target, text: &str, source: Source<'_>) {
    let (path, is_text) = match target {
        Target::Key(key) | Target::Listener(_, key) => (key.path, key.kind.is_text()),
        Target::Section(section) => (section.path, false),
    };
    let value = match value(text, is_text) {
        Ok(value) => value,
        Err(error) => {
            let problem = Problem::new(format!("not TOML: {}", error.message()));
            return loader.error(source.place(0..0), path, problem);
        }
    };
    match target {
        Target::Key(key) => loader.key(key, &value, source),
        Target::Section(section) => loader.section(section, &value, source, &BTreeSet::new()),
        Target::Listener(idx, key) => {
            let listener =
                loader.tree.rows(LISTEN).get(*idx).and_then(|row| row.text("name")).unwrap_or_default();
            let path = format!("{LISTEN}.{listener}.{}", key.name());
            let setting = loader.read(key, &path, &value, source);
            if let Some(row) = loader.tree.rows_mut(LISTEN).get_mut(*idx) {
                row.set(key.name(), setting);
            }
        }
    }
}

/// A text as TOML. What looks like the beginning of an array, a table or a string has to be one, unless the
/// key holds a string; everything else that is not TOML is a string.
fn value(text: &str, is_text: bool) -> Result<Spanned<DeValue<'_>>, toml::de::Error> {
    let bare = || Spanned::new(0..text.len(), DeValue::String(Cow::Borrowed(text)));
    let quoted = text.starts_with(['"', '\'']);
    if is_text && !quoted {
        return Ok(bare());
    }
    match DeValue::parse(text) {
        Err(error) if quoted || text.starts_with(['[', '{']) => Err(error),
        Err(_) => Ok(bare()),
        parsed => parsed,
    }
}
