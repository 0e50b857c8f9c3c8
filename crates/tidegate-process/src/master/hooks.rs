//! What the program adds to the master.
//!
//! The one invariant: a hook runs between two turns of the master's loop, in its thread, so it must not wait. It cannot
//! change what the supervisor decides, but by the signal of a [`ControlAnswer`].

use tidegate_sys::signal::Signal;

use crate::snapshot::Snapshot;

/// Called by the master as things happen; everything but the answers has a default that does nothing.
pub trait MasterHooks {
    /// All workers serve for the first time.
    fn on_ready(&mut self, snapshot: &Snapshot) {
        let _ = snapshot;
    }

    /// A child was started, is READY, was told to end, has ended, or says what it is at.
    fn on_change(&mut self, snapshot: &Snapshot) {
        let _ = snapshot;
    }

    /// A request came in over the control socket: one line, without its end.
    fn on_control(&mut self, request: &[u8], snapshot: &Snapshot) -> ControlAnswer;

    /// The log files are to be opened again; the children are told by the master.
    fn on_reopen(&mut self) {}

    /// A stop has begun.
    fn on_stopping(&mut self) {}

    /// The last worker has ended in a stop, and the log server is told to end next: the last moment to send records.
    fn on_workers_gone(&mut self) {}
}

/// What a request is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlAnswer {
    /// The answer, as it is sent.
    pub body: Vec<u8>,
    /// What the master does then, as if it had been sent this signal: `TERM` and `QUIT` stop, `USR1` reopens the logs.
    pub signal: Option<Signal>,
}

impl From<Vec<u8>> for ControlAnswer {
    fn from(body: Vec<u8>) -> Self {
        Self { body, signal: None }
    }
}
