//! Datagrams: received in batches, told to their service, and the answers sent in batches.
//!
//! Of each socket a bounded number is handled in a turn, and the next wait reports what is left: so a flood of datagrams
//! keeps no connection waiting for long.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tidegate_reactor::{DatagramId, Errno, Inbound, Reactor};
use tidegate_sys::datagram::BATCH;
use tidegate_timer::TimerQueue;

use super::Loop;
use crate::datagram::{DatagramEvent, DatagramPort, Outlet, Place};
use crate::io::Due;
use crate::metrics::ListenerWord;
use crate::{Socket, TimerToken};

/// Datagrams of one socket that are handled in a turn, about; and calls that receive, some of which may bring nothing but
/// an error.
const TURN_DATAGRAMS: usize = 128;
const TURN_CALLS: usize = 8;
/// Datagrams that are still taken from a socket that is given up.
const LAST_DATAGRAMS: usize = 65_536;

impl<R: Reactor> Loop<R> {
    /// There may be something to receive.
    #[inline]
    pub(super) fn on_datagrams(&mut self, id: DatagramId) {
        if let Some(port) = self.datagrams.port_of(id) {
            self.take_datagrams(port, TURN_DATAGRAMS, TURN_CALLS);
        }
    }

    /// A socket may take again what waits.
    pub(super) fn on_datagram_room(&mut self, id: DatagramId) {
        if let Some(port) = self.datagrams.port_of(id) {
            self.send_datagrams(port);
        }
    }

