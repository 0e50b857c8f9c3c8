//! The words that the supervisor hears and speaks: events in, orders and reports out.
//!
//! The one invariant: they carry plain values only, so that a schedule can be written down, replayed and compared.

use std::fmt;
use std::time::Duration;

use tidegate_sys::process::ExitStatus;
use tidegate_sys::signal::{self, Signal};

/// A child by its place in the list that the supervisor was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChildId(pub usize);

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Begin: the first event, given once.
    Start,
    /// The child of a [`Order::Spawn`] runs.
    Spawned {
        /// Which.
        child: ChildId,
        /// Its process.
        pid: u32,
    },
    /// The child of a [`Order::Spawn`] could not be started.
    SpawnFailed {
        /// Which.
        child: ChildId,
    },
    /// The child says that it serves.
    Ready {
        /// Which.
        child: ChildId,
    },
    /// The child has ended and was reaped.
    Exited {
        /// Which.
        child: ChildId,
        /// How.
        status: ExitStatus,
    },
    /// The child was itself sent a signal that would end it, and asks whether it shall.
    Signalled {
        /// Which.
        child: ChildId,
    },
    /// The master was sent a signal, or a request that means the same.
    Signal(Signal),
    /// The time of `poll_timeout` has come. Harmless at any other time.
    Timeout,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start the child; answered by [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn {
        /// Which.
        child: ChildId,
    },
    /// Tell the child to end at once.
    Stop {
        /// Which.
        child: ChildId,
    },
    /// Tell the child to finish what is in flight and to end within the time.
    Quit {
        /// Which.
        child: ChildId,
        /// The time that it has.
        timeout: Duration,
    },
    /// Tell the child to open its log files again.
    Reopen {
        /// Which.
        child: ChildId,
    },
    /// End the child by `KILL`.
    Kill {
        /// Which.
        child: ChildId,
    },
    /// All workers serve for the first time.
    AnnounceReady,
    /// A stop has begun.
    AnnounceStop,
    /// The last worker has ended in a stop; the log server is stopped next.
    WorkersGone,
    /// Something to be told to people; nothing to be done.
    Report(Report),
    /// Everything has ended: end the master with this code. The last order.
    Finish {
        /// The exit code.
        code: u8,
    },
}

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
    },
    /// A child was not READY in time, and is killed.
    NotReady {
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
    /// A stop has begun, or became a faster one.
    Stopping(StopKind),
    /// A child did not end in time; this is done next.
    Overdue {
        /// Which.
        child: ChildId,
        /// The next measure.
        next: Measure,
    },
    /// A signal whose meaning is not supported by this master.
    Unsupported(Signal),
}

/// How everything is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopKind {
    /// What is in flight may end, up to `shutdown_timeout`.
    Graceful,
    /// At once.
    Fast,
}

/// The measures by which a child is ended, each harder than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// It was told to finish and end.
    Quit,
    /// It was told to end at once.
    Stop,
    /// It was sent `KILL`.
    Kill,
}

impl fmt::Display for StopKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Graceful => "graceful",
            Self::Fast => "fast",
        })
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quit => "quit",
            Self::Stop => "stop",
            Self::Kill => "kill",
        })
    }
}

/// For people; children are numbered, since the words know no names.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { took, .. } => write!(f, "child serves after {took:?}"),
            Self::Exited { status, expected: true, .. } => write!(f, "child ended with {status}"),
            Self::Exited { status, expected: false, .. } => write!(f, "child died with {status}"),
            Self::Restart { delay: Duration::ZERO, .. } => f.write_str("child is started again"),
            Self::Restart { delay, early_deaths, .. } => {
                write!(
                    f,
                    "child is started again in {delay:?}, having died early {early_deaths} times in a row"
                )
            }
            Self::NotReady { limit, .. } => write!(f, "child is not ready after {limit:?} and is killed"),
            Self::LogServerLate { limit } => {
                write!(f, "log server is not ready after {limit:?}; the workers start without it")
            }
            Self::StartFailed { code, .. } => write!(f, "the start is given up, exit code {code}"),
            Self::Stopping(kind) => write!(f, "{kind} stop"),
            Self::Overdue { next, .. } => write!(f, "child did not end in time, next measure: {next}"),
            Self::Unsupported(signal) => {
                write!(f, "signal {} has no effect: not supported yet", signal::name(*signal))
            }
        }
    }
}
