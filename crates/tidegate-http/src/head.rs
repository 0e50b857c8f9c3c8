//! `Head`: what a request head says, as offsets into the bytes it was parsed from.
//!
//! Invariant: a `Head` borrows nothing and stays valid as long as the same bytes are given to its methods. It keeps what
//! every request needs; other fields are looked up in [`Head::fields`] when somebody asks.

use crate::{Fields, HttpError, Method};

/// How large a request head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first one to the empty line; more: 431. Default 16 KiB.
    pub max_head_bytes: usize,
    /// Bytes of the target; more: 414. Effective below `max_head_bytes` only. Default 8 KiB.
    pub max_target_bytes: usize,
    /// Field lines; more: 431. Default 100.
    pub max_fields: usize,
    /// Empty lines before the request line, which old clients send after a body (RFC 9112, section 2.2); more: 400.
    /// Default 4.
    pub max_empty_lines: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { max_head_bytes: 16 << 10, max_target_bytes: 8 << 10, max_fields: 100, max_empty_lines: 4 }
    }
}

/// The versions a request may have. A minor version above 1 counts as 1 (RFC 9110, section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1 and above.
    Http11,
}

/// How the end of a request's body is found (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body.
    None,
    /// `Content-Length`, which is not 0. A number beyond 64 bits is `u64::MAX`.
    Length(u64),
    /// `Transfer-Encoding: chunked`; see [`ChunkedDecoder`](crate::ChunkedDecoder).
    Chunked,
}

/// What [`HeadParser::parse`](crate::HeadParser::parse) made of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The head is not complete; give the parser the same bytes with more behind them.
    Need,
    /// A complete head.
    Head(Head),
}

/// A request head. All offsets count from the start of the input that the parser saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) flags: u8,
    pub(crate) body: BodyFraming,
    /// The path is `path_start..path_end`; empty for an absolute-form without one.
    pub(crate) path_start: usize,
    pub(crate) path_end: usize,
    /// The end of the target, query included. `target_end >= path_end`.
    pub(crate) target_end: usize,
    /// Where the first field line begins.
    pub(crate) fields_start: usize,
    pub(crate) end: usize,
}

/// The connection may stay open after the answer.
pub(crate) const KEEP_ALIVE: u8 = 1;
/// `Expect: 100-continue`.
pub(crate) const EXPECT_CONTINUE: u8 = 2;
/// An expectation other than `100-continue`.
pub(crate) const EXPECT_OTHER: u8 = 4;
/// There is at least one precondition.
pub(crate) const CONDITIONAL: u8 = 8;

impl Head {
    /// The method.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The version.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// What follows the head.
    #[must_use]
    pub const fn body(&self) -> BodyFraming {
        self.body
    }

    /// Whether the client wants to keep the connection (RFC 9112, section 9.3): in HTTP/1.1 unless it says `close`, in
    /// HTTP/1.0 only when it says `keep-alive`.
    #[must_use]
    pub const fn keep_alive(&self) -> bool {
        self.flags & KEEP_ALIVE != 0
    }

    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110, section 10.1.1). Never in HTTP/1.0.
    #[must_use]
    pub const fn expects_continue(&self) -> bool {
        self.flags & EXPECT_CONTINUE != 0
    }

    /// Whether the client has an expectation that nobody knows, to be answered with 417.
    #[must_use]
    pub const fn expects_unknown(&self) -> bool {
        self.flags & EXPECT_OTHER != 0
    }

    /// Whether `If-Match`, `If-None-Match`, `If-Modified-Since` or `If-Unmodified-Since` is there.
    #[must_use]
    pub const fn is_conditional(&self) -> bool {
        self.flags & CONDITIONAL != 0
    }

    /// How many bytes of the input the head takes, with the empty lines before it and the one after it. Never 0.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.end
    }

    /// The path as it was sent: not decoded, not normalised. `/` for an absolute-form without a path; the whole target for
    /// the asterisk-form and the authority-form.
    #[must_use]
    pub fn path<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        if self.path_start == self.path_end {
            return b"/";
        }
        &input[self.path_start..self.path_end]
    }

    /// The query, without its `?`.
    #[must_use]
    pub fn query<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        (self.path_end < self.target_end).then(|| &input[self.path_end + 1..self.target_end])
    }

    /// The field lines.
    #[must_use]
    pub fn fields<'a>(&self, input: &'a [u8]) -> Fields<'a> {
        Fields::new(&input[self.fields_start..self.end])
    }
}

/// The part of a target that is the path (RFC 9112, section 3.2), as offsets into the target: start and end.
///
/// `query` is where the `?` is, or the target's length.
pub(crate) fn path_of_target(
    method: Method,
    target: &[u8],
    query: usize,
) -> Result<(usize, usize), HttpError> {
    match target {
        [b'/', ..] if method != Method::Connect => Ok((0, query)),
        // authority-form goes with CONNECT, and with nothing else.
        _ if method == Method::Connect => {
            if target.contains(&b'/') || query != target.len() || !target.contains(&b':') {
                return Err(HttpError::Target);
            }
            Ok((0, target.len()))
        }
        b"*" if method == Method::Options => Ok((0, 1)),
        _ => absolute_form(target, query),
    }
}

/// `http://authority[/path][?query]`. The authority must not be empty, and has no user (RFC 9110, section 4.2.4).
fn absolute_form(target: &[u8], query: usize) -> Result<(usize, usize), HttpError> {
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let Some(scheme) = scheme else { return Err(HttpError::Target) };
    let Some(rest) = target.get(scheme.len()..query) else { return Err(HttpError::Target) };
    let authority = memchr::memchr(b'/', rest).unwrap_or(rest.len());
    if authority == 0 || rest[..authority].contains(&b'@') {
        return Err(HttpError::Target);
    }
    Ok((scheme.len() + authority, query))
}
