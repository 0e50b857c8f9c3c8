//! The word that a registration carries, and that its events bring back: a token.
//!
//! Invariant: generation 0 names no connection, so a listener or the waker is never taken for one.

use rustix::event::epoll::EventData;

use crate::{ListenerId, Token};

pub(super) const NO_GENERATION: u32 = 0;
pub(super) const WAKER: Token = Token { slot: u32::MAX, generation: NO_GENERATION };

pub(super) fn of_listener(listener: ListenerId) -> EventData {
    pack(Token { slot: listener.0, generation: NO_GENERATION })
}

pub(super) fn pack(token: Token) -> EventData {
    EventData::new_u64(u64::from(token.generation) << 32 | u64::from(token.slot))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves of what pack() made")]
pub(super) fn unpack(word: u64) -> Token {
    Token { slot: word as u32, generation: (word >> 32) as u32 }
}
