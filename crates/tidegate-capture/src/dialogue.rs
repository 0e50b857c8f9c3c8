//! `Dialogue`: which answer belongs to which request, and how long it took.
//!
//! ```text
//!  Undecided ──client's first data──▶ Http ◀──next request── Adrift
//!      │                               │ └───thread lost──────▶ ▲
//!      ├──▶ Frames ───thread lost──────┼─▶ Silent
//!      └──▶ Turns                      └─other protocol, too many waiting─▶ Silent
//! ```
//!
//! Where the capture has lost a piece of HTTP/1, a packet of the client that begins with a whole request, when the server
//! was the last to speak, is taken for the next request; what was said before is left out. That is certain as long as the
//! client waits for each answer, so one that was seen not to is given up. A frame has no mark by which it could be known:
//! any eight bytes are the begin of one. After a loss nothing more is told of them.
//!
//! Invariant: answers belong to requests in their order, as in both protocols. In any other protocol a request is what the
//! client sends up to the server's next word, which is right where the two take turns.

use std::collections::VecDeque;

use serde::Serialize;
use tidegate_frame::{Decoder, FrameError, HEADER, LOGIN, LOGIN_BODY, PING, REGISTER, REGISTER_BODY, Step};

use crate::assembly::Chunk;
use crate::finding::Side;
use crate::message::{Language, Message, Reader, Stamp, begins_with_request, is_empty};

/// In which protocol a request was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.
    Http,
    /// The framed message protocol.
    Frame,
    /// Any other in which the two sides take turns.
    Turns,
}

/// Which protocols are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProtocolChoice {
    /// What the first bytes of the client look like.
    #[default]
    Auto,
    /// HTTP/1 in every connection.
    Http,
    /// The framed message protocol in every connection.
    Frame,
    /// None: data is not looked at.
    None,
}

/// A request and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub(crate) protocol: Protocol,
    /// What was asked for.
    pub(crate) what: String,
    /// From the request's last byte to the answer's first; 0 for one that came before.
    pub(crate) to_first_ns: u64,
    /// From the request's last byte to the answer's last.
    pub(crate) to_last_ns: u64,
    /// Between request and answer's first byte nothing was sent again or came late, and the request was not held up.
    pub(crate) is_undisturbed: bool,
}

/// What two sides say to each other.
#[derive(Clone, Debug)]
pub(crate) struct Dialogue {
    talk: Talk,
    requests: Requests,
}

/// Requests without an answer up to now.
#[derive(Clone, Debug, Default)]
struct Requests {
    waiting: VecDeque<Message>,
    /// Bytes of their names.
    text: usize,
    /// Answers that were complete before their request was.
    early: usize,
    /// The client has asked again before it had its answer.
    is_pipelined: bool,
}

#[derive(Clone, Debug)]
enum Talk {
    Undecided(ProtocolChoice),
    Read(Protocol, Box<[Reader; 2]>),
    Turns(Turn),
    /// The thread of HTTP is lost.
    Adrift(Heard),
    Silent,
}

/// What was said last while the thread is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Server,
    /// What looks like a request.
    Request,
    Client,
}

/// Who speaks, and since when.
#[derive(Clone, Debug, Default)]
struct Turn {
    request: Option<(Stamp, Stamp)>,
    answer: Option<(Stamp, Stamp)>,
}

/// Requests of one connection that wait.
const MAX_WAITING: usize = 4_096;

impl Dialogue {
    pub(crate) fn new(choice: ProtocolChoice) -> Self {
        let talk = match choice {
            ProtocolChoice::None => Talk::Silent,
            _ => Talk::Undecided(choice),
        };
        Self { talk, requests: Requests::default() }
    }

