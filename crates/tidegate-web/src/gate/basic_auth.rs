//! `BasicAuth`: who may see a site, by name and password (RFC 7617).
//!
//! Checking a password takes tens of milliseconds, and no loop does it: a request whose password is not known yet waits for
//! a [`Checker`]. What was found right is remembered for [`REMEMBERED`], under a keyed hash and not as it is; what was wrong
//! is not remembered, so guessing stays as slow as the hash is, and each guess counts ([`LoginLimit`]). What is being checked
//! is not checked a second time: all who wait for the same get one answer, so a browser with many connections costs one hash
//! and one attempt. Invariant: the memory has [`PLACES`] entries at the most.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_engine::Instant;
use tidegate_http::Credentials;

use super::checker::{Checker, Question};
use super::login_limit::{LoginLimit, key_of_source};
use super::networks::Source;
use super::users::{MAX_NAME_BYTES, MAX_PASSWORD_BYTES, Users};

/// Basic authentication of a site.
pub(crate) struct BasicAuth {
    /// The value of `WWW-Authenticate`.
    challenge: String,
    users: Arc<Users>,
    checker: Arc<Checker>,
    limit: Option<LoginLimit>,
    known: Arc<Mutex<Known>>,
}

/// Why a login is not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotChecked {
    /// Too many wait.
    Busy,
    /// Too many were wrong; in so many seconds there may be another.
    TooMany(u64),
}

/// Hears whether a login is right, on another thread.
type Done = Box<dyn FnOnce(bool) + Send>;

/// What a request's `Authorization` comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// This user is let in.
    Admitted(Box<str>),
    /// There is none, or it cannot be one.
    Refused,
    /// It has to be checked.
    Unknown(Login),
}

/// A name and a password.
#[derive(PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) name: Box<str>,
    password: Box<[u8]>,
}

/// How long a password that was right is not checked again: a page has many parts, and a change of the file of users is
/// rare, and ends it, since the service is built anew.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many are remembered.
const PLACES: usize = 1024;
/// How many may wait for the check of one login.
const MAX_WAITING: usize = 4096;

impl BasicAuth {
    pub(crate) fn new(realm: &str, users: Users, checker: Arc<Checker>, limit: Option<LoginLimit>) -> Self {
        let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
        Self {
            challenge: format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            users: Arc::new(users),
            checker,
            limit,
            known: Arc::default(),
        }
    }

    /// What a client is asked with.
    pub(crate) fn challenge(&self) -> &str {
        &self.challenge
    }

    /// Looks at what `Authorization` says.
    pub(crate) fn judge(&self, credentials: Option<Credentials<'_>>, now: Instant) -> Judgement {
        let Some(login) = credentials.and_then(Login::of) else { return Judgement::Refused };
        if lock(&self.known).knows(&login, now) {
            return Judgement::Admitted(login.name);
        }
        Judgement::Unknown(login)
    }

    /// Has a login from this address checked; `done` is called on another thread, unless this is an error.
    pub(crate) fn check(
        &self,
        login: &Login,
        source: Source,
        now: Instant,
        done: impl FnOnce(bool) + Send + 'static,
    ) -> Result<(), NotChecked> {
        let mut known = lock(&self.known);
        let key = known.key(login);
        if let Some(waiting) = known.waiting.get_mut(&key) {
            if waiting.len() >= MAX_WAITING {
                return Err(NotChecked::Busy);
            }
            waiting.push(Box::new(done));
            return Ok(());
        }
        // Who was right before does not guess; else many connections of a user would use up his attempts when they are all
        // checked once more.
        let limit = self.limit.as_ref().filter(|_| !known.logins.contains_key(&key));
        let attempt = limit.map(|limit| limit.take(source, &login.name, now.as_nanos())).transpose();
        let claim = limit.cloned().zip(attempt.map_err(NotChecked::TooMany)?);
        let (memory, claimed) = (Arc::clone(&self.known), claim.clone());
        let asked = self.checker.ask(Question {
            source: key_of_source(source),
            users: Arc::clone(&self.users),
            name: login.name.clone(),
            password: login.password.clone(),
            done: Box::new(move |is_right| {
                // First, since whoever asks the same from now on takes an attempt.
                if let Some((limit, attempt)) = claimed.filter(|_| is_right) {
                    limit.forgive(attempt);
                }
                let waiting = lock(&memory).conclude(key, is_right);
                for done in waiting {
                    done(is_right);
                }
            }),
        });
        if asked.is_err() {
            if let Some((limit, attempt)) = claim {
                limit.give_back(attempt);
            }
            return Err(NotChecked::Busy);
        }
        known.waiting.insert(key, vec![Box::new(done)]);
        Ok(())
    }

