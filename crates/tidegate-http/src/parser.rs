//! `HeadParser`: received bytes to a [`Head`], in one pass, strictly after RFC 9112.
//!
//! Invariant: what the parser says depends only on the bytes, never on how they were cut into pieces. It reads from left to
//! right and decides at each byte; an error is reported at the first byte that makes the head wrong, and what a complete
//! head lacks is reported at its end.
//!
//! ```text
//!            empty line           complete
//!            +------+             request line           field line
//!            v      |                |                   +------+
//!  new --> [ request line ] -------------------------> [ fields ] <+
//!                                                        | empty line
//!                                                        v
//!                                             whole-head checks: Host, body framing, target form
//! ```
//!
//! A parser that was answered [`Parsed::Need`] remembers the lines it has done, so a head that arrives byte by byte costs a
//! second look at the current line only: at most the target's limit for the request line, and the rest is scanned by words.

use crate::bytes::{QUERY, TARGET, TOKEN, class, field_value_len, is_token, trim_ows};
use crate::head::{
    ACCEPT_ENCODING, CONDITIONAL, EXPECT_CONTINUE, EXPECT_OTHER, KEEP_ALIVE, MAX_OFFSET, Offset, RANGE,
    split_target,
};
use crate::host;
use crate::{BodyFraming, Head, HeadLimits, HttpError, Method, Parsed, Version};

/// Parses a head from input that is not continued later. See [`HeadParser`] for input that may be.
///
/// # Errors
///
/// The head is malformed or over a limit.
pub fn parse_head(input: &[u8], limits: &HeadLimits) -> Result<Parsed, HttpError> {
    HeadParser::new().parse(input, limits)
}

/// A request head in the making. After a [`Parsed::Head`] or an error it is spent, but for its [method](Self::method).
#[derive(Clone, Debug)]
pub struct HeadParser {
    /// Where the first line begins that has not been done. All before it is.
    at: usize,
    /// Where the request line begins, behind the empty lines.
    start: usize,
    /// Where the field lines begin; 0 until the request line is done.
    fields_start: usize,
    fields: usize,
    method: Method,
    version: Version,
    /// Empty until a host is known. The one of the target stays when `Host` comes.
    host_start: usize,
    host_end: usize,
    path_start: usize,
    path_end: usize,
    target_end: usize,
    content_length: Option<u64>,
    coding: Coding,
    flags: u8,
    seen_host: bool,
    seen_close: bool,
    seen_keep_alive: bool,
}

/// What the `Transfer-Encoding` lines so far come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    None,
    Chunked,
    /// Something else, perhaps with `chunked` at its end.
    Unknown,
    UnknownThenChunked,
}

/// The longest method there is has 17 bytes (UPDATEREDIRECTREF).
const MAX_METHOD_BYTES: usize = 32;

impl Default for HeadParser {
    fn default() -> Self {
        Self::new()
    }
}

