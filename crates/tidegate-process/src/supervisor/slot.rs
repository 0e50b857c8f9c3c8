//! A child as the supervisor knows it.
//!
//! The one invariant: it has a pid exactly in the states `Starting`, `Ready` and `Ending`.

use serde::{Deserialize, Serialize};
use tidegate_sys::process::ExitStatus;
use tidegate_timer::Instant;

use super::freeze::{exit_status, instant, some_instant};
use super::words::Measure;
use crate::role::Role;

/// A child as the supervisor knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// What it is for.
    pub role: Role,
    /// The generation that it belongs to; 0 for one that belongs to none: log server, processes of the program, probe.
    #[serde(default)]
    pub generation: u32,
    /// Where it is in its life.
    pub state: State,
    /// Its process; present exactly in the states `Starting`, `Ready` and `Ending`.
    #[serde(default)]
    pub pid: Option<u32>,
    /// When its process was started, or the last one when there is none.
    #[serde(with = "instant", default)]
    pub started_at: Instant,
    /// When its process said READY; none before.
    #[serde(with = "some_instant", default)]
    pub ready_at: Option<Instant>,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u32,
    /// How the process before ended.
    #[serde(with = "exit_status", default)]
    pub last_exit: Option<ExitStatus>,
    /// It does not answer; a neighbour accepts for it.
    #[serde(default)]
    pub is_stuck: bool,
    /// It was told not to accept, or will be when it is READY.
    #[serde(default)]
    pub is_paused: bool,
    /// It, or its generation, was replaced or given up: it is ended, and not started again.
    #[serde(default)]
    pub is_retired: bool,
    /// Deaths in a row before READY or soon after it.
    #[serde(default)]
    pub(super) early_deaths: u32,
    /// When a child that asked is told to stop, unless a stop of all has begun by then.
    #[serde(with = "some_instant", default)]
    pub(super) stop_asked_until: Option<Instant>,
    /// Since when a ping waits for its answer.
    #[serde(with = "some_instant", default)]
    pub(super) pinged_at: Option<Instant>,
    /// How many more answers show that it reads what its acceptor, which has ended, has left for it.
    #[serde(default)]
    pub(super) answers_owed: u8,
}

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// To be started then; `Instant::MAX` before its turn in the start.
    Waiting {
        /// The time of its start.
        #[serde(with = "instant")]
        until: Instant,
    },
    /// Its start was ordered and is not answered yet.
    Spawning,
    /// Its process runs and is not READY.
    Starting {
        /// When that becomes too long.
        #[serde(with = "instant")]
        deadline: Instant,
    },
    /// It serves.
    Ready,
    /// It was told to end.
    Ending {
        /// How.
        measure: Measure,
        /// When the next measure is taken; `Instant::MAX` when it may take as long as it needs.
        #[serde(with = "instant")]
        deadline: Instant,
    },
    /// It has no process and will not have one again. It is forgotten in the next turn.
    Gone,
}

impl Slot {
    pub(super) fn new(role: Role, generation: u32, until: Instant) -> Self {
        Self {
            role,
            generation,
            state: State::Waiting { until },
            pid: None,
            started_at: Instant::from_nanos(0),
            ready_at: None,
            restarts: 0,
            last_exit: None,
            is_stuck: false,
            is_paused: false,
            is_retired: false,
            early_deaths: 0,
            stop_asked_until: None,
            pinged_at: None,
            answers_owed: 0,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Starting { deadline } | State::Ending { deadline, .. } => Some(deadline),
            State::Spawning | State::Ready | State::Gone => None,
        }
    }

    /// The number of the worker that it is, while it is meant to serve.
    pub(super) fn active_slot(&self) -> Option<u32> {
        self.role.slot().filter(|_| !self.is_retired)
    }

    /// Whether it accepts, and can do so for another one too.
    pub(super) fn serves(&self) -> bool {
        self.state == State::Ready && !self.is_stuck && !self.is_paused && !self.is_retired
    }

    /// Whether it is asked if it answers: while it serves, and while it may take as long as it needs to end.
    pub(super) fn is_watched(&self) -> bool {
        let drains = State::Ending { measure: Measure::Quit, deadline: Instant::MAX };
        (self.state == State::Ready || self.state == drains) && self.role.is_crew()
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Whether its process runs and was not told to end.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Ready)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state == State::Gone
    }
}
