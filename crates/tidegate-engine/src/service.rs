//! `Service`: the one trait a program implements, and the words its callbacks speak.
//!
//! Framing (`decode`) is apart from handling (`on_message`), so that one service can run with its handlers in the loop, on
//! a pool, or on the threads that do the I/O. No callback blocks: slow work is handed to another thread, the callback
//! answers [`Flow::Suspend`], and the result comes back as a note through a [`ConnHandle`](crate::ConnHandle).

use std::time::Duration;

use tidegate_reactor::PeerAddress;

use crate::{ConnectFailed, Instant, Io, Reason};

/// A protocol and what is done with its messages. One instance serves all connections of a listener in one event loop.
///
/// For each connection the calls come in this order, one at a time: `on_open`; then any number of `decode`, `on_message`,
/// `on_note`, `on_timer`, `on_drained`, `on_sent`, `on_deadline`, `on_eof`, `on_retire`; last, exactly once, `on_close`. A connection that
/// `on_open` refused sees no further call. A panic in a callback closes that connection with [`Reason::PANIC`]; the other
/// connections live on.
pub trait Service: Send + Sync + 'static {
    /// What the service keeps for each connection.
    type Session: Send + 'static;
    /// What `decode` found out about a message: offsets and numbers, nothing borrowed.
    type Head: Send + 'static;
    /// What another thread may post to a connection: see [`ConnHandle::post`](crate::ConnHandle::post).
    type Note: Send + 'static;

    /// The service's own counters, shown by `/metrics`. [`Io::count`] adds to them by index. At most
    /// [`MAX_SERVICE_COUNTERS`](crate::MAX_SERVICE_COUNTERS).
    const COUNTERS: &'static [CounterDef] = &[];

    /// A connection was accepted; or an outgoing one is there, of which `peer` is the target.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] closes the connection at once, or after its answer when it has one.
    fn on_open(&self, io: &mut Io<'_>, peer: &Peer<'_>) -> Result<Self::Session, Refusal>;

    /// Looks for one complete message at the start of `input`, which is never empty. May be called again with a longer
    /// input that starts with the same bytes: keep in the session what would be expensive to find out anew.
    fn decode(&self, session: &mut Self::Session, input: &[u8]) -> Decoded<Self::Head>;

    /// A complete message; `bytes` is exactly the `len` bytes that `decode` named.
    fn on_message(
        &self,
        io: &mut Io<'_>,
        session: &mut Self::Session,
        head: Self::Head,
        bytes: &[u8],
    ) -> Flow;

    /// A note that another thread posted. After [`Flow::Suspend`] it resumes the connection, unless it answers `Suspend` again.
    fn on_note(&self, _io: &mut Io<'_>, _session: &mut Self::Session, _note: Self::Note) -> Flow {
        Flow::Continue
    }

    /// A timer set by [`Io::set_timer`] expired.
    fn on_timer(&self, _io: &mut Io<'_>, _session: &mut Self::Session, _timer: TimerToken) -> Flow {
        Flow::Continue
    }

    /// The output had grown over the high-water mark and has now fallen to the low-water mark. What a callback sends
    /// counts from that moment on ([`Io::queued_bytes`]), also when the kernel then takes all of it at once: a service
    /// that sends without end sends until it is over the mark, and goes on from here.
    fn on_drained(&self, _io: &mut Io<'_>, _session: &mut Self::Session) -> Flow {
        Flow::Continue
    }

    /// All that was sent when [`Io::tell_when_sent`] was called has been taken by the kernel, and so has what was sent since.
    /// Called at the end of the turn in which the last of it was; also after [`Flow::CloseAfterFlush`], when only
    /// [`Flow::Abort`] means anything, and right before `on_close` when the peer has ended in order by then. Of a connection that breaks
    /// before all has been taken, only `on_close` tells.
    fn on_sent(&self, _io: &mut Io<'_>, _session: &mut Self::Session) -> Flow {
        Flow::Continue
    }

    /// The deadline of a phase passed (see [`Limits`]). Answer something, as a web server its 408, or abort.
    fn on_deadline(&self, _io: &mut Io<'_>, _session: &mut Self::Session, phase: Phase) -> Flow {
        Flow::Abort(phase.timeout_reason())
    }

    /// The peer ended its side; all complete messages before the end have been handled. Answering `Continue` keeps the
    /// other direction open.
    fn on_eof(&self, _io: &mut Io<'_>, _session: &mut Self::Session) -> Flow {
        Flow::CloseAfterFlush(Reason::PEER_CLOSED)
    }

    /// The worker is to end: [`Io::retiring`] is true from now on.
    ///
    /// While [`Io::draining`] is true too, others have taken its place and it has time: whoever stays is served on. A
    /// service tells its peers in the protocol's own words to come again when it suits them (`Connection: close`, GOAWAY),
    /// and ends nothing that a peer might just be using. Otherwise a service ends what is idle here and everything
    /// else as soon as it is done; what is left is closed when `process.shutdown_timeout` has passed.
    ///
    /// That goes for outgoing connections, too: only their service knows whether one that is silent is of use to somebody. The
    /// engine ends only those that it keeps open by itself ([`LoopBuilder::upstream`](crate::LoopBuilder::upstream)), and not before
    /// they are the last ones.
    ///
    /// Called once, and a second time when a worker that was draining is told to end within a time. Connections are not
    /// told all at once but at a steady pace, so that their peers do not come again all at once.
    fn on_retire(&self, _io: &mut Io<'_>, _session: &mut Self::Session) -> Flow {
        Flow::Continue
    }

    /// Why and when one of the service's own timers would close the connection, as far as is known: for an operator who asks
    /// what becomes of it. The deadlines of [`Limits`] need not be told.
    fn next_close(&self, _session: &Self::Session) -> Option<(Reason, Instant)> {
        None
    }

    /// An outgoing connection that was asked for is not to be had. It was never open, so nothing else is called for it.
    fn on_connect_failed(&self, _failed: ConnectFailed<Self::Note>) {}

    /// The connection has ended, for whatever reason.
    fn on_close(&self, _session: Self::Session, _closed: &Closed) {}

    /// Deadlines, marks and limits of each connection; asked once, when the loop is built.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// What a peer is told for whom there is no descriptor. `None` leaves such peers in the accept queue.
    fn overload_answer(&self) -> Option<&'static [u8]> {
        None
    }
}

