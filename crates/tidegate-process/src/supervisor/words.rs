//! The words that the supervisor hears and speaks: events in, orders out.
//!
//! The one invariant: they carry plain values only, so that a schedule can be written down, replayed and compared.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_sys::process::ExitStatus;
use tidegate_sys::signal::Signal;

use super::freeze::exit_status;
use super::report::Report;

/// A child. Unique for the life of a master, an upgrade included: a number is not given to another child later. A child
/// that dies and is started again keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChildId(pub u32);

/// The children of a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crew {
    /// How many workers, numbered from 0.
    pub workers: u32,
    /// Whether an acceptor hands them their connections.
    pub acceptor: bool,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Begin: the first event, given once. The plan of the first generation, number 1, exists already.
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
    /// The child has answered a [`Order::Ping`].
    Pong {
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
    /// The master was sent a signal, or a request that means the same: `TERM` and `INT` stop, `QUIT` stops gracefully, `HUP`
    /// reloads, `USR1` reopens the logs, `USR2` upgrades, `WINCH` retires the workers.
    ///
    /// `HUP` and `USR2` are each answered by an [`Order::Done`]: one that comes while nothing like it is under way, by the
    /// one that it begins or waits for; one that comes while its operation is under way belongs to the *next* one, which
    /// all that come meanwhile share.
    Signal(Signal),
    /// The [`Order::Prepare`] is done.
    Prepared {
        /// Of which generation.
        generation: u32,
        /// What is to be started for it.
        crew: Crew,
    },
    /// The [`Order::Prepare`] cannot be done.
    PrepareFailed {
        /// Of which generation.
        generation: u32,
    },
    /// An [`Order::TakeOver`] or [`Order::Revert`] came back: this image is still the one that runs.
    TakeOverFailed,
    /// A worker of the current generation is to be replaced: the old one is told to quit when the new one is READY.
    ///
    /// Answered by an [`Order::Done`]; a request for the child that is being replaced already shares the one of that.
    Replace {
        /// Which.
        child: ChildId,
    },
    /// A worker shall not accept until [`Event::Resume`]. This holds for the processes that follow it in its generation too.
    Pause {
        /// Which.
        child: ChildId,
    },
    /// A worker shall accept again.
    Resume {
        /// Which.
        child: ChildId,
    },
    /// The time of `poll_timeout` has come, and what had arrived was handed in. Harmless at any other time.
    Timeout,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start the child; answered by [`Event::Spawned`] or [`Event::SpawnFailed`], at once.
    Spawn {
        /// Which.
        child: ChildId,
    },
    /// Tell the child to end at once.
    Stop {
        /// Which.
        child: ChildId,
    },
    /// Tell the child to finish what is in flight and to end within the time. May be said again with a shorter time.
    Quit {
        /// Which.
        child: ChildId,
        /// The time that it has; none: as long as it takes.
        timeout: Option<Duration>,
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
    /// Ask the child whether it answers; it does by [`Event::Pong`].
    Ping {
        /// Which.
        child: ChildId,
    },
    /// Hand a worker what the absent one accepts from, so that it accepts from that too.
    Cover {
        /// Whose slot it is.
        absent: ChildId,
        /// The number of the absent worker.
        slot: u32,
        /// Who accepts for it.
        by: ChildId,
    },
    /// Tell the worker that it need not accept for the slot any more.
    Uncover {
        /// The number of the worker that serves it again, or that another one covers now.
        slot: u32,
        /// Who accepted for it.
        by: ChildId,
    },
    /// Tell the worker not to accept.
    PauseAccept {
        /// Which.
        child: ChildId,
    },
    /// Tell the worker to accept again.
    ResumeAccept {
        /// Which.
        child: ChildId,
    },
    /// Read and check the configuration, bind what is new, open what is needed; answered by [`Event::Prepared`] or
    /// [`Event::PrepareFailed`].
    Prepare {
        /// For which generation; the number was not used before.
        generation: u32,
    },
    /// All of the generation is READY: it is the current one now. The one before is told to quit by orders that follow.
    Commit {
        /// Which.
        generation: u32,
    },
    /// The generation has no process and will have none: drop what was kept for it. Ordered once for each generation that
    /// was current or to be prepared, also when that failed and there is nothing to drop, but not for the last one at a stop.
    Forget {
        /// Which.
        generation: u32,
    },
    /// Freeze, and execute the new image in place. Comes back only when that fails, as [`Event::TakeOverFailed`]. The last
    /// order of its turn, when no start is unanswered.
    TakeOver,
    /// Freeze, and execute the image before again. Ordered only after a take-over, like it.
    Revert,
    /// To be told to whoever asked for the operation. Each has one.
    Done {
        /// Which.
        operation: Operation,
        /// How it went.
        outcome: Outcome,
    },
    /// All workers serve for the first time.
    AnnounceReady,
    /// A stop has begun.
    AnnounceStop,
    /// All but the log server have ended in a stop; it is stopped next.
    WorkersGone,
    /// Something to be told to people; nothing to be done.
    Report(Report),
    /// Everything has ended: end the master with this code. The last order.
    Finish {
        /// The exit code.
        code: u8,
    },
}

/// Something that begins, may fail, and then leaves everything as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// A new generation takes the place of the current one.
    Reload,
    /// A new binary takes the place of the one that runs, with a new generation.
    Upgrade,
    /// A new worker takes the place of this one.
    Replace(ChildId),
}

/// How an operation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done {
        /// The generation that serves.
        generation: u32,
    },
    /// It is not, and everything is as it was.
    Failed(Why),
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// The configuration was refused, or something that it needs is not there.
    Prepare,
    /// A new child did not get to READY; or the one that was to be replaced is no worker of the current generation.
    Child {
        /// Which.
        child: ChildId,
        /// How it ended; none when it could not be started, or was not READY in time.
        #[serde(with = "exit_status", default)]
        status: Option<ExitStatus>,
    },
    /// The new binary did not pass its trial.
    Probe {
        /// How it ended; none when it could not be started, or took too long.
        #[serde(with = "exit_status", default)]
        status: Option<ExitStatus>,
    },
    /// The new binary could not be executed.
    TakeOver,
    /// The new binary ran, failed, and went back to the one before.
    Reverted,
    /// A stop has begun.
    Stopping,
    /// The start or another operation is under way, and this one does not wait.
    Busy,
}

/// How everything is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StopKind {
    /// What is in flight may end, up to `shutdown_timeout`.
    Graceful,
    /// At once.
    Fast,
}

/// The measures by which a child is ended, each harder than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Measure {
    /// It was told to finish and end.
    Quit,
    /// It was told to end at once.
    Stop,
    /// It was sent `KILL`.
    Kill,
}

impl Measure {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Quit => Self::Stop,
            Self::Stop | Self::Kill => Self::Kill,
        }
    }
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

/// One word, as it stands in the status and in records.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reload => "reload",
            Self::Upgrade => "upgrade",
            Self::Replace(_) => "replace",
        })
    }
}