    /// Receives and handles what waits in a socket, up to about `most` datagrams.
    fn take_datagrams(&mut self, port: usize, most: usize, calls: usize) {
        let Some(mut batch) = self.datagrams.inbound.take() else { return };
        let DatagramPort { id, site, .. } = self.datagrams.ports[port];
        let mut handled = 0;
        for _ in 0..calls {
            match self.reactor.receive_datagrams(id, &mut batch) {
                Ok(count) => {
                    handled += self.handle_batch(port, &batch);
                    // Behind several more may have come meanwhile; behind a single one hardly ever.
                    if handled >= most || (count < 2 && !batch.was_full()) {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                // What an earlier send has come to; what waits behind it is as good as ever.
                Err(errno) => self.datagram_error(site, errno),
            }
        }
        self.datagrams.inbound = Some(batch);
    }

    /// Hands a batch to its service, and sends what that answers. How many datagrams it was.
    fn handle_batch(&mut self, port: usize, batch: &Inbound) -> usize {
        let index = self.datagrams.ports[port].site;
        let site = Arc::clone(&self.sites[index]);
        let moment = self.turn.moment();
        let (mut place, mut counted) = (Place::default(), 0);
        site.metrics.add(ListenerWord::BytesIn, batch.bytes() as u64);
        while place.datagram < batch.len() {
            let datagrams = &mut self.datagrams;
            let Some(own) = datagrams.sites.iter().find(|own| own.index == index) else { break };
            let (out, limit) = (&mut datagrams.ports[port].out, own.limits.max_queued_bytes);
            let mut outlet = Outlet::new(&site, moment, Some(out), limit, &mut datagrams.wishes);
            own.host.batch(&mut outlet, &self.metrics, batch, &mut place);
            self.set_datagram_timers(index);
            // Counted before the peers can know.
            site.metrics.add(ListenerWord::DatagramsIn, (place.handled - counted) as u64);
            counted = place.handled;
            self.send_datagrams(port);
        }
        place.handled
    }

    /// Sends what waits, as far as the kernel takes it.
    fn send_datagrams(&mut self, at: usize) {
        let DatagramPort { id, site, is_unix, ref mut out, .. } = self.datagrams.ports[at];
        let metrics = &self.sites[site].metrics;
        let mut refused = None;
        while !out.is_empty() {
            let before = out.payload_bytes();
            match self.reactor.send_datagrams(id, out) {
                Ok(left) => {
                    metrics.add(ListenerWord::DatagramsOut, left as u64);
                    metrics.add(ListenerWord::BytesOut, (before - out.payload_bytes()) as u64);
                }
                Err(Errno::AGAIN) if !is_unix && self.reactor.await_datagram_room(id).is_ok() => break,
                Err(errno) => {
                    // It alone is refused; for whoever comes behind it the way may be free.
                    out.skip();
                    metrics.add(ListenerWord::DatagramsDropped, 1);
                    refused = Some(errno);
                }
            }
        }
        if let Some(errno) = refused {
            self.datagram_error(site, errno);
        }
    }

    /// One record a second of each listener, however often it happens.
    #[cold]
    fn datagram_error(&mut self, index: usize, errno: Errno) {
        let now = self.turn.now;
        if let Some(suppressed) = self.datagrams.site(index).and_then(|site| site.reports.pass(now)) {
            let listener = &*self.sites[index].name;
            tracing::warn!(listener, %errno, suppressed, "a datagram could not be sent or received");
        }
    }

    /// Calls a callback that takes no datagram.
    fn datagram_event(&mut self, index: usize, event: DatagramEvent) {
        let site = Arc::clone(&self.sites[index]);
        let moment = self.turn.moment();
        let datagrams = &mut self.datagrams;
        let port = datagrams.ports.iter().position(|port| port.site == index);
        let Some(own) = datagrams.sites.iter().find(|own| own.index == index) else { return };
        let out = port.map(|port| &mut datagrams.ports[port].out);
        let limit = own.limits.max_queued_bytes;
        let mut outlet = Outlet::new(&site, moment, out, limit, &mut datagrams.wishes);
        own.host.call(&mut outlet, &self.metrics, event);
        self.set_datagram_timers(index);
        if let Some(port) = port {
            self.send_datagrams(port);
        }
    }

    fn set_datagram_timers(&mut self, index: usize) {
        let mut wishes = std::mem::take(&mut self.datagrams.wishes);
        if let Some(site) = self.datagrams.site(index) {
            for wish in wishes.drain(..) {
                if let Some(at) = site.timers.iter().position(|(token, _)| *token == wish.token) {
                    let (_, key) = site.timers.swap_remove(at);
                    self.turn.timers.cancel(key);
                }
                if let Some(at) = wish.at {
                    let due = Due::Datagrams(index, wish.token);
                    let key = self.turn.timers.insert(self.turn.later(at), due);
                    site.timers.push((wish.token, key));
                }
            }
        }
        self.datagrams.wishes = wishes;
    }

    pub(super) fn on_datagram_timer(&mut self, index: usize, token: TimerToken) {
        if let Some(site) = self.datagrams.site(index) {
            site.timers.retain(|(own, _)| *own != token);
            self.datagram_event(index, DatagramEvent::Timer(token));
        }
    }

    pub(super) fn start_datagrams(&mut self, index: usize) {
        self.datagram_event(index, DatagramEvent::Start);
    }

    /// Serves a socket that its owner may take back. One that cannot be is dropped: its owner has it still.
    pub(super) fn adopt_datagrams(&mut self, key: u64, index: usize, socket: Socket) {
        let listener = Arc::clone(&self.sites[index].name);
        let Some(socket) = socket.open() else {
            return tracing::error!(listener = &*listener, key, "a listener of datagrams is not handed over");
        };
        match self.datagrams.open(&mut self.reactor, index, OwnedFd::from(socket), Some(key)) {
            Ok(()) => tracing::debug!(listener = &*listener, key, "socket adopted"),
            Err(errno) => tracing::error!(listener = &*listener, key, %errno, "socket cannot be adopted"),
        }
    }

    /// Lets go of the sockets that were adopted under a key.
    pub(super) fn release_datagrams(&mut self, key: u64) {
        while let Some(port) = self.datagrams.ports.iter().position(|port| port.key == Some(key)) {
            self.close_datagram_port(port);
        }
    }

    /// Stops or goes on receiving for a site, or for all, as the operator says.
    pub(super) fn pause_datagrams(&mut self, index: Option<usize>, pause: bool) {
        let datagrams = &mut self.datagrams;
        let is_meant = |site: usize| index.is_none_or(|index| index == site);
        for site in datagrams.sites.iter_mut().filter(|site| is_meant(site.index)) {
            if std::mem::replace(&mut site.paused, pause) != pause {
                let listener = &*self.sites[site.index].name;
                tracing::info!(listener, "receiving is {}", if pause { "paused" } else { "resumed" });
            }
        }
        for port in datagrams.ports.iter().filter(|port| is_meant(port.site)) {
            if pause {
                self.reactor.pause_datagrams(port.id);
            } else if let Err(errno) = self.reactor.resume_datagrams(port.id) {
                let listener = &*self.sites[port.site].name;
                tracing::error!(listener, %errno, "receiving cannot be resumed");
            }
        }
    }

    /// The loop is to quit: handles what has come, tells the services, and lets go of the sockets.
    pub(super) fn retire_datagrams(&mut self) {
        for port in 0..self.datagrams.ports.len() {
            self.reactor.pause_datagrams(self.datagrams.ports[port].id);
            self.empty_datagram_port(port);
        }
        for at in 0..self.datagrams.sites.len() {
            self.datagram_event(self.datagrams.sites[at].index, DatagramEvent::Retire);
        }
        self.end_datagrams();
    }

    /// Lets go of every socket; nothing follows for their services.
    pub(super) fn end_datagrams(&mut self) {
        while let Some(port) = self.datagrams.ports.pop() {
            self.forget_datagram_port(&port);
        }
        for site in std::mem::take(&mut self.datagrams.sites) {
            for (_, key) in site.timers {
                self.turn.timers.cancel(key);
            }
        }
    }

    /// Whoever else has the socket was perhaps not woken for what came before this one stopped watching it.
    fn empty_datagram_port(&mut self, port: usize) {
        let index = self.datagrams.ports[port].site;
        if self.datagrams.site(index).is_some_and(|site| !site.paused) {
            self.take_datagrams(port, LAST_DATAGRAMS, LAST_DATAGRAMS / BATCH);
        }
    }

    fn close_datagram_port(&mut self, at: usize) {
        self.reactor.pause_datagrams(self.datagrams.ports[at].id);
        self.empty_datagram_port(at);
        let port = self.datagrams.ports.swap_remove(at);
        self.forget_datagram_port(&port);
    }

    fn forget_datagram_port(&mut self, port: &DatagramPort) {
        let metrics = &self.sites[port.site].metrics;
        metrics.add(ListenerWord::DatagramsDropped, port.out.len() as u64);
        self.reactor.close_datagrams(port.id);
    }
}
