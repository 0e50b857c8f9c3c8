//! `Sessions`: who logs in and stays so, with a password or with the signature of a device.
//!
//! Invariant: no guess goes uncounted, and a guess over the limit costs no hash; nor does a registration. Sessions are in the database, so all
//! processes of a server know them, a reload and a restart keep them, and ending one ends it everywhere.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::bounded;

use crate::accounts::{check_password, register};
use crate::attempts::Attempt;
use crate::pool::{Desk, Entrance};
use crate::session::Used;
use crate::{Accounts, AccountsError, Credentials, DeviceKey, Outcome, SignedLogin, Token, User};

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
    /// How many accounts an address may ask for within `registration_window`, whether it gets them or not; 0: no limit.
    /// Default 20.
    pub max_registrations: u32,
    /// How long registrations count, from the first on. Default 1 h.
    pub registration_window: Duration,
}

impl Default for SessionRules {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(7 * 24 * 3600),
            sign_window: Duration::from_secs(300),
            max_failures: 10,
            failure_window: Duration::from_secs(900),
            max_registrations: 20,
            registration_window: Duration::from_secs(3600),
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

/// What a registration led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// The account was made.
    Made,
    /// Somebody has this name already.
    NameTaken,
    /// Too many from this address; further ones are not looked at until this has passed.
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

    /// Makes an account. `address` is where it comes from; none stands for the peers of Unix sockets.
    ///
    /// # Errors
    ///
    /// [`AccountsError::Busy`] or [`AccountsError::Closed`] at once; `done` is not called then.
    pub fn submit_register(
        &self,
        kind: i32,
        credentials: Credentials,
        address: Option<IpAddr>,
        done: impl FnOnce(Result<Registration, AccountsError>) + Send + 'static,
    ) -> Result<(), AccountsError> {
        let rules = self.rules;
        let place = self.accounts.registering.enter()?;
        let attempt = Attempt::to_register(address, rules.max_registrations);
        let (hashing, quick) = (self.accounts.pool.entrance(), self.accounts.quick.entrance());
        let counted = attempt.clone();
        self.accounts.quick.submit(
            move |desk| desk.store.begin_attempt(&counted, unix_time(), rules.registration_window),
            move |begun| match begun {
                Err(error) => done(Err(error)),
                Ok(Some(wait)) => done(Ok(Registration::TooMany(Duration::from_secs(wait.unsigned_abs())))),
                Ok(None) => hashing.pass_on(
                    move |desk| register(desk, kind, &credentials, place),
                    move |outcome| match outcome {
                        Err(error) => take_back(&quick, attempt, move || done(Err(error))),
                        Ok(Outcome::Done) => done(Ok(Registration::Made)),
                        // Credentials keep the rules, so nothing else is left.
                        Ok(Outcome::NameTaken | Outcome::Refused | Outcome::Invalid) => {
                            done(Ok(Registration::NameTaken));
                        }
                    },
                ),
            },
        )
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
                        Err(error) => take_back(&quick, undecided, move || done(Err(error))),
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

/// An attempt that was counted has not been decided; `then` is called in any case.
fn take_back(quick: &Entrance, attempt: Attempt, then: impl FnOnce() + Send + 'static) {
    quick.pass_on(
        move |desk| desk.store.take_attempt_back(&attempt),
        move |taken| {
            if let Err(error) = taken {
                tracing::warn!(%error, "an attempt that was not decided stays counted");
            }
            then();
        },
    );
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
    use crate::Options;
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

    const WAIT: Duration = Duration::from_secs(60);

    /// Accounts with one thread, which is held until what is returned is dropped, and a queue of this length.
    fn held_up(queue: usize) -> (tempfile::TempDir, Sessions, crossbeam_channel::Sender<()>) {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("accounts.db").display());
        let options = Options { threads: 1, queue, memory_kib: 8, passes: 1, busy_timeout: WAIT };
        let accounts = Arc::new(Accounts::open(&url, options).unwrap());
        let (release, released) = bounded::<()>(0);
        let (begun, has_begun) = bounded(1);
        let held = move |_: &Desk<'_>| {
            begun.send(()).unwrap();
            let _ = released.recv();
            Ok(())
        };
        accounts.pool.submit(held, |_| {}).unwrap();
        has_begun.recv_timeout(WAIT).unwrap();
        let rules = SessionRules { max_failures: 2, max_registrations: 3, ..SessionRules::default() };
        (dir, Sessions::new(accounts, rules), release)
    }

