//! From the sources to a `Config`: built-in defaults, the file, the environment, `--set`.
//!
//! Invariant: a later source overrides an earlier one key by key (an array of tables as a whole), every error
//! of every source is collected, and a `Config` exists only when there is none.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Problem};
use super::kind::{Context, quote};
use super::nearest::nearest;
use super::origin::{FileText, Origin, Place, Source};
use super::schema::{self, BUILT_IN_ROWS, Default as DefaultValue, Item, KEYS, Key, SECTIONS, Section};
use super::tree::{Row, Setting, Tree};
use super::{Config, build, check, file, overlay, syntax};

/// Where to look for the configuration.
///
/// # Examples
///
/// ```
/// use tidegate::config::{Config, Count, LoadOptions};
///
/// let options = LoadOptions { set: vec!["process.workers=2".to_owned()], ..LoadOptions::default() };
/// let config = Config::load(&options)?;
/// assert_eq!(config.process.workers, Count::Exactly(2));
/// # Ok::<(), tidegate::config::ConfigErrors>(())
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadOptions {
    /// `--config FILE`. Without it `tidegate.toml` in the current folder, and without that the built-in
    /// default.
    pub file: Option<PathBuf>,
    /// `--set KEY=VALUE`, in the order of the command line.
    pub set: Vec<String>,
    /// The environment; what does not begin with `TIDEGATE_` is ignored. Empty by default, so that a test is
    /// not at the mercy of its caller.
    pub env: Vec<(OsString, OsString)>,
    /// Names that `listen.service` may have besides those built in.
    pub services: Vec<String>,
    /// What relative paths are relative to; `None`: the current folder.
    pub current_dir: Option<PathBuf>,
}

impl LoadOptions {
    /// Options with the environment of the process.
    #[must_use]
    pub fn from_process() -> Self {
        let ours = |name: &OsString| name.to_string_lossy().starts_with(overlay::ENV_PREFIX);
        Self { env: std::env::vars_os().filter(|(name, _)| ours(name)).collect(), ..Self::default() }
    }
}

impl Config {
    /// Reads the configuration from all its sources and checks all of it.
    ///
    /// It reads the file, and looks whether the folders that are named exist; it changes nothing.
    ///
    /// # Errors
    ///
    /// With every error of every source, when there is any.
    pub fn load(options: &LoadOptions) -> Result<Self, ConfigErrors> {
        let current_dir = current_dir(options.current_dir.as_deref()).map_err(|problem| {
            let place = Place { origin: Origin::Default, excerpt: None };
            ConfigErrors::new(vec![ConfigError::new(place, "", Problem::plain(problem))], 0)
        })?;
        let mut loader =
            Loader::new(Context { current_dir: Some(current_dir), services: options.services.clone() });
        loader.defaults();
        let file = match file::read(options.file.as_deref(), loader.context.current_dir.as_deref()) {
            Ok(file) => file,
            Err(error) => {
                loader.push(*error);
                None
            }
        };
        if let Some(file) = &file {
            loader.file(file);
        }
        overlay::environment(&mut loader, &options.env);
        overlay::set(&mut loader, &options.set);
        check::check(&mut loader);
        loader.finish(file.map(|file| file.path))
    }
}

impl Default for Config {
    /// The built-in default. Its paths are relative to the current folder, and stay so where there is none of
    /// use.
    fn default() -> Self {
        let mut loader = Loader::new(Context { current_dir: current_dir(None).ok(), services: Vec::new() });
        loader.defaults();
        loader.finish(None).expect("the built-in values are right, which a test shows")
    }
}

/// The folder that relative paths are relative to: absolute, UTF-8, and with room for a name below it.
fn current_dir(given: Option<&Path>) -> Result<PathBuf, String> {
    let dir = given.map_or_else(std::env::current_dir, std::path::absolute);
    let dir = dir.map_err(|error| format!("the current folder cannot be found: {error}"))?;
    match dir.to_str() {
        None => Err("the path of the current folder is not UTF-8".to_owned()),
        Some(text) if text.len() > MAX_DIR => {
            Err(format!("the path of the current folder has more than {MAX_DIR} bytes"))
        }
        Some(_) => Ok(dir),
    }
}

