//! `Conn`: what the loop keeps for each connection, whatever its service.
//!
//! Small, because most connections are idle most of the time: buffers exist only while something waits in them.

use std::sync::Arc;
use std::time::Duration;

use tidegate_reactor::{End, Errno, PeerAddress, Token};
use tidegate_timer::{Instant, TimerKey};

use crate::handle::Letter;
use crate::host::Event;
use crate::io::{Queued, Retirement};
use crate::layered::Layered;
use crate::output::Output;
use crate::pace::Pace;
use crate::wish::Tie;
use crate::{Limits, Phase, Reason, Security, TimerToken};

/// A connection.
///
/// ```text
///              CloseAfterFlush            output empty               peer's FIN, or too late
/// Greeting ─▶ Handshaking (of a listener with a layer) ─▶ (on_open)
///   Open ─────────────────────▶ Flushing ─────────────▶ Lingering ───────────────────────────▶ closed
///    └── Abort, broken, deadline ──────────────────────────────────────────────────────────────▶
/// ```
#[derive(Debug)]
pub(crate) struct Conn {
    /// The listener that accepted it, which names its service too.
    pub(crate) site: u16,
    pub(crate) state: State,
    pub(crate) reading: Reading,
    /// The service waits for a note.
    pub(crate) suspended: bool,
    /// The session is with another thread, which handles a message: see `event_loop::away`.
    pub(crate) away: bool,
    /// A complete message waits for room in the queue of the pool.
    pub(crate) unqueued: bool,
    /// More output waits than the high-water mark allows, and it has not fallen to the low one.
    pub(crate) over_water: bool,
    /// Output waits for the peer and memory is short: it is heard again when one of the two is over.
    pub(crate) squeezed: bool,
    /// The peer sends on though its last message was handled, and does not read: it is not heard until it does.
    pub(crate) deaf: bool,
    /// The reactor was told to stop receiving.
    pub(crate) reading_paused: bool,
    /// The output waits for the next turn, not for the kernel.
    pub(crate) send_later: bool,
    /// Output that the reactor has taken waits for the kernel.
    pub(crate) stalled: bool,
    /// The service is to be told when all output has been taken.
    pub(crate) awaits_sent: bool,
    /// Stands in the loop's list of connections that go on without a completion.
    pub(crate) listed: bool,
    /// It came through a Unix socket, whoever its peer is.
    pub(crate) is_unix: bool,
    /// Its address was counted: see `event_loop::greeting`.
    pub(crate) counted: bool,
    pub(crate) eof: Eof,
    /// Nothing can be sent any more, and what the peer has said before is still heard: see `event_loop::closing`.
    pub(crate) unheard: Option<Errno>,
    /// Of a tied connection, how far its output has ended.
    pub(crate) sending: Sending,
    /// What `on_retire` has been called for.
    pub(crate) told: Retirement,
    /// Memory of its input, as it stands in the loop's account.
    pub(crate) weighed: u32,
    /// Bytes thrown away while lingering.
    pub(crate) lingered: u32,
    pub(crate) who: Who,
    /// The session's key in the table of its service.
    pub(crate) session: Token,
    pub(crate) opened: Instant,
    pub(crate) last_in: Instant,
    pub(crate) last_out: Instant,
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
    /// What few connections have, so that the others do not pay for it.
    pub(crate) aside: Option<Box<Aside>>,
}

/// The end of the peer's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eof {
    None,
    Came,
    /// `on_eof` has been called.
    Told,
}

/// Whether more is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    On,
    /// FIN follows the output.
    Ending,
    /// FIN was sent, or nothing can be sent any more.
    Ended,
    /// A reset follows the output.
    Breaking,
}

/// Which connection it is, and with whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) id: Token,
    pub(crate) peer: PeerAddress,
}

/// How far the input has been understood, and what is awaited of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// What is awaited from the peer.
    pub(crate) phase: Phase,
    /// What is awaited when all input has been handled: see `Io::expect`.
    pub(crate) between: Phase,
    /// The service asked not to be given more.
    pub(crate) paused: bool,
    /// `decode` waits for this many bytes.
    pub(crate) need: u32,
    /// When the phase began.
    pub(crate) since: Instant,
}

impl Reading {
    /// Enters a phase; staying in it keeps its beginning.
    #[inline]
    pub(crate) fn enter(&mut self, phase: Phase, now: Instant) {
        if self.phase != phase {
            self.phase = phase;
            self.since = now;
        }
    }

    /// A message came whole, so whatever is awaited next begins now.
    #[inline]
    pub(crate) fn message_came(&mut self, now: Instant) {
        self.need = 0;
        self.phase = self.between;
        self.since = now;
    }
}

