//! `Sessions`: who logs in and stays so, with a password or with the signature of a device.
//!
//! Invariant: no guess goes uncounted, and a guess over the limit costs no hash. Sessions are in the database, so all
//! processes of a server know them, a reload and a restart keep them, and ending one ends it everywhere.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::bounded;

use crate::accounts::check_password;
use crate::attempts::Attempt;
use crate::pool::Desk;
use crate::session::Used;
use crate::{Accounts, AccountsError, Credentials, DeviceKey, SignedLogin, Token, User};

/// Logs in and out. Any thread may ask; each answer comes on a thread of the accounts.
#[derive(Clone, Debug)]
pub struct Sessions {
    accounts: Arc<Accounts>,
    rules: SessionRules,
}

/// How long sessions last, and what stands against guessing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// How long a session lasts from its login on; at least a second. Default 7 days.
    pub lifetime: Duration,
    /// How far the time of a signed login may be from this machine's, before and after. Default 5 min.
    pub sign_window: Duration,
    /// How many failures a name may have at an address within `failure_window`, at least 1; a name from all addresses, and
    /// an address with all names, may have ten times as many. Default 10.
    pub max_failures: u32,
    /// How long failures count, from the first on. Default 15 min.
    pub failure_window: Duration,
}

impl Default for SessionRules {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(7 * 24 * 3600),
            sign_window: Duration::from_secs(300),
            max_failures: 10,
            failure_window: Duration::from_secs(900),
        }
    }
}

/// What a login led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A session; whoever has the token is in it.
    Granted(Token, Session),
    /// There is no such user, or the password or signature is another one. Which of them is not told.
    Refused,
    /// The time that was signed is too far from this machine's.
    Stale,
    /// The signature is right and has been used.
    Replayed,
    /// Too many failures; further attempts are not looked at until this has passed.
    TooMany(Duration),
}

/// Somebody is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    user: User,
    expires_at: i64,
}

impl Session {
    pub(crate) const fn new(user: User, expires_at: i64) -> Self {
        Self { user, expires_at }
    }

    /// Who it is.
    #[must_use]
    pub const fn user(&self) -> &User {
        &self.user
    }

    /// When it ends, in seconds since 1970.
    #[must_use]
    pub const fn expires_at(&self) -> i64 {
        self.expires_at
    }
}

impl Sessions {
    /// The sessions of these accounts.
    #[must_use]
    pub const fn new(accounts: Arc<Accounts>, rules: SessionRules) -> Self {
        Self { accounts, rules }
    }

    /// The accounts.
    #[must_use]
    pub const fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    /// The rules.
    #[must_use]
    pub const fn rules(&self) -> SessionRules {
        self.rules
    }

    /// Logs in with a password. `address` is where it comes from; none stands for the peers of Unix sockets.
    ///
    /// # Errors
    ///
    /// [`AccountsError::Busy`] or [`AccountsError::Closed`] at once; `done` is not called then.
    pub fn submit_login(
        &self,
        credentials: Credentials,
        address: Option<IpAddr>,
        done: impl FnOnce(Result<Login, AccountsError>) + Send + 'static,
    ) -> Result<(), AccountsError> {
        let rules = self.rules;
        let attempt = Attempt::new(credentials.username(), address, rules.max_failures);
        let (hashing, quick) = (self.accounts.pool.entrance(), self.accounts.quick.entrance());
        let (counted, undecided) = (attempt.clone(), attempt.clone());
        self.accounts.quick.submit(
            move |desk| desk.store.begin_attempt(&counted, unix_time(), rules.failure_window),
            move |begun| match begun {
                Err(error) => done(Err(error)),
                Ok(Some(wait)) => done(Ok(too_many(wait))),
                Ok(None) => hashing.pass_on(
                    move |desk| log_in(desk, &credentials, &attempt, &rules),
                    // A login that nobody had the time to look at has not failed.
                    move |login| match login {
                        Err(error) => quick.pass_on(
                            move |desk| desk.store.take_attempt_back(&undecided),
                            move |taken| {
                                if let Err(error) = taken {
                                    tracing::warn!(%error, "an undecided login stays counted as a failed one");
                                }
                                done(Err(error));
                            },
                        ),
                        login => done(login),
                    },
                ),
            },
        )
    }

