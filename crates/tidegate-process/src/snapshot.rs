//! The children at one moment, for the status and the metrics.
//!
//! The one invariant: plain values, which say nothing about what comes next. It is made by the master.

use std::fmt;
use std::time::Duration;

use tidegate_sys::process::ExitStatus;

use crate::role::Role;
use crate::supervisor::{ChildId, Operation, Slot, State};

/// All children at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The master.
    pub pid: u32,
    /// How long the master has run.
    pub uptime: Duration,
    /// The generation that serves.
    pub generation: u32,
    /// All workers have been READY, and no stop has begun.
    pub is_running: bool,
    /// A stop has begun.
    pub is_stopping: bool,
    /// What is under way.
    pub operation: Option<Operation>,
    /// The log server first, then one generation after the other.
    pub children: Vec<ChildSnapshot>,
}

/// One child at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSnapshot {
    /// Which child it is, for as long as the master lives.
    pub id: ChildId,
    /// What it is for.
    pub role: Role,
    /// Its name in the list of processes.
    pub title: String,
    /// The generation of the configuration that it serves; 0 for what belongs to none.
    pub generation: u32,
    /// 0, or 1 for one that replaces another.
    pub seat: u32,
    /// Its process, if there is one.
    pub pid: Option<u32>,
    /// Where it is in its life.
    pub state: ChildState,
    /// How long its process has run; zero when there is none.
    pub uptime: Duration,
    /// How often it was started again.
    pub restarts: u32,
    /// How the process before ended.
    pub last_exit: Option<ExitStatus>,
    /// It does not answer, and a neighbour accepts for it.
    pub is_stuck: bool,
    /// It was told not to accept.
    pub is_paused: bool,
    /// It was told to finish and end, with nobody after it.
    pub is_retired: bool,
    /// What it last said it is at; empty when it said nothing.
    pub status: String,
}

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildState {
    /// It is to be started, perhaps after a while because it died early.
    Waiting,
    /// Its process runs and does not serve yet.
    Starting,
    /// It serves.
    Ready,
    /// It was told to end.
    Stopping,
    /// It has ended for good.
    Gone,
}

impl ChildState {
    pub(crate) fn of(slot: &Slot) -> Self {
        match slot.state {
            State::Waiting { .. } => Self::Waiting,
            State::Spawning | State::Starting { .. } => Self::Starting,
            State::Ready => Self::Ready,
            State::Ending { .. } => Self::Stopping,
            State::Gone => Self::Gone,
        }
    }
}

/// One word, as it stands in the status.
impl fmt::Display for ChildState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Gone => "gone",
        })
    }
}
