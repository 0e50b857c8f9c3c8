//! `Io`: what a callback may do with its connection.
//!
//! It records; the loop, which owns the connection, does it when the callback has returned. So a callback never waits for
//! the kernel, and everything that a batch of messages sends leaves in one call.

use std::any::TypeId;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tidegate_buf::Pool;
use tidegate_reactor::Token;
use tidegate_timer::{AnyQueue, Instant, TimerQueue};

use crate::conn::Conn;
use crate::handle::{ConnHandle, ConnId, Shared};
use crate::metrics::{Callback, ListenerMetrics, ProcessMetrics};
use crate::output::{FILE_WEIGHT, FilePart};
use crate::{Limits, Peer, Phase, TimerToken};

/// A connection, in the hands of a callback of its service.
pub struct Io<'a> {
    pub(crate) conn: &'a mut Conn,
    pub(crate) turn: &'a mut Turn,
    pub(crate) site: &'a Site,
}

/// What all connections of a loop share during a turn.
#[derive(Debug)]
pub(crate) struct Turn {
    /// What the present batch sends; empty between batches.
    pub(crate) out: Vec<u8>,
    /// Files among it: after how many bytes of `out` each one comes.
    pub(crate) files: Vec<(usize, FilePart)>,
    pub(crate) timers: AnyQueue<Due>,
    pub(crate) pool: Pool,
    pub(crate) now: Instant,
    pub(crate) unix_time: u64,
    pub(crate) retiring: bool,
    pub(crate) shared: Arc<Shared>,
    /// Where it is entered which callback runs.
    pub(crate) metrics: ProcessMetrics,
}

impl Turn {
    /// What the present batch sends, as the water marks measure it.
    #[inline]
    pub(crate) fn batch_weight(&self) -> usize {
        self.out.len() + self.files.len() * FILE_WEIGHT
    }

    /// When a timer for `at` is to be set: never for now or before, or a timer that sets itself anew would keep the
    /// turn from ending.
    #[inline]
    pub(crate) fn later(&self, at: Instant) -> Instant {
        at.max(self.now + Duration::from_nanos(1))
    }
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The deadlines of a connection.
    Deadline(Token),
    /// A timer of its service.
    Service(Token, TimerToken),
}

/// What all connections of a listener have in common.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) name: Arc<str>,
    pub(crate) metrics: ListenerMetrics,
    pub(crate) note: TypeId,
    pub(crate) limits: Limits,
}

impl Io<'_> {
    /// Enters that a callback begins for this connection.
    #[inline]
    pub(crate) fn enter(&self, callback: Callback) {
        self.turn.metrics.enter(self.conn.site, callback, self.conn.id);
    }

    /// Enters that it has ended.
    #[inline]
    pub(crate) fn leave(&self) {
        self.turn.metrics.leave();
    }

    /// Appends bytes to the output. They leave when the present input batch is done.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) {
        self.turn.out.extend_from_slice(bytes);
    }

    /// Appends several buffers to the output.
    pub fn send_vectored(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.turn.out.extend_from_slice(part);
        }
    }

    /// Sends `len` bytes of a file from `offset`, in order with [`send`](Self::send). When the file turns out to be
    /// shorter, the connection is reset: the peer was promised more.
    pub fn send_file(&mut self, file: Arc<OwnedFd>, offset: u64, len: u64) {
        if len > 0 {
            self.turn.files.push((self.turn.out.len(), FilePart { file, offset, len }));
        }
    }

    /// Stops receiving from the peer once the present callback has returned; complete messages wait too.
    pub fn pause(&mut self) {
        self.conn.paused_by_service = true;
    }

    /// Receives again after [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.conn.paused_by_service = false;
    }

    /// Says what is awaited from the peer when all input so far has been handled: a service that takes a body as
    /// several messages says [`Phase::Body`], so that the body's deadline holds and not the idle one. Holds until it
    /// is said anew.
    pub fn expect(&mut self, phase: Phase) {
        self.conn.between = phase;
        if self.conn.input.is_empty() {
            self.conn.enter(phase, self.turn.now);
        }
    }

    /// Calls `on_timer` with `token` in `after`; a timer of the same token is replaced. Resolution: 1 ms, never early.
    pub fn set_timer(&mut self, token: TimerToken, after: Duration) {
        self.cancel_timer(token);
        let at = self.turn.later(self.turn.now + after);
        let key = self.turn.timers.insert(at, Due::Service(self.conn.id, token));
        self.conn.timers.push((token, key));
    }

    /// Takes a timer back; nothing happens when there is none of this token.
    pub fn cancel_timer(&mut self, token: TimerToken) {
        if let Some(at) = self.conn.timers.iter().position(|(t, _)| *t == token) {
            let (_, key) = self.conn.timers.swap_remove(at);
            self.turn.timers.cancel(key);
        }
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
        ConnHandle::new(self.conn.id, Arc::clone(&self.turn.shared))
    }

    /// Which connection it is.
    #[must_use]
    pub fn id(&self) -> ConnId {
        ConnId(self.conn.id)
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer<'_> {
        Peer { address: self.conn.peer, listener: &self.site.name }
    }

    /// The monotonic clock, as of this turn of the loop.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.turn.now
    }

    /// The wall clock in whole seconds since 1970, as of this turn of the loop.
    #[must_use]
    pub fn unix_time(&self) -> u64 {
        self.turn.unix_time
    }

    /// Bytes of output that the kernel has not taken yet, this batch's included.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.conn.queued_bytes() + self.turn.out.len()
    }

    /// Whether the worker has begun to stop: see [`Service::on_retire`](crate::Service::on_retire).
    #[must_use]
    pub fn retiring(&self) -> bool {
        self.turn.retiring
    }

    /// Adds to one of the service's own [`COUNTERS`](crate::Service::COUNTERS).
    #[inline]
    pub fn count(&mut self, counter: usize, n: u64) {
        self.site.metrics.add_service(counter, n);
    }
}

impl fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("id", &self.id()).field("peer", &self.peer()).finish_non_exhaustive()
    }
}
