//! `BasicAuth`: who may see a site, by name and password (RFC 7617).
//!
//! Checking a password takes tens of milliseconds, and no loop does it: a request whose password is not known yet waits for
//! a [`Checker`]. What was found right is remembered for [`REMEMBERED`], under a keyed hash and not as it is; what was wrong
//! is not remembered, so guessing stays as slow as the hash is. Invariant: the memory has [`PLACES`] entries at the most.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use tidegate_engine::Instant;

use super::checker::{Busy, Checker, Question};
use super::users::{MAX_PASSWORD_BYTES, Users};

/// Basic authentication of a site.
pub(crate) struct BasicAuth {
    /// The value of `WWW-Authenticate`.
    challenge: String,
    users: Arc<Users>,
    checker: Arc<Checker>,
    remembered: Mutex<Remembered>,
}

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

impl BasicAuth {
    pub(crate) fn new(realm: &str, users: Users, checker: Arc<Checker>) -> Self {
        let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
        Self {
            challenge: format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            users: Arc::new(users),
            checker,
            remembered: Mutex::default(),
        }
    }

    /// What a client is asked with.
    pub(crate) fn challenge(&self) -> &str {
        &self.challenge
    }

    /// Looks at the value of `Authorization`.
    pub(crate) fn judge(&self, value: Option<&[u8]>, now: Instant) -> Judgement {
        let Some(login) = value.and_then(Login::parse) else { return Judgement::Refused };
        if self.remembered().knows(&login, now) {
            return Judgement::Admitted(login.name);
        }
        Judgement::Unknown(login)
    }

    /// Has a login checked; `done` is called on another thread.
    pub(crate) fn check(&self, login: &Login, done: impl FnOnce(bool) + Send + 'static) -> Result<(), Busy> {
        self.checker.ask(Question {
            users: Arc::clone(&self.users),
            name: login.name.clone(),
            password: login.password.clone(),
            done: Box::new(done),
        })
    }

    /// Remembers that a login was right.
    pub(crate) fn remember(&self, login: &Login, now: Instant) {
        self.remembered().add(login, now);
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        // Its entries are independent of one another.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Login {
    /// `Basic dXNlcjpwYXNzd29yZA==`
    fn parse(value: &[u8]) -> Option<Self> {
        let (scheme, rest) = value.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let encoded = str::from_utf8(rest).ok()?.trim_matches(' ');
        if encoded.len() > MAX_ENCODED_BYTES {
            return None;
        }
        let decoded = Base64::decode_vec(encoded).ok()?;
        let colon = decoded.iter().position(|&byte| byte == b':')?;
        let name = str::from_utf8(&decoded[..colon]).ok()?;
        let password = &decoded[colon + 1..];
        let fits = !name.is_empty() && !name.chars().any(char::is_control);
        (fits && password.len() <= MAX_PASSWORD_BYTES)
            .then(|| Self { name: name.into(), password: password.into() })
    }
}

/// A name and a password of the longest kind, in base64.
const MAX_ENCODED_BYTES: usize = 1024;

/// Logins that were right.
#[derive(Default)]
struct Remembered {
    /// Two hashes under keys that nobody outside of the process knows: what is kept is no password, and nobody can
    /// make another that is taken for it.
    keys: [RandomState; 2],
    /// Until when.
    logins: HashMap<[u64; 2], Instant>,
}

impl Remembered {
    fn key(&self, login: &Login) -> [u64; 2] {
        self.keys.each_ref().map(|key| key.hash_one((&login.name, &login.password)))
    }

    fn knows(&self, login: &Login, now: Instant) -> bool {
        !self.logins.is_empty() && self.logins.get(&self.key(login)).is_some_and(|until| *until > now)
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
    use super::*;

    fn auth() -> BasicAuth {
        BasicAuth::new("the \"inner\" room", Users::default(), Arc::new(Checker::start().unwrap()))
    }

    fn value(name: &str, password: &str) -> Vec<u8> {
        format!("Basic {}", Base64::encode_string(format!("{name}:{password}").as_bytes())).into_bytes()
    }

    fn login(auth: &BasicAuth, value: &[u8], now: Instant) -> Login {
        match auth.judge(Some(value), now) {
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
        let long = value(&"a".repeat(5000), "x");
        let long_password = value("a", &"x".repeat(300));
        for value in [
            &b""[..],
            b"Basic",
            b"Basic ",
            b"Basic !!!",
            b"Bearer abc",
            b"Basic YWRh",
            b"Basic /w==",
            b"Basic OnB3",
            b"basic YWRh\xff",
            &long,
            &long_password,
        ] {
            assert_eq!(auth.judge(Some(value), now), Judgement::Refused, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn names_and_passwords_are_read() {
        let auth = auth();
        let now = Instant::from_nanos(1);
        // RFC 7617, sections 2 and 2.1.
        let found = login(&auth, b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", now);
        assert_eq!((&*found.name, &*found.password), ("Aladdin", &b"open sesame"[..]));
        let found = login(&auth, b"bASIC dGVzdDoxMjPCow==", now);
        assert_eq!((&*found.name, &*found.password), ("test", "123£".as_bytes()));
        let found = login(&auth, &value("a", "b:c"), now);
        assert_eq!((&*found.name, &*found.password), ("a", &b"b:c"[..]));
        assert!(!format!("{found:?}").contains("b:c"));
    }

    #[test]
    fn what_was_right_is_remembered_for_a_while_and_nothing_else_is() {
        let auth = auth();
        let now = Instant::from_nanos(1);
        let right = value("ada", "one");
        auth.remember(&login(&auth, &right, now), now);
        assert_eq!(auth.judge(Some(&right), now), Judgement::Admitted("ada".into()));
        for other in [value("ada", "two"), value("adaone", ""), value("ad", "aone")] {
            assert!(matches!(auth.judge(Some(&other), now), Judgement::Unknown(_)));
        }
        let later = now + REMEMBERED;
        assert!(matches!(auth.judge(Some(&right), later), Judgement::Unknown(_)));
        for n in 0..2 * PLACES {
            auth.remember(&login(&auth, &value("u", &n.to_string()), now), now);
        }
        assert_eq!(auth.remembered().logins.len(), PLACES);
    }
}
