//! `Incoming`: a request whose body is being received.
//!
//! Invariant: a body is dropped, collected up to its limit, or given to a sink part by part; it never gathers beyond that.

use tidegate_engine::Instant;
use tidegate_http::{BodyFraming, ChunkedDecoder, Head};

use crate::Response;
use crate::budget::Collected;
use crate::routes::Found;
use crate::session::{Held, Kind, Limits};
use crate::sink::BodySink;

/// The request, and how far its body has come.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) request: Held,
    pub(crate) fate: Fate,
    framing: Framing,
    /// Bytes of data so far. At most `max_bytes`, but for the message that tells that there are more.
    received: u64,
    max_bytes: u64,
}

/// What becomes of a body.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Nobody wants it.
    Drop,
    /// The endpoint gets all of it. With the time at which it began.
    Collect(Found<'static>, Collected, Instant),
    /// A sink gets it as it comes.
    Sink(SinkSeat),
}

/// The place of a sink.
#[derive(Debug)]
pub(crate) struct SinkSeat {
    /// `None` while it is with a thread of the pool; nothing is received then.
    pub(crate) sink: Option<Box<dyn BodySink>>,
    pub(crate) blocking: bool,
    /// What has come since the sink was given something.
    pub(crate) part: Vec<u8>,
    /// Whether that is the end.
    pub(crate) ended: bool,
    /// Fields that middleware has added.
    pub(crate) added: Response,
}

impl SinkSeat {
    pub(crate) const fn new(sink: Option<Box<dyn BodySink>>, blocking: bool, added: Response) -> Self {
        Self { sink, blocking, part: Vec::new(), ended: false, added }
    }
}

#[derive(Debug)]
enum Framing {
    /// Bytes still to come; never 0.
    Length(u64),
    Chunked(ChunkedDecoder),
}

impl Incoming {
    /// The body that this head announces; `None` when it announces none.
    pub(crate) fn new(head: Head, bytes: &[u8], limits: &Limits, fate: Fate) -> Option<Self> {
        let framing = match head.body() {
            BodyFraming::None => return None,
            BodyFraming::Length(length) => Framing::Length(length),
            BodyFraming::Chunked => Framing::Chunked(ChunkedDecoder::for_request(&head, &limits.head)),
        };
        let request = Held { head, bytes: bytes.into() };
        Some(Self { request, fate, framing, received: 0, max_bytes: limits.max_body_bytes })
    }

    /// Takes as much of the input as belongs to the body: at least one byte, since the body has not ended.
    pub(crate) fn decode(&mut self, input: &[u8]) -> (usize, Kind) {
        let Self { request, framing, fate, received, max_bytes } = self;
        match framing {
            Framing::Length(left) => {
                let take = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= take as u64;
                let kind = if *left == 0 { Kind::BodyEnd } else { Kind::BodyPart };
                (take, if fate.take(&input[..take]) { kind } else { Kind::NoMemory })
            }
            Framing::Chunked(decoder) => {
                let mut at = 0;
                while at < input.len() {
                    let step = match decoder.step(&input[at..]) {
                        Ok(step) => step,
                        Err(error) => return (input.len(), Kind::Bad(error, request.head.method())),
                    };
                    *received += step.data.len() as u64;
                    if *received > *max_bytes {
                        return (at + step.consumed, Kind::BodyTooLarge);
                    }
                    let data = &input[at..][step.data];
                    at += step.consumed;
                    if !fate.take(data) {
                        return (at, Kind::NoMemory);
                    }
                    if step.done {
                        return (at, Kind::BodyEnd);
                    }
                }
                (at, Kind::BodyPart)
            }
        }
    }
}

impl Fate {
    /// False when there is no memory for it.
    fn take(&mut self, data: &[u8]) -> bool {
        match self {
            Self::Drop => true,
            Self::Collect(_, collected, _) => collected.extend(data),
            Self::Sink(seat) => {
                seat.part.extend_from_slice(data);
                true
            }
        }
    }
}
