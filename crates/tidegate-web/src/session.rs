//! `Session`: where a connection is between heads and bodies.
//!
//! ```text
//!             incomplete head           head with a body
//!               +-------+            +-------------------> [ Body ] --+ more of it
//!               v       |            |                      |   ^     |
//!   new ---> [ Head ] --+------------+                      |   +-----+
//!               ^  ^    | head without a body: answered     |
//!               |  +----+                                   | the end of it: answered
//!               +-------------------------------------------+
//! ```
//!
//! Invariant: a request is answered when its body has ended, never before, so answers and requests stay in step; bodies are
//! dropped as they come, and only the head of the request is kept meanwhile. An idle connection keeps nothing at all.

use tidegate_engine::{Decoded, Phase};
use tidegate_http::{BodyFraming, ChunkedDecoder, Head, HeadLimits, HeadParser, HttpError, Parsed};

/// What the web service keeps for a connection.
#[derive(Debug, Default)]
pub struct Session {
    stage: Stage,
}

// Tens of thousands of idle connections are the point.
const _: () = assert!(size_of::<Session>() <= 64);

#[derive(Debug)]
enum Stage {
    /// Between requests, or in a head of which `parser` has done some lines.
    Head { parser: Option<Box<HeadParser>> },
    /// In the body of a request.
    Body(Box<Body>),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Head { parser: None }
    }
}

#[derive(Debug)]
struct Body {
    request: Held,
    framing: Framing,
    /// Bytes of data so far. At most the limit.
    received: u64,
}

#[derive(Debug)]
enum Framing {
    /// Bytes still to come; never 0.
    Length(u64),
    Chunked(ChunkedDecoder),
}

/// A request that waits for the end of its body: the head, and the bytes its offsets point into.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) head: Head,
    pub(crate) bytes: Box<[u8]>,
}

/// What the web service found at the start of the input.
#[derive(Debug)]
pub struct Message(pub(crate) Kind);

#[derive(Debug)]
pub(crate) enum Kind {
    /// A complete head.
    Head(Head),
    /// A part of a body, not its end.
    BodyPart,
    /// The rest of a body.
    BodyEnd,
    /// A body that has grown over the limit.
    BodyTooLarge,
    /// Something that is no HTTP, or over a limit of it.
    Bad(HttpError),
}

impl Session {
    /// Whether nothing of a request is there.
    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Head { parser: None })
    }

    /// Whether a head or a body has been begun and is not complete.
    pub(crate) const fn is_in_body(&self) -> bool {
        matches!(self.stage, Stage::Body(_))
    }

    /// The head is followed by a body, which is to be dropped before the request is answered.
    pub(crate) fn begin_body(&mut self, head: Head, bytes: &[u8], limits: &HeadLimits) {
        let framing = match head.body() {
            BodyFraming::None => return,
            BodyFraming::Length(length) => Framing::Length(length),
            BodyFraming::Chunked => Framing::Chunked(ChunkedDecoder::for_request(&head, limits)),
        };
        let request = Held { head, bytes: bytes.into() };
        self.stage = Stage::Body(Box::new(Body { request, framing, received: 0 }));
    }

    /// The body has ended; its request, if there was one.
    pub(crate) fn end_body(&mut self) -> Option<Held> {
        match std::mem::take(&mut self.stage) {
            Stage::Body(body) => Some(body.request),
            Stage::Head { .. } => None,
        }
    }

    #[inline]
    pub(crate) fn decode(&mut self, input: &[u8], limits: &Limits) -> Decoded<Message> {
        match &mut self.stage {
            Stage::Head { parser } => decode_head(parser, input, limits),
            Stage::Body(body) => {
                let (len, kind) = body.decode(input, limits.max_body_bytes);
                Decoded::Message { len, head: Message(kind) }
            }
        }
    }
}

/// What limits the requests of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) head: HeadLimits,
    pub(crate) max_body_bytes: u64,
}