/// What few connections have: what waits for the return of a session, or the other side of a tie, but none has both; how
/// fast the peer is; and a layer.
#[derive(Debug)]
pub(crate) struct Aside {
    /// The connection that it is tied to.
    pub(crate) partner: Token,
    /// In the order in which it happened.
    pub(crate) events: Vec<Missed>,
    /// How the connection is to end; nothing else matters then.
    pub(crate) ending: Option<Ending>,
    /// How fast the peer is, while it is waited for and the service has a lowest rate: see `event_loop::slow`.
    pub(crate) pace: Option<Pace>,
    /// What stands between its bytes and its service. While the connection is with a thread as a whole, so is this.
    pub(crate) layer: Option<Layered>,
}

impl Default for Aside {
    fn default() -> Self {
        Self { partner: NOBODY, events: Vec::new(), ending: None, pace: None, layer: None }
    }
}

/// Something that happened while the session was away.
#[derive(Debug)]
pub(crate) enum Missed {
    Event(Event),
    Letter(Letter),
    Tie(Tie),
}

/// The end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) reason: Reason,
    pub(crate) end: End,
    /// What the kernel gave as the cause.
    pub(crate) errno: Option<i32>,
}

/// Where a connection stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is not there yet: see `event_loop::outgoing`.
    Connecting,
    /// A header that says who it is has not come whole: see `event_loop::greeting`.
    Greeting,
    /// Its layer and the peer are not agreed yet, and its service does not know it: see `event_loop::layers`.
    Handshaking,
    Open,
    /// Its input goes to another connection: see `event_loop::ties`.
    Tied,
    /// No further message; closed when the output is sent.
    Flushing(Reason),
    /// FIN was sent; what the peer still sends is thrown away, so that a reset does not overtake the last answer
    /// (RFC 9112, section 9.6).
    Lingering(Reason),
}

/// A token that finds nothing.
const NOBODY: Token = Token { slot: u32::MAX, generation: 0 };
/// How long a header that says who it is may take, where the service has no limit for a head.
const GREETING_TIMEOUT: Duration = Duration::from_secs(15);

impl Conn {
    pub(crate) fn new(id: Token, site: u16, peer: PeerAddress, now: Instant) -> Self {
        Self {
            site,
            state: State::Open,
            reading: Reading { phase: Phase::Idle, between: Phase::Idle, paused: false, need: 0, since: now },
            suspended: false,
            away: false,
            unqueued: false,
            over_water: false,
            squeezed: false,
            deaf: false,
            reading_paused: false,
            send_later: false,
            stalled: false,
            awaits_sent: false,
            listed: false,
            is_unix: peer == PeerAddress::Unix,
            counted: false,
            eof: Eof::None,
            unheard: None,
            sending: Sending::On,
            told: Retirement::None,
            weighed: 0,
            lingered: 0,
            who: Who { id, peer },
            session: NOBODY,
            opened: now,
            last_in: now,
            last_out: now,
            deadline: None,
            deadline_at: Instant::MAX,
            bytes_in: 0,
            bytes_out: 0,
            input: Vec::new(),
            output: None,
            timers: Vec::new(),
            aside: None,
        }
    }

    /// Whether it can be tied to another one.
    pub(crate) fn may_be_tied(&self) -> bool {
        self.state == State::Open
    }

    /// The connection that it is tied to.
    #[inline]
    pub(crate) fn partner(&self) -> Token {
        self.aside.as_ref().map_or(NOBODY, |aside| aside.partner)
    }

    /// How fast the peer is, if that is asked for.
    #[inline]
    pub(crate) fn pace(&self) -> Option<&Pace> {
        self.aside.as_ref()?.pace.as_ref()
    }

    #[inline]
    pub(crate) fn pace_mut(&mut self) -> Option<&mut Pace> {
        self.aside.as_mut()?.pace.as_mut()
    }

    /// What happened while the session was away.
    pub(crate) fn take_absence(&mut self) -> Option<Box<Aside>> {
        let aside = self.aside.as_deref_mut()?;
        if aside.events.is_empty() && aside.ending.is_none() {
            return None;
        }
        if aside.pace.is_none() && aside.layer.is_none() {
            return self.aside.take();
        }
        let (events, ending) = (std::mem::take(&mut aside.events), aside.ending.take());
        Some(Box::new(Aside { events, ending, ..Aside::default() }))
    }

