//! `LoadSpec`: whom to load, with what, how hard and for how long.
//!
//! Invariant: a spec that [`LoadSpec::check`] let through can be run; nothing behind it looks at the bounds again.

use std::fmt;
use std::time::Duration;

use tidegate_engine::Target;
use tidegate_frame::{LOGIN, MAX_BODY};

/// Whom to load, and how.
///
/// ```
/// use tidegate_bench::{Ask, LoadSpec};
///
/// let to = "127.0.0.1:7000".parse()?;
/// let spec = LoadSpec { connections: 64, rate: Some(10_000.0), ..LoadSpec::new(vec![to], Ask::Echo { size: 64 }) };
/// assert!(spec.check().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// Where to connect to, in turn. One local address has some 28,000 ports for each of them.
    pub to: Vec<Target>,
    /// What is asked.
    pub ask: Ask,
    /// How many connections are open, over all threads. Default 10.
    pub connections: usize,
    /// How many requests of a connection are in flight at the most. Default 1.
    pub pipeline: usize,
    /// Requests per second over all connections, each due at its time whatever became of those before it. `None`: each
    /// connection asks its next question as soon as it has an answer, which finds out what the server can do.
    pub rate: Option<f64>,
    /// For how long is measured. Default 10 s.
    pub duration: Duration,
    /// For how long is asked before that. What fails then counts as a failure too. Default 1 s.
    pub warmup: Duration,
    /// How many threads ask. Default 1.
    pub threads: usize,
    /// How long a connection may take to be made, and to bring anything while an answer is due. Default 10 s.
    pub timeout: Duration,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Messages that come back as they are.
    Echo {
        /// Bytes of a message.
        size: usize,
    },
    /// `GET` over HTTP/1.1. An answer of status 400 or more is a failed request.
    Http {
        /// What to get: it begins with a slash.
        path: String,
        /// The field `Host`.
        host: String,
        /// Further fields.
        headers: Vec<(String, String)>,
    },
    /// Frames of the message protocol that are answered by a frame of the same code.
    Msg {
        /// The code of the frames: 0 is the ping.
        code: u16,
        /// Bytes of the body. A login has a body of its own.
        size: usize,
        /// With what each connection begins.
        login: Option<Login>,
    },
}

/// Who logs in.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name of the user, at most 56 bytes.
    pub user: String,
    /// The password, at most 40 bytes.
    pub password: Vec<u8>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// There is nobody to load.
    #[error("no address to connect to")]
    NoTarget,
    /// A number is out of its bounds.
    #[error("{what} must be {least} to {most}, not {found}")]
    Bounds {
        /// Which number.
        what: &'static str,
        /// The least it may be.
        least: u64,
        /// The most it may be.
        most: u64,
        /// What it is.
        found: String,
    },
    /// A connection would have more in flight than [`MAX_IN_FLIGHT_BYTES`].
    #[error(
        "{pipeline} messages of {size} bytes in flight are more than {MAX_IN_FLIGHT_BYTES} bytes on a connection"
    )]
    InFlight {
        /// Messages in flight.
        pipeline: usize,
        /// Bytes of each.
        size: usize,
    },
    /// Something that would stand in the head of the request cannot.
    #[error("{what} \"{}\" cannot stand in a request: {why}", text.escape_debug())]
    Http {
        /// What it is.
        what: &'static str,
        /// How it was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Logins are asked for, and nobody is to log in.
    #[error("code {LOGIN} is a login: a user and a password are needed")]
    NoLogin,
    /// The name or the password does not fit its field.
    #[error("the login of user \"{user}\": {source}")]
    Login {
        /// The name.
        user: String,
        /// What is wrong.
        source: tidegate_frame::BadText,
    },
}

