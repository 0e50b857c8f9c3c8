//! The word that an operation carries, and that its completions bring back: a token, or a listener.
//!
//! A word has 60 bits, of which the generation takes 32, so that a connection's slot must be below [`SLOT_LIMIT`].

use crate::{DatagramId, ListenerId, Token};

/// Slots are below this.
pub(super) const SLOT_LIMIT: u32 = 1 << 28;
/// Polls of anything but connections; no connection has generation 0.
pub(super) const WAKER: u64 = 0;

#[inline]
pub(super) fn of_token(token: Token) -> u64 {
    u64::from(token.generation) << 28 | u64::from(token.slot)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two parts of what of_token() made")]
pub(super) fn token(word: u64) -> Token {
    Token { slot: word as u32 & (SLOT_LIMIT - 1), generation: (word >> 28) as u32 }
}

/// Below every connection's, since the generation is 0.
pub(super) fn of_datagrams(id: DatagramId) -> u64 {
    u64::from(id.0) + 1
}

/// The socket for datagrams of a poll's word, unless that is a connection's.
pub(super) fn datagrams(word: u64) -> Option<DatagramId> {
    let id = u32::try_from(word.checked_sub(1)?).ok().filter(|id| *id < SLOT_LIMIT - 1)?;
    Some(DatagramId(id))
}

pub(super) fn of_listener(listener: ListenerId) -> u64 {
    u64::from(listener.0)
}

pub(super) fn listener(word: u64) -> ListenerId {
    ListenerId(u32::try_from(word).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_for_datagrams_is_neither_the_waker_nor_a_connection() {
        assert_eq!(datagrams(WAKER), None);
        for id in [0, 1, u32::from(u16::MAX)].map(DatagramId) {
            assert_eq!(datagrams(of_datagrams(id)), Some(id));
        }
    }

    #[test]
    fn a_word_brings_its_token_back() {
        for slot in [0, 1, SLOT_LIMIT - 1] {
            for generation in [1, 1 << 28, u32::MAX] {
                let name = Token { slot, generation };
                assert_eq!(token(of_token(name)), name);
                assert!(of_token(name) < tidegate_sys::uring::WORD_LIMIT);
                assert_ne!(of_token(name), WAKER);
                assert_eq!(datagrams(of_token(name)), None);
            }
        }
    }
}
