//! The configuration as its users meet it: files, variables and `--set` in, values or messages out.
//!
//! Each test of a message is one `check`: the file, and the exact text that a terminal shows.

// Clippy takes the helpers for test code by this.
#![cfg(test)]

mod documentation;
mod exposed;
mod files;
mod listeners;
mod models;
mod never_panics;
mod not_yet;
mod settings;
mod sites;
mod sources;
mod threads;
mod together;
mod unknown;
mod values;
mod web_and_log;
mod wrong;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use tidegate::config::{
    Accept, Address, ByteSize, Config, ConfigErrors, Count, Database, Level, LoadOptions, Origin,
    ServiceName, reference,
};

/// A folder to run in, and what is given there.
struct Given {
    dir: TempDir,
    options: LoadOptions,
}

impl Given {
    fn nothing() -> Self {
        let dir = TempDir::new().unwrap();
        let options = LoadOptions { current_dir: Some(dir.path().to_owned()), ..LoadOptions::default() };
        Self { dir, options }
    }

    fn file(text: impl AsRef<[u8]>) -> Self {
        let given = Self::nothing();
        std::fs::write(given.dir.path().join("tidegate.toml"), text).unwrap();
        given
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.options.env.push((OsString::from(name), OsString::from(value)));
        self
    }

    fn set(mut self, text: &str) -> Self {
        self.options.set.push(text.to_owned());
        self
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(&self.options)
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|errors| panic!("refused:\n{errors}"))
    }

    /// The message, with `DIR` in place of the folder.
    #[track_caller]
    fn refused(&self, expect: &str) {
        let errors = self.load().expect_err("accepted").to_string();
        let errors = errors.replace(self.dir.path().to_str().unwrap(), "DIR");
        assert_eq!(
            errors.trim_end(),
            expect.trim(),
            "\n--- found:\n{errors}\n--- expected:\n{}",
            expect.trim()
        );
    }
}

#[track_caller]
fn check(file: &str, expect: &str) {
    Given::file(file).refused(expect);
}

#[track_caller]
fn check_set(set: &str, expect: &str) {
    Given::nothing().set(set).refused(expect);
}

#[track_caller]
fn check_env(name: &str, value: &str, expect: &str) {
    Given::nothing().env(name, value).refused(expect);
}

fn listeners(config: &Config) -> Vec<String> {
    config.listen.iter().map(|listener| format!("{}={}", listener.name, listener.address)).collect()
}