/// The most connections of a run.
pub const MAX_CONNECTIONS: usize = 1_000_000;
/// The most requests of a connection in flight.
pub const MAX_PIPELINE: usize = 1024;
/// The most bytes of requests of a connection in flight.
pub const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;
/// The largest message of an echo.
pub const MAX_ECHO_BYTES: usize = 1 << 20;
const MAX_THREADS: usize = 256;
const MAX_SECONDS: u64 = 7 * 24 * 3600;
const MAX_RATE: u32 = 10_000_000;

impl LoadSpec {
    /// What the defaults say, against `to`.
    #[must_use]
    pub fn new(to: Vec<Target>, ask: Ask) -> Self {
        Self {
            to,
            ask,
            connections: 10,
            pipeline: 1,
            rate: None,
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(1),
            threads: 1,
            timeout: Duration::from_secs(10),
        }
    }

    /// Whether it can be run.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.to.is_empty() {
            return Err(SpecError::NoTarget);
        }
        within("the number of connections", self.connections, 1, MAX_CONNECTIONS)?;
        within("the number of requests in flight", self.pipeline, 1, MAX_PIPELINE)?;
        within("the number of threads", self.threads, 1, MAX_THREADS.min(self.connections))?;
        seconds("the duration", self.duration, Duration::from_millis(1))?;
        seconds("the warm-up", self.warmup, Duration::ZERO)?;
        seconds("the time-out", self.timeout, Duration::from_millis(1))?;
        if let Some(rate) = self.rate
            && !(rate > 0.0 && rate <= MAX_RATE.into())
        {
            let found = rate.to_string();
            return Err(SpecError::Bounds {
                what: "the rate per second",
                least: 0,
                most: MAX_RATE.into(),
                found,
            });
        }
        let size = self.ask.check()?;
        if size.saturating_mul(self.pipeline) > MAX_IN_FLIGHT_BYTES {
            return Err(SpecError::InFlight { pipeline: self.pipeline, size });
        }
        Ok(())
    }
}

impl Ask {
    /// Its name, as the command line has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Echo { .. } => "echo",
            Self::Http { .. } => "http",
            Self::Msg { .. } => "msg",
        }
    }

    /// Whether it can be asked; how large a message is, about.
    fn check(&self) -> Result<usize, SpecError> {
        match self {
            Self::Echo { size } => {
                within("the size of a message", *size, 1, MAX_ECHO_BYTES)?;
                Ok(*size)
            }
            Self::Http { path, host, headers } => check_http(path, host, headers),
            Self::Msg { code, size, login } => {
                within("the size of a body", *size, 0, MAX_BODY)?;
                match login {
                    Some(login) => login.encode().map(drop)?,
                    None if *code == LOGIN => return Err(SpecError::NoLogin),
                    None => {}
                }
                Ok(*size)
            }
        }
    }
}

impl Login {
    /// The body of the frame that logs in.
    pub(crate) fn encode(&self) -> Result<[u8; tidegate_frame::LOGIN_BODY], SpecError> {
        let request =
            tidegate_frame::LoginRequest { username: self.user.as_bytes(), password: &self.password };
        request.encode().map_err(|source| SpecError::Login { user: self.user.clone(), source })
    }
}

fn within(what: &'static str, found: usize, least: usize, most: usize) -> Result<(), SpecError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(SpecError::Bounds { what, least: least as u64, most: most as u64, found: found.to_string() })
}

fn seconds(what: &'static str, found: Duration, least: Duration) -> Result<(), SpecError> {
    if found >= least && found.as_secs() <= MAX_SECONDS {
        return Ok(());
    }
    let (what, found) = (what, format!("{} s", found.as_secs_f64()));
    Err(SpecError::Bounds { what, least: least.as_secs(), most: MAX_SECONDS, found })
}

