//! Relief: what the loop does when its connections hold much memory, so that they never hold more than they may.
//!
//! What they hold is weighed as they are settled, and compared with the limits of the loop and of its [`Budget`] when
//! output is queued, when input grows, and once a turn. As it comes near a limit the loop takes the steps of [`Relief`]
//! one after the other; at the limit it closes the slowest readers until there is room.
//!
//! The slowest reader is the connection whose waiting output has made no progress for the most whole seconds; among equals
//! the one that holds the most of it. A connection that asks for memory is closed only when it is the slowest itself, or
//! there is no other.
//!
//! Invariant: `inputs` is the sum of what connections are weighed at. Nothing else is counted twice or carried over: the
//! rest is asked of whoever has it.
//!
//! [`Budget`]: crate::Budget

use std::time::Duration;

use tidegate_reactor::{Reactor, Token};

use super::{Loop, Stage};
use crate::Reason;
use crate::accepting::Reports;
use crate::budget::{Full, Relief, Share};
use crate::builder::OUTPUT_BLOCK_BYTES;
use crate::conn::{Conn, State};
use crate::errand::Errand;
use crate::metrics::ProcessWord;

/// What the loop knows of the memory that its connections hold.
#[derive(Debug)]
pub(crate) struct Memory {
    share: Share,
    /// Of input that is kept, and of messages with handlers.
    inputs: usize,
    /// Of jobs or visits that are kept for the next ones.
    idle: usize,
    /// The step that connections have been told of.
    relief: Relief,
    /// Whether the first step has been taken: at once, while they are told at the end of the turn.
    short: bool,
    closings: Reports,
}

/// Something that is kept with its buffers for its next use.
pub(crate) trait Buffers {
    /// The memory of its buffers.
    fn buffer_bytes(&self) -> usize;
    /// Gives that memory back.
    fn free_buffers(&mut self);
}

/// Buffers of each kind that are kept for their next use.
const IDLE_BYTES: usize = 4 << 20;
/// What a message that is not complete yet may hold without being paused.
const SMALL_INPUT_BYTES: usize = 4 << 10;

impl Memory {
    pub(crate) fn new(share: Share) -> Self {
        Self { share, inputs: 0, idle: 0, relief: Relief::None, short: false, closings: Reports::default() }
    }

    /// Blocks of output that are kept for the next one.
    pub(crate) fn max_idle_blocks(&self) -> usize {
        self.max_idle_bytes() / OUTPUT_BLOCK_BYTES
    }

    /// Whether a connection is to be served no more before its peer has read.
    #[inline]
    pub(super) fn squeezes(&self, conn: &Conn) -> bool {
        self.short && conn.state == State::Open && (conn.output.is_some() || conn.stalled)
    }

    /// Whether connections are to hold less.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    /// Whether the rest of a large message is to wait.
    #[inline]
    pub(super) fn starves(&self, conn: &Conn) -> bool {
        self.short && conn.state == State::Open && conn.input.len() > SMALL_INPUT_BYTES
    }

    /// Whether there is no memory for another connection.
    pub(super) fn refuses(&self) -> bool {
        self.relief >= Relief::RefuseNew
    }

    /// A connection has ended.
    pub(super) fn forget(&mut self, conn: &Conn) {
        self.inputs -= conn.weighed as usize;
    }

    /// A message leaves with its session; it is still the connection's.
    pub(super) fn lend(&mut self, errand: &mut Errand, bytes: usize) {
        errand.lent = bytes;
        self.inputs += bytes;
    }

    /// It is back.
    pub(super) fn take_back(&mut self, errand: &mut Errand) {
        self.inputs -= std::mem::take(&mut errand.lent);
    }

    /// Something that was kept is used again.
    pub(super) fn take_idle<T: Buffers>(&mut self, kept: Option<Box<T>>) -> Option<Box<T>> {
        self.idle -= kept.as_ref().map_or(0, |kept| kept.buffer_bytes());
        kept
    }

    /// Something is kept for its next use: with its buffers, if there is memory for them.
    pub(super) fn keep_idle(&mut self, kept: &mut impl Buffers) {
        let bytes = kept.buffer_bytes();
        if self.relief < Relief::FreeIdle && self.idle + bytes <= self.max_idle_bytes() {
            self.idle += bytes;
        } else {
            kept.free_buffers();
        }
    }

