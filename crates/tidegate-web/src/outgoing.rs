//! `Outgoing`: the body of an answer that is made while it is sent.
//!
//! Invariant: what is sent is framed: chunked, or up to the end of the connection. It is asked for more only while less than
//! the high-water mark waits for the client, and where its site has a rate, not much before what it has made may be there.

use std::time::Duration;

use tidegate_engine::{Flow, Instant, Io, Reason};

use crate::access_log::Entry;
use crate::pace::NEXT_PIECE;
use crate::stream::{Pulled, Source};

/// A stream on its way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    source: Source,
    manner: Manner,
    /// When the client may have all that was made so far, where there is a rate.
    due: Option<Instant>,
    /// What becomes of the connection afterwards.
    then: Flow,
    /// What is recorded of it.
    entry: Option<Box<Entry>>,
    /// Bytes so far, those of the framing too.
    sent: u64,
}

/// How a stream is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) chunked: bool,
    /// Bytes per second; 0: no limit.
    pub(crate) rate: u64,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The client is to take what there is, or somebody is to make more.
    Waits,
    /// All of it has been sent.
    Done(Flow),
    /// It broke off.
    Broken,
}

/// RFC 9112, section 7.1, without trailers.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// How far a stream may be ahead of its rate before it waits. Without this a stream of many small parts would wait for each.
const MAX_AHEAD: Duration = Duration::from_millis(125);

impl Outgoing {
    pub(crate) const fn new(source: Source, manner: Manner, then: Flow, entry: Option<Box<Entry>>) -> Self {
        Self { source, manner, due: None, then, entry, sent: 0 }
    }

    /// How many bytes it had, and what is recorded of it.
    pub(crate) fn end(self) -> (u64, Option<Box<Entry>>) {
        let entry = self.entry.map(|entry| Box::new(Entry { body_bytes: self.sent, ..*entry }));
        (self.sent, entry)
    }

    /// Sends until more than `high_water_bytes` wait, there is nothing to send, or its rate has been reached.
    pub(crate) fn send(&mut self, io: &mut Io<'_>, high_water_bytes: usize) -> Progress {
        let mut made = Vec::new();
        while io.queued_bytes() <= high_water_bytes {
            let ahead = self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(io.now()));
            if ahead > MAX_AHEAD {
                io.set_timer(NEXT_PIECE, ahead);
                return Progress::Waits;
            }
            made.clear();
            let Some(pulled) = self.source.pull(&mut made) else { return Progress::Waits };
            if pulled == Pulled::Failed {
                return Progress::Broken;
            }
            self.send_part(io, &made);
            if pulled == Pulled::End {
                if self.manner.chunked {
                    io.send(LAST_CHUNK);
                    self.sent += LAST_CHUNK.len() as u64;
                }
                if self.due.is_some() {
                    io.cancel_timer(NEXT_PIECE);
                }
                return Progress::Done(self.then);
            }
        }
        Progress::Waits
    }

    /// Sends a chunk (RFC 9112, section 7.1). An empty one would be the end.
    fn send_part(&mut self, io: &mut Io<'_>, part: &[u8]) {
        if part.is_empty() {
            return;
        }
        let len = part.len() as u64;
        if let Some(nanos) = len.saturating_mul(1_000_000_000).checked_div(self.manner.rate) {
            let lasts = Duration::from_nanos(nanos);
            self.due = Some(self.due.map_or(io.now(), |due| due.max(io.now())) + lasts);
        }
        self.sent += len;
        if self.manner.chunked {
            let size = format!("{len:x}\r\n");
            self.sent += (size.len() + b"\r\n".len()) as u64;
            io.send_vectored(&[size.as_bytes(), part, b"\r\n"]);
        } else {
            io.send(part);
        }
    }
}

impl Progress {
    /// What a callback answers.
    pub(crate) const fn flow(self) -> Flow {
        match self {
            Self::Waits => Flow::Suspend,
            Self::Done(then) => then,
            Self::Broken => Flow::Abort(Reason::STREAM_BROKEN),
        }
    }
}
