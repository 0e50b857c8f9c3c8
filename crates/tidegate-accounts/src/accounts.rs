//! `Accounts`: the requests, as a program makes them.
//!
//! Any thread may ask. `submit_*` returns at once and never waits for a hash, the database or a place in the queue; `register`
//! and `login` wait, and are for threads that may. What is decided about a user, is decided here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::password::Hasher;
use crate::pool::{Desk, Pool};
use crate::store::{self, Store};
use crate::{AccountsError, Credentials, User};

/// The users of a server. Several processes may have the same database open.
///
/// Dropping it answers what waits with [`AccountsError::Closed`] and waits for the hashes that are being computed.
#[derive(Debug)]
pub struct Accounts {
    /// What is done without a hash, so that nobody who floods the other pool with passwords holds it up.
    pub(crate) quick: Pool,
    /// What takes a hash.
    pub(crate) pool: Pool,
    pub(crate) registering: Registering,
}

/// The part of the queue that registrations may have: who floods it with them leaves the rest to logins.
#[derive(Clone, Debug)]
pub(crate) struct Registering {
    places: Arc<AtomicUsize>,
    limit: usize,
}

/// A registration that waits or is at it.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Registering {
    /// A quarter of a queue of this length, at least one place.
    fn in_queue(len: usize) -> Self {
        Self { places: Arc::default(), limit: (len / 4).max(1) }
    }

    /// A place, until it is dropped.
    pub(crate) fn enter(&self) -> Result<Place, AccountsError> {
        let more = |taken: usize| (taken < self.limit).then_some(taken + 1);
        match self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Place(Arc::clone(&self.places))),
            Err(_) => Err(AccountsError::Busy),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How much work and memory accounts may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads that hash; each takes `memory_kib` while it does. At least 1. Default 2.
    pub threads: usize,
    /// Requests that may wait for a thread, and among them as registrations no more than a quarter; what is above is
    /// [`AccountsError::Busy`]. At least 1. Default 256.
    pub queue: usize,
    /// How long a request waits while another process writes to the database. Default 5 s.
    pub busy_timeout: Duration,
    /// Memory of one hash in KiB, argon2's `m`, at least 8. Default 19456 (19 MiB), as OWASP recommends.
    pub memory_kib: u32,
    /// Passes over that memory, argon2's `t`, at least 1. Default 2, as OWASP recommends.
    pub passes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 2,
            queue: 256,
            busy_timeout: Duration::from_secs(5),
            memory_kib: 19 * 1024,
            passes: 2,
        }
    }
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The account was made, or the password is right.
    Done,
    /// There is no such user, or the password is another one. Which of the two is not told, and takes the same time.
    Refused,
    /// Somebody has this name already.
    NameTaken,
    /// The name or the password breaks the rules of [`Credentials`].
    Invalid,
}

impl Accounts {
    /// Opens the database that `url` names, `sqlite:PATH`, and makes it if it is not there. Starts the pool's threads.
    ///
    /// # Errors
    ///
    /// What cannot be opened, is of a newer version, or is not supported yet (`postgres://…`).
    pub fn open(url: &str, options: Options) -> Result<Self, AccountsError> {
        let path = store::path_of(url)?;
        let hasher = Hasher::new(options.memory_kib, options.passes)?;
        let hasher = Arc::new(hasher);
        let open = |threads| {
            (0..threads).map(|_| Store::open(&path, options.busy_timeout)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            pool: Pool::start("accounts", open(options.threads.max(1))?, &hasher, options.queue)?,
            quick: Pool::start("accounts-quick", open(1)?, &hasher, options.queue)?,
            registering: Registering::in_queue(options.queue),
        })
    }

    /// Asks for an account; `done` is called with the outcome on a thread of the pool.
    ///
    /// # Errors
    ///
    /// [`AccountsError::Busy`] or [`AccountsError::Closed`] at once; `done` is not called then.
    pub fn submit_register(
        &self,
        kind: i32,
        credentials: Credentials,
        done: impl FnOnce(Result<Outcome, AccountsError>) + Send + 'static,
    ) -> Result<(), AccountsError> {
        let place = self.registering.enter()?;
        self.pool.submit(move |desk| register(desk, kind, &credentials, place), done)
    }

    /// Asks whether a password is right; `done` is called with the outcome on a thread of the pool.
    ///
    /// # Errors
    ///
    /// As [`submit_register`](Self::submit_register).
    pub fn submit_login(
        &self,
        credentials: Credentials,
        done: impl FnOnce(Result<Outcome, AccountsError>) + Send + 'static,
    ) -> Result<(), AccountsError> {
        self.pool.submit(move |desk| login(desk, &credentials), done)
    }

    /// Makes an account, and waits until it is made.
    ///
    /// # Errors
    ///
    /// What kept the request from being decided.
    pub fn register(&self, kind: i32, username: &[u8], password: &[u8]) -> Result<Outcome, AccountsError> {
        match Credentials::new(username, password) {
            Ok(credentials) => {
                let place = self.registering.enter()?;
                self.wait_for(move |desk| register(desk, kind, &credentials, place))
            }
            Err(_) => Ok(Outcome::Invalid),
        }
    }

    /// Checks a password, and waits for the outcome.
    ///
    /// # Errors
    ///
    /// What kept the request from being decided.
    pub fn login(&self, username: &[u8], password: &[u8]) -> Result<Outcome, AccountsError> {
        match Credentials::new(username, password) {
            Ok(credentials) => self.wait_for(move |desk| login(desk, &credentials)),
            Err(_) => Ok(Outcome::Invalid),
        }
    }

    fn wait_for(
        &self,
        task: impl FnOnce(&Desk<'_>) -> Result<Outcome, AccountsError> + Send + 'static,
    ) -> Result<Outcome, AccountsError> {
        let (answer, answered) = bounded(1);
        // The receiver lives until the answer is there, so sending cannot fail.
        self.pool.submit(task, move |result| drop(answer.send(result)))?;
        answered.recv().unwrap_or(Err(AccountsError::Closed))
    }
}

/// Makes an account, and gives its place to the next when it is made.
pub(crate) fn register(
    desk: &Desk<'_>,
    kind: i32,
    credentials: &Credentials,
    _place: Place,
) -> Result<Outcome, AccountsError> {
    // A taken name is told anyway, so it need not cost a hash.
    if desk.store.user(credentials.username())?.is_some() {
        return Ok(Outcome::NameTaken);
    }
    let hash = desk.hasher.hash(credentials.password())?;
    // Another process may have taken the name meanwhile; the database decides.
    let inserted = desk.store.insert(credentials.username(), kind, &hash)?;
    Ok(if inserted { Outcome::Done } else { Outcome::NameTaken })
}

fn login(desk: &Desk<'_>, credentials: &Credentials) -> Result<Outcome, AccountsError> {
    let right = check_password(desk, credentials)?.is_some();
    Ok(if right { Outcome::Done } else { Outcome::Refused })
}

/// The user whose password this is.
pub(crate) fn check_password(
    desk: &Desk<'_>,
    credentials: &Credentials,
) -> Result<Option<User>, AccountsError> {
    let found = desk.store.user(credentials.username())?;
    let stored = found.as_ref().map(|(_, hash)| hash.as_str());
    let right = desk.hasher.verify(credentials.password(), stored)?;
    Ok(found.map(|(user, _)| user).filter(|_| right))
}
