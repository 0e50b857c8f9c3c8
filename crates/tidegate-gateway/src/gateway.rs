//! `Gateway`: the service. Frames in, handlers called, limits kept.
//!
//! ```text
//!                 frame                 handler: Suspend
//!   on_open ──▶ Serving ──▶ handler ──────────────────────▶ InFlight
//!                  ▲           │ Continue                      │ note (reply, resume)
//!                  └───────────┴───────────────────────────────┘
//! ```
//!
//! One timer keeps the heartbeat: a frame only stores the time, and the timer is armed anew when it expires too early. A
//! broken frame is a message whose head says so, since `decode` can neither count nor log.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_engine::{
    CounterDef, Decoded, Flow, Instant, Io, Limits, Peer, Phase, Reason, Refusal, Service, TimerToken,
};
use tidegate_frame::{BadBodySize, Decoder, FrameError, HEADER, PING, Step};

use crate::builder::Handler;
use crate::counters;
use crate::{FrameContext, GatewayBuilder, Note, OnUnknown, Session};

/// A server for the framed message protocol. One instance serves the connections of a listener in one event loop.
pub struct Gateway {
    /// Silence after which a connection is closed; `None`: never.
    heartbeat_limit: Option<Duration>,
    on_unknown: OnUnknown,
    max_queued_frames: u32,
    max_frames_per_second: u32,
    /// Sorted by code.
    handlers: Vec<(u16, Handler)>,
    /// Answers that found their connection gone, counted by the threads that brought them and not yet by the loop.
    pub(crate) stale: Arc<AtomicU64>,
    #[cfg(feature = "accounts")]
    accounts: Option<Arc<tidegate_accounts::Accounts>>,
}

/// What `decode` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A valid frame.
    Frame {
        /// Its code.
        code: u16,
    },
    /// Something else; the connection is closed for it.
    Bad(FrameError),
}

/// The timer of the heartbeat.
const HEARTBEAT: TimerToken = TimerToken(0);

/// How long after its first byte a frame must be complete, while heartbeats are on.
const FRAME_TIMEOUT: Duration = Duration::from_secs(15);

/// How much longer than the heartbeat allows a request may be in flight, before its connection is given up.
const IN_FLIGHT_LIMIT: Duration = Duration::from_secs(120);

/// The answer to a ping, which is the ping.
const PONG: [u8; HEADER] = [0, 8, 0, 0, 0, 0, 0, 0];

