//! `Dialogue`: which answer belongs to which request, and how long it took.
//!
//! ```text
//!  Undecided ──first data──▶ Http | Frames ──thread lost──▶ Silent
//!      │                                                      ▲
//!      └────────────────────▶ Turns       ──too many waiting──┘
//! ```
//!
//! Invariant: answers belong to requests in their order, as in both protocols. In any other protocol a request is what the
//! client sends up to the server's next word, which is right where the two take turns.

use std::collections::VecDeque;

use serde::Serialize;
use tidegate_frame::{Decoder, FrameError, HEADER, LOGIN, LOGIN_BODY, PING, REGISTER, REGISTER_BODY, Step};

use crate::assembly::Chunk;
use crate::finding::Side;
use crate::message::{Language, Message, Reader, Stamp, is_empty};

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
    /// Requests without an answer up to now.
    waiting: VecDeque<Message>,
    /// Answers that were complete before their request was.
    early: usize,
}

#[derive(Clone, Debug)]
enum Talk {
    Undecided(ProtocolChoice),
    Read(Protocol, Box<[Reader; 2]>),
    Turns(Turn),
    Silent,
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
        Self { talk, waiting: VecDeque::new(), early: 0 }
    }

    /// Nothing will be told any more.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self.talk, Talk::Silent)
    }

    /// One side has said something.
    pub(crate) fn hear(
        &mut self,
        side: Side,
        now: Stamp,
        mut chunk: Chunk<'_>,
        out: &mut dyn FnMut(Exchange),
    ) {
        if let Talk::Undecided(choice) = self.talk {
            self.talk = decide(choice, side, chunk);
        }
        match &mut self.talk {
            Talk::Turns(turn) => turn.hear(side, now, out),
            Talk::Read(protocol, readers) => {
                let protocol = *protocol;
                let reader = &mut readers[side.index()];
                while !is_empty(chunk) {
                    let answers_head = self.waiting.front().is_some_and(|request| request.is_head);
                    let message = reader.read(now, &mut chunk, answers_head);
                    if reader.is_lost() {
                        self.talk = Talk::Silent;
                        return;
                    }
                    let Some(message) = message else { return };
                    let is_last = message.is_last;
                    pair(&mut self.waiting, &mut self.early, protocol, side, message, out);
                    if is_last || self.waiting.len() > MAX_WAITING {
                        self.talk = Talk::Silent;
                        return;
                    }
                }
            }
            Talk::Undecided(_) | Talk::Silent => {}
        }
    }

    /// A side has nothing more to say.
    pub(crate) fn end(&mut self, side: Side, now: Stamp, out: &mut dyn FnMut(Exchange)) {
        match &mut self.talk {
            Talk::Read(protocol, readers) => {
                if let Some(message) = readers[side.index()].end(now) {
                    pair(&mut self.waiting, &mut self.early, *protocol, side, message, out);
                }
            }
            Talk::Turns(turn) => turn.complete(out),
            Talk::Undecided(_) | Talk::Silent => {}
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

/// Puts a message to the one that it belongs to.
fn pair(
    waiting: &mut VecDeque<Message>,
    early: &mut usize,
    protocol: Protocol,
    side: Side,
    message: Message,
    out: &mut dyn FnMut(Exchange),
) {
    match side {
        // An answer that needed no whole request, such as a refusal of its body.
        Side::Client if *early > 0 => *early -= 1,
        Side::Client => waiting.push_back(message),
        Side::Server => match waiting.pop_front() {
            Some(request) => {
                let times = ((request.first, request.last), (message.first, message.last));
                out(exchange(protocol, request.what, times));
            }
            None => *early += 1,
        },
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

/// By the first thing that is said.
fn decide(choice: ProtocolChoice, side: Side, chunk: Chunk<'_>) -> Talk {
    let http = || Box::new([Reader::new(Language::Requests), Reader::new(Language::Responses)]);
    let frames = || Box::new([Reader::new(Language::Frames), Reader::new(Language::Frames)]);
    let bytes = match chunk {
        Chunk::Bytes(bytes) => bytes,
        Chunk::Missing(_) => &[],
    };
    match choice {
        ProtocolChoice::None => Talk::Silent,
        ProtocolChoice::Http => Talk::Read(Protocol::Http, http()),
        ProtocolChoice::Frame => Talk::Read(Protocol::Frame, frames()),
        ProtocolChoice::Auto if side == Side::Client && looks_like_http(bytes) => {
            Talk::Read(Protocol::Http, http())
        }
        ProtocolChoice::Auto if side == Side::Client && looks_like_a_frame(bytes) => {
            Talk::Read(Protocol::Frame, frames())
        }
        ProtocolChoice::Auto => Talk::Turns(Turn::default()),
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
