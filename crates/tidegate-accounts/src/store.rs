//! The table of users in an SQLite file, which several processes share.
//!
//! The invariant: what [`Store::insert`] said yes to survives a crash of the machine, hence `synchronous = FULL`;
//! registrations are rare enough to pay for a sync each. The store knows no passwords, only their hashes.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::AccountsError;

/// One connection to the database; each thread of the pool has its own.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) db: Connection,
}

/// Somebody who has an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub(crate) id: i64,
    name: String,
    kind: i32,
}

impl User {
    pub(crate) const fn new(id: i64, name: String, kind: i32) -> Self {
        Self { id, name, kind }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the one who registered it said it was; the meaning is the program's.
    #[must_use]
    pub const fn kind(&self) -> i32 {
        self.kind
    }
}

/// The file that `url` names.
pub(crate) fn path_of(url: &str) -> Result<PathBuf, AccountsError> {
    for scheme in ["postgres:", "postgresql:"] {
        if url.starts_with(scheme) {
            return Err(AccountsError::NotYet("a PostgreSQL database"));
        }
    }
    match url.strip_prefix("sqlite:") {
        // Each connection would have a database of its own in memory.
        Some(":memory:") => Err(AccountsError::NotYet("a database in memory")),
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err(AccountsError::BadUrl),
    }
}

impl Store {
    /// Opens the database, and makes it or brings it up to date where needed.
    pub(crate) fn open(path: &Path, busy_timeout: Duration) -> Result<Self, AccountsError> {
        // A descriptor of the file that this process closes takes its record locks along (fcntl(2)), also those that SQLite
        // holds through another descriptor. So the file is made while nobody else here opens it.
        static OPENING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = OPENING.lock().unwrap_or_else(PoisonError::into_inner);

        create(path)?;
        let open_error = |source| AccountsError::Open { path: path.to_owned(), source };
        let mut db = Connection::open(path).map_err(open_error)?;
        db.busy_timeout(busy_timeout)?;
        let version = schema_version(&db).map_err(open_error)?;
        refuse_newer(path, version)?;
        use_wal(&db, busy_timeout)?;
        db.pragma_update(None, "synchronous", "FULL")?;
        if version != KNOWN_VERSION {
            migrate(path, &mut db)?;
        }
        Ok(Self { db })
    }

    /// A user, and the stored hash of the password.
    pub(crate) fn user(&self, username: &str) -> Result<Option<(User, String)>, AccountsError> {
        let mut query = self.db.prepare_cached("SELECT id, kind, password FROM users WHERE name = ?1")?;
        let found = query.query_row([username], |row| {
            let user = User::new(row.get(0)?, username.to_owned(), row.get(1)?);
            Ok((user, row.get(2)?))
        });
        Ok(found.optional()?)
    }

    /// Adds a user; `false` when the name is taken.
    pub(crate) fn insert(&self, username: &str, kind: i32, password: &str) -> Result<bool, AccountsError> {
        let mut insert = self.db.prepare_cached(
            "INSERT INTO users (name, kind, password, created_at) VALUES (?1, ?2, ?3, unixepoch())
             ON CONFLICT (name) DO NOTHING",
        )?;
        Ok(insert.execute(params![username, kind, password])? == 1)
    }
}

/// What leads from one schema version to the next; version 0 is an empty file. Entries are only ever added.
const MIGRATIONS: [&str; 2] = [
    "CREATE TABLE users (
        id         INTEGER PRIMARY KEY,
        name       TEXT    NOT NULL UNIQUE,
        kind       INTEGER NOT NULL,
        password   TEXT    NOT NULL,   -- PHC string
        created_at INTEGER NOT NULL    -- Unix time in seconds
     ) STRICT",
    "ALTER TABLE users ADD COLUMN device_key BLOB;   -- 32 bytes, or NULL
     CREATE TABLE sessions (
        token      BLOB    PRIMARY KEY,   -- SHA-256 of what the client has
        user       INTEGER NOT NULL REFERENCES users (id),
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX sessions_of_user ON sessions (user, created_at);
     CREATE INDEX sessions_by_end ON sessions (expires_at);
     CREATE TABLE salts (
        user       INTEGER NOT NULL REFERENCES users (id),
        salt       TEXT    NOT NULL,
        expires_at INTEGER NOT NULL,
        PRIMARY KEY (user, salt)
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX salts_by_end ON salts (expires_at);
     CREATE TABLE attempts (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,   -- older rows have smaller ones
        who        TEXT    NOT NULL UNIQUE,
        count      INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
     ) STRICT;
     CREATE INDEX attempts_by_end ON attempts (expires_at)",
];

/// The schema version that this program writes.
const KNOWN_VERSION: i64 = 2;

const _: () = assert!(MIGRATIONS.len() == 2 && KNOWN_VERSION == 2, "one migration leads to each version");

/// Makes the file with a mode that keeps the hashes from other users of the machine. SQLite gives its side files the mode of
/// the database, and leaves one that is there as it is.
fn create(path: &Path) -> Result<(), AccountsError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(AccountsError::Create { path: path.to_owned(), source }),
    }
}