/// What `decode` found at the start of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<H> {
    /// No complete message yet.
    Need {
        /// What is awaited; it picks the deadline.
        phase: Phase,
        /// `decode` is not called again before the input has this many bytes.
        at_least: usize,
    },
    /// A complete message of `len` bytes, `1..=input.len()`.
    Message {
        /// How many bytes of the input it takes.
        len: usize,
        /// What was found out about it.
        head: H,
    },
    /// The input breaks the protocol and gets no answer.
    Close(Reason),
}

/// What happens to the connection after a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// No further message is handled until a note has been; what arrives meanwhile waits.
    Suspend,
    /// Deliver what is queued, then FIN. No further message is handled.
    CloseAfterFlush(Reason),
    /// Close now, with FIN or a reset as the reason says ([`Reason::end`]).
    Abort(Reason),
}

impl Flow {
    /// The same, with one cause named more exactly.
    pub(crate) fn renamed(self, from: Reason, to: Reason) -> Self {
        match self {
            Self::CloseAfterFlush(reason) if reason == from => Self::CloseAfterFlush(to),
            Self::Abort(reason) if reason == from => Self::Abort(to),
            other => other,
        }
    }
}

/// What a connection is waiting for from its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The next message, of which no byte is there.
    Idle,
    /// The rest of a head or frame: one deadline for all of it, which bytes do not extend.
    Head,
    /// The rest of a body: each byte extends the deadline.
    Body,
    /// Nothing; the peer is to take the output that waits for it.
    Write,
}

impl Phase {
    /// The reason of a close for the deadline of this phase.
    #[must_use]
    pub const fn timeout_reason(self) -> Reason {
        match self {
            Self::Idle => Reason::IDLE_TIMEOUT,
            Self::Head => Reason::HEAD_TIMEOUT,
            Self::Body => Reason::BODY_TIMEOUT,
            Self::Write => Reason::WRITE_TIMEOUT,
        }
    }
}

