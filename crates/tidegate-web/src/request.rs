//! `Request` and `Response`: what a handler sees and what it answers.
//!
//! Invariant: a handler cannot break the framing: length, date and connection are written by the service, and a field that
//! is no field becomes a 500.

use tidegate_engine::{Io, PeerAddress};
use tidegate_http::{Head, Method, Status, is_field_value, is_token};

use crate::answer::{self, Delivery};
use crate::builder::DEFAULT_CONTENT_TYPE;

/// A `GET` or `HEAD` request, as a handler sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub(crate) head: &'a Head,
    pub(crate) bytes: &'a [u8],
    pub(crate) path: &'a str,
    pub(crate) peer: PeerAddress,
}

impl<'a> Request<'a> {
    /// `GET` or `HEAD`. A handler answers both alike; the body of an answer to `HEAD` is left out for it.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.head.method()
    }

    /// The path under which the handler was found.
    #[must_use]
    pub const fn path(&self) -> &'a str {
        self.path
    }

    /// The query as it was sent, without its `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        // A target is ASCII: the parser lets nothing else through.
        self.head.query(self.bytes).and_then(|query| str::from_utf8(query).ok())
    }

    /// The first field of this name, compared without case. One that is not UTF-8 counts as absent.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.head.fields(self.bytes).named(name).next().and_then(|value| str::from_utf8(value).ok())
    }

    /// Who asks.
    #[must_use]
    pub const fn peer(&self) -> PeerAddress {
        self.peer
    }
}

/// The answer of a handler.
///
/// ```
/// use tidegate_web::{Response, Status};
/// let answer = Response::new(Status::OK).header("Content-Type", "application/json").body("{}");
/// # drop(answer);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: Status,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    /// An answer without a body. Its type is `text/plain; charset=utf-8` unless a `Content-Type` says otherwise.
    #[must_use]
    pub const fn new(status: Status) -> Self {
        Self { status, fields: Vec::new(), body: Vec::new() }
    }

    /// Adds a field.
    ///
    /// `Connection`, `Content-Length`, `Date`, `Server` and `Transfer-Encoding` are the service's own. One of these, a name
    /// that is no token, or a value with a line break makes the answer a 500, which is logged.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn send(&self, io: &mut Io<'_>, delivery: Delivery, path: &str) {
        if let Some((name, _)) = self.fields.iter().find(|(name, value)| !is_allowed(name, value)) {
            tracing::error!(path, field = name.as_str(), "handler answered a field that is not allowed");
            return answer::send_status(io, delivery, Status::INTERNAL_SERVER_ERROR, &[]);
        }
        if self.status.class() == 1 {
            tracing::error!(path, status = self.status.code(), "handler answered an interim status");
            return answer::send_status(io, delivery, Status::INTERNAL_SERVER_ERROR, &[]);
        }
        let mut fields: Vec<(&str, &str)> = Vec::with_capacity(self.fields.len() + 1);
        if self.status.has_content()
            && !self.fields.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-type"))
        {
            fields.push(("Content-Type", DEFAULT_CONTENT_TYPE));
        }
        fields.extend(self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        answer::send(io, delivery, self.status, &fields, &self.body);
    }
}

fn is_allowed(name: &str, value: &str) -> bool {
    const OWN: [&str; 5] = ["connection", "content-length", "date", "server", "transfer-encoding"];
    is_token(name.as_bytes())
        && is_field_value(value.as_bytes())
        && !OWN.iter().any(|own| name.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn fields_that_would_break_the_framing_are_not_allowed() {
        assert!(is_allowed("X-A", "b c") && is_allowed("Content-Type", "text/html"));
        for (name, value) in
            [("content-length", "1"), ("X A", "b"), ("", "b"), ("X", "b\r\nY: c"), ("Connection", "close")]
        {
            assert!(!is_allowed(name, value), "{name}: {value}");
        }
    }
}
