//! `Response`: an answer that is put together for one request.
//!
//! Invariant: a handler cannot break the framing: length, date and connection are written when it is sent, and a field that
//! is no field becomes a 500.

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tidegate_engine::Io;
use tidegate_http::{Method, ResponseEncoder, SetCookie, Status, is_field_value, is_token};

use crate::BodyStream;
use crate::date::http_date;
use crate::delivery::Delivery;
use crate::fields::{OWN, SiteField, has_line, is_added, is_single};

/// The `Server` field. No version: it would tell whom to attack.
pub(crate) const SERVER: &str = "tidegate";
/// The type of an answer that names none.
pub(crate) const DEFAULT_CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// An answer: a status, fields and a body.
///
/// ```
/// use tidegate_web::{Response, Status};
/// let answer = Response::new(Status::OK).header("Content-Type", "application/json").body("{}");
/// # drop(answer);
/// ```
#[derive(Clone, Debug)]
pub struct Response {
    status: Status,
    fields: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    body: Body,
}

/// The content of a [`Response`].
#[derive(Clone, Debug, Default)]
pub enum Body {
    /// None at all.
    #[default]
    Empty,
    /// Bytes in memory.
    Bytes(Cow<'static, [u8]>),
    /// A part of a file, which the kernel copies to the socket.
    File(FileSlice),
    /// Bytes and parts of files, one after the other.
    Parts(Vec<Part>),
    /// Something that is made while it is sent.
    Stream(BodyStream),
}

/// A piece of [`Body::Parts`].
#[derive(Clone, Debug)]
pub enum Part {
    /// Bytes in memory.
    Bytes(Vec<u8>),
    /// A part of a file.
    File(FileSlice),
}

/// A part of an open file. When the file turns out to be shorter while it is sent, the connection is reset.
#[derive(Clone, Debug)]
pub struct FileSlice {
    /// The file, open for reading.
    pub file: Arc<OwnedFd>,
    /// Where the part begins, in bytes.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u64,
}

impl Body {
    /// How many bytes it has; 0 for a stream, of which nobody knows.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Empty | Self::Stream(_) => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(slice) => slice.len,
            Self::Parts(parts) => parts.iter().map(Part::len).sum(),
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && !matches!(self, Self::Stream(_))
    }

    fn send(self, io: &mut Io<'_>) {
        match self {
            // A stream follows when its head has been sent.
            Self::Empty | Self::Stream(_) => {}
            Self::Bytes(bytes) => io.send(&bytes),
            Self::File(slice) => slice.send(io),
            Self::Parts(parts) => parts.into_iter().for_each(|part| part.send(io)),
        }
    }
}

impl Part {
    pub(crate) const fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(slice) => slice.len,
        }
    }

    pub(crate) fn send(self, io: &mut Io<'_>) {
        match self {
            Self::Bytes(bytes) => io.send(&bytes),
            Self::File(slice) => slice.send(io),
        }
    }

    /// The first `len` bytes, and the rest if there is any.
    pub(crate) fn split(self, len: u64) -> (Self, Option<Self>) {
        if self.len() <= len {
            return (self, None);
        }
        match self {
            Self::Bytes(mut bytes) => {
                let rest = bytes.split_off(usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len()));
                (Self::Bytes(bytes), Some(Self::Bytes(rest)))
            }
            Self::File(FileSlice { file, offset, len: whole }) => {
                let rest = FileSlice { file: Arc::clone(&file), offset: offset + len, len: whole - len };
                (Self::File(FileSlice { file, offset, len }), Some(Self::File(rest)))
            }
        }
    }
}

impl FileSlice {
    fn send(self, io: &mut Io<'_>) {
        io.send_file(self.file, self.offset, self.len);
    }
}

impl From<BodyStream> for Body {
    fn from(stream: BodyStream) -> Self {
        Self::Stream(stream)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        text.as_bytes().to_vec().into()
    }
}

impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl Response {
    /// An answer without a body. Its type is `text/plain; charset=utf-8` unless a `Content-Type` says otherwise.
    #[must_use]
    pub const fn new(status: Status) -> Self {
        Self { status, fields: Vec::new(), body: Body::Empty }
    }

    /// The page that says what a status means.
    pub(crate) fn page(status: Status) -> Self {
        let page = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{status}</title>\n<h1>{status}</h1>\n"
        );
        Self::new(status).header("Content-Type", "text/html; charset=utf-8").body(page)
    }

    /// Adds a field. One of which there can be but one, such as `Content-Type` or `Location`, takes the place of the one that
    /// was there before.
    ///
    /// `Connection`, `Content-Length`, `Date`, `Server` and `Transfer-Encoding` are the service's own. One of these, a name
    /// that is no token, or a value with a line break makes the answer a 500, which is logged.
    #[must_use]
    pub fn header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        self.add(name.into(), value.into());
        self
    }

    fn add(&mut self, name: Cow<'static, str>, value: Cow<'static, str>) {
        let before = self.fields.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(&name));
        match before {
            Some(before) if is_single(&name) => *before = (name, value),
            _ => self.fields.push((name, value)),
        }
    }

    /// Has the client keep a cookie, or forget one.
    #[must_use]
    pub fn cookie(self, cookie: &SetCookie) -> Self {
        self.header("Set-Cookie", cookie.to_string())
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets another status.
    #[must_use]
    pub const fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Adds the fields of another answer.
    pub(crate) fn with_fields_of(mut self, other: Self) -> Self {
        for (name, value) in other.fields {
            self.add(name, value);
        }
        self
    }

    /// What its body is made of while it is sent, when it can be sent as it is and the client wants it.
    pub(crate) fn stream(&self, delivery: Delivery) -> Option<BodyStream> {
        match &self.body {
            Body::Stream(stream)
                if delivery.method != Method::Head && self.status.has_content() && self.fault().is_none() =>
            {
                Some(stream.clone())
            }
            _ => None,
        }
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.status
    }

    /// The first field of this name, compared without case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let named = self.fields.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_ref())
    }

    /// Its body, when that is text in memory.
    #[cfg(feature = "accounts")]
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.body {
            Body::Bytes(bytes) => str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The content that a request of this method gets.
    pub(crate) fn content(&self, method: Method) -> &Body {
        const NONE: &Body = &Body::Empty;
        if method == Method::Head || !self.status.has_content() { NONE } else { &self.body }
    }

    /// What is wrong with it, if it cannot be sent as it is.
    pub(crate) fn fault(&self) -> Option<&str> {
        if self.status.class() == 1 {
            return Some("an interim status");
        }
        let wrong = self.fields.iter().find(|(name, value)| !is_allowed(name, value));
        wrong.map(|(name, _)| name.as_ref())
    }

    /// Sends it with the fields of its site that are to be [added](is_added), and with `more` fields, whole lines, which stand
    /// in place of single ones of their names. Answers how many bytes its head has.
    pub(crate) fn send(self, io: &mut Io<'_>, delivery: Delivery, site: &[SiteField], more: &[u8]) -> usize {
        let len = self.body.len();
        let in_memory = if let Body::Bytes(bytes) = &self.body { bytes.len() } else { 0 };
        let mut out = Vec::with_capacity(256 + in_memory);
        let mut encoder = ResponseEncoder::new(&mut out, self.status)
            .field("Server", SERVER)
            .field("Date", http_date(io.unix_time()));
        let is_type = |name: &str| name.eq_ignore_ascii_case("content-type");
        let has_type = self.field("content-type").is_some() || site.iter().any(|(name, _)| is_type(name));
        if self.status.has_content() && !has_type {
            encoder = encoder.field("Content-Type", DEFAULT_CONTENT_TYPE);
        }
        for (name, value) in site {
            if is_added((name, value), self.values(name)) && (self.status.has_content() || !is_type(name)) {
                encoder = encoder.field(name, value.as_bytes());
            }
        }
        for (name, value) in &self.fields {
            if !(is_single(name) && has_line(more, name)) {
                encoder = encoder.field(name, value.as_bytes());
            }
        }
        let encoder = encoder.lines(more);
        if !self.status.has_content() {
            encoder.without_content();
            io.send(&out);
            return out.len();
        }
        if let Body::Stream(_) = self.body {
            let encoder =
                if delivery.chunked { encoder.field("Transfer-Encoding", "chunked") } else { encoder };
            encoder.without_content();
            io.send(&out);
            return out.len();
        }
        // To HEAD, the length that the same GET would have (RFC 9110, section 8.6).
        encoder.content_length(len);
        let head_len = out.len();
        match self.body {
            _ if delivery.method == Method::Head => io.send(&out),
            Body::Bytes(bytes) => {
                out.extend_from_slice(&bytes);
                io.send(&out);
            }
            body => {
                io.send(&out);
                body.send(io);
            }
        }
        head_len
    }
}

fn is_allowed(name: &str, value: &str) -> bool {
    is_token(name.as_bytes())
        && is_field_value(value.as_bytes())
        && !OWN.iter().any(|own| name.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_would_break_the_framing_are_not_allowed() {
        assert!(is_allowed("X-A", "b c") && is_allowed("Content-Type", "text/html"));
        for (name, value) in
            [("content-length", "1"), ("X A", "b"), ("", "b"), ("X", "b\r\nY: c"), ("Connection", "close")]
        {
            assert!(!is_allowed(name, value), "{name}: {value}");
        }
        assert_eq!(Response::new(Status::OK).header("date", "today").fault(), Some("date"));
        assert_eq!(Response::new(Status::CONTINUE).fault(), Some("an interim status"));
        assert_eq!(Response::page(Status::NOT_FOUND).fault(), None);
    }

    #[test]
    fn a_field_that_is_single_is_replaced() {
        let answer =
            Response::new(Status::OK).header("Content-Type", "a/b").header("X", "1").header("x", "2");
        let answer = answer.header("content-type", "c/d");
        assert_eq!(
            answer.fields,
            [("content-type", "c/d"), ("X", "1"), ("x", "2")].map(|(n, v)| (n.into(), v.into()))
        );
        let added = Response::new(Status::OK).header("ETag", "\"1\"").header("CONTENT-TYPE", "e/f");
        let both = answer.with_fields_of(added);
        assert_eq!((both.field("Content-Type"), both.fields.len()), (Some("e/f"), 4));
    }

    #[test]
    fn a_body_knows_its_length() {
        let file = Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
        let slice = FileSlice { file, offset: 3, len: 1 << 40 };
        let parts = vec![Part::Bytes(b"abc".to_vec()), Part::File(slice.clone()), Part::Bytes(Vec::new())];
        assert_eq!(Body::Parts(parts).len(), (1 << 40) + 3);
        assert_eq!(Body::File(slice).len(), 1 << 40);
        assert_eq!(Body::from("abc").len(), 3);
        assert!(Body::Empty.is_empty() && Body::from("").is_empty());
    }
}