    /// Nothing will be told any more.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.talk, Talk::Silent)
    }

    /// Memory that it has taken, in bytes.
    pub(crate) fn held(&self) -> usize {
        let readers = match &self.talk {
            Talk::Read(_, readers) => size_of_val(&**readers) + readers[0].held() + readers[1].held(),
            _ => 0,
        };
        readers + self.requests.text + self.requests.waiting.capacity() * size_of::<Message>()
    }

    /// One side has said something.
    pub(crate) fn hear(
        &mut self,
        side: Side,
        now: Stamp,
        mut chunk: Chunk<'_>,
        out: &mut dyn FnMut(Exchange),
    ) {
        match &mut self.talk {
            Talk::Undecided(choice) => self.talk = decide(*choice, side, chunk),
            Talk::Adrift(heard) => self.talk = drift(*heard, side, chunk),
            Talk::Turns(_) | Talk::Read(..) | Talk::Silent => {}
        }
        match &mut self.talk {
            Talk::Turns(turn) => turn.hear(side, now, out),
            Talk::Read(protocol, readers) => {
                let protocol = *protocol;
                let reader = &mut readers[side.index()];
                while !is_empty(chunk) {
                    let message = reader.read(now, &mut chunk, self.requests.is_head_next());
                    if reader.is_lost() {
                        return self.lose(protocol, side);
                    }
                    let Some(message) = message else { return };
                    let is_last = message.is_last;
                    self.requests.pair(protocol, side, message, out);
                    if is_last || self.requests.waiting.len() > MAX_WAITING {
                        return self.fall_silent();
                    }
                }
            }
            Talk::Undecided(_) | Talk::Adrift(_) | Talk::Silent => {}
        }
    }

    /// Nobody knows where the next message begins.
    fn lose(&mut self, protocol: Protocol, side: Side) {
        let is_waited_for = protocol == Protocol::Http && !self.requests.is_pipelined;
        self.fall_silent();
        if is_waited_for {
            self.talk = Talk::Adrift(if side == Side::Server { Heard::Server } else { Heard::Client });
        }
    }

    fn fall_silent(&mut self) {
        (self.talk, self.requests) = (Talk::Silent, Requests::default());
    }

    /// A side has nothing more to say.
    pub(crate) fn end(&mut self, side: Side, now: Stamp, out: &mut dyn FnMut(Exchange)) {
        match &mut self.talk {
            Talk::Read(protocol, readers) => {
                if let Some(message) = readers[side.index()].end(now) {
                    self.requests.pair(*protocol, side, message, out);
                }
            }
            Talk::Turns(turn) => turn.complete(out),
            Talk::Undecided(_) | Talk::Adrift(_) | Talk::Silent => {}
        }
    }

    /// The capture is at its end, or the connection is forgotten. An answer that ends with the connection is not complete
    /// then; one that takes turns is as complete as it can be known.
    pub(crate) fn conclude(&mut self, out: &mut dyn FnMut(Exchange)) {
        if let Talk::Turns(turn) = &mut self.talk {
            turn.complete(out);
        }
    }
}

impl Requests {
    /// The next answer has no body.
    fn is_head_next(&self) -> bool {
        self.waiting.front().is_some_and(|request| request.is_head)
    }

    /// Puts a message to the one that it belongs to.
    fn pair(&mut self, protocol: Protocol, side: Side, message: Message, out: &mut dyn FnMut(Exchange)) {
        match side {
            // An answer that needed no whole request, such as a refusal of its body.
            Side::Client if self.early > 0 => self.early -= 1,
            Side::Client => {
                self.text += message.what.len();
                self.waiting.push_back(message);
                self.is_pipelined |= self.waiting.len() > 1;
            }
            Side::Server => match self.waiting.pop_front() {
                Some(request) => {
                    self.text -= request.what.len();
                    let times = ((request.first, request.last), (message.first, message.last));
                    out(exchange(protocol, request.what, times));
                }
                None => self.early += 1,
            },
        }
    }
}

/// First and last byte of request and answer.
type Times = ((Stamp, Stamp), (Stamp, Stamp));

