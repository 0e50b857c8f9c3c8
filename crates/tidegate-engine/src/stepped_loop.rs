//! `SteppedLoop`: a loop over a reactor of the caller's own, driven turn by turn.
//!
//! What a program does not need, and whoever tries out a reactor or simulates a kernel does: between two turns nothing of
//! the loop runs, so its owner can look at everything around it. Invariant: a loop that has stopped takes no further turn.

use tidegate_reactor::{Errno, Reactor};

use crate::Instant;
use crate::event_loop::Loop;

/// An event loop that takes one turn at a time. Made by [`LoopBuilder::build_on`](crate::LoopBuilder::build_on).
#[derive(Debug)]
pub struct SteppedLoop<R: Reactor>(Box<Loop<R>>);

/// Whether a loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another turn is to be taken.
    Turned,
    /// It was told to stop, or to quit and its connections have ended: [`end`](SteppedLoop::end) it.
    Stopped,
}

impl<R: Reactor> SteppedLoop<R> {
    pub(crate) fn new(event_loop: Loop<R>) -> Self {
        Self(Box::new(event_loop))
    }

    /// Takes one turn: a wait of the reactor, and everything that follows from its completions.
    ///
    /// # Errors
    ///
    /// The reactor's, when it cannot wait any more: the loop is to be ended.
    pub fn step(&mut self) -> Result<Step, Errno> {
        if self.0.is_stopped() {
            return Ok(Step::Stopped);
        }
        let deadline = self.0.end_turn();
        self.0.reactor.wait(deadline)?;
        self.0.turn();
        Ok(if self.0.is_stopped() { Step::Stopped } else { Step::Turned })
    }

    /// When the next turn is due at the latest: the deadline that its wait will be given. `None` while nothing is to
    /// happen by time, as in a loop without connections.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.0.due()
    }

    /// Bytes that connections hold, without what the loop keeps for the next of them; 0 in a loop without connections.
    #[must_use]
    pub fn bytes_of_connections(&self) -> usize {
        self.0.bytes_of_connections()
    }

    /// Ends what is left. It waits for sessions that are with a pool, so whoever runs the pool on the same thread runs
    /// all of its messages before.
    pub fn end(mut self) {
        self.0.end();
    }
}
