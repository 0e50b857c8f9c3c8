//! The record: the OpenTelemetry log data model as one line of JSON.
//!
//! A line is at most [`MAX_LINE_BYTES`] long, its newline included, whatever was logged: what is longer is cut with a mark.
//! This file says what a record is and reads it back; `encode.rs` writes it. Neither does any I/O.
//!
//! ```text
//! {"time":"2026-01-31T23:59:59.123456789Z","severity":"INFO","severity_number":9,"target":"tidegate_web",
//!  "body":"listening","attributes":{"address":"127.0.0.1:8080"},
//!  "resource":{"process":"worker 0","pid":4711,"generation":1},"seq":17}
//! ```

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most bytes a record takes as a line, newline included.
pub const MAX_LINE_BYTES: usize = 64 << 10;

/// How much a record matters. The order is by importance: `Trace` is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Every step.
    Trace,
    /// What a developer looks for.
    Debug,
    /// What an operator wants to know.
    Info,
    /// Something is wrong, and the program copes.
    Warn,
    /// Something failed.
    Error,
    /// The program cannot go on.
    Fatal,
}

impl Severity {
    /// The name that stands in the line, in capitals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }

    /// The number of the OpenTelemetry log data model: the first of the range that the name stands for.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Trace => 1,
            Self::Debug => 5,
            Self::Info => 9,
            Self::Warn => 13,
            Self::Error => 17,
            Self::Fatal => 21,
        }
    }

    /// The severity of a number of the OpenTelemetry log data model, `1..=24`; others are taken to the nearest end.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0..=4 => Self::Trace,
            5..=8 => Self::Debug,
            9..=12 => Self::Info,
            13..=16 => Self::Warn,
            17..=20 => Self::Error,
            _ => Self::Fatal,
        }
    }
}

impl From<&tracing::Level> for Severity {
    fn from(level: &tracing::Level) -> Self {
        match *level {
            tracing::Level::TRACE => Self::Trace,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::INFO => Self::Info,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::ERROR => Self::Error,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no severity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no severity; there are trace, debug, info, warn, error and fatal")]
pub struct UnknownSeverity(String);

impl FromStr for Severity {
    type Err = UnknownSeverity;

    /// Accepts the names in any case, and the other words in use for them (`warning`, `notice`, `critical`, …).
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word.to_ascii_lowercase().as_str() {
            "trace" => Ok(Self::Trace),
            "debug" => Ok(Self::Debug),
            "info" | "information" | "notice" => Ok(Self::Info),
            "warn" | "warning" => Ok(Self::Warn),
            "error" | "err" => Ok(Self::Error),
            "fatal" | "critical" | "crit" | "alert" | "emerg" | "panic" => Ok(Self::Fatal),
            _ => Err(UnknownSeverity(word.chars().take(40).collect())),
        }
    }
}

impl<'de> Deserialize<'de> for Severity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Who wrote a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// The role of the process: `master`, `worker 0`, …
    #[serde(default)]
    pub process: String,
    /// Its process id.
    #[serde(default)]
    pub pid: u32,
    /// Its generation: how many times the configuration had been loaded when it was started.
    #[serde(default)]
    pub generation: u64,
}

impl Resource {
    /// The calling process in the given role and generation. Of the role's name at most 128 bytes are kept.
    #[must_use]
    pub fn this_process(role: &str, generation: u64) -> Self {
        let end = crate::encode::char_boundary(role, 128);
        Self { process: role[..end].to_owned(), pid: std::process::id(), generation }
    }
}

/// One record, read back from its line.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Record {
    /// When it happened, with nanoseconds.
    #[serde(deserialize_with = "timestamp")]
    pub time: Timestamp,
    /// How much it matters.
    pub severity: Severity,
    /// The part of the program that speaks, as `tidegate_web::files`.
    #[serde(default)]
    pub target: String,
    /// What happened, for people.
    #[serde(default)]
    pub body: String,
    /// What happened, for machines.
    #[serde(default)]
    pub attributes: Map<String, Value>,
    /// Who says so.
    #[serde(default)]
    pub resource: Resource,
    /// Counts the records of a process, from 1. Together with the pid it tells a record that was delivered twice from two
    /// records; a gap is a record that was dropped. 0: not numbered, as what other programs send.
    #[serde(default)]
    pub seq: u64,
}

/// Why a line is not a record.
#[derive(Debug, thiserror::Error)]
#[error("not a record")]
pub struct RecordError(#[from] serde_json::Error);

impl Record {
    /// Reads a line, with or without its newline. Fields that the data model does not have are ignored.
    ///
    /// # Errors
    ///
    /// The line is not a JSON object, or time or severity are missing or malformed.
    ///
    /// ```
    /// use tidegate_log::{Record, Severity};
    /// let record = Record::parse(br#"{"time":"2026-01-31T23:59:59Z","severity":"WARN","body":"late"}"#)?;
    /// assert_eq!((record.severity, record.body.as_str()), (Severity::Warn, "late"));
    /// # Ok::<(), tidegate_log::RecordError>(())
    /// ```
    pub fn parse(line: &[u8]) -> Result<Self, RecordError> {
        Ok(serde_json::from_slice(line)?)
    }
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_keep_their_numbers_and_names() {
        for (severity, number) in [
            (Severity::Trace, 1),
            (Severity::Debug, 5),
            (Severity::Info, 9),
            (Severity::Warn, 13),
            (Severity::Error, 17),
            (Severity::Fatal, 21),
        ] {
            assert_eq!(severity.number(), number);
            assert_eq!(Severity::from_number(number + 3), severity);
            assert_eq!(severity.name().parse(), Ok(severity));
            assert_eq!(severity.name().to_lowercase().parse(), Ok(severity));
        }
        assert!(Severity::Trace < Severity::Fatal);
        assert!("loud".parse::<Severity>().is_err());
    }

    #[test]
    fn a_line_without_time_is_not_a_record() {
        assert!(Record::parse(br#"{"severity":"INFO","body":"x"}"#).is_err());
        assert!(Record::parse(br#"{"time":"yesterday","severity":"INFO"}"#).is_err());
        assert!(Record::parse(b"[]").is_err());
        assert!(Record::parse(b"\xff").is_err());
    }

    #[test]
    fn a_role_is_cut_at_a_character() {
        let resource = Resource::this_process(&"é".repeat(100), 3);
        assert_eq!(resource.process, "é".repeat(64));
        assert_eq!(resource.generation, 3);
    }
}
