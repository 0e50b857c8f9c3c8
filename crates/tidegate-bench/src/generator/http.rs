//! `Http`: `GET` over HTTP/1.1, and the framing of its answers (RFC 9112, section 6.3).
//!
//! ```text
//!            head, no body                       ┌── 1xx: there is another head
//!   ┌──────────────────────────────┐             │
//!   ▼                              │             │
//! [ Head ] ── Content-Length ──▶ [ Sized ] ──▶ answer
//!   │ ├────── chunked ─────────▶ [ Chunked ] ─▶ answer
//!   │ └────── neither ─────────▶ [ Endless ] ─▶ answer at the end of the connection
//! ```
//!
//! Invariant: bodies are counted and not kept. A head that is the same to the byte as the one before it is not parsed anew,
//! since it can say nothing else.

use httparse::{EMPTY_HEADER, Header, Response};
use tidegate_http::ChunkedDecoder;

use super::dialogue::{Answers, Dialogue, Heard};

/// The dialogue with a web server.
#[derive(Debug)]
pub(crate) struct Http {
    request: Vec<u8>,
}

/// Where in the answer a connection is.
#[derive(Debug, Default)]
pub(crate) struct Place {
    body: Body,
    /// The answer whose body is read.
    meaning: Meaning,
    /// The last head, and what it meant.
    known_head: Vec<u8>,
    known: Meaning,
}

/// What is left of an answer.
#[derive(Debug, Default)]
enum Body {
    /// All of it.
    #[default]
    Head,
    Sized(u64),
    Chunked(ChunkedDecoder),
    /// It ends with the connection.
    Endless,
}

/// What a head says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Meaning {
    status: u16,
    framing: Framing,
    /// The server closes the connection after it.
    last: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framing {
    /// Another head follows.
    Interim,
    #[default]
    Empty,
    Sized(u64),
    Chunked,
    Endless,
}

/// What stands at the start of a head.
enum Head {
    Need,
    Complete(usize),
}

/// A head with more fields is wrong.
const MAX_FIELDS: usize = 96;
/// Longer heads are parsed each time.
const MAX_KNOWN_BYTES: usize = 2 << 10;
/// From here on an answer says that the request has failed.
const FIRST_ERROR: u16 = 400;

impl Http {
    /// What [`Ask::Http`](super::Ask::Http) says.
    pub(crate) fn new(path: &str, host: &str, headers: &[(String, String)]) -> Self {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in headers {
            for part in [name, ": ", value, "\r\n"] {
                request.push_str(part);
            }
        }
        request.push_str("\r\n");
        Self { request: request.into_bytes() }
    }
}

impl Dialogue for Http {
    type State = Place;

    fn begin(&self, _: u32) -> Place {
        Place::default()
    }

    #[inline]
    fn ask<'a>(&'a self, _: &'a mut Place) -> [&'a [u8]; 2] {
        [&self.request, &[]]
    }

    #[inline]
    fn hear(&self, place: &mut Place, input: &[u8]) -> Heard {
        let mut answers = Answers::default();
        let mut at = 0;
        while at < input.len() && !answers.last {
            match place.step(&input[at..], &mut answers) {
                Ok(0) if at == 0 => return Heard::Need(input.len() + 1),
                Ok(0) => break,
                Ok(taken) => at += taken,
                Err(text) => return Heard::Wrong(text),
            }
        }
        Heard::Answers { len: at, answers }
    }

    fn hear_end(&self, place: &mut Place) -> Answers {
        let mut answers = Answers::default();
        if matches!(place.body, Body::Endless) {
            place.finish(&mut answers);
        }
        answers
    }
}

impl Place {
    /// Takes a head, or a part of a body; answers how many bytes it was, 0 when there are not enough.
    #[inline]
    fn step(&mut self, input: &[u8], answers: &mut Answers) -> Result<usize, String> {
        match &mut self.body {
            Body::Head => match self.head(input)? {
                Head::Need => Ok(0),
                Head::Complete(len) => {
                    match self.meaning.framing {
                        Framing::Interim => {}
                        Framing::Empty | Framing::Sized(0) => self.finish(answers),
                        Framing::Sized(left) => self.body = Body::Sized(left),
                        Framing::Chunked => self.body = Body::Chunked(ChunkedDecoder::new()),
                        Framing::Endless => self.body = Body::Endless,
                    }
                    Ok(len)
                }
            },
            Body::Sized(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.finish(answers);
                }
                Ok(taken)
            }
            Body::Chunked(decoder) => {
                let step = decoder.step(input).map_err(|error| format!("the chunked body: {error}"))?;
                if step.done {
                    self.finish(answers);
                }
                Ok(step.consumed)
            }
            Body::Endless => Ok(input.len()),
        }
    }

    #[inline]
    fn finish(&mut self, answers: &mut Answers) {
        self.body = Body::Head;
        answers.count += 1;
        answers.last = self.meaning.last;
        if self.meaning.status >= FIRST_ERROR {
            answers.refused += 1;
            answers.status = self.meaning.status.into();
        }
    }

    #[inline]
    fn head(&mut self, input: &[u8]) -> Result<Head, String> {
        if !self.known_head.is_empty() && input.starts_with(&self.known_head) {
            self.meaning = self.known;
            return Ok(Head::Complete(self.known_head.len()));
        }
        self.parse_head(input)
    }

    fn parse_head(&mut self, input: &[u8]) -> Result<Head, String> {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut response = Response::new(&mut fields);
        let len = match response.parse(input) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(Head::Need),
            Err(error) => return Err(format!("no head of an HTTP answer: {error}")),
        };
        let status = response.code.unwrap_or_default();
        self.meaning = meaning(status, response.version == Some(1), response.headers)?;
        if len <= MAX_KNOWN_BYTES {
            self.known_head.clear();
            self.known_head.extend_from_slice(&input[..len]);
            self.known = self.meaning;
        }
        Ok(Head::Complete(len))
    }
}

