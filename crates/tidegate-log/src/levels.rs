//! Which events are recorded: a level for each target, changeable while the program runs.
//!
//! The decision is made once per call site and cached by `tracing`; a change makes it ask again. So a disabled event costs
//! one atomic load, however long the list of targets is.

use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Levels per target, as `info,tidegate_web=debug`; clones share them.
///
/// A word without `=` is the level of everything that no target names. The longest target that is a prefix decides. The
/// levels are `off`, `error`, `warn`, `info`, `debug` and `trace`.
///
/// ```
/// use tidegate_log::Levels;
/// let levels: Levels = "warn,tidegate_web=debug".parse()?;
/// assert!(levels.enabled("tidegate_web::files", &tracing::Level::DEBUG));
/// assert!(!levels.enabled("tidegate_engine", &tracing::Level::INFO));
/// levels.set("off")?;
/// assert!(!levels.enabled("tidegate_web::files", &tracing::Level::ERROR));
/// # Ok::<(), tidegate_log::LevelsError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Levels {
    targets: Arc<RwLock<Targets>>,
}

/// What is wrong with a text of levels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelsError {
    /// There is no such level.
    #[error("{0:?} is no level; there are off, error, warn, info, debug and trace")]
    UnknownLevel(String),
    /// A level is given to a target without a name.
    #[error("{0:?} names no target before the '='")]
    EmptyTarget(String),
    /// More targets have a level of their own than anybody looks through.
    #[error("no more than {MAX_TARGETS} targets can have a level of their own")]
    TooManyTargets,
}

impl Levels {
    /// Replaces all levels, from the next event on.
    ///
    /// # Errors
    ///
    /// The text is malformed; then nothing is changed.
    pub fn set(&self, text: &str) -> Result<(), LevelsError> {
        self.put(parse(text)?);
        Ok(())
    }

    /// These levels with a change: `debug` is the level of everything that no target names, `tidegate_engine=trace` that of
    /// one target, and all others stay as they are. Several changes are separated by commas. What is returned is not shared
    /// with `self`: see [`LogClient::set_levels`](crate::LogClient::set_levels).
    ///
    /// # Errors
    ///
    /// The text is malformed, or [`MAX_TARGETS`](Self::MAX_TARGETS) would be exceeded.
    ///
    /// ```
    /// use tidegate_log::Levels;
    /// let levels: Levels = "info,tidegate_web=debug".parse()?;
    /// let louder = levels.with_target("tidegate_engine=trace")?.with_target("warn")?;
    /// assert_eq!(louder.to_string(), "warn,tidegate_engine=trace,tidegate_web=debug");
    /// assert_eq!(levels.to_string(), "info,tidegate_web=debug");
    /// # Ok::<(), tidegate_log::LevelsError>(())
    /// ```
    pub fn with_target(&self, spec: &str) -> Result<Self, LevelsError> {
        if spec.trim().is_empty() {
            return Err(LevelsError::UnknownLevel(String::new()));
        }
        let targets = changed(self.read(Targets::clone), spec)?;
        if targets.iter().count() > Self::MAX_TARGETS {
            return Err(LevelsError::TooManyTargets);
        }
        Ok(Self { targets: Arc::new(RwLock::new(targets)) })
    }

    /// As many targets can be given a level of their own by [`with_target`](Self::with_target).
    pub const MAX_TARGETS: usize = MAX_TARGETS;

    /// Takes over other levels, for every clone and from the next event on.
    pub(crate) fn replace(&self, by: &Self) {
        self.put(by.read(Targets::clone));
    }

    fn put(&self, targets: Targets) {
        *self.targets.write().unwrap_or_else(PoisonError::into_inner) = targets;
        // The call sites have cached what the old levels said.
        tracing::callsite::rebuild_interest_cache();
    }

    /// Whether an event of this target and level is recorded.
    #[must_use]
    pub fn enabled(&self, target: &str, level: &tracing::Level) -> bool {
        self.read(|targets| targets.would_enable(target, level))
    }

    pub(crate) fn enables(&self, metadata: &Metadata<'_>) -> bool {
        self.enabled(metadata.target(), metadata.level())
    }

    /// The most verbose level that any target has.
    pub(crate) fn most_verbose(&self) -> LevelFilter {
        self.read(|targets| {
            let levels = targets.iter().map(|(_, level)| level).chain(targets.default_level());
            levels.max().unwrap_or(LevelFilter::OFF)
        })
    }

