//! `Socket`: a connection inside the simulated kernel: what is on its way in each direction, and how each side stands.
//!
//! Invariant: bytes leave in the order in which they came, and none is lost but by a reset.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use tidegate_engine::{End, Instant};
use tidegate_reactor::{Errno, Token};

/// How far the server's side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// In the accept queue.
    Waiting,
    /// Accepted, and nobody's yet.
    Accepted,
    /// It is to be connected.
    Connecting(Token),
    Open(Token),
    Closed(End),
}

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) is_unix: bool,
    pub(crate) side: Side,
    /// What came of connecting, until it is reported.
    pub(crate) answer: Option<Result<(), Errno>>,
    /// What stands for it in this process.
    pub(crate) descriptor: Option<OwnedFd>,
    pub(crate) to_server: VecDeque<u8>,
    /// The peer has ended its side; the server learns it behind the bytes.
    pub(crate) peer_ended: bool,
    /// The connection is broken, and what the server is told.
    pub(crate) broken: Option<Errno>,
    pub(crate) to_peer: VecDeque<u8>,
    /// What the reactor has taken and the kernel has not.
    pub(crate) owned: VecDeque<u8>,
    pub(crate) send_buffer: usize,
    pub(crate) paused: bool,
    /// The end, or the breaking, was reported.
    pub(crate) told_end: bool,
    pub(crate) awaits_writable: bool,
    /// How much was owned when it was last reported stalled.
    pub(crate) stalled_at: Option<usize>,
    /// When the server ended its side and listened on.
    pub(crate) shut_at: Option<Instant>,
    pub(crate) closed_at: Option<Instant>,
    /// Bytes for the peer were thrown away, because the server closed over some that it had not read.
    pub(crate) is_cut: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// What a reactor takes over from its user at the most.
const OWNED_BYTES: usize = 40 << 10;

impl Socket {
    pub(crate) fn new(is_unix: bool, send_buffer: usize) -> Self {
        Self {
            is_unix,
            side: Side::Waiting,
            answer: None,
            descriptor: None,
            to_server: VecDeque::new(),
            peer_ended: false,
            broken: None,
            to_peer: VecDeque::new(),
            owned: VecDeque::new(),
            send_buffer,
            paused: false,
            told_end: false,
            awaits_writable: false,
            stalled_at: None,
            shut_at: None,
            closed_at: None,
            is_cut: false,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.side, Side::Closed(_))
    }

    fn is_open(&self) -> bool {
        matches!(self.side, Side::Open(_))
    }

    /// Whether there is something to tell of connecting.
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.side, Side::Connecting(_)) && self.answer.is_some()
    }

    /// Whether it has a place in the loop.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self.side, Side::Open(_) | Side::Connecting(_))
    }

    /// Whether a receive would tell anything.
    pub(crate) fn is_readable(&self) -> bool {
        let has_news = if self.paused {
            self.broken.is_some()
        } else {
            !self.to_server.is_empty() || self.peer_ended || self.broken.is_some()
        };
        self.is_open() && !self.told_end && has_news
    }

    /// Whether a send that was refused would be taken.
    pub(crate) fn is_writable(&self) -> bool {
        let has_room = self.to_peer.len() < self.send_buffer && self.owned.is_empty();
        self.is_open() && self.awaits_writable && (has_room || self.broken.is_some())
    }

    /// Whether it is news that the kernel does not take what the reactor has.
    pub(crate) fn is_stalled(&self) -> bool {
        self.is_open() && !self.owned.is_empty() && self.stalled_at != Some(self.owned.len())
    }

    /// How many bytes of so many are taken.
    pub(crate) fn room(&self, owns: bool) -> usize {
        if owns {
            OWNED_BYTES.saturating_sub(self.owned.len())
        } else {
            self.send_buffer.saturating_sub(self.to_peer.len())
        }
    }

    /// Takes bytes from the server.
    pub(crate) fn take(&mut self, bytes: &[u8], owns: bool) {
        self.bytes_out += bytes.len() as u64;
        if owns { &mut self.owned } else { &mut self.to_peer }.extend(bytes);
    }

    /// The kernel takes what it has room for of what the reactor owns; answers how much.
    pub(crate) fn push(&mut self) -> usize {
        let n = self.owned.len().min(self.send_buffer.saturating_sub(self.to_peer.len()));
        self.to_peer.extend(self.owned.drain(..n));
        n
    }

    /// The peer breaks it: nothing goes either way any more.
    pub(crate) fn break_off(&mut self, errno: Errno, keeps_input: bool) {
        self.broken.get_or_insert(errno);
        self.to_peer.clear();
        self.owned.clear();
        if !keeps_input {
            self.to_server.clear();
        }
    }

    /// The server closes its descriptor.
    pub(crate) fn close(&mut self, end: End, now: Instant) {
        self.side = Side::Closed(end);
        self.descriptor = None;
        self.closed_at = Some(now);
        self.owned.clear();
        let unread = !self.to_server.is_empty();
        if end == End::Reset {
            self.to_peer.clear();
        } else if unread && !self.to_peer.is_empty() {
            // RFC 9293, section 3.6.1: a close over unread data is a reset, and that may overtake what was sent.
            self.to_peer.clear();
            self.is_cut = true;
        }
        self.to_server.clear();
    }

    /// Whether the peer has taken all, and nothing more will come.
    pub(crate) fn is_over_for_peer(&self) -> bool {
        self.to_peer.is_empty() && self.owned.is_empty() && (self.is_closed() || self.shut_at.is_some())
    }
}