fn meaning(status: u16, is_1_1: bool, fields: &[Header<'_>]) -> Result<Meaning, String> {
    let mut length = None;
    let mut is_chunked = false;
    let mut last = !is_1_1;
    for field in fields {
        let value = field.value.trim_ascii();
        if field.name.eq_ignore_ascii_case("Content-Length") {
            let found = number(value).ok_or_else(|| bad_field("Content-Length", value))?;
            if length.is_some_and(|length| length != found) {
                return Err("two different fields Content-Length in one answer".to_owned());
            }
            length = Some(found);
        } else if field.name.eq_ignore_ascii_case("Transfer-Encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(bad_field("Transfer-Encoding", value));
            }
            is_chunked = true;
        } else if field.name.eq_ignore_ascii_case("Connection") {
            for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    last = true;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    last = false;
                }
            }
        }
    }
    let framing = match (status, length) {
        (101, _) => return Err("the server changes to another protocol, which nobody asked for".to_owned()),
        (100..200, _) => Framing::Interim,
        (204 | 304, _) => Framing::Empty,
        _ if is_chunked => Framing::Chunked,
        (_, Some(length)) => Framing::Sized(length),
        (_, None) => Framing::Endless,
    };
    let last = last || framing == Framing::Endless;
    Ok(Meaning { status, framing, last: last && framing != Framing::Interim })
}

/// Digits only, unlike what `parse` would take.
fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok().filter(|_| value.iter().all(u8::is_ascii_digit))?;
    text.parse().ok()
}

fn bad_field(name: &str, value: &[u8]) -> String {
    format!("the field {name} is \"{}\", of which the end of the answer cannot be told", value.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http() -> Http {
        Http::new("/a", "example.org", &[("X-A".to_owned(), "b".to_owned())])
    }

    #[test]
    fn the_request_is_what_was_asked_for() {
        let http = http();
        let wire = http.ask(&mut Place::default()).concat();
        assert_eq!(wire, b"GET /a HTTP/1.1\r\nHost: example.org\r\nX-A: b\r\n\r\n");
    }

    /// Feeds the parts one by one, as an engine does that keeps what is left over; answers what was counted.
    #[expect(
        clippy::panic_in_result_fn,
        reason = "an error is an answer that is wrong, a panic a parser that is"
    )]
    fn drive<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Result<Answers, String> {
        let (http, mut place) = (http(), Place::default());
        let (mut kept, mut all) = (Vec::new(), Answers::default());
        for part in parts {
            kept.extend_from_slice(part);
            while !kept.is_empty() && !all.last {
                match http.hear(&mut place, &kept) {
                    Heard::Need(n) => {
                        assert!(n > kept.len());
                        break;
                    }
                    Heard::Answers { len, answers } => {
                        all = Answers {
                            count: all.count + answers.count,
                            refused: all.refused + answers.refused,
                            ..answers
                        };
                        kept.drain(..len);
                    }
                    Heard::Wrong(text) => return Err(text),
                }
            }
        }
        let end = http.hear_end(&mut place);
        Ok(Answers { count: all.count + end.count, refused: all.refused + end.refused, ..all })
    }

    /// Whole, byte by byte and at each split.
    fn check(wire: &[u8], count: u32, refused: u32) {
        let expected = Ok((count, refused));
        let told = |result: Result<Answers, String>| result.map(|answers| (answers.count, answers.refused));
        assert_eq!(told(drive([wire])), expected);
        assert_eq!(told(drive(wire.chunks(1))), expected);
        for at in 0..wire.len() {
            assert_eq!(told(drive([&wire[..at], &wire[at..]])), expected, "split at {at}");
        }
    }

    #[test]
    fn answers_of_each_framing_are_counted_however_they_are_cut() {
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 1, 0);
        check(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 2, 0);
        check(&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab".repeat(3), 3, 0);
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        check(&chunked.repeat(2), 2, 0);
        check(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 1, 1);
        check(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 1, 0);
    }

    #[test]
    fn a_known_head_gives_the_same_count_as_a_parsed_one() {
        let date = |second: u8| {
            format!("HTTP/1.1 200 OK\r\nDate: {second}\r\nContent-Length: 3\r\n\r\nabc").into_bytes()
        };
        let wire: Vec<u8> = [1, 1, 1, 2, 2, 1].into_iter().flat_map(date).collect();
        check(&wire, 6, 0);
    }

    #[test]
    fn a_connection_that_ends_says_so() {
        for (wire, last) in [
            (&b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"[..], true),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ] {
            assert_eq!(drive([wire]).unwrap().last, last, "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_answer_is_wrong() {
        for wire in [
            &b"SSH-2.0-x\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        ] {
            assert!(drive([wire]).is_err(), "{}", wire.escape_ascii());
        }
    }
}