    /// Remembers that a login was right.
    pub(crate) fn remember(&self, login: &Login, now: Instant) {
        lock(&self.known).add(login, now);
    }
}

/// Its entries are independent of one another.
fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Login {
    /// `None` where nobody can have such a name or password.
    fn of(credentials: Credentials<'_>) -> Option<Self> {
        let Credentials::Basic { user, password } = credentials else { return None };
        let fits = (1..=MAX_NAME_BYTES).contains(&user.len()) && password.len() <= MAX_PASSWORD_BYTES;
        fits.then(|| Self { name: user.into(), password: password.into_bytes().into() })
    }
}

/// What is known of logins, and what is being found out.
#[derive(Default)]
struct Known {
    /// Two hashes under keys that nobody outside of the process knows: what is kept is no password, and nobody can
    /// make another that is taken for it.
    keys: [RandomState; 2],
    /// Those that were right, and until when that is believed. Afterwards they are checked again.
    logins: HashMap<[u64; 2], Instant>,
    /// Those that are being checked, and who waits for it.
    waiting: HashMap<[u64; 2], Vec<Done>>,
}

impl Known {
    fn key(&self, login: &Login) -> [u64; 2] {
        self.keys.each_ref().map(|key| key.hash_one((&login.name, &login.password)))
    }

    fn knows(&self, login: &Login, now: Instant) -> bool {
        !self.logins.is_empty() && self.logins.get(&self.key(login)).is_some_and(|until| *until > now)
    }

    /// A login has been checked; who waits for it.
    fn conclude(&mut self, key: [u64; 2], is_right: bool) -> Vec<Done> {
        if !is_right {
            self.logins.remove(&key);
        }
        self.waiting.remove(&key).unwrap_or_default()
    }

