//! `DatagramIo`: what a callback of a datagram service may do.
//!
//! It records: what is sent is queued, and leaves when the batch has been handled.

use std::fmt;
use std::time::Duration;

use tidegate_reactor::Outbound;
use tidegate_timer::Instant;

use super::DatagramPeer;
use crate::TimerToken;
use crate::io::{Moment, Retirement, Site};
use crate::metrics::ListenerWord;
use crate::record::TimerWish;

/// A listener's socket for datagrams, in the hands of a callback of its service.
pub struct DatagramIo<'a> {
    pub(super) outlet: Outlet<'a>,
    /// Who has sent the present datagram.
    pub(super) peer: Option<&'a DatagramPeer>,
}

/// Where a service's datagrams go, and its wishes.
pub(crate) struct Outlet<'a> {
    pub(crate) site: &'a Site,
    pub(crate) moment: Moment,
    /// The queue of the socket that the datagram came through; `None` when the listener has none at the moment.
    pub(crate) out: Option<&'a mut Outbound>,
    pub(crate) max_queued_bytes: usize,
    /// What gathers before it is sent; no limit while the kernel takes nothing.
    gathers_bytes: usize,
    pub(crate) timers: &'a mut Vec<TimerWish>,
}

impl<'a> Outlet<'a> {
    pub(crate) fn new(
        site: &'a Site,
        moment: Moment,
        out: Option<&'a mut Outbound>,
        max_queued_bytes: usize,
        timers: &'a mut Vec<TimerWish>,
    ) -> Self {
        let is_free = out.as_ref().is_none_or(|out| out.is_empty());
        let gathers_bytes = if is_free { GATHERED_BYTES.min(max_queued_bytes / 2) } else { usize::MAX };
        Self { site, moment, out, max_queued_bytes, gathers_bytes, timers }
    }

    /// The same for one callback.
    #[inline]
    pub(super) fn io<'b>(&'b mut self, peer: Option<&'b DatagramPeer>) -> DatagramIo<'b>
    where
        'a: 'b,
    {
        let outlet = Outlet {
            site: self.site,
            moment: self.moment,
            out: self.out.as_deref_mut(),
            max_queued_bytes: self.max_queued_bytes,
            gathers_bytes: self.gathers_bytes,
            timers: self.timers,
        };
        DatagramIo { outlet, peer }
    }

    /// Whether so much has gathered that it is to be sent before more is handled. Never before something has.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.out.as_ref().is_some_and(|out| !out.is_empty() && out.queued_bytes() >= self.gathers_bytes)
    }
}

/// What gathers before it is sent.
const GATHERED_BYTES: usize = 128 << 10;

impl DatagramIo<'_> {
    /// Answers the present datagram, from the address that it was sent to. A peer without an address is not answered, and
    /// in another callback than `on_datagram` there is nobody: the bytes are dropped, and counted as such.
    #[inline]
    pub fn reply(&mut self, bytes: &[u8]) {
        match self.peer {
            Some(peer) => self.send_to(peer, bytes),
            None => self.drop_one(),
        }
    }

    /// Sends a datagram. It leaves in order with the others, when the batch has been handled; when more wait already than
    /// [`max_queued_bytes`](super::DatagramLimits::max_queued_bytes), or the listener has no socket, it is dropped and
    /// counted. So is one that the kernel refuses, as it does those of more than 65,507 bytes over UDP.
    #[inline]
    pub fn send_to(&mut self, peer: &DatagramPeer, bytes: &[u8]) {
        let limit = self.outlet.max_queued_bytes;
        match &mut self.outlet.out {
            Some(out) if peer.has_address() && out.queued_bytes() + bytes.len() <= limit => {
                out.push(&peer.address, peer.arrival.as_ref(), bytes);
            }
            _ => self.drop_one(),
        }
    }

    #[cold]
    fn drop_one(&mut self) {
        self.outlet.site.metrics.add(ListenerWord::DatagramsDropped, 1);
    }

    /// Calls `on_timer` with `token` in `after`; a timer of the same token is replaced. Resolution: 1 ms, never early.
    pub fn set_timer(&mut self, token: TimerToken, after: Duration) {
        self.outlet.timers.push(TimerWish { token, at: Some(self.outlet.moment.now + after) });
    }

    /// Takes a timer back; nothing happens when there is none of this token.
    pub fn cancel_timer(&mut self, token: TimerToken) {
        self.outlet.timers.push(TimerWish { token, at: None });
    }

    /// The name of the listener.
    #[must_use]
    pub fn listener(&self) -> &str {
        &self.outlet.site.name
    }

    /// The monotonic clock, as of this turn of the loop.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.outlet.moment.now
    }

    /// The wall clock in whole seconds since 1970, as of this turn of the loop.
    #[must_use]
    pub fn unix_time(&self) -> u64 {
        self.outlet.moment.unix_time
    }

    /// Bytes that the kernel has not taken yet, those of this batch included.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.outlet.out.as_ref().map_or(0, |out| out.queued_bytes())
    }

    /// Whether the loop is to end.
    #[must_use]
    pub fn retiring(&self) -> bool {
        self.outlet.moment.retirement != Retirement::None
    }

    /// Adds to one of the service's own [`COUNTERS`](super::DatagramService::COUNTERS).
    #[inline]
    pub fn count(&mut self, counter: usize, n: u64) {
        self.outlet.site.metrics.add_service(counter, n);
    }
}

impl fmt::Debug for DatagramIo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramIo")
            .field("listener", &self.listener())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
