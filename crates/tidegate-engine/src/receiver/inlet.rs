//! `Inlets`: the channels that a receiver reads: its worker's own, and those of absent neighbours.
//!
//! Invariant: either all of them are watched or none, but for those that the kernel had no memory to watch.

use tidegate_reactor::{Errno, Watch};
use tidegate_sys::fd_channel::FdChannel;

/// A channel, and what it is watched under.
#[derive(Debug)]
pub(super) struct Inlet {
    pub(super) channel: FdChannel,
    /// What it was adopted under; `None`: the worker's own.
    pub(super) key: Option<u64>,
    id: u64,
    watched: bool,
}

#[derive(Debug, Default)]
pub(super) struct Inlets {
    all: Vec<Inlet>,
    next_id: u64,
}

impl Inlets {
    pub(super) fn add(&mut self, key: Option<u64>, channel: FdChannel) {
        self.all.push(Inlet { channel, key, id: self.next_id, watched: false });
        self.next_id += 1;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Inlet> {
        self.all.iter()
    }

    pub(super) fn find(&mut self, id: u64) -> Option<&mut Inlet> {
        self.all.iter_mut().find(|inlet| inlet.id == id)
    }

    /// Closes what was adopted under a key. What waits in it is for whoever reads it from now on.
    pub(super) fn release(&mut self, watch: &mut Watch, key: u64) {
        self.all.retain(|inlet| {
            if inlet.key == Some(key) {
                watch.remove(&inlet.channel);
            }
            inlet.key != Some(key)
        });
    }

    pub(super) fn close(&mut self, watch: &mut Watch, id: u64) {
        self.all.retain(|inlet| {
            if inlet.id == id {
                watch.remove(&inlet.channel);
            }
            inlet.id != id
        });
    }

    /// Watches all of them, or none.
    ///
    /// # Errors
    ///
    /// The kernel's, for one that could not be watched; the others are.
    pub(super) fn watch_all(&mut self, watch: &mut Watch, wanted: bool) -> Result<(), Errno> {
        let mut outcome = Ok(());
        for inlet in self.all.iter_mut().filter(|inlet| inlet.watched != wanted) {
            if !wanted {
                watch.remove(&inlet.channel);
            } else if let Err(errno) = watch.add(&inlet.channel, inlet.id) {
                outcome = Err(errno);
                continue;
            }
            inlet.watched = wanted;
        }
        outcome
    }

    /// Whether what arrives in any of them is reported.
    pub(super) fn are_watched(&self) -> bool {
        self.all.iter().all(|inlet| inlet.watched)
    }
}