fn exchange(protocol: Protocol, what: String, (request, answer): Times) -> Exchange {
    let since = |stamp: Stamp| stamp.time_ns.saturating_sub(request.1.time_ns);
    Exchange {
        protocol,
        what,
        to_first_ns: since(answer.0),
        to_last_ns: since(answer.1),
        is_undisturbed: request.0.disturbances == answer.0.disturbances,
    }
}

impl Turn {
    fn hear(&mut self, side: Side, now: Stamp, out: &mut dyn FnMut(Exchange)) {
        let spoken = match side {
            Side::Client => {
                if self.answer.is_some() {
                    self.complete(out);
                }
                &mut self.request
            }
            // Before the first request there is nothing to answer.
            Side::Server if self.request.is_none() => return,
            Side::Server => &mut self.answer,
        };
        spoken.get_or_insert((now, now)).1 = now;
    }

    fn complete(&mut self, out: &mut dyn FnMut(Exchange)) {
        if let (Some(request), Some(answer)) = (self.request.take(), self.answer.take()) {
            out(exchange(Protocol::Turns, String::new(), (request, answer)));
        }
    }
}

fn http() -> Talk {
    Talk::Read(Protocol::Http, Box::new([Reader::new(Language::Requests), Reader::new(Language::Responses)]))
}

fn frames() -> Talk {
    Talk::Read(Protocol::Frame, Box::new([Reader::new(Language::Frames), Reader::new(Language::Frames)]))
}

/// Looks for the next request.
fn drift(heard: Heard, side: Side, chunk: Chunk<'_>) -> Talk {
    match (side, chunk) {
        (Side::Server, _) => Talk::Adrift(Heard::Server),
        (Side::Client, Chunk::Bytes(bytes)) if begins_with_request(bytes) => match heard {
            Heard::Server => http(),
            Heard::Client => Talk::Adrift(Heard::Request),
            Heard::Request => Talk::Silent,
        },
        (Side::Client, _) => Talk::Adrift(Heard::Client),
    }
}

/// By the first thing that was captured of what the client says: what a server says first is a greeting, or the rest of an
/// answer whose request came before the capture.
fn decide(choice: ProtocolChoice, side: Side, chunk: Chunk<'_>) -> Talk {
    match (choice, chunk) {
        (ProtocolChoice::None, _) => Talk::Silent,
        (ProtocolChoice::Http, _) => http(),
        (ProtocolChoice::Frame, _) => frames(),
        (ProtocolChoice::Auto, Chunk::Bytes(bytes)) if side == Side::Client => match () {
            () if looks_like_http(bytes) => http(),
            () if looks_like_a_frame(bytes) => frames(),
            () => Talk::Turns(Turn::default()),
        },
        (ProtocolChoice::Auto, _) => Talk::Undecided(choice),
    }
}

fn looks_like_http(bytes: &[u8]) -> bool {
    METHODS.iter().any(|method| bytes.starts_with(method))
}

/// A whole frame with the right checksum, or the begin of one of those that are known. Two bytes of a length alone are
/// nothing to go by.
fn looks_like_a_frame(bytes: &[u8]) -> bool {
    let Some(&header) = bytes.first_chunk::<HEADER>() else { return false };
    let header = tidegate_frame::Header::from_bytes(header);
    match Decoder::new().decode(bytes) {
        Ok(Step::Frame { .. }) => true,
        Ok(Step::Need(_)) => {
            KNOWN_FRAMES.contains(&(header.code, usize::from(header.length).saturating_sub(HEADER)))
        }
        Err(FrameError::BadChecksum { .. } | FrameError::BadLength(_)) => false,
    }
}

const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT "];
/// Codes, and the sizes of their bodies.
const KNOWN_FRAMES: [(u16, usize); 3] = [(PING, 0), (REGISTER, REGISTER_BODY), (LOGIN, LOGIN_BODY)];
