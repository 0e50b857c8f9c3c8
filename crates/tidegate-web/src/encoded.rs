//! `Encoded`: an answer that is written once and sent many times.
//!
//! Invariant: the bytes are a complete answer, from the status line to the last byte of the body, or to the end of the head
//! when the body is a file. They never change; the date is put in while they are copied to the output, so a request costs
//! that copy and nothing else.

use tidegate_engine::Io;
use tidegate_http::{Method, ResponseEncoder, Status, format_http_date};

use crate::date::http_date;
use crate::delivery::Delivery;
use crate::response::{Body, FileSlice, SERVER};

/// An answer ready to be sent.
#[derive(Debug)]
pub(crate) struct Encoded {
    status: Status,
    bytes: Box<[u8]>,
    /// Where the date stands.
    date_at: usize,
    /// Where the empty line begins; fields of the moment go here.
    fields_end: usize,
    /// The body, when it does not stand behind the head.
    file: Option<FileSlice>,
}

/// What follows the head.
#[derive(Clone, Debug)]
pub(crate) enum Content<'a> {
    /// These bytes, kept with the head.
    Inline(&'a [u8]),
    /// A part of a file.
    File(FileSlice),
}

impl Content<'_> {
    /// How many bytes it has.
    pub(crate) const fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::File(slice) => slice.len,
        }
    }
}

impl Encoded {
    /// Writes the answer.
    pub(crate) fn new(status: Status, fields: &[(&str, &str)], content: Content<'_>) -> Self {
        let mut bytes = Vec::new();
        let encoder = ResponseEncoder::new(&mut bytes, status).field("Server", SERVER);
        let date_at = encoder.position() + "Date: ".len();
        let mut encoder = encoder.field("Date", format_http_date(0));
        for (name, value) in fields {
            encoder = encoder.field(name, value);
        }
        let (file, body_len) = match content {
            Content::Inline(body) => {
                encoder.body(body);
                (None, if status.has_content() { body.len() } else { 0 })
            }
            Content::File(slice) => {
                encoder.content_length(slice.len);
                (Some(slice), 0)
            }
        };
        let fields_end = bytes.len() - body_len - b"\r\n".len();
        Self { status, bytes: bytes.into(), date_at, fields_end, file }
    }

    /// The body.
    pub(crate) fn content(&self) -> Content<'_> {
        match &self.file {
            Some(slice) => Content::File(slice.clone()),
            None => Content::Inline(&self.bytes[self.head_len()..]),
        }
    }

    /// How much memory it takes, in bytes; a file is not counted.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }

    pub(crate) const fn status(&self) -> Status {
        self.status
    }

    /// How many bytes the head has.
    #[inline]
    pub(crate) const fn head_len(&self) -> usize {
        self.fields_end + b"\r\n".len()
    }

    /// How many bytes a request of this method gets behind the head.
    #[inline]
    pub(crate) fn content_len(&self, method: Method) -> u64 {
        let inline = self.bytes.len() - self.head_len();
        match &self.file {
            _ if method == Method::Head => 0,
            Some(file) => file.len,
            None => inline as u64,
        }
    }

    /// The content, for one who sends it by and by.
    pub(crate) fn body(&self) -> Body {
        match &self.file {
            Some(file) => Body::File(file.clone()),
            None => Body::from(&self.bytes[self.head_len()..]),
        }
    }

    /// Sends the head with `more` fields, whole lines, and the body if the request wants it.
    #[inline]
    pub(crate) fn send(&self, io: &mut Io<'_>, delivery: Delivery, more: &[u8]) {
        let date = http_date(io.unix_time());
        let wants_body = delivery.method != Method::Head;
        let end = if wants_body { self.bytes.len() } else { self.head_len() };
        if more.is_empty() {
            io.send_patched(&self.bytes[..end], self.date_at, &date);
        } else {
            io.send_patched(&self.bytes[..self.fields_end], self.date_at, &date);
            io.send_vectored(&[more, &self.bytes[self.fields_end..end]]);
        }
        if let Some(FileSlice { file, offset, len }) = &self.file
            && wants_body
        {
            io.send_file(file.clone(), *offset, *len);
        }
    }
}