impl HeadParser {
    /// A parser that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            at: 0,
            start: 0,
            fields_start: 0,
            fields: 0,
            method: Method::Other,
            version: Version::Http11,
            host_start: 0,
            host_end: 0,
            path_start: 0,
            path_end: 0,
            target_end: 0,
            content_length: None,
            coding: Coding::None,
            flags: 0,
            seen_host: false,
            seen_close: false,
            seen_keep_alive: false,
        }
    }

    /// The method, once the blank behind it has been read; until then, and where it is none, [`Method::Other`]. Whoever
    /// answers a head that is malformed or does not end knows by it whether the answer has content.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Goes on with `input`, which begins with all the bytes of the earlier calls. `limits` are the same each time.
    ///
    /// # Errors
    ///
    /// The head is malformed or over a limit.
    #[inline]
    pub fn parse(&mut self, input: &[u8], limits: &HeadLimits) -> Result<Parsed, HttpError> {
        let max_head_bytes = limits.max_head_bytes.min(MAX_OFFSET);
        let window = &input[..input.len().min(max_head_bytes)];
        if let Some(end) = self.lines(window, limits)? {
            return self.finish(end).map(Parsed::Head);
        }
        if window.len() == max_head_bytes { Err(HttpError::HeadTooLarge) } else { Ok(Parsed::Need) }
    }

    /// Where the head ends, once all of its lines are there.
    #[inline]
    fn lines(&mut self, input: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HttpError> {
        if self.fields_start == 0 && !self.request_line(input, limits)? {
            return Ok(None);
        }
        loop {
            match input.get(self.at..).unwrap_or_default() {
                [b'\r', b'\n', ..] => return Ok(Some(self.at + 2)),
                [] | [b'\r'] => return Ok(None),
                [b'\r' | b'\n', ..] => return Err(HttpError::LineEnd),
                [b' ' | b'\t', ..] => return Err(HttpError::Folding),
                line => {
                    let Some(used) = self.field_line(line, limits)? else { return Ok(None) };
                    self.at += used;
                }
            }
        }
    }

    /// True when the request line was complete.
    #[inline]
    fn request_line(&mut self, input: &[u8], limits: &HeadLimits) -> Result<bool, HttpError> {
        while let Some(b'\r') = input.get(self.at) {
            match input.get(self.at + 1) {
                None => return Ok(false),
                // Only empty lines have been done so far.
                Some(b'\n') if self.at + 2 <= limits.max_overhead_bytes => self.at += 2,
                Some(b'\n') => return Err(HttpError::EmptyLines),
                Some(_) => return Err(HttpError::LineEnd),
            }
        }
        let line = &input[self.at..];
        let Some((method, target_start)) = scan_method(line)? else { return Ok(false) };
        self.method = method;
        let Some(target) = scan_target(&line[target_start..], limits)? else { return Ok(false) };
        let target_end = target_start + target.len;
        let Some(version) = scan_version(&line[target_end + 1..])? else { return Ok(false) };

        let bytes = &line[target_start..target_end];
        let parts = split_target(method, bytes, target.query)?;
        let base = self.at + target_start;
        self.start = self.at;
        self.version = version;
        self.host_start = base + parts.host.start;
        self.host_end = base + parts.host.end;
        self.path_start = base + parts.path.start;
        self.path_end = base + parts.path.end;
        self.target_end = base + target.len;
        self.at += target_end + 1 + VERSION_FORM.len();
        self.fields_start = self.at;
        Ok(true)
    }

    /// Takes the field line that `line` begins with; answers its length, or `None` when it is not complete.
    #[inline]
    fn field_line(&mut self, line: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HttpError> {
        if let Some(used) = self.plain_host_line(line, limits)? {
            return Ok(Some(used));
        }
        let name_len = token_len(line);
        match line.get(name_len) {
            None => return Ok(None),
            Some(b':') if name_len > 0 => {}
            // Among them a blank before the colon, which RFC 9112, section 5.1, forbids for the sake of smuggling.
            Some(_) => return Err(HttpError::Field),
        }
        let after_colon = &line[name_len + 1..];
        let value_len = field_value_len(after_colon);
        match &after_colon[value_len..] {
            [b'\r', b'\n', ..] => {}
            [] | [b'\r'] => return Ok(None),
            [b'\r' | b'\n', ..] => return Err(HttpError::LineEnd),
            _ => return Err(HttpError::Field),
        }
        self.count_field(limits)?;
        let value = &after_colon[..value_len];
        if name_len == 4 && line[..4].eq_ignore_ascii_case(b"host") {
            let host = trim_ows(value);
            let blanks = value.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
            if host::parse_prefix(host).is_none_or(|prefix| prefix.len != host.len()) {
                return Err(HttpError::Host);
            }
            self.take_host(self.at + name_len + 1 + blanks, host.len())?;
        } else {
            self.take_field(&line[..name_len], trim_ows(value))?;
        }
        Ok(Some(name_len + 1 + value_len + 2))
    }

    /// The `Host` line as nearly every client writes it, which needs one look at its bytes; answers its length. Any other
    /// line is left as it is.
    #[inline]
    fn plain_host_line(&mut self, line: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HttpError> {
        const NAME: &[u8; 6] = b"Host: ";
        let Some((NAME, value)) = line.split_first_chunk() else { return Ok(None) };
        let Some(host) = host::parse_prefix(value) else { return Ok(None) };
        if !value[host.len..].starts_with(b"\r\n") {
            return Ok(None);
        }
        self.count_field(limits)?;
        self.take_host(self.at + NAME.len(), host.len)?;
        Ok(Some(NAME.len() + host.len + 2))
    }

    #[inline]
    const fn count_field(&mut self, limits: &HeadLimits) -> Result<(), HttpError> {
        self.fields += 1;
        if self.fields > limits.max_fields { Err(HttpError::TooManyFields) } else { Ok(()) }
    }

    /// Keeps what the field says, if it is one of those that concern every request.
    #[inline]
    fn take_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), HttpError> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            5 if is(b"range") => self.flags |= RANGE,
            6 if is(b"expect") => {
                let known = value.eq_ignore_ascii_case(b"100-continue");
                self.flags |= if known { EXPECT_CONTINUE } else { EXPECT_OTHER };
            }
            10 if is(b"connection") => self.take_connection(value),
            14 if is(b"content-length") => {
                if self.content_length.is_some() {
                    return Err(HttpError::ContentLength);
                }
                self.content_length = Some(content_length(value)?);
            }
            15 if is(b"accept-encoding") => self.flags |= ACCEPT_ENCODING,
            17 if is(b"transfer-encoding") => self.take_transfer_encoding(value)?,
            8 if is(b"if-match") => self.flags |= CONDITIONAL,
            13 if is(b"if-none-match") => self.flags |= CONDITIONAL,
            17 if is(b"if-modified-since") => self.flags |= CONDITIONAL,
            19 if is(b"if-unmodified-since") => self.flags |= CONDITIONAL,
            _ => {}
        }
        Ok(())
    }

    /// A valid host of `len` bytes stands at `start`.
    #[inline]
    const fn take_host(&mut self, start: usize, len: usize) -> Result<(), HttpError> {
        if self.seen_host {
            return Err(HttpError::Host);
        }
        self.seen_host = true;
        if self.host_start == self.host_end {
            self.host_start = start;
            self.host_end = start + len;
        }
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|&b| b == b',').map(trim_ows) {
            self.seen_close |= option.eq_ignore_ascii_case(b"close");
            self.seen_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn take_transfer_encoding(&mut self, value: &[u8]) -> Result<(), HttpError> {
        for coding in value.split(|&b| b == b',').map(trim_ows) {
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            // Parameters may follow the name (RFC 9110, section 10.1.4); of an unknown coding they do not matter.
            let name = coding.split(|&b| b == b';').next().map_or(coding, trim_ows);
            self.coding = match self.coding {
                _ if !is_token(name) => return Err(HttpError::TransferEncoding),
                // `chunked` comes last and once.
                Coding::Chunked | Coding::UnknownThenChunked => return Err(HttpError::TransferEncoding),
                Coding::None if chunked => Coding::Chunked,
                Coding::Unknown if chunked => Coding::UnknownThenChunked,
                Coding::None | Coding::Unknown => Coding::Unknown,
            };
        }
        Ok(())
    }

    /// The checks that need the whole head.
    #[inline]
    fn finish(&self, end: usize) -> Result<Head, HttpError> {
        let http11 = self.version == Version::Http11;
        if http11 && !self.seen_host {
            return Err(HttpError::Host);
        }
        // What follows a CONNECT may be meant for the tunnel (RFC 9110, section 9.3.6), so it is not taken for a request.
        let keep_alive =
            !self.seen_close && (http11 || self.seen_keep_alive) && !matches!(self.method, Method::Connect);
        let mut flags = self.flags;
        if keep_alive {
            flags |= KEEP_ALIVE;
        }
        if !http11 {
            flags &= !(EXPECT_CONTINUE | EXPECT_OTHER);
        }
        Ok(Head {
            method: self.method,
            version: self.version,
            flags,
            body: self.framing()?,
            start: Offset::new(self.start),
            host_start: Offset::new(self.host_start),
            host_end: Offset::new(self.host_end),
            path_start: Offset::new(self.path_start),
            path_end: Offset::new(self.path_end),
            target_end: Offset::new(self.target_end),
            fields_start: Offset::new(self.fields_start),
            end: Offset::new(end),
        })
    }

    /// RFC 9112, section 6.3. What the RFC lets a server repair is refused here: repairs differ, and the difference is
    /// what request smuggling lives on.
    fn framing(&self) -> Result<BodyFraming, HttpError> {
        match (self.coding, self.content_length) {
            (Coding::None, None | Some(0)) => Ok(BodyFraming::None),
            (Coding::None, Some(length)) => Ok(BodyFraming::Length(length)),
            (_, Some(_)) => Err(HttpError::AmbiguousLength),
            // Section 6.1: in HTTP/1.0 the framing is to be treated as faulty.
            _ if self.version == Version::Http10 => Err(HttpError::TransferEncoding),
            (Coding::Chunked, None) => Ok(BodyFraming::Chunked),
            (Coding::Unknown | Coding::UnknownThenChunked, None) => Err(HttpError::UnknownTransferCoding),
        }
    }
}

