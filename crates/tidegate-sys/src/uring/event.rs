//! `Event`: what an operation came to, and the names by which operations are told apart.
//!
//! A name is the 64 bits of `user_data`: the kind in the upper four, the caller's word in the rest.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::WORD_LIMIT;

/// What came of an operation, by the word that it was queued with.
#[derive(Debug)]
pub enum Event {
    /// Of [`Ring::accept`](super::Ring::accept).
    Accept {
        /// The listener's.
        word: u64,
        /// The connected, blocking socket.
        result: Result<OwnedFd, Errno>,
        /// Whether the operation goes on.
        more: bool,
    },
    /// Of [`Ring::receive`](super::Ring::receive).
    Receive {
        /// The socket's.
        word: u64,
        /// How many bytes [`Ring::received`](super::Ring::received) has; 0 at the end of the stream.
        result: Result<usize, Errno>,
        /// Whether the operation goes on.
        more: bool,
    },
    /// Of [`Ring::send`](super::Ring::send), and of [`Ring::attempt`](super::Ring::attempt) where it is told of.
    Send {
        /// The socket's.
        word: u64,
        /// What was to be sent, from `from` on.
        bytes: Vec<u8>,
        /// How many of the bytes had been sent before.
        from: usize,
        /// How many were sent by this operation.
        result: Result<usize, Errno>,
    },
    /// Of [`Ring::poll`](super::Ring::poll).
    Poll {
        /// The descriptor's.
        word: u64,
        /// For what it was polled.
        readiness: Readiness,
        /// Whether it is ready; errors and hang-ups make it ready for everything (poll(2)).
        result: Result<(), Errno>,
        /// Whether the operation goes on.
        more: bool,
    },
}

/// What a descriptor is polled for. Errors and hang-ups are always reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Something to read; reported whenever more arrives.
    Input,
    /// Something to read; reported once, and to one of those who wait for it at the same socket.
    Arrival,
    /// Room to write; reported once.
    Output,
    /// Nothing but errors and hang-ups, of which the end of the peer's side is one; each is reported.
    Hangup,
}

/// An operation that can be cancelled by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Ring::accept`](super::Ring::accept).
    Accept,
    /// [`Ring::receive`](super::Ring::receive).
    Receive,
    /// [`Ring::poll`](super::Ring::poll).
    Poll(Readiness),
}

/// What a completion is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An order to the kernel that only the ring knows of: a cancellation or a close.
    Order = 0,
    Accept,
    Receive,
    PollInput,
    PollOutput,
    PollHangup,
    Send,
    Attempt,
    PollArrival,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Order,
        Self::Accept,
        Self::Receive,
        Self::PollInput,
        Self::PollOutput,
        Self::PollHangup,
        Self::Send,
        Self::Attempt,
        Self::PollArrival,
    ];

    #[inline]
    pub(super) fn name(self, word: u64) -> u64 {
        debug_assert!(word < WORD_LIMIT);
        (self as u64) << 60 | (word & (WORD_LIMIT - 1))
    }

    pub(super) fn of_poll(readiness: Readiness) -> Self {
        match readiness {
            Readiness::Input => Self::PollInput,
            Readiness::Arrival => Self::PollArrival,
            Readiness::Output => Self::PollOutput,
            Readiness::Hangup => Self::PollHangup,
        }
    }
}

impl From<Operation> for Kind {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Accept => Self::Accept,
            Operation::Receive => Self::Receive,
            Operation::Poll(readiness) => Self::of_poll(readiness),
        }
    }
}

/// The kind and the word of a name.
#[inline]
pub(super) fn split(name: u64) -> (Kind, u64) {
    let kind = Kind::ALL.get((name >> 60) as usize).copied().unwrap_or(Kind::Order);
    (kind, name & (WORD_LIMIT - 1))
}

/// A completion's result, as system calls answer.
#[inline]
pub(super) fn result(number: i32) -> Result<usize, Errno> {
    usize::try_from(number).map_err(|_| Errno::from_raw_os_error(number.saturating_neg()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_split_as_it_was_made() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
            for word in [0, 1, WORD_LIMIT - 1] {
                assert_eq!(split(kind.name(word)), (kind, word));
            }
        }
    }
}
