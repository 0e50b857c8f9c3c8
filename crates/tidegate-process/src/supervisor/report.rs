//! What the supervisor tells people.
//!
//! The one invariant: a report asks for nothing to be done; without it everything would go the same way.

use std::fmt;
use std::time::Duration;

use tidegate_sys::process::ExitStatus;
use tidegate_sys::signal::{self, Signal};

use super::words::{ChildId, Measure, Operation, StopKind};

/// Something that people want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A child serves, this long after it was started.
    Ready {
        /// Which.
        child: ChildId,
        /// Since its start.
        took: Duration,
    },
    /// A child has ended.
    Exited {
        /// Which.
        child: ChildId,
        /// Its process.
        pid: u32,
        /// How.
        status: ExitStatus,
        /// Whether it was told to.
        expected: bool,
    },
    /// A child will be started again.
    Restart {
        /// Which.
        child: ChildId,
        /// After this time.
        delay: Duration,
        /// How often in a row it died early; 0 when it had served well.
        early_deaths: u32,
        /// How its last process ended; none when it never had one.
        last_exit: Option<ExitStatus>,
    },
    /// A child was not READY in time, and is ended.
    NotReady {
        /// Which.
        child: ChildId,
        /// The time that it had.
        limit: Duration,
    },
    /// A child does not answer; its share of new connections is served by another one meanwhile.
    Stuck {
        /// Which.
        child: ChildId,
        /// The time that it had.
        limit: Duration,
    },
    /// A child that was stuck answers again.
    Answers {
        /// Which.
        child: ChildId,
    },
    /// A child has not answered for too long, and is killed.
    Hung {
        /// Which.
        child: ChildId,
        /// The time that it had.
        limit: Duration,
    },
    /// The log server was not READY in time; the workers are started without it.
    LogServerLate {
        /// The time that it had.
        limit: Duration,
    },
    /// The start is given up because of this child.
    StartFailed {
        /// Which.
        child: ChildId,
        /// The exit code of the master.
        code: u8,
    },
    /// An operation was asked for and has to wait: for the start, for another operation, or for a generation to end.
    Waits(Operation),
    /// The workers of the current generation are retired without any in their place.
    Retired {
        /// Which.
        generation: u32,
    },
    /// A stop has begun, or became a faster one.
    Stopping(StopKind),
    /// A child did not end in time; this is done next.
    Overdue {
        /// Which.
        child: ChildId,
        /// The next measure.
        next: Measure,
    },
    /// A signal that has no meaning here.
    Unsupported(Signal),
}

impl Report {
    /// The child that it is about, if it is about one.
    #[must_use]
    pub fn child(&self) -> Option<ChildId> {
        match *self {
            Self::Ready { child, .. }
            | Self::Exited { child, .. }
            | Self::Restart { child, .. }
            | Self::NotReady { child, .. }
            | Self::Stuck { child, .. }
            | Self::Answers { child }
            | Self::Hung { child, .. }
            | Self::StartFailed { child, .. }
            | Self::Overdue { child, .. } => Some(child),
            Self::LogServerLate { .. }
            | Self::Waits(_)
            | Self::Retired { .. }
            | Self::Stopping(_)
            | Self::Unsupported(_) => None,
        }
    }
}

/// For people; children are not named, since the words know no names.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { took, .. } => write!(f, "child serves after {took:?}"),
            Self::Exited { status, expected: true, .. } => write!(f, "child ended with {status}"),
            Self::Exited { status, expected: false, .. } => write!(f, "child died with {status}"),
            Self::Restart { delay: Duration::ZERO, .. } => f.write_str("child is started again"),
            Self::Restart { delay, early_deaths, last_exit, .. } => {
                write!(
                    f,
                    "child is started again in {delay:?}, having died early {early_deaths} times in a row"
                )?;
                last_exit.map_or(Ok(()), |status| write!(f, ", last with {status}"))
            }
            Self::NotReady { limit, .. } => write!(f, "child is not ready after {limit:?} and is ended"),
            Self::Stuck { limit, .. } => {
                write!(f, "child does not answer for {limit:?}; others accept for it meanwhile")
            }
            Self::Answers { .. } => f.write_str("child answers again"),
            Self::Hung { limit, .. } => write!(f, "child does not answer for {limit:?} and is killed"),
            Self::LogServerLate { limit } => {
                write!(f, "log server is not ready after {limit:?}; the workers start without it")
            }
            Self::StartFailed { code, .. } => write!(f, "the start is given up, exit code {code}"),
            Self::Waits(operation) => write!(f, "{operation} has to wait for what is under way"),
            Self::Retired { generation } => {
                write!(f, "workers of generation {generation} are retired, and nobody takes their place")
            }
            Self::Stopping(kind) => write!(f, "{kind} stop"),
            Self::Overdue { next, .. } => write!(f, "child did not end in time, next measure: {next}"),
            Self::Unsupported(signal) => write!(f, "signal {} has no effect", signal::name(*signal)),
        }
    }
}