/// Deadlines, marks and limits of a connection. `None` means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nothing received while nothing was due: neither output that waits for the peer, nor a note. Default 10 min.
    pub idle_timeout: Option<Duration>,
    /// A head or frame from its first byte to its last. Default 15 s.
    pub head_timeout: Option<Duration>,
    /// A body without a further byte. Default 30 s.
    pub body_timeout: Option<Duration>,
    /// Output of which the peer takes no byte. Default 60 s.
    pub write_timeout: Option<Duration>,
    /// Bytes of an incomplete message that are kept, or of input while suspended. Default 64 KiB.
    pub max_input_bytes: usize,
    /// Reading pauses while more bytes of output than this wait for the peer; a file that waits counts as 1 KiB.
    /// Default 256 KiB.
    pub high_water_bytes: usize,
    /// Reading resumes at this many. Default 64 KiB.
    pub low_water_bytes: usize,
    /// The connection is closed when more bytes than this wait. Default 16 MiB. Files sent by descriptor do not count.
    pub max_output_bytes: usize,
    /// Bytes per second that a body ([`Phase::Body`]), or output that waits for the peer, has to make at the least. A slower
    /// body gets [`on_deadline`](Service::on_deadline), and what that closes as [`Reason::BODY_TIMEOUT`] is closed as
    /// [`Reason::SLOW_BODY`]; a slower reader is reset with [`Reason::SLOW_READER`]. Default 0: any rate will do.
    ///
    /// Who was faster before may be slower for as long after, but for no longer than `body_timeout` or `write_timeout`. It is
    /// the kernel's progress that is seen, which on a fast network comes in lumps of up to 64 KiB.
    pub min_rate_bytes: u32,
    /// How long such a body or output may take before its rate is looked at. Default 5 s.
    pub min_rate_grace: Duration,
    /// Connections that one address may have at a time, in all loops that share an [`AddressCounts`](crate::AddressCounts);
    /// one more is reset with [`Reason::ADDRESS_LIMIT`], without an `on_open`. Default 0: no limit. An IPv6 address counts by
    /// its first 64 bits.
    pub max_connections_per_address: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle_timeout: Some(Duration::from_secs(600)),
            head_timeout: Some(Duration::from_secs(15)),
            body_timeout: Some(Duration::from_secs(30)),
            write_timeout: Some(Duration::from_secs(60)),
            max_input_bytes: 64 << 10,
            high_water_bytes: 256 << 10,
            low_water_bytes: 64 << 10,
            max_output_bytes: 16 << 20,
            min_rate_bytes: 0,
            min_rate_grace: Duration::from_secs(5),
            max_connections_per_address: 0,
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// The peer's address.
    pub address: PeerAddress,
    /// The name of the listener that accepted the connection, or of the client that asked for it.
    pub listener: &'a str,
}

/// Why `on_open` does not want a connection, and what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason of the close.
    pub reason: Reason,
    /// Sent before the close; may be empty.
    pub answer: &'static [u8],
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, answer: b"" }
    }
}

/// How a connection ended; given to `on_close`.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Why.
    pub reason: Reason,
    /// The connection's identity: its slot may be reused afterwards, its generation is not.
    pub id: crate::ConnId,
    /// The peer's address.
    pub address: PeerAddress,
    /// How long it was open.
    pub age: Duration,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes that the kernel took for sending.
    pub bytes_out: u64,
    /// How much of what the service has sent that was: less than `bytes_out` under a layer, which adds words of its own. What
    /// the kernel has taken only a part of, sealed, counts as if it were as long as it is sealed.
    pub bytes_taken: u64,
    /// The errno of a [`Reason::PEER_RESET`] or [`Reason::IO_ERROR`], from `SO_ERROR` or the failed call.
    pub errno: Option<i32>,
}

/// The service's own name for one of a connection's timers. Setting a timer of the same token again replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerToken(pub u32);

/// A counter of a service, as `/metrics` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterDef {
    /// `snake_case`, without the prefix `tidegate_<service>_` and without the suffix `_total`.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
}
