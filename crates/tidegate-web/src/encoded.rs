//! `Encoded`: an answer that is written once and sent many times.
//!
//! Invariant: the bytes are a complete answer, from the status line to the last byte of the body. Only the 29 bytes of the
//! date ever change, in place, at most once a second; so a request costs one copy to the output and nothing else.

use tidegate_engine::Io;
use tidegate_http::{HTTP_DATE_LEN, Method, ResponseEncoder, Status, format_http_date};

use crate::answer::Delivery;
use crate::counters;

/// An answer ready to be sent. Without a body of its own it is the head for a body that follows.
#[derive(Debug)]
pub(crate) struct Encoded {
    status: Status,
    bytes: Vec<u8>,
    /// Where the date stands.
    date_at: usize,
    /// Where the empty line begins; a `Connection` field goes here.
    fields_end: usize,
    /// The second that the date names.
    second: u64,
}

/// What follows the head.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'a> {
    /// These bytes, kept with the head.
    Inline(&'a [u8]),
    /// This many bytes that are sent apart from the head.
    Apart(u64),
}

impl Encoded {
    /// Writes the answer, its date being 1970 until it is sent.
    pub(crate) fn new(status: Status, fields: &[(&str, &str)], content: Content<'_>) -> Self {
        let mut bytes = Vec::new();
        let encoder = ResponseEncoder::new(&mut bytes, status).field("Server", SERVER);
        let date_at = encoder.position() + "Date: ".len();
        let mut encoder = encoder.field("Date", format_http_date(0));
        for (name, value) in fields {
            encoder = encoder.field(name, value);
        }
        let body_len = match content {
            Content::Inline(body) => {
                encoder.body(body);
                if status.has_content() { body.len() } else { 0 }
            }
            Content::Apart(len) => {
                encoder.content_length(len);
                0
            }
        };
        bytes.shrink_to_fit();
        let fields_end = bytes.len() - body_len - b"\r\n".len();
        Self { status, bytes, date_at, fields_end, second: 0 }
    }

    /// Sends the head, and the body if it is kept here and the request wants it. Counts the answer.
    #[inline]
    pub(crate) fn send(&mut self, io: &mut Io<'_>, delivery: Delivery) {
        self.set_date(io.unix_time());
        if let Some(counter) = counters::of_status(self.status) {
            io.count(counter, 1);
        }
        let bytes = if delivery.method == Method::Head {
            &self.bytes[..self.fields_end + b"\r\n".len()]
        } else {
            &self.bytes[..]
        };
        match delivery.connection.field() {
            None => io.send(bytes),
            Some(field) => {
                io.send_vectored(&[&bytes[..self.fields_end], field, &bytes[self.fields_end..]]);
            }
        }
    }

    #[inline]
    fn set_date(&mut self, second: u64) {
        if second != self.second {
            self.second = second;
            self.bytes[self.date_at..self.date_at + HTTP_DATE_LEN].copy_from_slice(&format_http_date(second));
        }
    }
}

/// The `Server` field. No version: it would tell whom to attack.
pub(crate) const SERVER: &str = "tidegate";