/// RFC 9112, section 3.2, and RFC 9110, section 5: nothing that ends a line or a field too early.
fn check_http(path: &str, host: &str, headers: &[(String, String)]) -> Result<usize, SpecError> {
    let wrong = |what, text: &str, why| Err(SpecError::Http { what, text: text.to_owned(), why });
    if !path.starts_with('/') {
        return wrong("path", path, "it does not begin with a slash");
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong("path", path, "what is no visible ASCII character is written as %xx");
    }
    if !tidegate_http::is_field_value(host.as_bytes()) {
        return wrong("host", host, "it has control characters");
    }
    for (name, value) in headers {
        if !tidegate_http::is_token(name.as_bytes()) {
            return wrong("field name", name, "it is no token");
        }
        if !tidegate_http::is_field_value(value.as_bytes()) {
            return wrong("field value", value, "it has control characters");
        }
        if CHANGES_FRAMING.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return wrong("field name", name, "a request has no body, and says its host by other means");
        }
    }
    Ok(path.len()
        + host.len()
        + headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>())
}

/// Fields that would make the request another one than is sent.
const CHANGES_FRAMING: &[&str] = &["Host", "Content-Length", "Transfer-Encoding", "Expect", "Upgrade"];

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(ask: Ask) -> LoadSpec {
        LoadSpec::new(vec!["127.0.0.1:7".parse().unwrap()], ask)
    }

    fn http(path: &str, host: &str, name: &str, value: &str) -> Ask {
        let headers = vec![(name.to_owned(), value.to_owned())];
        Ask::Http { path: path.to_owned(), host: host.to_owned(), headers }
    }

    #[test]
    fn what_is_out_of_bounds_says_its_bounds() {
        let good = spec(Ask::Echo { size: 64 });
        assert_eq!(good.check(), Ok(()));
        for (bad, text) in [
            (LoadSpec { to: vec![], ..good.clone() }, "no address"),
            (LoadSpec { connections: 0, ..good.clone() }, "connections must be 1 to 1000000, not 0"),
            (LoadSpec { pipeline: 1025, ..good.clone() }, "in flight must be 1 to 1024, not 1025"),
            (LoadSpec { threads: 11, ..good.clone() }, "threads must be 1 to 10, not 11"),
            (LoadSpec { duration: Duration::ZERO, ..good.clone() }, "the duration must be"),
            (LoadSpec { rate: Some(f64::NAN), ..good.clone() }, "not NaN"),
            (LoadSpec { rate: Some(0.0), ..good.clone() }, "the rate per second"),
            (spec(Ask::Echo { size: 0 }), "the size of a message must be 1 to"),
            (LoadSpec { pipeline: 17, ..spec(Ask::Echo { size: 1 << 20 }) }, "17 messages of 1048576 bytes"),
            (spec(Ask::Msg { code: 0, size: 29_993, login: None }), "the size of a body must be 0 to 29992"),
            (spec(Ask::Msg { code: LOGIN, size: 0, login: None }), "a user and a password are needed"),
        ] {
            let error = bad.check().unwrap_err().to_string();
            assert!(error.contains(text), "{error} | {text}");
        }
    }

    #[test]
    fn a_request_cannot_be_split_by_what_stands_in_it() {
        assert_eq!(spec(http("/a?b=%20", "example.org:80", "X-A", "b c")).check(), Ok(()));
        for bad in [
            http("a", "h", "X", "y"),
            http("/a b", "h", "X", "y"),
            http("/\r\nX: y", "h", "X", "y"),
            http("/", "h\r\nX: y", "X", "y"),
            http("/", "h", "X Y", "y"),
            http("/", "h", "X", "y\r\nZ: 1"),
            http("/", "h", "content-length", "1"),
        ] {
            assert!(matches!(spec(bad.clone()).check(), Err(SpecError::Http { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_password_is_not_shown_and_has_a_length() {
        let login = Login { user: "u".to_owned(), password: b"secret".to_vec() };
        assert!(!format!("{login:?}").contains("secret"));
        let long = Login { password: vec![b'x'; 41], ..login };
        let error = spec(Ask::Msg { code: 0, size: 0, login: Some(long) }).check().unwrap_err();
        assert!(matches!(error, SpecError::Login { .. }), "{error}");
    }
}