/// Lets readers and one writer work side by side.
fn use_wal(db: &Connection, busy_timeout: Duration) -> Result<(), AccountsError> {
    let deadline = Instant::now() + busy_timeout;
    loop {
        let switched = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match switched.map_err(AccountsError::from) {
            Ok(_) => return Ok(()),
            // SQLite does not call its busy handler for every lock of this switch, so two processes that start together
            // would see each other's.
            Err(AccountsError::Busy) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error),
        }
    }
}

fn migrate(path: &Path, db: &mut Connection) -> Result<(), AccountsError> {
    // Another process may be at it: the version counts that is there once we hold the write lock.
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version = schema_version(&transaction)?;
    refuse_newer(path, version)?;
    let done = usize::try_from(version).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", KNOWN_VERSION)?;
    transaction.commit()?;
    Ok(())
}

fn schema_version(db: &Connection) -> Result<i64, rusqlite::Error> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn refuse_newer(path: &Path, found: i64) -> Result<(), AccountsError> {
    if (0..=KNOWN_VERSION).contains(&found) {
        return Ok(());
    }
    Err(AccountsError::NewerSchema { path: path.to_owned(), found, known: KNOWN_VERSION })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const WAIT: Duration = Duration::from_secs(30);

    fn database() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.db");
        (dir, path)
    }

    #[test]
    fn urls_name_a_file_or_are_refused_without_being_repeated() {
        assert_eq!(path_of("sqlite:/a/b.db").unwrap(), Path::new("/a/b.db"));
        assert_eq!(path_of("sqlite:b.db").unwrap(), Path::new("b.db"));
        for url in ["", "sqlite:", "b.db", "mysql://u:geheim@h/d"] {
            let error = path_of(url).unwrap_err().to_string();
            assert!(error.contains("sqlite:PATH") && !error.contains("geheim"), "{url}: {error}");
        }
        for url in ["postgres://u:geheim@h/d", "postgresql://h/d", "sqlite::memory:"] {
            let error = path_of(url).unwrap_err().to_string();
            assert!(error.contains("not supported yet") && !error.contains("geheim"), "{url}: {error}");
        }
    }

    #[test]
    fn users_stay_and_names_are_unique() {
        let (_dir, path) = database();
        let store = Store::open(&path, WAIT).unwrap();
        assert!(store.insert("ada", 7, "hash").unwrap());
        assert!(!store.insert("ada", 8, "other").unwrap());
        assert!(store.insert("Ada", 7, "third").unwrap());
        drop(store);
        let store = Store::open(&path, WAIT).unwrap();
        assert_eq!(
            store.user("ada").unwrap().map(|(user, hash)| (user.kind, hash)),
            Some((7, "hash".to_owned()))
        );
        assert_eq!(store.user("nobody").unwrap(), None);
    }

    #[test]
    fn only_the_owner_can_read_the_files() {
        let (dir, path) = database();
        let store = Store::open(&path, WAIT).unwrap();
        store.insert("ada", 7, "hash").unwrap();
        let modes: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().permissions().mode() & 0o777)
            .collect();
        assert!(modes.len() >= 2 && modes.iter().all(|&mode| mode == 0o600), "{modes:?}");
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let (_dir, path) = database();
        drop(Store::open(&path, WAIT).unwrap());
        let newer = Connection::open(&path).unwrap();
        newer.pragma_update(None, "user_version", KNOWN_VERSION + 1).unwrap();
        drop(newer);
        let before = std::fs::read(&path).unwrap();
        let error = Store::open(&path, WAIT).unwrap_err();
        assert!(matches!(error, AccountsError::NewerSchema { found: 3, known: 2, .. }), "{error}");
        assert!(error.to_string().ends_with("has schema version 3, and this program knows versions up to 2"));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_database_of_the_first_version_is_brought_up_to_date() {
        let (_dir, path) = database();
        let old = Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.execute_batch("INSERT INTO users VALUES (5, 'ada', 7, 'hash', 0); PRAGMA user_version = 1")
            .unwrap();
        drop(old);
        let store = Store::open(&path, WAIT).unwrap();
        assert_eq!(store.user("ada").unwrap(), Some((User::new(5, "ada".into(), 7), "hash".to_owned())));
        assert_eq!(schema_version(&store.db).unwrap(), 2);
    }

    #[test]
    fn what_is_not_a_database_is_refused() {
        let (_dir, path) = database();
        std::fs::write(&path, [b'x'; 4096]).unwrap();
        assert!(matches!(Store::open(&path, WAIT), Err(AccountsError::Open { .. })));
        let missing = path.join("no-such-directory/accounts.db");
        assert!(matches!(Store::open(&missing, WAIT), Err(AccountsError::Create { .. })));
    }

    #[test]
    fn a_lock_that_is_not_given_up_in_time_is_busy() {
        let (_dir, path) = database();
        let store = Store::open(&path, Duration::ZERO).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(matches!(store.insert("ada", 7, "hash"), Err(AccountsError::Busy)));
        assert_eq!(store.user("ada").unwrap(), None, "a writer does not stop readers");
        other.execute_batch("ROLLBACK").unwrap();
        assert!(store.insert("ada", 7, "hash").unwrap());
    }
}
