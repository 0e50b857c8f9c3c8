//! `ConnInfo`: a connection as an operator sees it.

use std::fmt;
use std::time::Duration;

use tidegate_reactor::PeerAddress;

use crate::{ConnId, Reason};

/// What is known of one connection at one moment: see [`LoopHandle::connections_page`](crate::LoopHandle::connections_page).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// Which connection of its loop it is.
    pub id: ConnId,
    /// The number of its listener.
    pub site: usize,
    /// Who is at the other end.
    pub peer: PeerAddress,
    /// How long it has been open.
    pub age: Duration,
    /// Where it stands.
    pub state: ConnState,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent. With io_uring some of them may wait for the kernel yet, and count as `queued` too.
    pub bytes_out: u64,
    /// Bytes of output that the kernel has not taken yet.
    pub queued: usize,
    /// Why it would be closed next, and in what time, if nothing happens before; `None` when nothing is awaited that has a
    /// limit. Of the deadlines of [`Limits`](crate::Limits) it is the engine's reason: a service may give its own.
    pub next_close: Option<(Reason, Duration)>,
}

/// Where a connection stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnState {
    /// It was asked for, and is not there yet.
    Connecting,
    /// It has not said yet who is at the other end: a PROXY header is due.
    Greeting,
    /// Its TLS handshake is not done, and its service does not know it yet.
    Handshaking,
    /// It is served; for the most part that means idle.
    Open,
    /// It is tied to another one, which gets what its peer sends.
    Tied,
    /// A message of it is being handled, or its service waits for a note.
    Handling,
    /// Its last output is being sent.
    Flushing,
    /// The server has ended its side, and the peer has not.
    Lingering,
    /// It is served, by a loop that is to end.
    Retiring,
}

impl ConnState {
    /// The name for people and for JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Greeting => "greeting",
            Self::Handshaking => "handshaking",
            Self::Open => "open",
            Self::Tied => "tied",
            Self::Handling => "handling",
            Self::Flushing => "flushing",
            Self::Lingering => "lingering",
            Self::Retiring => "retiring",
        }
    }
}

impl fmt::Display for ConnState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A loop did not answer in time: it is stuck in a callback or starved, or too many wait for its answer already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event loop does not answer")]
pub struct Unanswered;

/// How many connections a loop tells of at once.
pub const MAX_PAGE: usize = 1000;