impl Gateway {
    /// Starts with the defaults, no handler and no accounts.
    #[must_use]
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::new()
    }

    pub(crate) fn new(builder: GatewayBuilder) -> Self {
        let interval = builder.heartbeat_interval;
        let limit = interval.saturating_mul(2).saturating_add(builder.heartbeat_grace);
        Self {
            heartbeat_limit: (!interval.is_zero()).then_some(limit),
            on_unknown: builder.on_unknown,
            max_queued_frames: builder.max_queued_frames,
            max_frames_per_second: builder.max_frames_per_second,
            handlers: builder.handlers,
            stale: Arc::default(),
            #[cfg(feature = "accounts")]
            accounts: builder.accounts,
        }
    }

    /// A valid frame has come: is there room for its answer, and may the peer send so many?
    fn admit(&self, io: &mut Io<'_>, session: &mut Session) -> Result<(), Reason> {
        session.alive = io.now();
        self.check_backlog(io, session)?;
        if session.rate.take(io.now(), self.max_frames_per_second) {
            return Ok(());
        }
        io.count(counters::FLOODS, 1);
        let limit = self.max_frames_per_second;
        tracing::debug!(conn = %io.id(), peer = %io.peer().address, limit, "too many frames a second");
        Err(Reason::FLOOD)
    }

    fn check_backlog(&self, io: &mut Io<'_>, session: &mut Session) -> Result<(), Reason> {
        let refused = session.backlog.refused(io.now(), io.queued_bytes()).unwrap_or(0);
        let limit = self.max_queued_frames;
        if limit == 0 || refused <= limit {
            return Ok(());
        }
        io.count(counters::OUTPUT_OVERFLOWS, 1);
        let bytes = io.queued_bytes();
        tracing::debug!(
            conn = %io.id(), peer = %io.peer().address, frames = refused, limit, bytes, "the peer does not read"
        );
        Err(Reason::OUTPUT_OVERFLOW)
    }

    fn on_frame(&self, io: &mut Io<'_>, session: &mut Session, code: u16, body: &[u8]) -> Flow {
        if let Err(reason) = self.admit(io, session) {
            return Flow::Abort(reason);
        }
        if code == PING {
            return on_ping(io, session, body);
        }
        #[cfg(feature = "accounts")]
        if let Some(accounts) = &self.accounts {
            let mut ctx = FrameContext { io, session, code };
            match code {
                tidegate_frame::REGISTER => {
                    return crate::account::register(accounts, &mut ctx, body, &self.stale);
                }
                tidegate_frame::LOGIN => return crate::account::login(accounts, &mut ctx, body, &self.stale),
                _ => {}
            }
        }
        let Ok(at) = self.handlers.binary_search_by_key(&code, |(code, _)| *code) else {
            return self.on_unknown_code(io, code, body);
        };
        io.count(counters::OTHER_FRAMES, 1);
        let answered = (self.handlers[at].1)(&mut FrameContext { io, session, code }, body);
        answered.unwrap_or_else(|error| {
            tracing::error!(conn = %io.id(), code, %error, "a handler made a reply that is too long");
            Flow::Abort(Reason::OUTPUT_OVERFLOW)
        })
    }

    fn on_unknown_code(&self, io: &mut Io<'_>, code: u16, body: &[u8]) -> Flow {
        io.count(counters::UNKNOWN_CODE, 1);
        let bytes = body.len();
        tracing::debug!(conn = %io.id(), peer = %io.peer().address, code, bytes, "a frame's code has no handler");
        match self.on_unknown {
            OnUnknown::Drop => Flow::Continue,
            OnUnknown::Close => Flow::Abort(Reason::UNKNOWN_CODE),
        }
    }

    /// Counts what other threads could not: only the loop may write its counters.
    fn fold_stale(&self, io: &mut Io<'_>) {
        if self.stale.load(Ordering::Relaxed) > 0 {
            io.count(counters::STALE_RESULTS, self.stale.swap(0, Ordering::Relaxed));
        }
    }
}

impl Service for Gateway {
    type Session = Session;
    type Head = Head;
    type Note = Note;

    const COUNTERS: &'static [CounterDef] = counters::ALL;

    fn on_open(&self, io: &mut Io<'_>, _peer: &Peer<'_>) -> Result<Session, Refusal> {
        self.fold_stale(io);
        if let Some(limit) = self.heartbeat_limit {
            io.set_timer(HEARTBEAT, limit);
        }
        Ok(Session::new(io.now()))
    }

    fn decode(&self, _session: &mut Session, input: &[u8]) -> Decoded<Head> {
        match Decoder::new().decode(input) {
            Ok(Step::Need(at_least)) => Decoded::Need { phase: Phase::Head, at_least },
            Ok(Step::Frame { len, header }) => {
                Decoded::Message { len, head: Head::Frame { code: header.code } }
            }
            Err(error) => Decoded::Message { len: input.len(), head: Head::Bad(error) },
        }
    }

    fn on_message(&self, io: &mut Io<'_>, session: &mut Session, head: Head, bytes: &[u8]) -> Flow {
        match head {
            Head::Frame { code } => {
                let flow = self.on_frame(io, session, code, &bytes[HEADER..]);
                session.in_flight = flow == Flow::Suspend;
                flow
            }
            Head::Bad(error) => Flow::Abort(on_bad_frame(io, error)),
        }
    }

    fn on_note(&self, io: &mut Io<'_>, session: &mut Session, note: Note) -> Flow {
        self.fold_stale(io);
        if let Err(reason) = self.check_backlog(io, session) {
            return Flow::Abort(reason);
        }
        if !note.frame.is_empty() {
            io.send(&note.frame);
            session.backlog.sent(io.queued_bytes());
        }
        if let Some(status) = note.status {
            count_status(io, status);
        }
        if note.user.is_some() {
            session.user = note.user;
        }
        if note.resumes && session.in_flight {
            session.in_flight = false;
            // Nothing could be received while the request was in flight, so the peer's clock stood still.
            session.alive = io.now();
        }
        if session.in_flight { Flow::Suspend } else { stay_or_end(io) }
    }

