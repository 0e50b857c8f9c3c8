//! The word that a registration carries, and that its events bring back: a token.
//!
//! Invariant: generation 0 names no connection, so a listener, a socket for datagrams or the waker is never taken for one.

use rustix::event::epoll::EventData;

use crate::{DatagramId, ListenerId, Token};

pub(super) const NO_GENERATION: u32 = 0;
pub(super) const WAKER: Token = Token { slot: u32::MAX, generation: NO_GENERATION };

/// Marks a socket for datagrams. There are fewer listeners than that.
const DATAGRAMS: u32 = 1 << 31;

pub(super) fn of_listener(listener: ListenerId) -> EventData {
    pack(Token { slot: listener.0, generation: NO_GENERATION })
}

pub(super) fn of_datagrams(id: DatagramId) -> EventData {
    pack(Token { slot: DATAGRAMS | id.0, generation: NO_GENERATION })
}

/// What a word without a generation names: a socket for datagrams, or else a listener.
pub(super) fn datagrams(token: Token) -> Option<DatagramId> {
    (token.slot & DATAGRAMS != 0).then_some(DatagramId(token.slot & !DATAGRAMS))
}

pub(super) fn pack(token: Token) -> EventData {
    EventData::new_u64(u64::from(token.generation) << 32 | u64::from(token.slot))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves of what pack() made")]
pub(super) fn unpack(word: u64) -> Token {
    Token { slot: word as u32, generation: (word >> 32) as u32 }
}
