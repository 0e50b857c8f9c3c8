//! `Question`: what the models are asked, and the bytes of it and of its answer.
//!
//! Invariant: what a server of HTTP or frames must answer is what it answered to one request before; only the date of HTTP
//! may be another one.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use crate::{Exchange, ExchangeError};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A message of so many bytes that comes back.
    Echo {
        /// 8 to 1,048,576.
        size: usize,
    },
    /// `GET` of a path, answered with a status below 400 and a `Content-Length`.
    Http {
        /// Begins with a slash.
        path: String,
        /// The field `Host`.
        host: String,
    },
    /// The ping of the message protocol.
    Msg,
}

/// Why it cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// The numbers are out of bounds.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The server does not answer the first request.
    #[error("the first request to {to}")]
    First {
        /// The server.
        to: SocketAddr,
        /// What happened.
        source: io::Error,
    },
    /// It answers, but not so that the answers could be checked.
    #[error("the first answer of {to}: {reason}")]
    Answer {
        /// The server.
        to: SocketAddr,
        /// What is wrong with it.
        reason: String,
    },
}

/// The bytes of the question and of its answer, for which the server may have to be asked once.
///
/// # Errors
///
/// The numbers are out of bounds, or the server does not answer as it must.
pub(crate) fn exchange(
    to: SocketAddr,
    question: &Question,
    pipeline: usize,
) -> Result<Exchange, QuestionError> {
    let (request, end): (Vec<u8>, FindEnd) = match question {
        Question::Echo { size } => return Ok(Exchange::echo(*size, pipeline)?),
        Question::Http { path, host } => {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tidegate-bench\r\n\r\n");
            (request.into_bytes(), end_of_http)
        }
        Question::Msg => (PING.to_vec(), end_of_frame),
    };
    let first = |source: io::Error| QuestionError::First { to, source };
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(first)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(first)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(first)?;
    stream.write_all(&request).map_err(first)?;
    let refuse = |reason: String| QuestionError::Answer { to, reason };
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 16 << 10];
        let got = stream.read(&mut piece).map_err(first)?;
        if got == 0 {
            return Err(refuse(format!("it ended after {} bytes", answer.len())));
        }
        answer.extend_from_slice(&piece[..got]);
        match end(&answer).map_err(refuse)? {
            Some(len) if len == answer.len() => break,
            Some(len) if len > MAX_ANSWER_BYTES => {
                return Err(refuse(format!("{len} bytes are more than {MAX_ANSWER_BYTES}")));
            }
            Some(len) if answer.len() > len => {
                return Err(refuse("more bytes came than belong to it".into()));
            }
            None if answer.len() > MAX_HEAD_BYTES => {
                return Err(refuse(format!("no end of its head within {MAX_HEAD_BYTES} bytes")));
            }
            _ => {}
        }
    }
    Ok(Exchange::fixed(&request, &answer, date_of(&answer), pipeline)?)
}

/// Where the answer ends; `None` when that has not come yet.
type FindEnd = fn(&[u8]) -> Result<Option<usize>, String>;

/// A frame with code 0 and without a body (docs/protocol.md); it is answered with the same.
const PING: &[u8] = &[0, 8, 0, 0, 0, 0, 0, 0];
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: usize = 1 << 20;
const MAX_HEAD_BYTES: usize = 64 << 10;

fn end_of_frame(answer: &[u8]) -> Result<Option<usize>, String> {
    let whole = &PING[..answer.len().min(PING.len())] == answer;
    if whole { Ok(Some(PING.len())) } else { Err("it is not the frame that was sent".to_owned()) }
}

/// Where a response ends, once its head has come (RFC 9112, section 6.3).
fn end_of_http(answer: &[u8]) -> Result<Option<usize>, String> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&answer[..head]);
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    match status {
        None => return Err(format!("{status_line:?} is no status line of HTTP/1.1")),
        Some(status) if status >= 400 => return Err(format!("its status is {status}")),
        Some(_) => {}
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match length.and_then(|length| length.checked_add(head + 4)) {
        Some(end) => Ok(Some(end)),
        None => Err("it has no Content-Length".to_owned()),
    }
}

/// Where the value of the field `Date` stands.
fn date_of(answer: &[u8]) -> Range<usize> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(0);
    let name = b"\r\ndate:";
    let Some(at) = answer[..head].windows(name.len()).position(|window| window.eq_ignore_ascii_case(name))
    else {
        return 0..0;
    };
    let from = at + name.len();
    let len = answer[from..].iter().position(|byte| *byte == b'\r').unwrap_or(0);
    from..from + len
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo { size } => write!(f, "echo of {size} bytes"),
            Self::Http { path, .. } => write!(f, "GET {path}"),
            Self::Msg => f.write_str("ping of the message protocol"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 07:00:00 GMT\r\nContent-Length: 2\r\n\r\nhi";

    #[test]
    fn an_answer_of_http_ends_where_it_says() {
        assert_eq!(end_of_http(ANSWER), Ok(Some(ANSWER.len())));
        assert_eq!(end_of_http(&ANSWER[..20]), Ok(None));
        assert_eq!(&ANSWER[date_of(ANSWER)], b" Sat, 21 Nov 2026 07:00:00 GMT");
        for (bad, reason) in [
            (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..], "its status is 404"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "it has no Content-Length"),
            (b"SSH-2.0-x\r\n\r\n", "\"SSH-2.0-x\" is no status line of HTTP/1.1"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n", "it has no Content-Length"),
        ] {
            assert_eq!(end_of_http(bad), Err(reason.to_owned()));
        }
    }

    /// What comes of the first request when the server answers so.
    fn first(question: &Question, answer: &'static [u8]) -> Result<Exchange, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).unwrap();
            stream.write_all(answer).unwrap();
        });
        let made = exchange(to, question, 3);
        server.join().unwrap();
        made.map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_answer_is_what_is_expected_of_all() {
        let http = Question::Http { path: "/a".into(), host: "h".into() };
        let exchange = first(&http, ANSWER).unwrap();
        assert_eq!(exchange.answer_len(), ANSWER.len());
        assert_eq!(exchange.requests().len() % 3, 0);
        assert_eq!(first(&Question::Msg, PING).unwrap().requests(), PING.repeat(3));
    }

    #[test]
    fn an_answer_that_cannot_be_checked_is_refused_with_the_reason() {
        let refused = |question, answer| first(question, answer).unwrap_err();
        assert!(refused(&Question::Msg, b"HTTP/1.1").ends_with("it is not the frame that was sent"));
        assert!(refused(&Question::Msg, b"\0\x08\0\0").ends_with("it ended after 4 bytes"));
        let http = Question::Http { path: "/".into(), host: "h".into() };
        assert!(refused(&http, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy").ends_with("belong to it"));
    }
}