    fn read<T>(&self, ask: impl FnOnce(&Targets) -> T) -> T {
        ask(&self.targets.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Levels {
    /// `info`.
    fn default() -> Self {
        Self { targets: Arc::new(RwLock::new(Targets::new().with_default(LevelFilter::INFO))) }
    }
}

impl FromStr for Levels {
    type Err = LevelsError;

    fn from_str(text: &str) -> Result<Self, LevelsError> {
        Ok(Self { targets: Arc::new(RwLock::new(parse(text)?)) })
    }
}

/// The text in a normal form: it parses to the same levels.
impl std::fmt::Display for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.read(|targets| {
            if let Some(level) = targets.default_level() {
                write!(f, "{level}")?;
            }
            let mut named: Vec<_> = targets.iter().filter(|(target, _)| !target.is_empty()).collect();
            named.sort_unstable_by_key(|&(target, _)| target);
            named.into_iter().try_for_each(|(target, level)| write!(f, ",{target}={level}"))
        })
    }
}

/// Parses by hand what [`Targets`] takes as well, since that takes a misspelt level for a target of level `trace`.
fn parse(text: &str) -> Result<Targets, LevelsError> {
    changed(Targets::new().with_default(LevelFilter::INFO), text)
}

/// The targets with those of the text in the place of their own.
fn changed(mut targets: Targets, text: &str) -> Result<Targets, LevelsError> {
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        targets = match part.split_once('=') {
            None => targets.with_default(level(part)?),
            Some((target, name)) if !target.trim().is_empty() => {
                targets.with_target(target.trim(), level(name.trim())?)
            }
            Some(_) => return Err(LevelsError::EmptyTarget(part.to_owned())),
        };
    }
    Ok(targets)
}

fn level(name: &str) -> Result<LevelFilter, LevelsError> {
    match name.to_ascii_lowercase().as_str() {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(LevelsError::UnknownLevel(name.to_owned())),
    }
}

const MAX_TARGETS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[track_caller]
    fn check(text: &str, target: &str, most_verbose: Option<Level>) {
        let levels: Levels = text.parse().expect("the levels are well-formed");
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
            let expected = most_verbose.is_some_and(|most| level <= most);
            assert_eq!(levels.enabled(target, &level), expected, "{text} {target} {level}");
        }
    }

    #[test]
    fn the_longest_prefix_decides() {
        check("", "any", Some(Level::INFO));
        check("debug", "any", Some(Level::DEBUG));
        check("info,a=debug", "a::b", Some(Level::DEBUG));
        check("info,a=debug,a::b=off", "a::b", None);
        check("info,a=debug", "b", Some(Level::INFO));
        check("off", "b", None);
        check(" warn , a = TRACE ,", "a", Some(Level::TRACE));
    }

    #[test]
    fn misspelt_levels_are_errors() {
        assert_eq!("inof".parse::<Levels>().unwrap_err(), LevelsError::UnknownLevel("inof".into()));
        assert_eq!("a=".parse::<Levels>().unwrap_err(), LevelsError::UnknownLevel(String::new()));
        assert_eq!("=info".parse::<Levels>().unwrap_err(), LevelsError::EmptyTarget("=info".into()));
    }

    #[test]
    fn a_change_reaches_every_clone_and_a_bad_one_changes_nothing() {
        let levels: Levels = "warn,b=info,a=trace".parse().unwrap();
        let clone = levels.clone();
        assert_eq!(clone.to_string(), "warn,a=trace,b=info");
        assert_eq!(clone.most_verbose(), LevelFilter::TRACE);
        assert!(levels.set("x=loud").is_err());
        assert_eq!(clone.to_string(), "warn,a=trace,b=info");
        levels.set("error").unwrap();
        assert_eq!(clone.to_string(), "error");
        assert_eq!(clone.most_verbose(), LevelFilter::ERROR);
    }

    #[track_caller]
    fn check_change(before: &str, spec: &str, after: &str) {
        let levels: Levels = before.parse().unwrap();
        assert_eq!(levels.with_target(spec).unwrap().to_string(), after);
        assert_eq!(levels.to_string(), before, "a change is made to a copy");
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        check_change("info,a=debug", "warn", "warn,a=debug");
        check_change("info,a=debug", "a=trace", "info,a=trace");
        check_change("info,a=debug", "a::b=off", "info,a=debug,a::b=off");
        check_change("info,a=debug", " b = error , warn ", "warn,a=debug,b=error");
    }

    #[test]
    fn a_change_is_checked_and_the_targets_are_limited() {
        let levels = Levels::default();
        for (spec, error) in [
            ("", LevelsError::UnknownLevel(String::new())),
            ("loud", LevelsError::UnknownLevel("loud".into())),
            ("a=loud", LevelsError::UnknownLevel("loud".into())),
            ("=info", LevelsError::EmptyTarget("=info".into())),
        ] {
            assert_eq!(levels.with_target(spec).unwrap_err(), error);
        }
        let all = |count: usize| (0..count).map(|n| format!("t{n}=debug")).collect::<Vec<_>>().join(",");
        let most = levels.with_target(&all(Levels::MAX_TARGETS)).unwrap();
        assert_eq!(most.with_target("one=debug").unwrap_err(), LevelsError::TooManyTargets);
        assert!(most.with_target("t7=off").is_ok());
    }
}