    fn max_idle_bytes(&self) -> usize {
        IDLE_BYTES.min(self.share.limit() / 16)
    }
}

impl<R: Reactor> Loop<R> {
    /// What all connections hold, and what is kept for them.
    fn held_bytes(&self) -> usize {
        let pool = &self.turn.pool;
        let blocks = pool.blocks_in_use() + pool.idle_blocks();
        self.memory.inputs + self.memory.idle + self.spares.bytes() + blocks * pool.block_bytes()
    }

    /// What connections hold, and nothing that is only kept.
    pub(crate) fn bytes_of_connections(&self) -> usize {
        let pool = &self.turn.pool;
        self.memory.inputs + pool.blocks_in_use() * pool.block_bytes()
    }

    /// Enters the memory that a connection's input takes. False when there was no room for it, and it was closed.
    pub(super) fn weigh(&mut self, token: Token) -> bool {
        let Some(conn) = self.conns.get_mut(token) else { return false };
        let bytes = conn.input_bytes();
        let before = std::mem::replace(&mut conn.weighed, bytes);
        self.memory.inputs = self.memory.inputs + bytes as usize - before as usize;
        bytes < before || self.bear(token)
    }

    /// Input has grown, which cannot be undone.
    fn bear(&mut self, token: Token) -> bool {
        match self.make_room(token, 0) {
            Ok(()) => true,
            Err(reason) => {
                self.close(token, reason, None);
                // It is still there while its session is away.
                self.conns.get_mut(token).is_some()
            }
        }
    }

    /// Sees to it that a connection can have so many bytes of output more.
    ///
    /// # Errors
    ///
    /// The reason to close it for: of all connections it is the one, or that is more than can ever be had.
    pub(super) fn make_room(&mut self, token: Token, more: usize) -> Result<(), Reason> {
        let more = more.next_multiple_of(OUTPUT_BLOCK_BYTES);
        if more > self.memory.share.limit() {
            return Err(Reason::OUTPUT_OVERFLOW);
        }
        let mut outcome = self.reserve(more);
        if outcome.is_err() {
            self.free_idle(true);
            outcome = self.reserve(more);
        }
        if outcome == Err(Full::Budget) {
            let held = self.held_bytes() + more;
            if self.memory.share.borrow(held, more.max(OUTPUT_BLOCK_BYTES)).is_some() {
                return Ok(());
            }
        }
        if outcome.is_err() { self.close_slowest(token, more) } else { Ok(()) }
    }

    fn reserve(&mut self, more: usize) -> Result<(), Full> {
        let outcome = self.memory.share.reserve(self.held_bytes() + more);
        self.memory.short = self.memory.share.relief() >= Relief::PauseReads;
        outcome
    }

    /// Closes the slowest readers until a connection can have so many bytes more.
    fn close_slowest(&mut self, asking: Token, more: usize) -> Result<(), Reason> {
        for slowest in self.slowest_first() {
            if slowest == asking {
                break;
            }
            self.sacrifice(slowest);
            if self.reserve(more).is_ok() {
                return Ok(());
            }
        }
        Err(Reason::MEMORY_PRESSURE)
    }

