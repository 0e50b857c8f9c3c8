//! `Sources`: what the reactor knows of each connection, found by the slot of its token.
//!
//! Grown by chunks, so that a full table is never copied. A slot is vacant while it has no descriptor.

use std::os::fd::OwnedFd;

use crate::Token;
use crate::trigger::Interest;

/// A connection's descriptor and what is known of its readiness.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) fd: Option<OwnedFd>,
    pub(crate) generation: u32,
    /// Receiving is paused by the owner.
    pub(crate) paused: bool,
    /// The kernel said readable, and it has not said `EAGAIN` since. Looked at only where it would not say so again.
    pub(crate) readable: bool,
    /// The peer half-closed, or the connection broke: read on until the end is seen. Looked at as `readable` is.
    pub(crate) hung_up: bool,
    /// The end was reported.
    pub(crate) ended: bool,
    /// Stands in the list of connections with more to read.
    pub(crate) listed: bool,
    /// Stands in the list of connections whose registration is to be looked at.
    pub(crate) unsynced: bool,
    /// The owner waits for [`Completion::Writable`](crate::Completion::Writable).
    pub(crate) awaits_writable: bool,
    /// What the kernel watches for; `None` while nothing is watched, since a one-shot registration has fired.
    pub(crate) registered: Option<Interest>,
}

const CHUNK: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Sources {
    chunks: Vec<Box<[Source]>>,
}

impl Sources {
    /// The source of a token, unless it is stale.
    #[inline]
    pub(crate) fn find(&mut self, token: Token) -> Option<&mut Source> {
        let slot = token.slot as usize;
        let source = self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)?;
        (source.fd.is_some() && source.generation == token.generation).then_some(source)
    }

    /// Puts a connection that is registered for reading into its slot.
    ///
    /// # Panics
    ///
    /// When the slot is taken: two connections would share a name.
    pub(crate) fn insert(&mut self, token: Token, fd: OwnedFd) {
        let slot = token.slot as usize;
        while self.chunks.len() <= slot / CHUNK {
            self.chunks.push((0..CHUNK).map(|_| Source::default()).collect());
        }
        let source = &mut self.chunks[slot / CHUNK][slot % CHUNK];
        assert!(source.fd.is_none(), "slot {slot} is taken by another connection");
        let (generation, registered) = (token.generation, Some(Interest::Read));
        *source = Source { fd: Some(fd), generation, registered, ..Source::default() };
    }

    /// Takes a connection out of its slot.
    pub(crate) fn remove(&mut self, token: Token) -> Option<OwnedFd> {
        self.find(token)?.fd.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_costs_sixteen_bytes() {
        assert!(size_of::<Source>() <= 16);
    }

    #[test]
    fn a_stale_token_finds_nothing() {
        let mut sources = Sources::default();
        let old = Token { slot: 300, generation: 1 };
        let new = Token { slot: 300, generation: 2 };
        let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        sources.insert(old, fd());
        assert!(sources.remove(old).is_some());
        sources.insert(new, fd());
        assert!(sources.find(old).is_none());
        assert!(sources.find(new).is_some());
    }
}