#[inline]
fn token_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|&b| class(b) & TOKEN == 0).unwrap_or(bytes.len())
}

/// The method at the start of `line`, and where the target begins.
#[inline]
fn scan_method(line: &[u8]) -> Result<Option<(Method, usize)>, HttpError> {
    if let Some(b"GET ") = line.first_chunk::<4>() {
        return Ok(Some((Method::Get, 4)));
    }
    let len = token_len(&line[..line.len().min(MAX_METHOD_BYTES + 1)]);
    if len > MAX_METHOD_BYTES {
        return Err(HttpError::MethodTooLong);
    }
    match line.get(len) {
        None => Ok(None),
        Some(b' ') if len > 0 => Ok(Some((Method::from_token(&line[..len]), len + 1))),
        Some(b'\n') => Err(HttpError::LineEnd),
        Some(_) => Err(HttpError::RequestLine),
    }
}

struct Target {
    len: usize,
    /// Where the `?` is; `len` when there is none.
    query: usize,
}

/// The target at the start of `rest`, and the blank behind it.
#[inline]
fn scan_target(rest: &[u8], limits: &HeadLimits) -> Result<Option<Target>, HttpError> {
    let mut seen = 0;
    let mut len = 0;
    for &byte in &rest[..rest.len().min(limits.max_target_bytes)] {
        let class = class(byte);
        if class & TARGET == 0 {
            break;
        }
        seen |= class;
        len += 1;
    }
    match rest.get(len) {
        None => return Ok(None),
        Some(b' ') if len > 0 => {}
        Some(&byte) if class(byte) & TARGET != 0 => return Err(HttpError::TargetTooLong),
        Some(_) => return Err(HttpError::RequestLine),
    }
    let query = if seen & QUERY == 0 { len } else { memchr::memchr(b'?', &rest[..len]).unwrap_or(len) };
    Ok(Some(Target { len, query }))
}

