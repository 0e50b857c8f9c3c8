//! `Pace`: a body that is sent no faster than its site allows.
//!
//! ```text
//!   send a piece ──▶ told that it was taken ──▶ timer for when the next one is due ──▶ send a piece …
//! ```
//!
//! Invariant: never more than one piece waits for the peer, so a slow reader costs no more memory here than elsewhere; and
//! after `n` seconds no more than `n + 1` times the rate has been sent, in the bodies of one connection.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_engine::{Flow, Instant, Io, TimerToken};

use crate::response::{Body, Part};

/// The body of a response under way.
#[derive(Debug)]
pub(crate) struct Pace {
    rest: VecDeque<Part>,
    /// Bytes per second, at least 1.
    rate: u64,
    /// When the next piece is due.
    due: Instant,
    /// What becomes of the connection after the last piece.
    then: Flow,
}

/// The timer of the next piece.
pub(crate) const NEXT_PIECE: TimerToken = TimerToken(2);
/// Pieces per second.
const PIECES: u64 = 8;
/// No piece is smaller.
const LEAST_PIECE: u64 = 512;

impl Pace {
    /// Begins with a body, of which nothing has been sent; `then` is for its end.
    pub(crate) fn new(body: Body, rate: u64, now: Instant, then: Flow) -> Self {
        let rest = match body {
            // A stream paces itself.
            Body::Empty | Body::Stream(_) => VecDeque::new(),
            Body::Bytes(bytes) => VecDeque::from([Part::Bytes(bytes.into_owned())]),
            Body::File(slice) => VecDeque::from([Part::File(slice)]),
            Body::Parts(parts) => parts.into(),
        };
        Self { rest, rate: rate.max(1), due: now, then }
    }

    /// Sends the next piece. `None` when more is to come, or when the next answer has to wait for the time of the last piece;
    /// else what becomes of the connection.
    pub(crate) fn send(&mut self, io: &mut Io<'_>) -> Option<Flow> {
        if self.is_sent() {
            return Some(self.then);
        }
        let most = piece(self.rate);
        let mut left = most;
        while left > 0 {
            let Some(part) = self.rest.pop_front() else { break };
            let (now, later) = part.split(left);
            left -= now.len();
            if let Some(later) = later {
                self.rest.push_front(later);
            }
            now.send(io);
        }
        // Who was held up for long by the peer does not catch up all at once.
        let took = Duration::from_nanos((most - left).saturating_mul(1_000_000_000) / self.rate);
        self.due = self.due.max(io.now()) + took;
        io.tell_when_sent();
        let nothing_follows = matches!(self.then, Flow::CloseAfterFlush(_) | Flow::Abort(_));
        (self.is_sent() && nothing_follows).then_some(self.then)
    }

    /// Whether the last piece has been sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.rest.is_empty()
    }

    /// The last piece has been taken: the next one follows when it is due.
    pub(crate) fn sent(&self, io: &mut Io<'_>) {
        io.set_timer(NEXT_PIECE, self.due.saturating_duration_since(io.now()));
    }
}

fn piece(rate: u64) -> u64 {
    (rate / PIECES).max(LEAST_PIECE)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use super::*;
    use crate::FileSlice;

    #[test]
    fn pieces_add_up_to_the_whole() {
        let file = Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
        let mut parts = VecDeque::from([
            Part::Bytes((0..100).collect()),
            Part::File(FileSlice { file, offset: 50, len: 1000 }),
        ]);
        let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
        while let Some(part) = parts.pop_front() {
            let (now, later) = part.split(7);
            assert!(now.len() <= 7 && now.len() > 0);
            if let Some(later) = later {
                parts.push_front(later);
            }
            match now {
                Part::Bytes(piece) => bytes.extend(piece),
                Part::File(slice) => ranges.push((slice.offset, slice.len)),
            }
        }
        assert_eq!(bytes, (0..100).collect::<Vec<u8>>());
        let end = ranges.iter().try_fold(50, |at, &(offset, len)| (offset == at).then_some(offset + len));
        assert_eq!(end, Some(1050));
    }

    #[test]
    fn a_piece_is_an_eighth_of_a_second() {
        assert_eq!((piece(100_000), piece(1)), (12_500, 512));
    }
}
