//! What a reload cannot do: keys that need a restart, and folders that are not there.
//!
//! Invariant: each error has the place of the value that is to be changed back.

use super::error::{ConfigError, ConfigErrors, Problem};
use super::kind::literal;
use super::origin::{Origin, Place};
use super::{Config, Effective};

pub(super) fn check(next: &Config, running: &Config) -> Result<(), ConfigErrors> {
    let values = |config: &Config| -> Vec<Effective> {
        // A loaded configuration has UTF-8 paths alone.
        config.effective().unwrap_or_default().into_iter().filter(|key| !key.reload).collect()
    };
    let before = values(running);
    let differs = |key: &Effective| {
        let same = before.iter().find(|known| known.key == key.key)?;
        (same.value != key.value).then(|| {
            let message = format!(
                "{} cannot be changed by a reload, the server runs with {}; restart it, or change this back",
                literal(&key.value),
                literal(&same.value)
            );
            error(&key.key, key.origin.clone(), message)
        })
    };
    finish(values(next).iter().filter_map(differs).collect())
}

pub(super) fn check_roots(config: &Config) -> Result<(), ConfigErrors> {
    let Some(root) = &config.web.root else { return Ok(()) };
    let why = match std::fs::metadata(root) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "it is not a folder".to_owned(),
        Err(error) => error.to_string(),
    };
    let origin = config.origin("web.root").cloned().unwrap_or(Origin::Default);
    finish(vec![error("web.root", origin, format!("{} cannot be served: {why}", root.display()))])
}

pub(super) fn error(key: &str, origin: Origin, message: String) -> ConfigError {
    ConfigError::new(Place { origin, excerpt: None }, key, Problem::new(message))
}

fn finish(errors: Vec<ConfigError>) -> Result<(), ConfigErrors> {
    if errors.is_empty() { Ok(()) } else { Err(ConfigErrors::new(errors, 0)) }
}
