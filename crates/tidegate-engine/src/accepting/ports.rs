//! `Port`: a listening socket of a site, of which there may be several; they come and go while the site is served.
//!
//! Invariant: a socket is accepted from exactly while there is room and a descriptor, and its site is not paused by the
//! operator; neither of the two resumes what the other has paused.

use std::sync::Arc;

use tidegate_reactor::{Errno, ListenerId, Reactor};

use super::Accepting;
use crate::socket::{ListeningSocket, Sockets};
use crate::{BoxError, Socket};

/// A socket that the connections of a site come through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    pub(crate) site: usize,
    pub(crate) listener: ListenerId,
    /// What it was adopted under.
    pub(super) key: Option<u64>,
    /// It has not been given up.
    pub(super) open: bool,
}

impl Accepting {
    /// Accepts from the sockets of a site.
    ///
    /// # Errors
    ///
    /// The kernel's, or that a site is handed over and has sockets too.
    pub(crate) fn listen_all<R: Reactor>(
        &mut self,
        reactor: &mut R,
        site: usize,
        sockets: Sockets,
    ) -> Result<(), BoxError> {
        if sockets.is_mixed() {
            let name = &self.doors[site].name;
            return Err(format!("listener \"{name}\" is handed over, and has sockets all the same").into());
        }
        self.doors[site].paused |= sockets.is_paused();
        for socket in sockets.open() {
            self.listen(reactor, site, socket, None)?;
        }
        Ok(())
    }

    /// Accepts from one more socket of a site, unless that is paused.
    fn listen<R: Reactor>(
        &mut self,
        reactor: &mut R,
        site: usize,
        socket: ListeningSocket,
        key: Option<u64>,
    ) -> Result<(), Errno> {
        let listener = socket.listen(reactor)?;
        // An id that is given out again is over with whoever had it.
        self.ports.retain(|port| port.listener != listener);
        self.ports.push(Port { site, listener, key, open: true });
        if self.is_waiting() || self.doors[site].paused {
            reactor.pause_accept(listener);
        }
        Ok(())
    }

    /// Accepts from a socket that its owner may take back. One that cannot be accepted from is dropped: its owner has it
    /// still.
    pub(crate) fn adopt<R: Reactor>(&mut self, reactor: &mut R, key: u64, site: usize, socket: Socket) {
        let Some(door) = self.doors.get(site) else {
            return tracing::error!(site, key, "socket adopted for a listener that is not there");
        };
        let name = Arc::clone(&door.name);
        let socket = if door.handed_over { None } else { socket.open() };
        let Some(socket) = socket else {
            return tracing::error!(
                listener = &*name,
                key,
                "socket adopted for a listener that is handed over"
            );
        };
        match self.listen(reactor, site, socket, Some(key)) {
            Ok(()) => tracing::debug!(listener = &*name, key, "socket adopted"),
            Err(errno) => tracing::error!(listener = &*name, key, %errno, "socket cannot be adopted"),
        }
    }

    /// Stops accepting from what was adopted under a key. The sockets that are to be emptied and then
    /// [closed](Self::close).
    pub(crate) fn release<R: Reactor>(&mut self, reactor: &mut R, key: u64) -> Vec<Port> {
        let released = self.ports.iter_mut().filter(|port| port.open && port.key == Some(key));
        let released = released.map(|port| {
            port.open = false;
            *port
        });
        let released: Vec<Port> = released.collect();
        released.iter().for_each(|port| reactor.pause_accept(port.listener));
        tracing::debug!(key, sockets = released.len(), "sockets released");
        released
    }

    /// Stops accepting for a site, or for all, until it is [resumed](Self::resume_site): the operator says so. The sockets
    /// of which something may have arrived before.
    pub(crate) fn pause_site<R: Reactor>(&mut self, reactor: &mut R, site: Option<usize>) -> Vec<Port> {
        let mut paused: Vec<Port> = Vec::new();
        for (at, door) in self.doors.iter_mut().enumerate() {
            if site.is_none_or(|site| site == at)
                && !door.vacant
                && !std::mem::replace(&mut door.paused, true)
            {
                tracing::info!(listener = &*door.name, "accepting is paused");
                paused.extend(self.ports.iter().filter(|port| port.open && port.site == at));
            }
        }
        paused.iter().for_each(|port| reactor.pause_accept(port.listener));
        paused
    }

    /// The operator has nothing any more against accepting for a site, or for any: it is [resumed](Self::resume) when there
    /// is room.
    pub(crate) fn resume_site(&mut self, site: Option<usize>) {
        for (at, door) in self.doors.iter_mut().enumerate() {
            if site.is_none_or(|site| site == at) && std::mem::take(&mut door.paused) {
                tracing::info!(listener = &*door.name, "accepting is resumed");
            }
        }
    }

    /// Whether the operator has paused a site.
    pub(crate) fn is_paused(&self, site: usize) -> bool {
        self.doors[site].paused
    }

    /// Gives a socket up for good.
    pub(crate) fn close<R: Reactor>(&mut self, reactor: &mut R, port: Port) {
        for port in self.ports.iter_mut().filter(|own| own.listener == port.listener) {
            port.open = false;
        }
        reactor.unlisten(port.listener);
    }

    /// The sockets that are accepted from when there is room.
    pub(crate) fn active_ports(&self) -> Vec<Port> {
        self.active().collect()
    }

    pub(super) fn active(&self) -> impl Iterator<Item = Port> {
        self.ports.iter().copied().filter(|port| port.open && !self.doors[port.site].paused)
    }
}