/// The values and errors found so far.
#[derive(Debug)]
pub(crate) struct Loader {
    pub(crate) context: Context,
    pub(crate) tree: Tree,
    /// The file could not be read as TOML: what is missing may be in the part that was lost.
    pub(crate) torn: bool,
    errors: Vec<ConfigError>,
    left_out: usize,
}

impl Loader {
    fn new(context: Context) -> Self {
        Self { context, tree: Tree::default(), torn: false, errors: Vec::new(), left_out: 0 }
    }

    /// Adds an error; beyond `MAX_ERRORS` it is counted only.
    pub(crate) fn push(&mut self, error: ConfigError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn error(&mut self, place: Place, key: impl Into<String>, problem: Problem) {
        self.push(ConfigError::new(place, key, problem));
    }

    fn defaults(&mut self) {
        for key in KEYS.iter().filter(|key| !is_row(key)) {
            let setting = self.default_of(key);
            self.tree.set(key.path, setting);
        }
        let (rows, _) = DeTable::parse_recoverable(BUILT_IN_ROWS);
        self.table("", rows.get_ref(), Source::Default, &BTreeSet::new());
        self.fill_rows();
    }

    /// Gives each row the defaults of what it does not say.
    pub(crate) fn fill_rows(&mut self) {
        for section in SECTIONS.iter().filter(|section| section.rows.is_some()) {
            for key in schema::keys(section.path) {
                let default = self.default_of(key);
                for row in self.tree.rows_mut(section.path) {
                    if row.lacks(key.name()) && default.is_some() {
                        row.set(key.name(), default.clone());
                    }
                }
            }
        }
    }

    fn default_of(&mut self, key: &'static Key) -> Option<Setting> {
        let text = match key.default {
            DefaultValue::Value(text) => text,
            DefaultValue::Derived(_) => "\"\"",
            DefaultValue::Required | DefaultValue::Absent => return None,
        };
        // The table holds no value that does not parse, which a test shows.
        let (value, _) = DeValue::parse_recoverable(text);
        self.read(key, key.path, &value, Source::Default)
    }

    /// Reads a file as far as it can be read.
    fn file(&mut self, file: &FileText) {
        let (table, errors) = DeTable::parse_recoverable(&file.text);
        let torn = syntax::torn(file, &errors);
        self.torn = !torn.errors.is_empty();
        torn.errors.into_iter().for_each(|error| self.push(error));
        self.table("", table.get_ref(), Source::File(file), &torn.lines);
    }

    /// Reads the keys of a section. Keys on lines that are not TOML hold what the parser made up: they are
    /// passed over.
    fn table(
        &mut self,
        section: &'static str,
        table: &DeTable<'_>,
        source: Source<'_>,
        torn: &BTreeSet<usize>,
    ) {
        for (name, value) in table {
            if is_torn(name.span(), source, torn) {
                continue;
            }
            match schema::lookup(section, name.get_ref()) {
                Some(Item::Key(key)) => self.key(key, value, source),
                Some(Item::Section(section)) => self.section(section, value, source, torn),
                None => {
                    let problem = unknown_key(section, name.get_ref());
                    self.error(source.place(name.span()), join(section, name.get_ref()), problem);
                }
            }
        }
    }

    /// Reads the value of a key that is not one of an array.
    pub(crate) fn key(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>, source: Source<'_>) {
        let setting = self.read(key, key.path, value, source);
        self.tree.set(key.path, setting);
    }

    /// Reads a table or an array of tables.
    pub(crate) fn section(
        &mut self,
        section: &'static Section,
        value: &Spanned<DeValue<'_>>,
        source: Source<'_>,
        torn: &BTreeSet<usize>,
    ) {
        match (section.rows, value.get_ref()) {
            (None, DeValue::Table(table)) => self.table(section.path, table, source, torn),
            (Some(max), DeValue::Array(elements)) if elements.len() > max => {
                let problem = format!("{} tables are too many", elements.len());
                let problem = Problem::new(problem).allowed(format!("at most {max}"));
                self.error(source.place(value.span()), section.path, problem);
            }
            (Some(_), DeValue::Array(elements)) => {
                self.tree.rows_mut(section.path).clear();
                for (idx, element) in elements.iter().enumerate() {
                    self.row(section, idx, element, source, torn);
                }
            }
            (None, _) => {
                let problem = Problem::new("a table is expected here".to_owned());
                self.error(source.place(value.span()), section.path, problem);
            }
            (Some(_), _) => {
                let form = format!("[[{}]] before each of its tables", section.path);
                let problem = Problem::new("an array of tables is expected here".to_owned()).allowed(form);
                self.error(source.place(value.span()), section.path, problem);
            }
        }
    }

    fn row(
        &mut self,
        section: &'static Section,
        idx: usize,
        element: &Spanned<DeValue<'_>>,
        source: Source<'_>,
        torn: &BTreeSet<usize>,
    ) {
        let path = format!("{}[{idx}]", section.path);
        let place = source.place(element.span());
        let DeValue::Table(table) = element.get_ref() else {
            self.error(place, path, Problem::new("a table is expected here".to_owned()));
            return;
        };
        let mut row = Row::new(place);
        for (name, value) in table {
            let key_path = join(&path, name.get_ref());
            match schema::lookup(section.path, name.get_ref()) {
                Some(Item::Key(key)) if is_torn(name.span(), source, torn) => row.set(key.name(), None),
                Some(Item::Key(key)) => row.set(key.name(), self.read(key, &key_path, value, source)),
                _ if is_torn(name.span(), source, torn) => {}
                _ => {
                    let problem = unknown_key(section.path, name.get_ref());
                    self.error(source.place(name.span()), key_path, problem);
                }
            }
        }
        self.tree.rows_mut(section.path).push(row);
    }

    /// The value of a key, or `None` and an error. `path` is the key's with the position in its array.
    pub(crate) fn read(
        &mut self,
        key: &'static Key,
        path: &str,
        value: &Spanned<DeValue<'_>>,
        source: Source<'_>,
    ) -> Option<Setting> {
        let place = source.place(value.span());
        match key.read(value.get_ref(), &self.context) {
            Ok(value) => Some(Setting { value, place }),
            Err(mut problem) => {
                match problem.take_part() {
                    Some(part) => {
                        self.error(source.place(part.span), format!("{path}{}", part.label), problem);
                    }
                    None => self.error(place, path, problem),
                }
                None
            }
        }
    }

    fn finish(self, file: Option<String>) -> Result<Config, ConfigErrors> {
        if !self.errors.is_empty() {
            return Err(ConfigErrors::new(self.errors, self.left_out));
        }
        let file = file.map(|file| self.context.current_dir.unwrap_or_default().join(file));
        build::build(&self.tree, file).map_err(|error| {
            // Only if the table of keys and the types disagree, and a test shows that they do not.
            let place = Place { origin: Origin::Default, excerpt: None };
            ConfigErrors::new(vec![ConfigError::new(place, "", Problem::plain(error.to_string()))], 0)
        })
    }
}

/// Whether a key belongs to the elements of an array.
pub(crate) fn is_row(key: &Key) -> bool {
    SECTIONS.iter().any(|section| section.path == key.section() && section.rows.is_some())
}

/// `"web.root"` of `"web"` and `"root"`.
pub(crate) fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// What to say of a key that the section does not have.
pub(crate) fn unknown_key(section: &str, name: &str) -> Problem {
    let known: Vec<&str> = schema::names(section).collect();
    let place = match SECTIONS.iter().find(|known| known.path == section) {
        Some(Section { rows: Some(_), .. }) => format!("in [[{section}]]"),
        _ if section.is_empty() => "at the top of the file".to_owned(),
        _ => format!("in [{section}]"),
    };
    // The name of a key of another section is more likely a key in the wrong place than a wrong name.
    let elsewhere = KEYS.iter().find(|key| key.name() == name && !is_row(key)).map(|key| key.path);
    let near = elsewhere.or_else(|| nearest(name, known.iter().copied())).map(quote);
    let problem = Problem::plain(format!("unknown key {} {place}", quote(name)));
    if near.is_some() { problem.near(near) } else { problem.allowed(known.join(", ")) }
}

fn is_torn(span: Range<usize>, source: Source<'_>, torn: &BTreeSet<usize>) -> bool {
    matches!(source, Source::File(file) if torn.contains(&file.line(span.start)))
}

/// What leaves room for our own names within the 4095 bytes that the kernel takes.
const MAX_DIR: usize = 3900;

/// Errors that are kept; more than that are of one cause, or of another kind of file.
const MAX_ERRORS: usize = 500;