    fn on_timer(&self, io: &mut Io<'_>, session: &mut Session, timer: TimerToken) -> Flow {
        self.fold_stale(io);
        let (HEARTBEAT, Some(limit)) = (timer, self.heartbeat_limit) else { return Flow::Continue };
        let silent = io.now().saturating_duration_since(session.alive);
        if session.in_flight && silent < limit.saturating_add(IN_FLIGHT_LIMIT) {
            // The limit counts anew from the answer, which cannot be known yet, but never ends before this.
            io.set_timer(HEARTBEAT, limit);
            return Flow::Continue;
        }
        if silent < limit {
            io.set_timer(HEARTBEAT, limit - silent);
            return Flow::Continue;
        }
        io.count(counters::HEARTBEAT_TIMEOUTS, 1);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(
            conn = %io.id(), peer = %io.peer().address,
            silent_ms = millis(silent), limit_ms = millis(limit), in_flight = session.in_flight,
            "no valid frame came in time"
        );
        Flow::Abort(Reason::HEARTBEAT_TIMEOUT)
    }

    fn next_close(&self, session: &Session) -> Option<(Reason, Instant)> {
        let limit = self.heartbeat_limit.filter(|_| !session.in_flight)?;
        Some((Reason::HEARTBEAT_TIMEOUT, session.alive + limit))
    }

    fn on_retire(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        if session.in_flight { Flow::Continue } else { stay_or_end(io) }
    }

    fn limits(&self) -> Limits {
        Limits {
            // The heartbeat does it.
            idle_timeout: None,
            head_timeout: self.heartbeat_limit.map(|_| FRAME_TIMEOUT),
            body_timeout: None,
            ..Limits::default()
        }
    }
}

/// What becomes of a connection with nothing in flight: its peer is here for long, and stays while the worker has time.
fn stay_or_end(io: &Io<'_>) -> Flow {
    if io.retiring() && !io.draining() { Flow::CloseAfterFlush(Reason::SHUTDOWN) } else { Flow::Continue }
}

fn on_ping(io: &mut Io<'_>, session: &mut Session, body: &[u8]) -> Flow {
    if !body.is_empty() {
        return on_bad_body(io, &BadBodySize { code: PING, expected: 0, found: body.len() });
    }
    io.count(counters::PINGS, 1);
    io.send(&PONG);
    session.backlog.sent(io.queued_bytes());
    Flow::Continue
}

fn on_bad_frame(io: &mut Io<'_>, error: FrameError) -> Reason {
    let (counter, reason) = match error {
        FrameError::BadLength(_) => (counters::BAD_LENGTH, Reason::BAD_LENGTH),
        FrameError::BadChecksum { .. } => (counters::BAD_CHECKSUM, Reason::BAD_CHECKSUM),
    };
    io.count(counter, 1);
    tracing::debug!(conn = %io.id(), peer = %io.peer().address, %error, "bad frame");
    reason
}

pub(crate) fn on_bad_body(io: &mut Io<'_>, error: &BadBodySize) -> Flow {
    io.count(counters::BAD_BODY_SIZE, 1);
    tracing::debug!(conn = %io.id(), peer = %io.peer().address, %error, "bad body size");
    Flow::Abort(Reason::BAD_BODY_SIZE)
}

/// Counts how a request about an account went; what was done is counted by its request.
pub(crate) fn count_status(io: &mut Io<'_>, status: tidegate_frame::Status) {
    use tidegate_frame::Status;
    match status {
        Status::Done => {}
        Status::Busy => io.count(counters::ACCOUNTS_BUSY, 1),
        Status::Internal => io.count(counters::ACCOUNTS_FAILED, 1),
        _ => io.count(counters::ACCOUNTS_REFUSED, 1),
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes: Vec<u16> = self.handlers.iter().map(|(code, _)| *code).collect();
        f.debug_struct("Gateway")
            .field("heartbeat_limit", &self.heartbeat_limit)
            .field("on_unknown", &self.on_unknown)
            .field("max_queued_frames", &self.max_queued_frames)
            .field("max_frames_per_second", &self.max_frames_per_second)
            .field("codes", &codes)
            .finish_non_exhaustive()
    }
}