    /// Logs in with a signature.
    ///
    /// # Errors
    ///
    /// As [`submit_login`](Self::submit_login).
    pub fn submit_signed_login(
        &self,
        login: SignedLogin,
        address: Option<IpAddr>,
        done: impl FnOnce(Result<Login, AccountsError>) + Send + 'static,
    ) -> Result<(), AccountsError> {
        let rules = self.rules;
        self.accounts.quick.submit(
            move |desk| {
                let attempt = Attempt::new(login.user(), address, rules.max_failures);
                log_in_signed(desk, &login, &attempt, &rules, unix_time())
            },
            done,
        )
    }

    /// The session of a token, if it has one.
    ///
    /// # Errors
    ///
    /// As [`submit_login`](Self::submit_login).
    pub fn submit_find(
        &self,
        token: Token,
        done: impl FnOnce(Result<Option<Session>, AccountsError>) + Send + 'static,
    ) -> Result<(), AccountsError> {
        self.accounts.quick.submit(move |desk| desk.store.session(&token, unix_time()), done)
    }

    /// As [`submit_find`](Self::submit_find), and waits for the outcome: for threads that may.
    ///
    /// # Errors
    ///
    /// What kept the session from being found.
    pub fn find(&self, token: Token) -> Result<Option<Session>, AccountsError> {
        let (answer, answered) = bounded(1);
        // The receiver lives until the answer is there, so sending cannot fail.
        self.submit_find(token, move |result| drop(answer.send(result)))?;
        answered.recv().unwrap_or(Err(AccountsError::Closed))
    }

    /// Ends the session of a token. The outcome is false when it had none.
    ///
    /// # Errors
    ///
    /// As [`submit_login`](Self::submit_login).
    pub fn submit_logout(
        &self,
        token: Token,
        done: impl FnOnce(Result<bool, AccountsError>) + Send + 'static,
    ) -> Result<(), AccountsError> {
        self.accounts.quick.submit(move |desk| desk.store.delete_session(&token), done)
    }

    /// Gives the devices of whoever is in this session a new key; one that they had is good no more. `None` when the token
    /// has no session.
    ///
    /// # Errors
    ///
    /// As [`submit_login`](Self::submit_login).
    pub fn submit_new_key(
        &self,
        token: Token,
        done: impl FnOnce(Result<Option<DeviceKey>, AccountsError>) + Send + 'static,
    ) -> Result<(), AccountsError> {
        self.accounts.quick.submit(
            move |desk| {
                let Some(session) = desk.store.session(&token, unix_time())? else { return Ok(None) };
                let key = DeviceKey::generate()?;
                desk.store.set_key(session.user(), &key)?;
                Ok(Some(key))
            },
            done,
        )
    }
}

fn log_in(
    desk: &Desk<'_>,
    credentials: &Credentials,
    attempt: &Attempt,
    rules: &SessionRules,
) -> Result<Login, AccountsError> {
    let Some(user) = check_password(desk, credentials)? else { return Ok(Login::Refused) };
    let (token, now) = (Token::generate()?, unix_time());
    let expires_at = end(now, rules);
    desk.store.insert_session(&user, &token, now, expires_at)?;
    desk.store.forgive_attempt(attempt)?;
    Ok(Login::Granted(token, Session::new(user, expires_at)))
}

fn log_in_signed(
    desk: &Desk<'_>,
    login: &SignedLogin,
    attempt: &Attempt,
    rules: &SessionRules,
    now: i64,
) -> Result<Login, AccountsError> {
    let window = seconds(rules.sign_window);
    if login.time().abs_diff(now) > window.unsigned_abs() {
        return Ok(Login::Stale);
    }
    if let Some(wait) = desk.store.begin_attempt(attempt, now, rules.failure_window)? {
        return Ok(too_many(wait));
    }
    // A user without a key is told no sooner than one whose key is another.
    let found = desk.store.user_with_key(login.user())?;
    let (user, key) = found.map_or((None, None), |(user, key)| (Some(user), key));
    let right = login.is_signed_with(key.as_ref().unwrap_or(&DeviceKey::from_bytes([0; 32])));
    let (Some(user), Some(_), true) = (user, key, right) else { return Ok(Login::Refused) };
    let (token, expires_at) = (Token::generate()?, end(now, rules));
    // Until then somebody could send it again.
    let salt_until = login.time().saturating_add(window);
    match desk.store.use_salt((&user, login), &token, (now, salt_until, expires_at))? {
        Used::Before => return Ok(Login::Replayed),
        Used::TooOften => return Ok(too_many(window.max(1))),
        Used::First => {}
    }
    desk.store.forgive_attempt(attempt)?;
    Ok(Login::Granted(token, Session::new(user, expires_at)))
}

