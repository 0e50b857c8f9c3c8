//! `Reader`: where the messages of one direction begin and end, in HTTP/1 and in our frames.
//!
//! Invariant: a message needs only its head to be captured; its body may be missing, as in captures with a snap length. A head
//! that is missing or wrong loses the thread; whether it can be taken up again is not decided here. Contents are not checked.

use httparse::{EMPTY_HEADER, Header, Status};
use tidegate_frame::{HEADER, LOGIN, MAX_FRAME, PING, REGISTER};
use tidegate_http::ChunkedDecoder;

use crate::assembly::Chunk;

/// When a byte came by, and how often data had been sent again or come late by then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) time_ns: u64,
    pub(crate) disturbances: u64,
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its first and its last byte.
    pub(crate) first: Stamp,
    pub(crate) last: Stamp,
    /// What it asks for; of no meaning in an answer.
    pub(crate) what: String,
    /// A request whose answer has no body (RFC 9110, section 9.3.2).
    pub(crate) is_head: bool,
    /// The rest of the connection is another protocol.
    pub(crate) is_last: bool,
}

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Requests,
    Responses,
    Frames,
}

/// Reads one direction.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    language: Language,
    state: State,
    /// Of the message that is being read.
    first: Option<Stamp>,
    /// Its head, as long as that is not complete.
    head: Vec<u8>,
    what: String,
    is_head: bool,
    is_last: bool,
}

#[derive(Clone, Debug)]
enum State {
    Head,
    Body(u64),
    Chunked(ChunkedDecoder),
    /// Up to the end of the connection.
    Rest,
    Lost,
}

const MAX_HEAD: usize = 64 << 10;
const MAX_FIELDS: usize = 128;
const MAX_PATH: usize = 200;

impl Reader {
    pub(crate) fn new(language: Language) -> Self {
        Self {
            language,
            state: State::Head,
            first: None,
            head: Vec::new(),
            what: String::new(),
            is_head: false,
            is_last: false,
        }
    }