#[inline]
fn decode_head(parser: &mut Option<Box<HeadParser>>, input: &[u8], limits: &Limits) -> Decoded<Message> {
    let parsed = match parser {
        None => {
            let mut fresh = HeadParser::new();
            let parsed = fresh.parse(input, &limits.head);
            if parsed == Ok(Parsed::Need) {
                *parser = Some(Box::new(fresh));
            }
            parsed
        }
        Some(parser) => parser.parse(input, &limits.head),
    };
    let (len, kind) = match parsed {
        Ok(Parsed::Need) => return Decoded::Need { phase: Phase::Head, at_least: input.len() + 1 },
        Ok(Parsed::Head(head)) => (head.end(), Kind::Head(head)),
        Err(error) => (input.len(), Kind::Bad(error)),
    };
    *parser = None;
    Decoded::Message { len, head: Message(kind) }
}

impl Body {
    /// Takes as much of the input as belongs to the body: at least one byte, since the body has not ended.
    fn decode(&mut self, input: &[u8], max_bytes: u64) -> (usize, Kind) {
        match &mut self.framing {
            Framing::Length(left) => {
                let take = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= take as u64;
                (take, if *left == 0 { Kind::BodyEnd } else { Kind::BodyPart })
            }
            Framing::Chunked(decoder) => {
                let mut at = 0;
                while at < input.len() {
                    let step = match decoder.step(&input[at..]) {
                        Ok(step) => step,
                        Err(error) => return (input.len(), Kind::Bad(error)),
                    };
                    at += step.consumed;
                    self.received += step.data.len() as u64;
                    if self.received > max_bytes {
                        return (at, Kind::BodyTooLarge);
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        head: HeadLimits { max_head_bytes: 256, max_target_bytes: 64, max_fields: 8, max_overhead_bytes: 32 },
        max_body_bytes: 20,
    };

    /// Feeds `input` in pieces that end at `ends`, as the engine does, and names what comes out.
    fn run(input: &[u8], ends: &[usize]) -> Vec<String> {
        let (mut session, mut out, mut start) = (Session::default(), Vec::new(), 0);
        for &end in ends {
            while start < end {
                match session.decode(&input[start..end], &LIMITS) {
                    Decoded::Need { at_least, .. } => {
                        assert!(at_least > end - start);
                        break;
                    }
                    Decoded::Message { len, head: Message(kind) } => {
                        assert!((1..=end - start).contains(&len), "{kind:?} of {len} bytes");
                        let bytes = &input[start..start + len];
                        start += len;
                        match kind {
                            Kind::Head(head) => {
                                session.begin_body(head, bytes, &LIMITS.head);
                                if session.is_idle() {
                                    out.push(format!("request {}", bytes.escape_ascii()));
                                }
                            }
                            Kind::BodyPart => {}
                            Kind::BodyEnd => {
                                let held = session.end_body().expect("a body has a request");
                                assert!(session.is_idle());
                                out.push(format!("request {}", held.bytes.escape_ascii()));
                            }
                            Kind::BodyTooLarge => return [out, vec!["too large".into()]].concat(),
                            Kind::Bad(error) => return [out, vec![error.to_string()]].concat(),
                        }
                    }
                    Decoded::Close(reason) => panic!("closed: {reason}"),
                }
            }
        }
        out
    }

    #[track_caller]
    fn check(input: &str, count: usize, last: &str) {
        let input = input.as_bytes();
        let whole = run(input, &[input.len()]);
        assert_eq!(whole.len(), count, "{whole:?}");
        assert!(whole.last().is_some_and(|line| line.contains(last)), "{whole:?}");
        let all: Vec<usize> = (1..=input.len()).collect();
        assert_eq!(run(input, &all), whole, "byte by byte");
        for split in 0..input.len() {
            assert_eq!(run(input, &[split, input.len()]), whole, "split at {split}");
        }
    }

    #[test]
    fn requests_stay_in_step_with_and_without_bodies() {
        check(
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
             POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
             PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: x\r\n\r\n\
             \r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
            4,
            "/4",
        );
    }

    #[test]
    fn a_request_waits_for_its_body() {
        check(
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell",
            1,
            "/1",
        );
    }

    #[test]
    fn a_chunked_body_over_the_limit_and_a_broken_one_are_noticed() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{head}14\r\n12345678901234567890\r\n0\r\n\r\n"), 1, "request");
        check(&format!("{head}a\r\n1234567890\r\nb\r\n12345678901\r\n0\r\n\r\n"), 1, "too large");
        check(&format!("{head}x"), 1, "chunked");
    }
}
