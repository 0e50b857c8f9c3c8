//! `Io`: what a callback may do with its connection.
//!
//! It records; the loop, which owns the connection, does it when the callback has returned. So a callback never waits for
//! the kernel, and everything that a batch of messages sends leaves in one call.

use std::any::TypeId;
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tidegate_buf::Pool;
use tidegate_reactor::Token;
use tidegate_timer::{AnyQueue, Instant, TimerQueue};

use crate::conn::{Aside, Conn, Who};
use crate::connect::{self, MAX_CONNECTS};
use crate::event_loop::upstreams::Seat;
use crate::handle::{ConnHandle, ConnId, Shared};
use crate::layer::{AnyClientLayer, AnyLayer};
use crate::metrics::{Callback, ListenerMetrics, ProcessMetrics};
use crate::output::FilePart;
use crate::record::{Received, Record, TimerWish};
use crate::wish::{Tie, Wish};
use crate::{Connect, ConnectError, Limits, Peer, Phase, Security, TieError, TimerToken, Upstream};

/// A connection, in the hands of a callback of its service.
pub struct Io<'a> {
    pub(crate) who: &'a Who,
    pub(crate) moment: Moment,
    pub(crate) queued: Queued,
    pub(crate) record: &'a mut Record,
    pub(crate) site: &'a Site,
    pub(crate) shared: &'a Arc<Shared>,
    /// What the reactor received and still has.
    pub(crate) received: Received,
    /// Something was received behind the present message.
    pub(crate) more_input: bool,
    /// Where it is entered which callback the loop is in; other threads do not hold up a loop.
    pub(crate) watch: Option<&'a ProcessMetrics>,
    /// How the connection is secured.
    pub(crate) security: Option<&'a Security>,
}

/// How a connection with this besides is secured.
#[inline]
pub(crate) fn security_of(aside: &Option<Box<Aside>>) -> Option<&Security> {
    aside.as_deref()?.layer.as_ref()?.security().map(|security| &**security)
}

/// When a callback runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) unix_time: u64,
    pub(crate) retirement: Retirement,
}

/// Whether the loop is to end. Later ones include what the earlier ones mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Retirement {
    #[default]
    None,
    /// Another loop has taken over, and this one ends when its connections have.
    Draining,
    /// What is left is closed when a time has passed.
    Ending,
}

impl Retirement {
    /// What it is for a loop that is to end within `grace`.
    pub(crate) fn within(grace: Duration) -> Self {
        if grace == Duration::MAX { Self::Draining } else { Self::Ending }
    }
}

/// Output of a connection that waits for its peer, from before the present batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queued {
    pub(crate) bytes: usize,
    /// As the water marks measure it.
    pub(crate) weight: usize,
}

/// What all connections of a loop share during a turn.
#[derive(Debug)]
pub(crate) struct Turn {
    /// What the present batch asks for; empty between batches.
    pub(crate) record: Record,
    pub(crate) timers: AnyQueue<Due>,
    pub(crate) pool: Pool,
    /// What callbacks have asked for that is done at the end of the turn.
    pub(crate) wishes: VecDeque<Wish>,
    pub(crate) now: Instant,
    pub(crate) unix_time: u64,
    pub(crate) retirement: Retirement,
    pub(crate) shared: Arc<Shared>,
    /// Where it is entered which callback runs.
    pub(crate) metrics: ProcessMetrics,
}

impl Turn {
    /// The connection for a callback of its service, in this turn.
    #[inline]
    pub(crate) fn io<'a>(&'a mut self, who: &'a Who, queued: Queued, site: &'a Site) -> Io<'a> {
        Io {
            who,
            moment: self.moment(),
            queued,
            record: &mut self.record,
            site,
            shared: &self.shared,
            received: Received::default(),
            more_input: false,
            watch: Some(&self.metrics),
            security: None,
        }
    }

    #[inline]
    pub(crate) fn moment(&self) -> Moment {
        Moment { now: self.now, unix_time: self.unix_time, retirement: self.retirement }
    }

    /// When a timer for `at` is to be set: never for now or before, or a timer that sets itself anew would keep the
    /// turn from ending.
    #[inline]
    pub(crate) fn later(&self, at: Instant) -> Instant {
        at.max(self.now + Duration::from_nanos(1))
    }

    /// Does what the callbacks asked for, but for sending.
    #[inline]
    pub(crate) fn carry_out(&mut self, conn: &mut Conn) {
        if let Some(pause) = self.record.pause.take() {
            conn.reading.paused = pause;
        }
        if let Some(phase) = self.record.expect.take() {
            conn.reading.between = phase;
            if conn.input.is_empty() {
                conn.reading.enter(phase, self.now);
            }
        }
        conn.awaits_sent |= std::mem::take(&mut self.record.tell_sent);
        if !self.record.timers.is_empty() {
            self.set_timers(conn);
        }
        if !self.record.wishes.is_empty() {
            self.wishes.extend(self.record.wishes.drain(..));
        }
    }

    fn set_timers(&mut self, conn: &mut Conn) {
        let mut wishes = std::mem::take(&mut self.record.timers);
        for TimerWish { token, at } in wishes.drain(..) {
            if let Some(at) = conn.timers.iter().position(|(t, _)| *t == token) {
                let (_, key) = conn.timers.swap_remove(at);
                self.timers.cancel(key);
            }
            if let Some(at) = at {
                let key = self.timers.insert(self.later(at), Due::Service(conn.who.id, token));
                conn.timers.push((token, key));
            }
        }
        self.record.timers = wishes;
    }
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The deadlines of a connection.
    Deadline(Token),
    /// A timer of its service.
    Service(Token, TimerToken),
    /// A connection to an upstream is to be made again.
    Redial(Seat),
    /// A timer of the datagram service of a listener.
    Datagrams(usize, TimerToken),
    /// The datagram service of a listener is to start.
    Start(usize),
}