    fn ada() -> Credentials {
        Credentials::new(b"ada", b"secret").unwrap()
    }

    /// What is counted of `ada` at no address.
    fn counted(sessions: &Sessions) -> Vec<u32> {
        let (answer, answered) = bounded(1);
        let count = |desk: &Desk<'_>| {
            let mut query = desk.store.db.prepare("SELECT count FROM attempts ORDER BY who")?;
            let counts = query.query_map([], |row| row.get(0))?.collect::<Result<Vec<u32>, _>>()?;
            Ok(counts)
        };
        sessions.accounts.quick.submit(count, move |counts| answer.send(counts).unwrap()).unwrap();
        answered.recv_timeout(WAIT).unwrap().unwrap()
    }

    #[test]
    fn a_login_that_meets_a_full_queue_is_not_counted() {
        let (_dir, sessions, release) = held_up(1);
        sessions.accounts.pool.submit(|_| Ok(()), |_| {}).unwrap();
        let (answer, answers) = bounded(1);
        for _ in 0..5 {
            let answer = answer.clone();
            sessions.submit_login(ada(), None, move |login| answer.send(login).unwrap()).unwrap();
            let login = answers.recv_timeout(WAIT).unwrap();
            assert!(matches!(login, Err(AccountsError::Busy)), "{login:?}");
        }
        assert_eq!(counted(&sessions), [0, 0, 0]);
        drop(release);
    }

    #[test]
    fn an_attempt_that_was_not_counted_is_not_taken_back() {
        let (_dir, sessions, release) = held_up(8);
        drop(release);
        let (answer, answers) = bounded(1);
        let log_in = || {
            let answer = answer.clone();
            sessions.submit_login(ada(), None, move |login| answer.send(login).unwrap()).unwrap();
            answers.recv_timeout(WAIT).unwrap().unwrap()
        };
        assert_eq!((log_in(), log_in()), (Login::Refused, Login::Refused));
        for _ in 0..5 {
            assert!(matches!(log_in(), Login::TooMany(_)));
            assert_eq!(counted(&sessions), [2, 2, 2]);
        }
    }

    #[test]
    fn registrations_have_their_share_of_the_queue_and_a_limit() {
        let (_dir, sessions, release) = held_up(8);
        let (answer, answers) = bounded(20);
        let register = |n: u8| {
            let answer = answer.clone();
            let eve = Credentials::new(format!("eve{n}").as_bytes(), b"secret").unwrap();
            sessions.submit_register(0, eve, None, move |made| answer.send(made).unwrap())
        };
        assert!(register(0).is_ok() && register(1).is_ok());
        for n in 2..9 {
            assert!(matches!(register(n), Err(AccountsError::Busy)), "a quarter of 8");
        }
        let (other, others) = bounded(8);
        for _ in 0..4 {
            let other = other.clone();
            sessions
                .submit_login(ada(), Some([192, 0, 2, 1].into()), move |login| other.send(login).unwrap())
                .unwrap();
        }
        drop(release);
        for _ in 0..2 {
            assert_eq!(answers.recv_timeout(WAIT).unwrap().unwrap(), Registration::Made);
        }
        for _ in 0..4 {
            let login = others.recv_timeout(WAIT).unwrap().unwrap();
            assert!(matches!(login, Login::Refused | Login::TooMany(_)), "{login:?}");
        }
        // What was refused for want of room was not counted, what was made or taken is.
        register(1).unwrap();
        assert_eq!(answers.recv_timeout(WAIT).unwrap().unwrap(), Registration::NameTaken);
        register(5).unwrap();
        assert!(matches!(answers.recv_timeout(WAIT).unwrap().unwrap(), Registration::TooMany(_)));
    }
}