    /// Whether the peer of a connection that broke had ended its side before: what it has sent is whole then. A Unix socket
    /// knows no reset, and loses nothing.
    pub(crate) fn has_said_all(&self, errno: Option<i32>) -> bool {
        self.has_ended()
            || self.is_unix
            // tcp(7) does not say so, but the kernel does: it is EPIPE behind a FIN, and ECONNRESET without one.
            || errno == Some(Errno::PIPE.raw_os_error())
    }

    /// Whether the peer has ended its side.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.eof != Eof::None
    }

    /// Output that waits, as callbacks are told of it.
    #[inline]
    pub(crate) fn queued(&self) -> Queued {
        let output = self.output.as_ref();
        output.map_or_else(Queued::default, |output| Queued { bytes: output.len(), weight: output.weight() })
    }

    /// What waits, as the water marks measure it.
    #[inline]
    pub(crate) fn queued_weight(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.weight())
    }

    /// How much of what its service has sent the kernel took, when the reactor has `unsent` bytes of it.
    pub(crate) fn bytes_taken(&self, unsent: usize) -> u64 {
        let Some(layer) = self.layer() else { return self.bytes_out.saturating_sub(unsent as u64) };
        let waiting = self.output.as_ref().map_or(0, |output| output.sealed_len());
        layer.sealed_bytes().saturating_sub((waiting + unsent) as u64)
    }

    /// Memory that its input takes, and what its layer has not taken or sent yet.
    #[inline]
    pub(crate) fn input_bytes(&self) -> u32 {
        let layer = if self.aside.is_some() { self.layer_bytes() } else { 0 };
        u32::try_from(self.input.capacity() + layer).unwrap_or(u32::MAX)
    }

    fn layer_bytes(&self) -> usize {
        let sealed = self.output.as_ref().map_or(0, |output| output.sealed_capacity());
        self.layer().map_or(0, |layer| layer.buffer_bytes() + sealed)
    }

    /// Its layer, unless a thread has it.
    #[inline]
    pub(crate) fn layer(&self) -> Option<&Layered> {
        self.aside.as_deref()?.layer.as_ref()
    }

    #[inline]
    pub(crate) fn layer_mut(&mut self) -> Option<&mut Layered> {
        self.aside.as_deref_mut()?.layer.as_mut()
    }

    /// How it is secured, if it is.
    #[inline]
    pub(crate) fn security(&self) -> Option<&Arc<Security>> {
        self.layer()?.security()
    }

    /// Whether nothing is to be received for now.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        match self.state {
            State::Open => {
                self.suspended || self.reading.paused || self.over_water || self.squeezed || self.unqueued
            }
            State::Flushing(_) | State::Lingering(_) => self.deaf,
            State::Tied | State::Handshaking => self.reading.paused,
            State::Connecting | State::Greeting => false,
        }
    }

    /// What is awaited from the peer, if anything.
    #[inline]
    pub(crate) fn awaited(&self) -> Option<Phase> {
        if self.output.is_some() || self.stalled {
            return Some(Phase::Write);
        }
        if self.suspended || self.away || self.unqueued || self.reading.paused {
            return None;
        }
        // A peer that has ended its side owes nothing any more, but it may not stay for ever.
        Some(if self.has_ended() { Phase::Idle } else { self.reading.phase })
    }

    /// Which deadline applies now, and when it is; `None` while nothing is awaited from the peer.
    #[inline]
    pub(crate) fn due(&self, limits: &Limits, linger: Duration) -> Option<(Phase, Instant)> {
        self.due_of(self.awaited(), limits, linger)
    }

    /// As [`due`](Self::due), for what is [awaited](Self::awaited).
    #[inline]
    pub(crate) fn due_of(
        &self,
        awaited: Option<Phase>,
        limits: &Limits,
        linger: Duration,
    ) -> Option<(Phase, Instant)> {
        match self.state {
            State::Lingering(_) => return Some((Phase::Write, self.last_out + linger)),
            State::Handshaking => return self.layer().map(|layer| (Phase::Head, layer.until)),
            State::Connecting | State::Greeting | State::Open | State::Tied | State::Flushing(_) => {}
        }
        let phase = awaited?;
        let since = self.last_in.max(self.reading.since);
        let at = match phase {
            Phase::Idle => since + limits.idle_timeout?,
            // Who says nothing of itself is not waited for without end, whatever its service has patience for.
            Phase::Head if self.state == State::Greeting => {
                self.reading.since + limits.head_timeout.unwrap_or(GREETING_TIMEOUT)
            }
            Phase::Head => self.reading.since + limits.head_timeout?,
            Phase::Body => since + limits.body_timeout?,
            Phase::Write => self.last_out + limits.write_timeout?,
        };
        Some((phase, at))
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
        assert!(size_of::<Conn>() <= 216, "{} bytes", size_of::<Conn>());
    }
}
