//! `Session`: where a connection is between heads, bodies and answers.
//!
//! ```text
//!             incomplete head           head with a body
//!               +-------+            +-------------------> [ Body ] --+ more of it
//!               v       |            |                      |   ^     |
//!   new ---> [ Head ] --+------------+                      |   +-----+
//!               ^  ^    | head without a body               |
//!               |  +----+ answered at once                  | the end of it
//!               |       |                                   |
//!               |       +-----------------+-----------------+
//!               | answered                v
//!               +---------------- [ Waiting ] for a handler, or answered at once
//!               |                         |
//!               |                         v a stream
//!               +---------------- [ Streaming ]
//! ```
//!
//! Invariant: a request is answered when its body has ended or is wanted no more, and the next one is not looked at before
//! that, so answers and requests stay in step. An idle connection keeps nothing at all.

use std::mem;

use tidegate_engine::{Decoded, Phase};
use tidegate_http::{Head, HeadLimits, HeadParser, HttpError, Method, Parsed};

use crate::Response;
use crate::extra::Extra;
use crate::incoming::{Fate, Incoming};
use crate::outgoing::Outgoing;

/// What the web service keeps for a connection.
#[derive(Debug, Default)]
pub struct Session {
    stage: Stage,
    /// Requests so far, where they are counted.
    pub(crate) requests: u32,
    /// Bytes of all answers so far, those included that wait to be sent; where answers are recorded.
    pub(crate) given_bytes: u64,
    extra: Option<Box<Extra>>,
}

// Tens of thousands of idle connections are the point.
const _: () = assert!(size_of::<Session>() <= 64);

#[derive(Debug)]
enum Stage {
    /// Between requests, or in a head of which `parser` has done some lines.
    Head { parser: Option<Box<HeadParser>> },
    /// In the body of a request.
    Body(Box<Incoming>),
    /// A handler answers later. The connection is suspended.
    Waiting(Box<Waiting>),
    /// The body of the answer is made while it is sent. The connection is suspended.
    Streaming(Box<Outgoing>),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Head { parser: None }
    }
}

/// A request that is kept: the head, and the bytes its offsets point into.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) head: Head,
    pub(crate) bytes: Box<[u8]>,
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) head: Head,
    /// The number of its site.
    pub(crate) site: usize,
    /// Fields that middleware has added.
    pub(crate) added: Response,
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
    /// A body for which there is no memory.
    NoMemory,
    /// Something that is no HTTP, or over a limit of it, and the method as far as that could be read.
    Bad(HttpError, Method),
}