/// What ends a request line; `#` is a digit.
const VERSION_FORM: &[u8; 10] = b"HTTP/#.#\r\n";
const MAJOR_VERSION: usize = 5;
const MINOR_VERSION: usize = 7;

#[inline]
fn scan_version(rest: &[u8]) -> Result<Option<Version>, HttpError> {
    if let Some(b"HTTP/1.1\r\n") = rest.first_chunk::<10>() {
        return Ok(Some(Version::Http11));
    }
    for (index, &expected) in VERSION_FORM.iter().enumerate() {
        let Some(&byte) = rest.get(index) else { return Ok(None) };
        // The major version decides alone: what its minor version may look like is its own business.
        if index == MAJOR_VERSION && matches!(byte, b'2'..=b'9') {
            return Err(HttpError::VersionNotSupported);
        }
        let fits = if expected == b'#' { byte.is_ascii_digit() } else { byte == expected };
        if !fits {
            let half_line_end = byte == b'\n' || expected == b'\n';
            return Err(if half_line_end { HttpError::LineEnd } else { HttpError::Version });
        }
    }
    match (rest[MAJOR_VERSION], rest[MINOR_VERSION]) {
        (b'1', b'0') => Ok(Some(Version::Http10)),
        (b'1', _) => Ok(Some(Version::Http11)),
        // HTTP/0.9 had no version to write here.
        _ => Err(HttpError::Version),
    }
}

/// `1*DIGIT` (RFC 9110, section 8.6); no sign, no list, no blank.
fn content_length(value: &[u8]) -> Result<u64, HttpError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HttpError::ContentLength);
    }
    Ok(value
        .iter()
        .fold(0u64, |length, &digit| length.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}