    fn add(&mut self, login: &Login, now: Instant) {
        if self.logins.len() >= PLACES {
            self.logins.retain(|_, until| *until > now);
        }
        if self.logins.len() >= PLACES {
            // Anyone: who was forgotten is checked once more.
            let oldest = self.logins.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key);
            oldest.map(|key| self.logins.remove(&key));
        }
        self.logins.insert(self.key(login), now + REMEMBERED);
    }
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BasicAuth").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::request_limit::RequestLimit;
    use super::super::users::hash_password;
    use super::*;

    fn auth() -> BasicAuth {
        BasicAuth::new("the \"inner\" room", Users::default(), Arc::new(Checker::start().unwrap()), None)
    }

    fn basic(name: &str, password: &str) -> Credentials<'static> {
        Credentials::Basic { user: name.to_owned(), password: password.to_owned() }
    }

    fn login(auth: &BasicAuth, credentials: Credentials<'_>, now: Instant) -> Login {
        match auth.judge(Some(credentials), now) {
            Judgement::Unknown(login) => login,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_login_is_refused_without_a_check() {
        let auth = auth();
        assert_eq!(auth.challenge(), r#"Basic realm="the \"inner\" room", charset="UTF-8""#);
        let now = Instant::from_nanos(1);
        assert_eq!(auth.judge(None, now), Judgement::Refused);
        for credentials in [
            basic("", "pw"),
            basic(&"a".repeat(MAX_NAME_BYTES + 1), "x"),
            basic("a", &"x".repeat(MAX_PASSWORD_BYTES + 1)),
            Credentials::Bearer("abc"),
        ] {
            assert_eq!(auth.judge(Some(credentials.clone()), now), Judgement::Refused, "{credentials:?}");
        }
    }

    #[test]
    fn names_and_passwords_are_taken_up_to_their_longest() {
        let (auth, now) = (auth(), Instant::from_nanos(1));
        let (name, password) = ("n".repeat(MAX_NAME_BYTES), "p".repeat(MAX_PASSWORD_BYTES));
        let found = login(&auth, basic(&name, &password), now);
        assert_eq!((&*found.name, &*found.password), (&*name, password.as_bytes()));
        assert!(!format!("{found:?}").contains("pp"));
    }

    #[test]
    fn what_was_right_is_remembered_for_a_while_and_nothing_else_is() {
        let auth = auth();
        let now = Instant::from_nanos(1);
        let right = basic("ada", "one");
        auth.remember(&login(&auth, right.clone(), now), now);
        assert_eq!(auth.judge(Some(right.clone()), now), Judgement::Admitted("ada".into()));
        for other in [basic("ada", "two"), basic("adaone", ""), basic("ad", "aone")] {
            assert!(matches!(auth.judge(Some(other), now), Judgement::Unknown(_)));
        }
        let later = now + REMEMBERED;
        assert!(matches!(auth.judge(Some(right), later), Judgement::Unknown(_)));
        for n in 0..2 * PLACES {
            auth.remember(&login(&auth, basic("u", &n.to_string()), now), now);
        }
        assert_eq!(lock(&auth.known).logins.len(), PLACES);
    }

    const WAIT: Duration = Duration::from_secs(60);

    fn limited(max_failures: u32) -> BasicAuth {
        let users = Users::parse(&format!("ada:{}\n", hash_password(b"one").unwrap())).unwrap();
        let limit = LoginLimit::new(max_failures, [RequestLimit::own_table(), RequestLimit::own_table()]);
        BasicAuth::new("r", users, Arc::new(Checker::start().unwrap()), Some(limit))
    }

    #[test]
    fn all_who_ask_the_same_cost_one_attempt_and_get_one_answer() {
        let auth = limited(1);
        let now = Instant::from_nanos(1);
        let (answer, answers) = crossbeam_channel::bounded(100);
        let ask = |password: &str| {
            let answer = answer.clone();
            let login = login(&auth, basic("ada", password), now);
            auth.check(&login, None, now, move |is_right| answer.send(is_right).unwrap())
        };
        // Some of them may come when the first has been answered: then it has been forgiven, too.
        for _ in 0..100 {
            assert_eq!(ask("one"), Ok(()));
        }
        for _ in 0..100 {
            assert_eq!(answers.recv_timeout(WAIT), Ok(true));
        }
        assert_eq!(ask("two"), Ok(()));
        assert_eq!(answers.recv_timeout(WAIT), Ok(false));
        assert_eq!(ask("three"), Err(NotChecked::TooMany(900)));
        assert_eq!(ask("one"), Err(NotChecked::TooMany(900)), "also who is right waits");
        let known = basic("ada", "one");
        auth.remember(&login(&auth, known.clone(), now), now);
        let later = now + REMEMBERED;
        let again = login(&auth, known, later);
        let done = answer.clone();
        let asked = auth.check(&again, None, later, move |is_right| done.send(is_right).unwrap());
        assert_eq!(asked, Ok(()), "but for one who was right before");
        assert_eq!(answers.recv_timeout(WAIT), Ok(true));
        assert!(lock(&auth.known).waiting.is_empty());
    }

    #[test]
    fn an_attempt_that_found_no_room_is_not_counted() {
        let auth = limited(1000);
        let now = Instant::from_nanos(1);
        let (release, released) = crossbeam_channel::bounded::<()>(0);
        let ask = |n: usize| {
            let released = released.clone();
            let login = login(&auth, basic("ada", &n.to_string()), now);
            auth.check(&login, None, now, move |_| {
                let _ = released.recv();
            })
        };
        // Were those counted that find no room, it would be too many after the first thousand.
        let asked: Vec<_> = (0..5000).map(ask).collect();
        let taken = asked.iter().filter(|asked| asked.is_ok()).count();
        assert!((64..=66).contains(&taken), "{taken}: the share of an address, and what two threads are at");
        assert_eq!(asked.iter().filter(|asked| **asked == Err(NotChecked::Busy)).count(), 5000 - taken);
        drop(release);
    }
}
