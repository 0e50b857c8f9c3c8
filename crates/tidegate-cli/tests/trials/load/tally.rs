//! `Tally`: what a load has seen, each failure with its time, its connection and its errno.
//!
//! Invariant: a request is counted once, as an answer, as raced, as overloaded or as failed; nothing is left out.

use std::fmt;
use std::time::Duration;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// HTTP, one connection for many requests.
    Keep,
    /// HTTP, a connection for each request, read to its end.
    Short,
    /// HTTP, a request that is sent byte by byte.
    SlowSend,
    /// HTTP, a large answer that is read in small pieces.
    SlowRead,
    /// Frames, a connection for good; every second one pings now and then, the others are silent.
    Gateway,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Keep, Self::Short, Self::SlowSend, Self::SlowRead, Self::Gateway];

    /// Its requests take seconds.
    pub(super) fn is_slow(self) -> bool {
        matches!(self, Self::SlowSend | Self::SlowRead)
    }
}

/// Something that must not happen.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Since the load began.
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    /// The local port of the connection, by which the server's end of it can be found.
    pub(crate) port: u16,
    /// What was going on, and what came.
    pub(crate) what: String,
    pub(crate) errno: Option<i32>,
}

/// Of one kind of client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Of {
    /// Complete right answers.
    pub(crate) answers: u64,
    /// The one that took longest, and when it came. A slow client sets its own pace, and has none.
    pub(crate) slowest: Duration,
    pub(crate) slowest_at: Duration,
    /// Answers that took more than 50 ms.
    pub(crate) over_50_ms: u64,
}

/// The sum of it all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    of: [Of; Kind::ALL.len()],
    /// Connections made.
    pub(crate) connections: u64,
    /// Kept connections that ended between requests, or with an answer that said so.
    pub(crate) reconnected: u64,
    /// Requests on a kept connection whose orderly end crossed them (RFC 9112, sections 9.3.1 and 9.6): they were asked again.
    pub(crate) raced: u64,
    /// By how much a client acted later than it wanted to, at most: how busy the machine was with other things.
    pub(crate) late: Duration,
    /// Answers that were the server's 503.
    pub(crate) overloaded: u64,
    /// All failures; the first of them with what is known.
    pub(crate) failed: u64,
    pub(crate) failures: Vec<Failure>,
}

const MAX_FAILURES: usize = 10_000;

impl Tally {
    pub(crate) fn of(&self, kind: Kind) -> &Of {
        &self.of[kind as usize]
    }

    /// The longest time that an answer took.
    pub(crate) fn slowest(&self) -> Duration {
        self.of.iter().map(|of| of.slowest).max().unwrap_or_default()
    }

    pub(super) fn answered(&mut self, kind: Kind, took: Option<Duration>, at: Duration) {
        let of = &mut self.of[kind as usize];
        of.answers += 1;
        let Some(took) = took else { return };
        of.over_50_ms += u64::from(took > Duration::from_millis(50));
        if took > of.slowest {
            (of.slowest, of.slowest_at) = (took, at);
        }
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.failed += 1;
        if self.failures.len() < MAX_FAILURES {
            self.failures.push(failure);
        }
    }

    /// Nothing failed.
    #[track_caller]
    pub(crate) fn check_clean(&self) {
        assert!(self.failed == 0, "{self}\n{}", Listed(&self.failures));
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in Kind::ALL {
            let Of { answers, slowest, slowest_at, over_50_ms } = self.of(kind);
            if *answers == 0 {
                continue;
            }
            write!(f, "{kind:?} {answers}")?;
            if !slowest.is_zero() {
                write!(f, " (slowest {slowest:.1?} at {slowest_at:.1?}, {over_50_ms} over 50 ms)")?;
            }
            write!(f, ", ")?;
        }
        let Self { connections, reconnected, raced, overloaded, failed, late, .. } = self;
        write!(f, "{connections} connections, {reconnected} reconnected, {raced} raced, {overloaded} ")?;
        write!(f, "overloaded, {failed} failed, the load itself late by at most {late:.1?}")
    }
}

/// Failures, one in a line, the first of them.
pub(crate) struct Listed<'a>(pub(crate) &'a [Failure]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Failure { at, kind, port, what, errno } in self.0.iter().take(40) {
            write!(f, "  {at:.3?} {kind:?} port {port}: {what}")?;
            match errno {
                Some(errno) => writeln!(f, " ({})", std::io::Error::from_raw_os_error(*errno))?,
                None => writeln!(f)?,
            }
        }
        match self.0.len().saturating_sub(40) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}