    /// Those with waiting output. Looks at every connection, so it is done only when there is no other way.
    fn slowest_first(&self) -> Vec<Token> {
        let now = self.turn.now;
        let waiting = self.conns.iter().filter_map(|(token, conn)| {
            let output = conn.output.as_ref()?;
            // What ends anyhow, and only waits for its session, goes first.
            let stalled =
                if conn.is_over() { Duration::MAX } else { now.saturating_duration_since(conn.last_out) };
            Some((slowness(stalled, output.len()), token))
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable_by_key(|(slowness, token)| std::cmp::Reverse((*slowness, token.slot)));
        waiting.into_iter().map(|(_, token)| token).collect()
    }

    /// Closes a connection for the memory that its output takes; at once, also when its session has yet to come back.
    fn sacrifice(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let queued_bytes = conn.queued().bytes;
        if let Some(mut output) = conn.output.take() {
            output.clear(&mut self.turn.pool);
        }
        if let Some(suppressed) = self.memory.closings.pass(self.turn.now) {
            let held_bytes = self.held_bytes();
            tracing::warn!(
                queued_bytes,
                held_bytes,
                suppressed,
                "buffers are full; the slowest reader is closed"
            );
        }
        // The batch in hand is of the connection that asks, not of this one.
        let record = std::mem::take(&mut self.turn.record);
        self.close(token, Reason::MEMORY_PRESSURE, None);
        self.turn.record = record;
        self.free_idle(true);
    }

    /// At the end of a turn: accounts for what has changed, and takes the steps that follow.
    pub(super) fn relieve(&mut self) {
        let held = self.held_bytes();
        self.metrics.set(ProcessWord::BufferBytes, held as u64);
        self.memory.share.enter(held);
        let debt = self.memory.share.take_debt();
        if debt > 0 {
            self.pay(debt);
        }
        let (before, now) = (self.memory.relief, self.memory.share.relief());
        let short = now >= Relief::PauseReads;
        if before == now && self.memory.short == short {
            return;
        }
        // Some may have been paused in this turn though the step was left again before its end.
        let unchanged = short == (before >= Relief::PauseReads) && short == self.memory.short;
        self.memory.relief = now;
        self.memory.short = short;
        tracing::debug!(?before, ?now, held, "how far memory is to be relieved has changed");
        if !unchanged {
            self.tell_connections();
        }
        if (before >= Relief::FreeIdle) != (now >= Relief::FreeIdle) {
            self.free_idle(now >= Relief::FreeIdle);
        }
        if (before >= Relief::RefuseNew) != (now >= Relief::RefuseNew) {
            self.hold_accepting(now >= Relief::RefuseNew, held);
        }
    }

    /// Another loop needs memory, and this one has the most.
    fn pay(&mut self, debt: usize) {
        let enough = self.held_bytes().saturating_sub(debt);
        self.free_idle(true);
        for slowest in self.slowest_first() {
            if self.held_bytes() <= enough {
                break;
            }
            self.sacrifice(slowest);
        }
        self.memory.share.enter(self.held_bytes());
    }

    /// Has connections paused, or lets them go on.
    fn tell_connections(&mut self) {
        let concerns = |conn: &Conn| {
            conn.squeezed
                || conn.reading_paused
                || conn.output.is_some()
                || conn.input.len() > SMALL_INPUT_BYTES
        };
        let concerned: Vec<Token> =
            self.conns.iter().filter(|(_, conn)| concerns(conn)).map(|(token, _)| token).collect();
        for token in concerned {
            self.settle(token);
        }
    }

    /// Frees what is only kept for the next use, and keeps nothing more; or keeps it again.
    fn free_idle(&mut self, free: bool) {
        // What is freed under a limit may be kept again as long as the step says so.
        let closed = free && self.memory.relief >= Relief::FreeIdle;
        if free {
            self.spares.close(true);
            self.turn.pool.set_max_idle_blocks(0);
            self.memory.idle = 0;
            if let Some(crew) = &mut self.crew {
                crew.free_idle();
            }
            if let Some(visits) = &mut self.visits {
                visits.free_idle();
            }
            if self.turn.record.sends_nothing() {
                self.turn.record.out = Vec::new();
            }
        }
        if !closed {
            self.spares.close(false);
            self.turn.pool.set_max_idle_blocks(self.memory.max_idle_blocks());
        }
    }

    fn hold_accepting(&mut self, hold: bool, held: usize) {
        self.turn.shared.intake.hold(hold);
        if self.stage != Stage::Serving {
            return;
        }
        if hold {
            let moment = self.moment();
            self.accepting.hold(&mut self.reactor, moment, held);
        } else {
            self.resume_all();
        }
    }
}

/// By whole seconds without progress, then by what waits.
fn slowness(stalled: Duration, bytes: usize) -> (u64, usize) {
    (stalled.as_secs(), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_in_whole_seconds_and_then_what_waits() {
        let of = |ms, bytes| slowness(Duration::from_millis(ms), bytes);
        assert!(of(1900, 3) > of(1100, 2));
        assert!(of(1100, 3) > of(1900, 2));
        assert!(of(2000, 1) > of(1999, 1_000_000));
    }
}
