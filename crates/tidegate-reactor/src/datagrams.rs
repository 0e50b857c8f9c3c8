//! `DatagramSockets`: the sockets for datagrams of a reactor, by their ids, and the calls that are the same on every one.
//!
//! Invariant: an id names one socket until that is closed. It is given out again afterwards; what is told late of the
//! socket before is then taken for the new one's, which only finds nothing to receive.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use tidegate_sys::datagram::{Inbound, Outbound, Traits, prepare};

use crate::DatagramId;

#[derive(Debug, Default)]
pub(crate) struct DatagramSockets<W> {
    places: Vec<Option<DatagramSocket<W>>>,
}

/// A socket, and how its reactor watches it.
#[derive(Debug)]
pub(crate) struct DatagramSocket<W> {
    pub(crate) fd: OwnedFd,
    traits: Traits,
    pub(crate) watch: W,
}

impl<W> DatagramSocket<W> {
    /// Makes a socket fit for the calls.
    pub(crate) fn new(fd: OwnedFd, watch: W) -> Result<Self, Errno> {
        let traits = prepare(&fd)?;
        Ok(Self { fd, traits, watch })
    }
}

impl<W> DatagramSockets<W> {
    /// The id that the next socket gets.
    pub(crate) fn next_id(&self) -> Result<DatagramId, Errno> {
        let at = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        let id = u32::try_from(at).ok().filter(|id| *id < MAX_SOCKETS);
        id.map(DatagramId).ok_or(Errno::NOSPC)
    }

    /// Puts a socket in the place that was [chosen](Self::next_id) for it.
    pub(crate) fn insert(&mut self, id: DatagramId, socket: DatagramSocket<W>) {
        match self.places.get_mut(id.0 as usize) {
            Some(place) => *place = Some(socket),
            None => self.places.push(Some(socket)),
        }
    }

    pub(crate) fn remove(&mut self, id: DatagramId) -> Option<DatagramSocket<W>> {
        self.places.get_mut(id.0 as usize)?.take()
    }

    #[inline]
    pub(crate) fn find(&mut self, id: DatagramId) -> Option<&mut DatagramSocket<W>> {
        self.places.get_mut(id.0 as usize)?.as_mut()
    }

    /// All, with their ids.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (DatagramId, &mut DatagramSocket<W>)> {
        (0..).map(DatagramId).zip(&mut self.places).filter_map(|(id, place)| Some((id, place.as_mut()?)))
    }

    #[inline]
    pub(crate) fn receive(&mut self, id: DatagramId, into: &mut Inbound) -> Result<usize, Errno> {
        let DatagramSocket { fd, traits, .. } = self.find(id).ok_or(Errno::BADF)?;
        loop {
            match into.receive(&*fd, *traits) {
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    #[inline]
    pub(crate) fn send(&mut self, id: DatagramId, from: &mut Outbound) -> Result<usize, Errno> {
        let DatagramSocket { fd, traits, .. } = self.find(id).ok_or(Errno::BADF)?;
        loop {
            match from.send(&*fd, *traits) {
                Err(Errno::INTR) => {}
                // Joined, and the way out cannot cut it up: segments longer than its packets (`EINVAL`), no checksums in
                // hardware (`EIO`, udp(7)). One by one they may go.
                Err(Errno::INVAL | Errno::IO | Errno::MSGSIZE | Errno::OPNOTSUPP) if traits.segments => {
                    traits.segments = false;
                }
                other => return other,
            }
        }
    }
}

/// Ids are below this: they share their words with other things.
const MAX_SOCKETS: u32 = 1 << 16;
