//! `Conn`: what the io_uring reactor knows of a connection.
//!
//! Receiving, of which at most one operation exists at a time; what is wanted is looked at before each wait:
//!
//! ```text
//!                wanted                         paused
//!      Idle ───────────────▶ Armed ──────────────────────────▶ Cancelling
//!        ▲   multishot receive │ its last completion: the end,     │ its last completion,
//!        │                     │ an error, no buffer               │ whatever it is
//!        └─────────────────────┴───────────────────────────────────┘
//!      wanted: not paused, not ended, and nothing held back
//! ```
//!
//! What the kernel has received and the owner does not want yet is held back, in order, and told when it does. While
//! nothing is received for good or for now, a poll for no event listens for a reset.
//!
//! Sending, with at most one operation in flight:
//!
//! ```text
//!            send()          wait(): attempt                    all taken
//!   nothing ───────▶ gathered ──────────────▶ in the kernel ───────────────▶ nothing
//!                       ▲  send() appends          │ took less              (Writable, if awaited)
//!                       │                          ▼
//!                       └─────────── in flight: a send that waits for room ──┐ took some: Stalled
//!                          all taken          ▲                              │
//!                                             └──────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::slots::Occupant;

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) fd: OwnedFd,
    pub(super) generation: u32,
    /// It is not there yet: nothing is to be done but to wait for it.
    pub(super) connecting: bool,
    pub(super) receiving: Receiving,
    /// Receiving is paused by the owner.
    pub(super) paused: bool,
    /// `Ended` or `Failed` was reported.
    pub(super) ended: bool,
    /// `Failed` was reported.
    pub(super) failed: bool,
    /// A send failed: the connection fails with this when what was received before is told.
    pub(super) broken: Option<Errno>,
    /// A poll for errors and hang-ups is in flight; and one has ended since the connection was last resumed.
    pub(super) listens: bool,
    pub(super) hung_up: bool,
    /// A poll for room to write is in flight.
    pub(super) polls_room: bool,
    pub(super) awaits_writable: bool,
    /// The sending direction ends when everything taken has left.
    pub(super) shuts: bool,
    /// Stands in the list of connections to look at before the next wait.
    pub(super) unsynced: bool,
    /// Stands in the list of connections with something held back that is wanted.
    pub(super) listed: bool,
    /// What a send in flight has still to send; 0 when there is none.
    pub(super) in_flight: u32,
    /// Taken, and not yet submitted.
    pub(super) gathered: Vec<u8>,
    /// Received, and not yet wanted.
    pub(super) held: Option<Box<Held>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    Idle,
    Armed,
    Cancelling,
}

/// What was received while it was not wanted, and how it ended.
#[derive(Debug, Default)]
pub(super) struct Held {
    pieces: VecDeque<Vec<u8>>,
    end: Option<Ending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Ended,
    Failed(Errno),
}

/// A held piece grows to this size before another is begun; as much as one receive may bring.
const PIECE_BYTES: usize = 64 << 10;

impl Conn {
    pub(super) fn new(fd: OwnedFd, generation: u32) -> Self {
        Self {
            fd,
            generation,
            connecting: false,
            receiving: Receiving::Idle,
            paused: false,
            ended: false,
            failed: false,
            broken: None,
            listens: false,
            hung_up: false,
            polls_room: false,
            awaits_writable: false,
            shuts: false,
            unsynced: false,
            listed: false,
            in_flight: 0,
            gathered: Vec::new(),
            held: None,
        }
    }

    /// Bytes that were taken and have not left.
    #[inline]
    pub(super) fn unsent(&self) -> usize {
        self.gathered.len() + self.in_flight as usize
    }

    /// Whether something is to be received.
    #[inline]
    pub(super) fn wants_input(&self) -> bool {
        !self.paused && !self.ended && self.held.is_none()
    }

    /// Whether a reset would not be heard by receiving.
    #[inline]
    pub(super) fn wants_hangups(&self) -> bool {
        (self.paused || self.ended) && !self.failed && !self.listens && !self.hung_up
    }

    /// Whether the kernel has nothing of it, so that closing needs no cancellation.
    pub(super) fn is_at_rest(&self) -> bool {
        self.receiving == Receiving::Idle && !self.listens && !self.polls_room && self.in_flight == 0
    }

    /// Whether what comes has to wait behind what is held, or for the owner.
    #[inline]
    pub(super) fn holds(&self) -> bool {
        self.paused || self.held.is_some()
    }

    pub(super) fn hold(&mut self, bytes: &[u8]) {
        let held = self.held.get_or_insert_default();
        match held.pieces.back_mut() {
            Some(last) if last.len() + bytes.len() <= PIECE_BYTES => last.extend_from_slice(bytes),
            _ => held.pieces.push_back(bytes.to_vec()),
        }
    }

    pub(super) fn hold_end(&mut self, end: Ending) {
        self.held.get_or_insert_default().end = Some(end);
    }

    /// The next of what was held.
    pub(super) fn next_held(&mut self) -> Option<Next> {
        let held = self.held.as_mut()?;
        let piece = held.pieces.pop_front();
        let (left, end) = (held.pieces.len(), held.end);
        if left == 0 && (piece.is_none() || end.is_none()) {
            self.held = None;
        }
        piece.map(Next::Piece).or(end.map(Next::End))
    }
}

/// What comes next of what was held.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Piece(Vec<u8>),
    End(Ending),
}

impl Occupant for Conn {
    fn generation(&self) -> u32 {
        self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slots;

    fn conn() -> Conn {
        Conn::new(std::fs::File::open("/dev/null").unwrap().into(), 1)
    }

    #[test]
    fn a_connection_is_small() {
        const { assert!(Slots::<Conn>::SLOT_BYTES <= 64) };
    }

    #[test]
    fn what_is_held_comes_in_order_and_then_its_end() {
        let mut conn = conn();
        conn.hold(b"one");
        conn.hold(b"two");
        conn.hold(&[7; PIECE_BYTES]);
        conn.hold_end(Ending::Ended);
        assert_eq!(conn.next_held(), Some(Next::Piece(b"onetwo".to_vec())));
        assert_eq!(conn.next_held(), Some(Next::Piece(vec![7; PIECE_BYTES])));
        assert!(conn.held.is_some() && !conn.wants_input());
        assert_eq!(conn.next_held(), Some(Next::End(Ending::Ended)));
        assert_eq!(conn.next_held(), None);
        assert!(conn.held.is_none());
    }

    #[test]
    fn what_is_held_without_an_end_is_gone_with_its_last_piece() {
        let mut conn = conn();
        conn.hold(b"all");
        assert_eq!(conn.next_held(), Some(Next::Piece(b"all".to_vec())));
        assert!(conn.held.is_none() && conn.wants_input());
    }
}
