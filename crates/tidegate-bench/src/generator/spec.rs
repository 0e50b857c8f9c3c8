//! `LoadSpec`: whom to load, how hard and for how long.
//!
//! Invariant: a spec that [`LoadSpec::check`] let through can be run; nothing behind it looks at the bounds again.

use std::net::IpAddr;
use std::time::Duration;

use tidegate_engine::Target;
use tidegate_frame::LOGIN;
use tidegate_tls::TlsClient;

use super::ask::Ask;

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
    /// Where to connect from, in turn; default: the kernel chooses. Further addresses are further ports. A Unix socket has
    /// none to choose.
    pub from: Vec<IpAddr>,
    /// What is asked.
    pub ask: Ask,
    /// How each connection is secured, and whom it trusts. Default: not at all.
    pub tls: Option<TlsClient>,
    /// How many connections are open, over all threads. Default 10.
    pub connections: usize,
    /// Which share of the connections asks; at least one does, and the others are open and silent. Default 1.
    pub active: f64,
    /// How many requests of a connection are in flight at the most. Default 1.
    pub pipeline: usize,
    /// Requests per second over all connections, each due at its time whatever became of those before it. `None`: each
    /// connection asks its next question as soon as it has an answer, which finds out what the server can do.
    pub rate: Option<f64>,
    /// For how long is measured. Default 10 s.
    pub duration: Duration,
    /// For how long is asked before that. What fails then counts as a failure too. Default 1 s.
    pub warmup: Duration,
    /// Whether the answers of the warm-up are waited for before anything counts. Nothing is in flight then at
    /// [`Progress::Begin`](super::Progress::Begin), as it never is at [`Progress::Settled`](super::Progress::Settled), so that
    /// what a server does in between is done for the answers of [`LoadReport::answered`](super::LoadReport::answered) and for
    /// no others. Not at a constant rate. Default no.
    pub settle: bool,
    /// How many threads ask. Default 1.
    pub threads: usize,
    /// How long a connection may take to be made, and to bring anything while an answer is due. Default 10 s.
    pub timeout: Duration,
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
    /// At a constant rate nothing waits for answers.
    #[error("a load at a constant rate cannot wait for the answers of its warm-up")]
    Settle,
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
            from: Vec::new(),
            ask,
            tls: None,
            connections: 10,
            active: 1.0,
            pipeline: 1,
            rate: None,
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(1),
            settle: false,
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
        if !(0.0..=1.0).contains(&self.active) {
            let (what, found) = ("the share of connections that ask", self.active.to_string());
            return Err(SpecError::Bounds { what, least: 0, most: 1, found });
        }
        if self.settle && self.rate.is_some() {
            return Err(SpecError::Settle);
        }
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

impl LoadSpec {
    /// How many connections ask.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "connections are far below 2^52, the cast saturates, and what comes out is put between its bounds"
    )]
    pub fn asking(&self) -> usize {
        ((self.connections as f64 * self.active).round() as usize)
            .clamp(self.connections.min(1), self.connections)
    }
}

pub(super) fn within(what: &'static str, found: usize, least: usize, most: usize) -> Result<(), SpecError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Login;

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
            (LoadSpec { active: 1.5, ..good.clone() }, "that ask must be 0 to 1, not 1.5"),
            (LoadSpec { active: f64::NAN, ..good.clone() }, "that ask must be 0 to 1, not NaN"),
            (LoadSpec { rate: Some(1.0), settle: true, ..good.clone() }, "cannot wait for the answers"),
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
    fn of_each_share_at_least_one_asks() {
        let of =
            |active, connections| LoadSpec { active, connections, ..spec(Ask::Echo { size: 64 }) }.asking();
        assert_eq!((of(0.01, 10_000), of(0.5, 3), of(0.0, 10), of(1.0, 7)), (100, 2, 1, 7));
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