fn too_many(seconds: i64) -> Login {
    Login::TooMany(Duration::from_secs(seconds.unsigned_abs()))
}

fn end(now: i64, rules: &SessionRules) -> i64 {
    now.saturating_add(seconds(rules.lifetime).max(1))
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn unix_time() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::Hasher;
    use crate::store::Store;

    /// Runs signed logins of `ada`, who has a key, at given times.
    struct Bench {
        _dir: tempfile::TempDir,
        store: Store,
        hasher: Hasher,
        key: DeviceKey,
        rules: SessionRules,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("accounts.db"), Duration::from_secs(30)).unwrap();
            store.insert("ada", 7, "hash").unwrap();
            store.insert("keyless", 7, "hash").unwrap();
            let key = DeviceKey::generate().unwrap();
            store.set_key(&store.user("ada").unwrap().unwrap().0, &key).unwrap();
            let rules = SessionRules { max_failures: 2, ..SessionRules::default() };
            Self { _dir: dir, store, hasher: Hasher::new(8, 1).unwrap(), key, rules }
        }

        fn log_in(&self, now: i64, login: &SignedLogin) -> Login {
            let desk = Desk { store: &self.store, hasher: &self.hasher };
            let address = "192.0.2.1".parse().unwrap();
            let attempt = Attempt::new(login.user(), Some(address), self.rules.max_failures);
            log_in_signed(&desk, login, &attempt, &self.rules, now).unwrap()
        }

        fn login(&self, time: i64, salt: &str, user: &str, key: &DeviceKey) -> SignedLogin {
            let sign = SignedLogin::sign(key, time, salt, user);
            SignedLogin::new(time, salt.as_bytes(), user.as_bytes(), &sign).unwrap()
        }
    }

    #[test]
    fn a_signature_is_good_once_and_within_its_window() {
        let bench = Bench::new();
        for (time, salt) in [(700, "early-salt"), (1300, "late-salt")] {
            let login = bench.login(time, salt, "ada", &bench.key);
            assert!(matches!(bench.log_in(1000, &login), Login::Granted(..)), "{time}");
            assert_eq!(bench.log_in(1000, &login), Login::Replayed, "{time}");
        }
        for time in [699, 1301, i64::MIN, i64::MAX] {
            let login = bench.login(time, "another-salt", "ada", &bench.key);
            assert_eq!(bench.log_in(1000, &login), Login::Stale, "{time}");
        }
        // The salt is remembered for exactly as long as the time is taken.
        let login = bench.login(1300, "late-salt", "ada", &bench.key);
        assert_eq!(bench.log_in(1600, &login), Login::Replayed);
        assert_eq!(bench.log_in(1601, &login), Login::Stale);
    }

    #[test]
    fn wrong_keys_and_users_without_one_are_refused_and_counted() {
        let bench = Bench::new();
        let wrong = DeviceKey::generate().unwrap();
        let zero = DeviceKey::from_bytes([0; 32]);
        for (user, key) in [("ada", &wrong), ("keyless", &zero), ("nobody", &zero)] {
            for attempt in 0..2 {
                let login = bench.login(1000, "some-salt", user, key);
                assert_eq!(bench.log_in(1000, &login), Login::Refused, "{user} {attempt}");
            }
            let login = bench.login(1000, "some-salt", user, key);
            assert_eq!(bench.log_in(1100, &login), Login::TooMany(Duration::from_secs(800)), "{user}");
        }
        let right = bench.login(1000, "some-salt", "ada", &bench.key);
        assert!(matches!(bench.log_in(1000, &right), Login::TooMany(_)), "also who is right waits");
        let right = bench.login(1900, "some-salt", "ada", &bench.key);
        assert!(matches!(bench.log_in(1900, &right), Login::Granted(..)));
    }
}
