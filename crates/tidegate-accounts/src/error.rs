//! What can go wrong that is not the user's doing.
//!
//! No message contains a password or the URL it may stand in.

use std::path::PathBuf;

/// A request could not be decided, or the accounts could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountsError {
    /// The queue is full, or another process holds the database for longer than `busy_timeout`. Try later.
    #[error("busy")]
    Busy,
    /// The accounts are being closed; the request was not carried out.
    #[error("the accounts are closed")]
    Closed,
    /// The URL names a database that is planned and not there yet.
    #[error("{0} is not supported yet, use sqlite:PATH")]
    NotYet(&'static str),
    /// The URL names no database that we know.
    #[error("an accounts database is named sqlite:PATH, with the path of a file")]
    BadUrl,
    /// A newer version of this program made the database.
    #[error("{path} has schema version {found}, and this program knows versions up to {known}")]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The database cannot be opened.
    #[error("open {path}")]
    Open {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file of the database cannot be made.
    #[error("create {path}")]
    Create {
        /// The database.
        path: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// SQLite failed.
    #[error("database")]
    Database(#[source] rusqlite::Error),
    /// argon2 failed, or a stored hash cannot be read.
    #[error("password hash")]
    Hash(#[source] argon2::password_hash::Error),
    /// The options for hashing are outside what argon2 allows.
    #[error("argon2 with {memory_kib} KiB and {passes} passes")]
    HashOptions {
        /// The memory asked for.
        memory_kib: u32,
        /// The passes asked for.
        passes: u32,
        /// What argon2 says.
        source: argon2::Error,
    },
    /// The kernel gave no random bytes.
    #[error("random bytes")]
    Random(#[source] getrandom::Error),
    /// A thread of the pool could not be started.
    #[error("start a thread for accounts")]
    Thread(#[source] std::io::Error),
    /// The check panicked; that is a bug. The pool lives on.
    #[error("the check of a password panicked")]
    Panicked,
}

impl From<rusqlite::Error> for AccountsError {
    /// A lock that was waited for in vain is [`AccountsError::Busy`].
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy) => Self::Busy,
            _ => Self::Database(error),
        }
    }
}

impl From<argon2::password_hash::Error> for AccountsError {
    fn from(error: argon2::password_hash::Error) -> Self {
        Self::Hash(error)
    }
}