impl Session {
    /// Whether nothing of a request is there.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Head { parser: None })
            && !self.extra.as_ref().is_some_and(|extra| extra.is_busy())
    }

    /// What few connections need; made when it is not there.
    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// The same, if it is there.
    #[inline]
    pub(crate) fn has_extra(&mut self) -> Option<&mut Extra> {
        self.extra.as_deref_mut()
    }

    /// Whether a password is being checked.
    pub(crate) fn is_at_gate(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.waiting.is_some())
    }

    /// Gives back what is not needed any more.
    pub(crate) fn tidy(&mut self) {
        self.extra.take_if(|extra| extra.is_empty());
    }

    /// Whether a body has been begun and is not complete.
    pub(crate) const fn is_in_body(&self) -> bool {
        matches!(self.stage, Stage::Body(_))
    }

    /// The method of the request under way, as far as it has been read.
    pub(crate) fn method(&self) -> Method {
        match &self.stage {
            Stage::Head { parser } => parser.as_ref().map_or(Method::Other, |parser| parser.method()),
            Stage::Body(incoming) => incoming.request.head.method(),
            Stage::Waiting(waiting) => waiting.head.method(),
            Stage::Streaming(_) => Method::Other,
        }
    }

    /// Whether it is for another thread to go on.
    pub(crate) fn is_waiting(&self) -> bool {
        match &self.stage {
            Stage::Waiting(_) => true,
            Stage::Body(incoming) => matches!(&incoming.fate, Fate::Sink(seat) if seat.sink.is_none()),
            Stage::Head { .. } | Stage::Streaming(_) => false,
        }
    }

    /// A body follows, or nothing does.
    pub(crate) fn begin_body(&mut self, incoming: Option<Incoming>) {
        if let Some(incoming) = incoming {
            self.stage = Stage::Body(Box::new(incoming));
        }
    }

    /// The request whose body is being received.
    pub(crate) fn incoming(&mut self) -> Option<&mut Incoming> {
        match &mut self.stage {
            Stage::Body(incoming) => Some(incoming),
            _ => None,
        }
    }

    /// The body has ended, or is not wanted any more; its request, if there was one.
    pub(crate) fn end_body(&mut self) -> Option<Box<Incoming>> {
        match mem::take(&mut self.stage) {
            Stage::Body(incoming) => Some(incoming),
            stage => {
                self.stage = stage;
                None
            }
        }
    }

    /// The answer comes later.
    pub(crate) fn wait(&mut self, waiting: Waiting) {
        self.stage = Stage::Waiting(Box::new(waiting));
    }

    /// The answer has come; the request that waited, if there was one.
    pub(crate) fn end_wait(&mut self) -> Option<Box<Waiting>> {
        match mem::take(&mut self.stage) {
            Stage::Waiting(waiting) => Some(waiting),
            stage => {
                self.stage = stage;
                None
            }
        }
    }

    /// A body follows the head of the answer.
    pub(crate) fn begin_stream(&mut self, outgoing: Outgoing) {
        self.stage = Stage::Streaming(Box::new(outgoing));
    }

    /// The answer's body that is being sent.
    pub(crate) fn outgoing(&mut self) -> Option<&mut Outgoing> {
        match &mut self.stage {
            Stage::Streaming(outgoing) => Some(outgoing),
            _ => None,
        }
    }

    /// The answer's body is sent no more; the stream, if there was one.
    pub(crate) fn end_stream(&mut self) -> Option<Box<Outgoing>> {
        match mem::take(&mut self.stage) {
            Stage::Streaming(outgoing) => Some(outgoing),
            stage => {
                self.stage = stage;
                None
            }
        }
    }

    #[inline]
    pub(crate) fn decode(&mut self, input: &[u8], limits: &Limits) -> Decoded<Message> {
        match &mut self.stage {
            Stage::Head { parser } => decode_head(parser, input, limits),
            Stage::Body(incoming) => {
                let (len, kind) = incoming.decode(input);
                Decoded::Message { len, head: Message(kind) }
            }
            // Suspended connections are not asked; should one be, what it has sent waits.
            Stage::Waiting(_) | Stage::Streaming(_) => {
                Decoded::Need { phase: Phase::Idle, at_least: input.len() + 1 }
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
    if let Some(kept) = parser {
        let (parsed, method) = (kept.parse(input, &limits.head), kept.method());
        if !matches!(parsed, Ok(Parsed::Need)) {
            *parser = None;
        }
        return found(parsed, method, input);
    }
    let mut fresh = HeadParser::new();
    let (parsed, method) = (fresh.parse(input, &limits.head), fresh.method());
    if matches!(parsed, Ok(Parsed::Need)) {
        *parser = Some(Box::new(fresh));
    }
    found(parsed, method, input)
}

/// What was parsed, or why it was not, of a request with this method.
#[inline]
fn found(parsed: Result<Parsed, HttpError>, method: Method, input: &[u8]) -> Decoded<Message> {
    let (len, kind) = match parsed {
        Ok(Parsed::Need) => return Decoded::Need { phase: Phase::Head, at_least: input.len() + 1 },
        Ok(Parsed::Head(head)) => (head.end(), Kind::Head(head)),
        Err(error) => (input.len(), Kind::Bad(error, method)),
    };
    Decoded::Message { len, head: Message(kind) }
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
                                let fate = Fate::Drop;
                                session.begin_body(Incoming::new(head, bytes, &LIMITS, fate));
                                if session.is_idle() {
                                    out.push(format!("request {}", bytes.escape_ascii()));
                                }
                            }
                            Kind::BodyPart => {}
                            Kind::BodyEnd => {
                                let held = session.end_body().expect("a body has a request").request;
                                assert!(session.is_idle());
                                out.push(format!("request {}", held.bytes.escape_ascii()));
                            }
                            Kind::NoMemory => panic!("nothing is collected"),
                            Kind::BodyTooLarge => return [out, vec!["too large".into()]].concat(),
                            Kind::Bad(error, _) => return [out, vec![error.to_string()]].concat(),
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
