//! `tidegate check` and `tidegate config`: the configuration, without a server.

use std::fmt::Write as _;

use anyhow::Context;
use serde_json::json;
use tidegate::config::{Config, ConfigErrors, Count, LoadOptions, MAX_WORKERS};

use crate::failure::Failure;
use crate::output::{Form, print, print_json, say};

/// The configuration for a command to a server that runs already, or to its files.
///
/// The site and the processors are no concern of such a command: a folder that has vanished since the start, or a processor
/// that was taken away, must not keep anybody from stopping the server or from reading in its log that it has vanished.
pub(crate) fn of_running(options: &LoadOptions) -> Result<Config, ConfigErrors> {
    let mut options = options.clone();
    options.set.extend(["web.root=", "engine.cpu_affinity=[]"].map(str::to_owned));
    Config::load(&options)
}

/// Says everything that is wrong, or that nothing is.
pub(crate) fn check(options: &LoadOptions, form: Form) -> Result<(), Failure> {
    let checked = Config::load(options).and_then(|config| {
        let warnings = config.check_certificates()?;
        Ok((config, warnings))
    });
    match (checked, form) {
        (Ok((config, warnings)), Form::Text) => {
            warnings.iter().for_each(|warning| say(&format!("tidegate: {warning}")));
            print(summary(&config))
        }
        (Ok((_, warnings)), Form::Json) if warnings.is_empty() => {
            print_json(&json!({ "ok": true, "errors": [] }))
        }
        (Ok((_, warnings)), Form::Json) => {
            print_json(&json!({ "ok": true, "errors": [], "warnings": warnings }))
        }
        (Err(errors), Form::Text) => Err(Failure::Refused(errors)),
        (Err(errors), Form::Json) => {
            print_json(&json!({ "ok": false, "errors": errors.to_json() }))?;
            Err(Failure::RefusedAndTold)
        }
    }
}

/// Prints every value with its origin.
pub(crate) fn show(options: &LoadOptions, form: Form) -> Result<(), Failure> {
    let config = Config::load(options)?;
    match form {
        Form::Text => {
            let toml = config.to_toml().context("writing the configuration as TOML")?;
            print(format!("{EXPLANATION}\n{toml}"))
        }
        Form::Json => {
            let effective = config.effective().context("listing the configuration")?;
            print_json(&serde_json::to_value(effective).context("writing the configuration as JSON")?)
        }
    }
}

/// Stands above the values.
const EXPLANATION: &str =
    "# Behind each value: where it comes from, and whether a reload applies a change, or only a restart.";

/// ```text
/// the configuration is fine: /etc/tidegate.toml, 2 workers
///   web 127.0.0.1:8080 (web)
/// ```
fn summary(config: &Config) -> String {
    let file = config.file().map_or("the built-in default".to_owned(), |file| file.display().to_string());
    let workers = match config.process.workers {
        Count::Exactly(0) => "everything in one process".to_owned(),
        count => match count.resolve(MAX_WORKERS) {
            1 => "1 worker".to_owned(),
            n => format!("{n} workers"),
        },
    };
    let mut text = format!("the configuration is fine: {file}, {workers}\n");
    for listener in &config.listen {
        // Writing to a String does not fail.
        let tls = if listener.tls.is_some() { ", TLS" } else { "" };
        let _ = writeln!(text, "  {} {} ({}{tls})", listener.name, listener.address, listener.service);
    }
    text
}
