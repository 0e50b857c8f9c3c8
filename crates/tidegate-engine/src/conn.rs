//! `Conn`: what the loop keeps for each connection, whatever its service.
//!
//! Small, because most connections are idle most of the time: buffers exist only while something waits in them.

use tidegate_reactor::{PeerAddress, Token};
use tidegate_timer::{Instant, TimerKey};

use crate::output::Output;
use crate::{Limits, Phase, Reason, TimerToken};

/// A connection.
///
/// ```text
///              CloseAfterFlush            output empty           peer's FIN, or too late, or too much
///   Open ─────────────────────▶ Flushing ─────────────▶ Lingering ───────────────────────────▶ closed
///    └── Abort, broken, deadline ──────────────────────────────────────────────────────────────▶
/// ```
#[derive(Debug)]
pub(crate) struct Conn {
    /// The listener that accepted it, which names its service too.
    pub(crate) site: u16,
    pub(crate) state: State,
    /// What is awaited from the peer, and since when.
    pub(crate) phase: Phase,
    /// What is awaited when all input has been handled: see `Io::expect`.
    pub(crate) between: Phase,
    /// The service waits for a note.
    pub(crate) suspended: bool,
    /// The service asked not to be given more.
    pub(crate) paused_by_service: bool,
    /// More output waits than the high-water mark allows, and it has not fallen to the low one.
    pub(crate) over_water: bool,
    /// The peer sends on though its last message was handled, and does not read: it is not heard until it does.
    pub(crate) deaf: bool,
    /// The reactor was told to stop receiving.
    pub(crate) reading_paused: bool,
    /// The output waits for the next turn, not for the kernel.
    pub(crate) send_later: bool,
    /// Stands in the loop's list of connections that go on without a completion.
    pub(crate) listed: bool,
    /// The peer ended its side.
    pub(crate) eof: bool,
    /// `on_eof` has been called.
    pub(crate) eof_told: bool,
    /// `decode` waits for this many bytes.
    pub(crate) need: u32,
    /// Bytes thrown away while lingering.
    pub(crate) lingered: u32,
    pub(crate) id: Token,
    /// The session's key in the table of its service.
    pub(crate) session: Token,
    pub(crate) peer: PeerAddress,
    pub(crate) opened: Instant,
    pub(crate) last_in: Instant,
    pub(crate) last_out: Instant,
    pub(crate) phase_since: Instant,
    /// The one timer for all deadlines, and when it is due. It is re-armed only to be earlier, else when it expires.
    pub(crate) deadline: Option<TimerKey>,
    pub(crate) deadline_at: Instant,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Input that no complete message was found in yet, or that waits while the connection is suspended.
    pub(crate) input: Vec<u8>,
    /// Output that the kernel did not take yet.
    pub(crate) output: Option<Box<Output>>,
    /// The service's timers.
    pub(crate) timers: Vec<(TimerToken, TimerKey)>,
}

/// Where a connection stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// No further message; closed when the output is sent.
    Flushing(Reason),
    /// FIN was sent; what the peer still sends is thrown away, so that a reset does not overtake the last answer
    /// (RFC 9112, section 9.6).
    Lingering(Reason),
}

impl Conn {
    pub(crate) fn new(id: Token, site: u16, peer: PeerAddress, now: Instant) -> Self {
        Self {
            site,
            state: State::Open,
            phase: Phase::Idle,
            between: Phase::Idle,
            suspended: false,
            paused_by_service: false,
            over_water: false,
            deaf: false,
            reading_paused: false,
            send_later: false,
            listed: false,
            eof: false,
            eof_told: false,
            need: 0,
            lingered: 0,
            id,
            session: Token { slot: u32::MAX, generation: 0 },
            peer,
            opened: now,
            last_in: now,
            last_out: now,
            phase_since: now,
            deadline: None,
            deadline_at: Instant::MAX,
            bytes_in: 0,
            bytes_out: 0,
            input: Vec::new(),
            output: None,
            timers: Vec::new(),
        }
    }

    /// Bytes of output that wait in memory.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.len())
    }

    /// What waits, as the water marks measure it.
    #[inline]
    pub(crate) fn queued_weight(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.weight())
    }

    /// Whether nothing is to be received for now.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        match self.state {
            State::Open => self.suspended || self.paused_by_service || self.over_water,
            State::Flushing(_) => self.deaf,
            State::Lingering(_) => false,
        }
    }

    /// Enters a phase; staying in it keeps its beginning.
    #[inline]
    pub(crate) fn enter(&mut self, phase: Phase, now: Instant) {
        if self.phase != phase {
            self.phase = phase;
            self.phase_since = now;
        }
    }

    /// Which deadline applies now, and when it is; `None` while nothing is awaited from the peer.
    #[inline]
    pub(crate) fn due(&self, limits: &Limits, linger: std::time::Duration) -> Option<(Phase, Instant)> {
        if let State::Lingering(_) = self.state {
            return Some((Phase::Write, self.last_out + linger));
        }
        if self.output.is_some() {
            return limits.write_timeout.map(|after| (Phase::Write, self.last_out + after));
        }
        if self.suspended || self.paused_by_service {
            return None;
        }
        // A peer that has ended its side owes nothing any more, but it may not stay for ever.
        let phase = if self.eof { Phase::Idle } else { self.phase };
        let since = self.last_in.max(self.phase_since);
        match phase {
            Phase::Idle => limits.idle_timeout.map(|after| (phase, since + after)),
            Phase::Head => limits.head_timeout.map(|after| (phase, self.phase_since + after)),
            Phase::Body => limits.body_timeout.map(|after| (phase, since + after)),
            Phase::Write => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Due;
    use crate::table::Table;

    #[test]
    fn an_idle_connection_is_small() {
        // A timer costs 24 bytes and its value; see `tidegate_timer::Wheel`.
        let timer = 24 + size_of::<Due>();
        let source = tidegate_reactor::Epoll::BYTES_PER_CONNECTION;
        let parts = [Table::<Conn>::SLOT_BYTES, source, timer, Table::<()>::SLOT_BYTES];
        assert!(parts.iter().sum::<usize>() < 320, "{parts:?}");
    }
}