/// What all connections of a listener have in common.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) name: Arc<str>,
    pub(crate) metrics: ListenerMetrics,
    pub(crate) note: TypeId,
    pub(crate) limits: Limits,
    /// The number of the listener.
    pub(crate) index: u16,
    /// Each connection begins with a PROXY header.
    pub(crate) proxied: bool,
    /// What stands between its connections' bytes and its service.
    pub(crate) layer: Option<AnyLayer>,
    /// The same of a client.
    pub(crate) client_layer: Option<AnyClientLayer>,
}

impl Io<'_> {
    /// Enters that a callback begins for this connection.
    #[inline]
    pub(crate) fn enter(&self, callback: Callback) {
        if let Some(metrics) = self.watch {
            metrics.enter(self.site.index, callback, self.who.id);
        }
    }

    /// Enters that it has ended.
    #[inline]
    pub(crate) fn leave(&self) {
        if let Some(metrics) = self.watch {
            metrics.leave();
        }
    }

    /// Appends bytes to the output. They leave when the present input batch is done.
    ///
    /// Bytes of the message itself, when there are many and nothing was sent before them, are not copied.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) {
        self.record.send(bytes, self.received);
    }

    /// Appends several buffers to the output.
    pub fn send_vectored(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.record.out.extend_from_slice(part);
        }
    }

    /// Appends bytes in which `patch` takes the place of what stands at `at`: for what is sent again and again and differs in
    /// little.
    ///
    /// # Panics
    ///
    /// When the patch does not lie within the bytes.
    #[inline]
    pub fn send_patched<const N: usize>(&mut self, bytes: &[u8], at: usize, patch: &[u8; N]) {
        let out = &mut self.record.out;
        let start = out.len();
        out.extend_from_slice(bytes);
        out[start + at..][..N].copy_from_slice(patch);
    }

    /// Sends `len` bytes of a file from `offset`, in order with [`send`](Self::send). When the file turns out to be
    /// shorter, the connection is reset: the peer was promised more.
    pub fn send_file(&mut self, file: Arc<OwnedFd>, offset: u64, len: u64) {
        if len > 0 {
            self.record.files.push((self.record.out.len(), FilePart { file, offset, len }));
        }
    }

    /// Calls [`on_sent`](crate::Service::on_sent) once when the kernel has taken all output of this connection. To be asked
    /// for again each time; asked for twice before that, it is told once.
    pub fn tell_when_sent(&mut self) {
        self.record.tell_sent = true;
    }

    /// Stops receiving from the peer once the present callback has returned; complete messages wait too.
    pub fn pause(&mut self) {
        self.record.pause = Some(true);
    }

    /// Receives again after [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.record.pause = Some(false);
    }

    /// Says what is awaited from the peer when all input so far has been handled: a service that takes a body as
    /// several messages says [`Phase::Body`], so that the body's deadline holds and not the idle one. Holds until it
    /// is said anew.
    pub fn expect(&mut self, phase: Phase) {
        self.record.expect = Some(phase);
    }

    /// Calls `on_timer` with `token` in `after`; a timer of the same token is replaced. Resolution: 1 ms, never early.
    pub fn set_timer(&mut self, token: TimerToken, after: Duration) {
        self.record.timers.push(TimerWish { token, at: Some(self.moment.now + after) });
    }

    /// Takes a timer back; nothing happens when there is none of this token.
    pub fn cancel_timer(&mut self, token: TimerToken) {
        self.record.timers.push(TimerWish { token, at: None });
    }

    /// Asks for an outgoing connection of the client `name`, which [`LoopBuilder::client`](crate::LoopBuilder::client) has
    /// named, in this loop. When it is there, the client's service is told by `on_open` and then by `on_note` with `note`,
    /// otherwise by [`on_connect_failed`](crate::Service::on_connect_failed). `N` is the client's `Note`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: nothing follows then.
    pub fn connect<N: Send + 'static>(
        &mut self,
        name: &str,
        connect: Connect,
        note: N,
    ) -> Result<(), ConnectError> {
        let dial = connect::dial(&self.shared.clients, name, connect, note)?;
        if self.record.wishes.len() >= MAX_CONNECTS {
            return Err(ConnectError::Full);
        }
        self.record.wishes.push(Wish::Connect(dial));
        Ok(())
    }

    /// The connections that this loop keeps open to an upstream, which
    /// [`LoopBuilder::upstream`](crate::LoopBuilder::upstream) has named.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Unknown`] or [`ConnectError::WrongNote`].
    pub fn upstream<N: Send + 'static>(&self, name: &str) -> Result<Upstream<N>, ConnectError> {
        connect::upstream(self.shared, name)
    }

    /// Ties this connection to another one of the same loop: from now on the engine passes on what the peer of one sends to
    /// the peer of the other, and no callback is called for either before `on_close`. Input that no callback has seen is
    /// passed on first; input that is still with this callback as part of its message is not. Reading from one pauses
    /// while the other has more waiting than its [`high_water_bytes`](Limits::high_water_bytes).
    ///
    /// The end of one direction is passed on behind its last byte; when both have ended, both connections are closed with
    /// [`Reason::PEER_CLOSED`](crate::Reason::PEER_CLOSED). When one ends otherwise, so does the other: by a reset if the first was
    /// reset, most often with [`Reason::OTHER_SIDE`](crate::Reason::OTHER_SIDE), which is also the reason when the other is not open
    /// any more. What a peer had sent before it hung up is delivered first. Timers of both services are taken back, and what is
    /// posted to them is dropped; a [`close`](ConnHandle::close) ends both. A pair on which nothing moves for the idle time-out of
    /// one of them is closed, and a loop that retires leaves it alone until its time is over.
    ///
    /// # Errors
    ///
    /// [`TieError`].
    pub fn tie<N: Send + 'static>(&mut self, other: &ConnHandle<N>) -> Result<(), TieError> {
        let (one, other) = (self.who.id, other.token_in(self.shared).ok_or(TieError::OtherLoop)?);
        if one == other {
            return Err(TieError::Itself);
        }
        // Neither this batch nor another is to find messages in what belongs to the other from now on.
        self.record.pause = Some(true);
        self.record.wishes.push(Wish::Tie(Tie { one, other }));
        Ok(())
    }

    /// A handle by which another thread reaches this connection. `N` is the service's `Note`.
    ///
    /// # Panics
    ///
    /// When `N` is another type than the service's `Note`.
    #[must_use]
    pub fn handle<N: Send + 'static>(&self) -> ConnHandle<N> {
        assert!(
            TypeId::of::<N>() == self.site.note,
            "Io::handle::<{}> asked for, which is not the Note of the service",
            std::any::type_name::<N>()
        );
        ConnHandle::new(self.who.id, Arc::clone(self.shared))
    }

    /// Which connection it is.
    #[must_use]
    pub fn id(&self) -> ConnId {
        ConnId(self.who.id)
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer<'_> {
        Peer { address: self.who.peer, listener: &self.site.name }
    }

    /// How the connection is secured by a [`Layer`](crate::Layer); `None` when its bytes are sent as they are.
    #[must_use]
    pub fn security(&self) -> Option<&Security> {
        self.security
    }

    /// The monotonic clock, as of this turn of the loop.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.moment.now
    }

    /// The wall clock in whole seconds since 1970, as of this turn of the loop.
    #[must_use]
    pub fn unix_time(&self) -> u64 {
        self.moment.unix_time
    }

    /// Bytes of output that the kernel has not taken yet, this batch's included.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued.bytes + self.record.bytes()
    }

    /// Whether the worker is to end: see [`Service::on_retire`](crate::Service::on_retire).
    #[must_use]
    pub fn retiring(&self) -> bool {
        self.moment.retirement != Retirement::None
    }

    /// Whether the worker is [retiring](Self::retiring) without a limit of time, because others have taken its place: what
    /// is idle may stay, as long as its peer likes. It is false again when the worker is told to end within a time.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.moment.retirement == Retirement::Draining
    }

    /// In [`on_message`](crate::Service::on_message), whether more of the peer's input has been received behind the
    /// message: all of the next message, or a part of it. A service that would end the connection can answer that first.
    #[must_use]
    pub fn has_more_input(&self) -> bool {
        self.more_input
    }

    /// Adds to one of the service's own [`COUNTERS`](crate::Service::COUNTERS).
    #[inline]
    pub fn count(&mut self, counter: usize, n: u64) {
        match self.watch {
            Some(_) => self.site.metrics.add_service(counter, n),
            // A counter has one writer, and it is not this thread.
            None => self.record.counts.push((counter, n)),
        }
    }
}

impl fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("id", &self.id()).field("peer", &self.peer()).finish_non_exhaustive()
    }
}
