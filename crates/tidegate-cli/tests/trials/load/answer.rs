//! `Answer`: reads one answer as it comes, and compares each byte with what must come.
//!
//! Invariant: bytes are only ever taken for this one answer; more than it has is an error, since nothing was asked for.

use std::sync::Arc;

/// What must come.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// Status 200 with this body, or the server's 503.
    Http(Arc<[u8]>),
    /// These bytes.
    Frame(&'static [u8]),
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Partial,
    Complete(End),
}

/// What a complete answer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The connection stays.
    Kept,
    /// The connection ends: `Connection: close`.
    Last,
    /// The server had no room: 503, which ends the connection as well.
    Overloaded,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Answer {
    expected: Expected,
    /// The head so far; of a frame, nothing.
    head: Vec<u8>,
    /// Known from the end of the head on.
    body: Option<Body>,
    /// All bytes of it.
    received: usize,
}

#[derive(Clone, Copy, Debug)]
struct Body {
    length: usize,
    received: usize,
    end: End,
}

const MAX_HEAD_BYTES: usize = 4096;

impl Answer {
    pub(super) fn new(expected: Expected) -> Self {
        let mut answer = Self { expected, head: Vec::new(), body: None, received: 0 };
        answer.begin();
        answer
    }

    /// The next answer begins.
    pub(super) fn begin(&mut self) {
        self.head.clear();
        self.received = 0;
        self.body = match &self.expected {
            Expected::Http(_) => None,
            Expected::Frame(frame) => Some(Body { length: frame.len(), received: 0, end: End::Kept }),
        };
    }

    pub(super) fn received(&self) -> usize {
        self.received
    }

    /// Takes bytes; an error says in what they are wrong.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Progress, String> {
        self.received += bytes.len();
        if let Some(body) = self.body {
            return self.take_body(body, bytes);
        }
        // Most answers come whole; only a head in pieces has to be searched anew.
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(at) = self.head.windows(4).position(|window| window == b"\r\n\r\n") else {
            let is_long = self.head.len() > MAX_HEAD_BYTES;
            return if is_long { Err("a head without an end".to_owned()) } else { Ok(Progress::Partial) };
        };
        let body = read_head(&self.head[..at])?;
        self.take_body(body, &bytes[at + 4 - before..])
    }

    fn take_body(&mut self, mut body: Body, bytes: &[u8]) -> Result<Progress, String> {
        let expected: &[u8] = match (&self.expected, body.end) {
            (_, End::Overloaded) => &[],
            (Expected::Http(expected), _) => expected,
            (Expected::Frame(frame), _) => frame,
        };
        let so_far = body.received;
        body.received += bytes.len();
        if body.received > body.length {
            return Err(format!("{} bytes more than the answer has", body.received - body.length));
        }
        let is_right = expected.get(so_far..body.received).is_some_and(|expected| expected == bytes);
        if body.end != End::Overloaded && (expected.len() != body.length || !is_right) {
            return Err(format!("wrong bytes in {so_far}..{} of a body of {}", body.received, body.length));
        }
        self.body = Some(body);
        let is_complete = body.received == body.length;
        Ok(if is_complete { Progress::Complete(body.end) } else { Progress::Partial })
    }
}

fn read_head(head: &[u8]) -> Result<Body, String> {
    let head = std::str::from_utf8(head).map_err(|_| "a head that is not text".to_owned())?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let status = head.split(' ').nth(1).unwrap_or_default();
    let length = field("Content-Length: ").and_then(|length| length.parse().ok());
    let length = length.ok_or_else(|| format!("a head without a length: {head:?}"))?;
    let end = match (status, field("Connection: ")) {
        ("503", _) => End::Overloaded,
        ("200", Some("close")) => End::Last,
        ("200", _) => End::Kept,
        _ => return Err(format!("status {status}")),
    };
    Ok(Body { length, received: 0, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n";

    fn check(text: &str, expect: &Result<Progress, String>) {
        for split in 0..=text.len() {
            let mut answer = Answer::new(Expected::Http(Arc::from(*b"hello")));
            let (first, second) = text.as_bytes().split_at(split);
            let outcome = match answer.take(first) {
                Err(error) => Err(error),
                Ok(progress) if second.is_empty() => Ok(progress),
                Ok(Progress::Complete(_)) => answer.take(second),
                Ok(Progress::Partial) => answer.take(second),
            };
            assert_eq!(outcome.is_ok(), expect.is_ok(), "{split}: {outcome:?}");
            assert!(outcome.is_err() || &outcome == expect, "{split}: {outcome:?}");
        }
    }

    #[test]
    fn an_answer_is_read_at_every_split() {
        check(&format!("{HEAD}\r\nhello"), &Ok(Progress::Complete(End::Kept)));
        check(&format!("{HEAD}Connection: close\r\n\r\nhello"), &Ok(Progress::Complete(End::Last)));
        check("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nfull", &Ok(Progress::Complete(End::Overloaded)));
        check(&format!("{HEAD}\r\nhell"), &Ok(Progress::Partial));
        check(&format!("{HEAD}\r\nhellO"), &Err(String::new()));
        check(&format!("{HEAD}\r\nhello!"), &Err(String::new()));
        check("HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\nhello", &Err(String::new()));
    }
}