    /// Memory beside itself that it has taken, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.head.capacity() + self.what.capacity()
    }

    /// Nothing more can be told.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// Reads up to the end of a message, and takes from `input` what was read. To be called until it returns nothing.
    /// `answers_head` is asked for when a response's head is complete.
    pub(crate) fn read(&mut self, now: Stamp, input: &mut Chunk<'_>, answers_head: bool) -> Option<Message> {
        loop {
            if is_empty(*input) {
                return None;
            }
            match (&mut self.state, *input) {
                (State::Lost, _) => return None,
                (State::Head, Chunk::Missing(_)) | (State::Chunked(_), Chunk::Missing(_)) => {
                    self.state = State::Lost;
                    return None;
                }
                (State::Head, Chunk::Bytes(bytes)) => {
                    self.first.get_or_insert(now);
                    let rest = self.read_head(bytes, answers_head);
                    *input = Chunk::Bytes(rest);
                }
                (State::Body(left), chunk) => {
                    let taken = len(chunk).min(*left);
                    *left -= taken;
                    *input = without(chunk, taken);
                }
                (State::Chunked(decoder), Chunk::Bytes(bytes)) => match decoder.step(bytes) {
                    Ok(step) => {
                        *input = Chunk::Bytes(&bytes[step.consumed..]);
                        if step.done {
                            self.state = State::Body(0);
                        }
                    }
                    Err(_) => self.state = State::Lost,
                },
                (State::Rest, chunk) => *input = without(chunk, len(chunk)),
            }
            if matches!(self.state, State::Body(0)) {
                return Some(self.complete(now));
            }
        }
    }

    /// The direction has ended, which may be the end of a message.
    pub(crate) fn end(&mut self, now: Stamp) -> Option<Message> {
        matches!(self.state, State::Rest).then(|| self.complete(now))
    }

    fn complete(&mut self, now: Stamp) -> Message {
        self.state = State::Head;
        Message {
            first: self.first.take().unwrap_or(now),
            last: now,
            what: std::mem::take(&mut self.what),
            is_head: self.is_head,
            is_last: self.is_last,
        }
    }

    /// Takes what belongs to the head, and leaves the rest.
    fn read_head<'a>(&mut self, bytes: &'a [u8], answers_head: bool) -> &'a [u8] {
        let before = self.head.len();
        let taken = match self.language {
            // Never more of a frame than its header: the rest may be long.
            Language::Frames => bytes.len().min(HEADER - before),
            _ => bytes.len().min(MAX_HEAD - before),
        };
        self.head.extend_from_slice(&bytes[..taken]);
        let outcome = match self.language {
            Language::Frames => self.frame_head(),
            Language::Requests => self.request_head(),
            Language::Responses => self.response_head(answers_head),
        };
        match outcome {
            Outcome::Need if self.head.len() == MAX_HEAD => self.state = State::Lost,
            Outcome::Need => return &bytes[taken..],
            Outcome::Wrong => self.state = State::Lost,
            Outcome::Head(len, body) => {
                self.head.clear();
                self.state = body;
                // What was there before had no complete head.
                return &bytes[len.saturating_sub(before)..];
            }
        }
        &[]
    }

    fn frame_head(&mut self) -> Outcome {
        let Some(header) = self.head.first_chunk() else { return Outcome::Need };
        let header = tidegate_frame::Header::from_bytes(*header);
        let len = usize::from(header.length);
        if !(HEADER..=MAX_FRAME).contains(&len) {
            return Outcome::Wrong;
        }
        self.what = code_name(header.code);
        Outcome::Head(HEADER, State::Body((len - HEADER) as u64))
    }

    fn request_head(&mut self) -> Outcome {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let len = match request.parse(&self.head) {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) => return Outcome::Need,
            Err(_) => return Outcome::Wrong,
        };
        let (method, target) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
        let body = match body(request.headers) {
            // A request without a length has no body (RFC 9112, section 6.3).
            Some(State::Rest) => State::Body(0),
            Some(body) => body,
            None => return Outcome::Wrong,
        };
        let path = target.split('?').next().unwrap_or("");
        self.what = format!("{method} {}", path.chars().take(MAX_PATH).collect::<String>());
        self.is_head = method == "HEAD";
        self.is_last = method == "CONNECT";
        Outcome::Head(len, body)
    }

    fn response_head(&mut self, answers_head: bool) -> Outcome {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let len = match response.parse(&self.head) {
            Ok(Status::Complete(len)) => len,
            Ok(Status::Partial) => return Outcome::Need,
            Err(_) => return Outcome::Wrong,
        };
        let code = response.code.unwrap_or(0);
        let Some(body) = body(response.headers) else { return Outcome::Wrong };
        self.is_last = code == 101;
        match code {
            // An interim answer (RFC 9110, section 15.2) is not the one that is waited for.
            100 | 102..=199 => {
                self.first = None;
                Outcome::Head(len, State::Head)
            }
            101 | 204 | 304 => Outcome::Head(len, State::Body(0)),
            _ if answers_head => Outcome::Head(len, State::Body(0)),
            _ => Outcome::Head(len, body),
        }
    }
}

/// Whether this is the head of a request, whole, and what may follow it.
pub(crate) fn begins_with_request(bytes: &[u8]) -> bool {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    // Most that is none is so by its first bytes, and parsed no further.
    matches!(httparse::Request::new(&mut fields).parse(bytes), Ok(Status::Complete(_)))
}

enum Outcome {
    Need,
    Wrong,
    /// How long the head is, and what follows it.
    Head(usize, State),
}

/// How a body ends (RFC 9112, section 6.3); nothing when the length is none.
fn body(fields: &[Header<'_>]) -> Option<State> {
    let named = |name: &str| fields.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    if named("transfer-encoding").is_some() {
        return Some(State::Chunked(ChunkedDecoder::new()));
    }
    let Some(length) = named("content-length") else { return Some(State::Rest) };
    Some(State::Body(std::str::from_utf8(length.value).ok()?.trim().parse().ok()?))
}

fn code_name(code: u16) -> String {
    match code {
        PING => "0 ping".to_owned(),
        REGISTER => "5 register".to_owned(),
        LOGIN => "6 login".to_owned(),
        code => code.to_string(),
    }
}

fn len(chunk: Chunk<'_>) -> u64 {
    match chunk {
        Chunk::Bytes(bytes) => bytes.len() as u64,
        Chunk::Missing(len) => len,
    }
}

pub(crate) fn is_empty(chunk: Chunk<'_>) -> bool {
    len(chunk) == 0
}

/// What is left when so much of it is taken, which it has.
fn without(chunk: Chunk<'_>, taken: u64) -> Chunk<'_> {
    match chunk {
        Chunk::Bytes(bytes) => {
            Chunk::Bytes(usize::try_from(taken).ok().and_then(|taken| bytes.get(taken..)).unwrap_or(&[]))
        }
        Chunk::Missing(len) => Chunk::Missing(len - taken),
    }
}
