//! `Datagrams`: the sockets for datagrams of a loop, with what waits to be sent through each, and their services.
//!
//! Invariant: a port is watched exactly while its site is not paused; what waits in `out` waits for
//! [`Completion::DatagramRoom`](tidegate_reactor::Completion::DatagramRoom), but within a turn.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, sockopt};
use tidegate_reactor::{DatagramId, Errno, Inbound, Outbound, Reactor};
use tidegate_timer::TimerKey;

use super::{DatagramHosted, DatagramLimits};
use crate::TimerToken;
use crate::accepting::Reports;
use crate::record::TimerWish;
use crate::socket::Sockets;

/// All that a loop has for datagrams. Empty, without any memory, in a loop that serves none.
#[derive(Default)]
pub(crate) struct Datagrams {
    pub(crate) ports: Vec<DatagramPort>,
    pub(crate) sites: Vec<DatagramSite>,
    /// What is received into; made with the first port.
    pub(crate) inbound: Option<Inbound>,
    pub(crate) wishes: Vec<TimerWish>,
}

/// A socket.
#[derive(Debug)]
pub(crate) struct DatagramPort {
    pub(crate) id: DatagramId,
    /// The number of the listener.
    pub(crate) site: usize,
    /// What it was adopted under.
    pub(crate) key: Option<u64>,
    /// A Unix socket: full is the queue of the one peer, who may never read, and nothing tells when he has.
    pub(crate) is_unix: bool,
    pub(crate) out: Outbound,
}

/// A listener of datagrams.
pub(crate) struct DatagramSite {
    /// The number of the listener.
    pub(crate) index: usize,
    pub(crate) host: Box<dyn DatagramHosted>,
    pub(crate) limits: DatagramLimits,
    pub(crate) timers: Vec<(TimerToken, TimerKey)>,
    pub(crate) paused: bool,
    pub(crate) reports: Reports,
}

impl Datagrams {
    /// Adds a site with its sockets.
    ///
    /// # Errors
    ///
    /// The kernel's; `EPROTOTYPE` when one of them is for connections.
    pub(crate) fn listen_all<R: Reactor>(
        &mut self,
        reactor: &mut R,
        index: usize,
        host: Box<dyn DatagramHosted>,
        sockets: Sockets,
    ) -> Result<(), Errno> {
        let (limits, paused) = (host.limits(), sockets.is_paused());
        let (timers, reports) = (Vec::new(), Reports::default());
        self.sites.push(DatagramSite { index, host, limits, timers, paused, reports });
        sockets.open().try_for_each(|socket| self.open(reactor, index, socket.into(), None))
    }

    pub(crate) fn site(&mut self, index: usize) -> Option<&mut DatagramSite> {
        self.sites.iter_mut().find(|site| site.index == index)
    }

    pub(crate) fn has_site(&self, index: usize) -> bool {
        self.sites.iter().any(|site| site.index == index)
    }

    #[inline]
    pub(crate) fn port_of(&self, id: DatagramId) -> Option<usize> {
        self.ports.iter().position(|port| port.id == id)
    }

    /// Watches one more socket of a site, unless that is paused.
    pub(crate) fn open<R: Reactor>(
        &mut self,
        reactor: &mut R,
        site: usize,
        socket: OwnedFd,
        key: Option<u64>,
    ) -> Result<(), Errno> {
        let is_unix = sockopt::socket_domain(&socket)? == AddressFamily::UNIX;
        let id = reactor.open_datagrams(socket)?;
        if self.site(site).is_some_and(|site| site.paused) {
            reactor.pause_datagrams(id);
        }
        self.inbound.get_or_insert_with(super::batch);
        self.ports.push(DatagramPort { id, site, key, is_unix, out: Outbound::default() });
        Ok(())
    }
}

impl std::fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datagrams").field("ports", &self.ports).finish_non_exhaustive()
    }
}
