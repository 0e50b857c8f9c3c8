//! `Head`: what a request head says, as offsets into the bytes it was parsed from.
//!
//! Invariant: a `Head` borrows nothing and stays valid as long as the same bytes are given to its methods. It keeps what
//! every request needs; other fields are looked up in [`Head::fields`] when somebody asks.

use core::ops::Range;

use crate::{Fields, Host, HttpError, Method};

/// How large a request head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first one to the empty line; more: 431. Default 16 KiB.
    pub max_head_bytes: usize,
    /// Bytes of the target; more: 414. Effective below `max_head_bytes` only. Default 8 KiB.
    pub max_target_bytes: usize,
    /// Field lines; more: 431. Default 100.
    pub max_fields: usize,
    /// Bytes of a request that say nothing: the empty lines before the request line, which old clients send after a body
    /// (RFC 9112, section 2.2), and the extensions and trailers of a chunked body. In all; more: 400 for the lines, 431 for
    /// the others. Default 4 KiB.
    pub max_overhead_bytes: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            max_head_bytes: 16 << 10,
            max_target_bytes: 8 << 10,
            max_fields: 100,
            max_overhead_bytes: 4 << 10,
        }
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

/// Where something stands in a head: below [`MAX_OFFSET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offset(u32);

/// No parser looks further than this, whatever its limits are.
pub(crate) const MAX_OFFSET: usize = u32::MAX as usize;

impl Offset {
    #[inline]
    pub(crate) const fn new(at: usize) -> Self {
        debug_assert!(at <= MAX_OFFSET);
        #[expect(clippy::cast_possible_truncation, reason = "a parser stops at `MAX_OFFSET`")]
        Self(at as u32)
    }

    #[inline]
    const fn get(self) -> usize {
        self.0 as usize
    }
}

/// A request head. All offsets count from the start of the input that the parser saw. They have 32 bits, because a head is
/// handed on from hand to hand with every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) flags: u8,
    pub(crate) body: BodyFraming,
    /// Where the request line begins: what stands before it are empty lines.
    pub(crate) start: Offset,
    /// The host with its port is `host_start..host_end`, in the target or in the `Host` field; empty when there is none.
    pub(crate) host_start: Offset,
    pub(crate) host_end: Offset,
    /// The path is `path_start..path_end`; empty for an absolute-form without one.
    pub(crate) path_start: Offset,
    pub(crate) path_end: Offset,
    /// The end of the target, query included. `target_end >= path_end`.
    pub(crate) target_end: Offset,
    /// Where the first field line begins.
    pub(crate) fields_start: Offset,
    pub(crate) end: Offset,
}

/// The connection may stay open after the answer.
pub(crate) const KEEP_ALIVE: u8 = 1;
/// `Expect: 100-continue`.
pub(crate) const EXPECT_CONTINUE: u8 = 2;
/// An expectation other than `100-continue`.
pub(crate) const EXPECT_OTHER: u8 = 4;
/// There is at least one precondition.
pub(crate) const CONDITIONAL: u8 = 8;
/// There is a `Range`.
pub(crate) const RANGE: u8 = 16;
/// There is an `Accept-Encoding`.
pub(crate) const ACCEPT_ENCODING: u8 = 32;

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
    /// HTTP/1.0 only when it says `keep-alive`. Never behind a `CONNECT`.
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

    /// Whether `Range` is there.
    #[must_use]
    pub const fn has_range(&self) -> bool {
        self.flags & RANGE != 0
    }

    /// Whether `Accept-Encoding` is there.
    #[must_use]
    pub const fn has_accept_encoding(&self) -> bool {
        self.flags & ACCEPT_ENCODING != 0
    }

    /// How many bytes of empty lines stand before the request line. They count for
    /// [`HeadLimits::max_overhead_bytes`].
    #[must_use]
    pub const fn empty_line_bytes(&self) -> usize {
        self.start.get()
    }

    /// How many bytes of the input the head takes, with the empty lines before it and the one after it. Never 0.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.end.get()
    }

    /// The host that the request is for: that of an absolute-form or authority-form, which wins, or that of `Host`
    /// (RFC 9112, section 3.2.2). `None` only in HTTP/1.0.
    #[must_use]
    #[inline]
    pub fn host<'a>(&self, input: &'a [u8]) -> Option<Host<'a>> {
        Host::parse(&input[self.host_start.get()..self.host_end.get()])
    }

    /// The method as it was sent.
    #[must_use]
    pub fn method_token<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        let line = &input[self.start.get()..self.fields_start.get()];
        &line[..memchr::memchr(b' ', line).unwrap_or(0)]
    }

    /// The whole target as it was sent.
    #[must_use]
    pub fn target<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        let method = self.method_token(input);
        &input[self.start.get() + method.len() + 1..self.target_end.get()]
    }

    /// The path as it was sent: not decoded, not normalised. `/` for an absolute-form without a path, or `*` when the method
    /// is `OPTIONS` (RFC 9112, section 3.2.4); the whole target for the asterisk-form and the authority-form.
    #[must_use]
    #[inline]
    pub fn path<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        if self.path_start.get() == self.path_end.get() {
            let whole_server =
                matches!(self.method, Method::Options) && self.path_end.get() == self.target_end.get();
            return if whole_server { b"*" } else { b"/" };
        }
        &input[self.path_start.get()..self.path_end.get()]
    }

    /// The query, without its `?`.
    #[must_use]
    #[inline]
    pub fn query<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        (self.path_end.get() < self.target_end.get())
            .then(|| &input[self.path_end.get() + 1..self.target_end.get()])
    }

    /// The field lines.
    #[must_use]
    #[inline]
    pub fn fields<'a>(&self, input: &'a [u8]) -> Fields<'a> {
        Fields::new(&input[self.fields_start.get()..self.end.get()])
    }
}

/// Where host and path stand in a target; the query follows the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetParts {
    /// Empty in the origin-form and the asterisk-form.
    pub(crate) host: Range<usize>,
    pub(crate) path: Range<usize>,
}

/// Takes a target apart by its form (RFC 9112, section 3.2). `query` is where the `?` is, or the target's length.
#[inline]
pub(crate) fn split_target(method: Method, target: &[u8], query: usize) -> Result<TargetParts, HttpError> {
    match target {
        // authority-form goes with CONNECT, and with nothing else.
        _ if method == Method::Connect => {
            // Without a port nobody knows where to (RFC 9110, section 9.3.6).
            let port = Host::parse(target).and_then(|host| host.port());
            if port.is_none_or(|port| port == 0) {
                return Err(HttpError::Target);
            }
            Ok(TargetParts { host: 0..target.len(), path: 0..target.len() })
        }
        [b'/', ..] => Ok(TargetParts { host: 0..0, path: 0..query }),
        b"*" if method == Method::Options => Ok(TargetParts { host: 0..0, path: 0..1 }),
        _ => split_absolute_form(target, query),
    }
}

/// `http://authority[/path][?query]`. The authority must be a host, and has no user (RFC 9110, section 4.2.4).
fn split_absolute_form(target: &[u8], query: usize) -> Result<TargetParts, HttpError> {
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let Some(scheme) = scheme else { return Err(HttpError::Target) };
    let Some(rest) = target.get(scheme.len()..query) else { return Err(HttpError::Target) };
    let authority = memchr::memchr(b'/', rest).unwrap_or(rest.len());
    if Host::parse(&rest[..authority]).is_none() {
        return Err(HttpError::Target);
    }
    let path_start = scheme.len() + authority;
    Ok(TargetParts { host: scheme.len()..path_start, path: path_start..query })
}
