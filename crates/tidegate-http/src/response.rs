//! `ResponseEncoder`: an answer's head and body, written straight into the caller's `Vec`.
//!
//! Invariant: `Content-Length` is written exactly once, except for the statuses that must not have one (1xx, 204, RFC 9110,
//! section 8.6). Names and values are not checked here: what comes from elsewhere is checked with
//! [`is_token`](crate::is_token) and [`is_field_value`](crate::is_field_value) where it comes in.

use alloc::vec::Vec;

/// A status code, 100 to 599.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

macro_rules! statuses {
    ($($constant:ident = $code:literal, $reason:literal;)*) => {
        impl Status {
            $(
                #[doc = concat!("`", $code, " ", $reason, "`")]
                pub const $constant: Self = Self($code);
            )*

            /// The reason phrase; empty for a code that has no name here, which RFC 9112, section 4, allows.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self.0 { $($code => $reason,)* _ => "" }
            }
        }
    };
}

statuses! {
    CONTINUE = 100, "Continue";
    SWITCHING_PROTOCOLS = 101, "Switching Protocols";
    EARLY_HINTS = 103, "Early Hints";
    OK = 200, "OK";
    CREATED = 201, "Created";
    ACCEPTED = 202, "Accepted";
    NON_AUTHORITATIVE_INFORMATION = 203, "Non-Authoritative Information";
    NO_CONTENT = 204, "No Content";
    RESET_CONTENT = 205, "Reset Content";
    PARTIAL_CONTENT = 206, "Partial Content";
    MULTIPLE_CHOICES = 300, "Multiple Choices";
    MOVED_PERMANENTLY = 301, "Moved Permanently";
    FOUND = 302, "Found";
    SEE_OTHER = 303, "See Other";
    NOT_MODIFIED = 304, "Not Modified";
    TEMPORARY_REDIRECT = 307, "Temporary Redirect";
    PERMANENT_REDIRECT = 308, "Permanent Redirect";
    BAD_REQUEST = 400, "Bad Request";
    UNAUTHORIZED = 401, "Unauthorized";
    PAYMENT_REQUIRED = 402, "Payment Required";
    FORBIDDEN = 403, "Forbidden";
    NOT_FOUND = 404, "Not Found";
    METHOD_NOT_ALLOWED = 405, "Method Not Allowed";
    NOT_ACCEPTABLE = 406, "Not Acceptable";
    PROXY_AUTHENTICATION_REQUIRED = 407, "Proxy Authentication Required";
    REQUEST_TIMEOUT = 408, "Request Timeout";
    CONFLICT = 409, "Conflict";
    GONE = 410, "Gone";
    LENGTH_REQUIRED = 411, "Length Required";
    PRECONDITION_FAILED = 412, "Precondition Failed";
    CONTENT_TOO_LARGE = 413, "Content Too Large";
    URI_TOO_LONG = 414, "URI Too Long";
    UNSUPPORTED_MEDIA_TYPE = 415, "Unsupported Media Type";
    RANGE_NOT_SATISFIABLE = 416, "Range Not Satisfiable";
    EXPECTATION_FAILED = 417, "Expectation Failed";
    MISDIRECTED_REQUEST = 421, "Misdirected Request";
    UNPROCESSABLE_CONTENT = 422, "Unprocessable Content";
    LOCKED = 423, "Locked";
    TOO_EARLY = 425, "Too Early";
    UPGRADE_REQUIRED = 426, "Upgrade Required";
    PRECONDITION_REQUIRED = 428, "Precondition Required";
    TOO_MANY_REQUESTS = 429, "Too Many Requests";
    REQUEST_HEADER_FIELDS_TOO_LARGE = 431, "Request Header Fields Too Large";
    UNAVAILABLE_FOR_LEGAL_REASONS = 451, "Unavailable For Legal Reasons";
    INTERNAL_SERVER_ERROR = 500, "Internal Server Error";
    NOT_IMPLEMENTED = 501, "Not Implemented";
    BAD_GATEWAY = 502, "Bad Gateway";
    SERVICE_UNAVAILABLE = 503, "Service Unavailable";
    GATEWAY_TIMEOUT = 504, "Gateway Timeout";
    HTTP_VERSION_NOT_SUPPORTED = 505, "HTTP Version Not Supported";
    INSUFFICIENT_STORAGE = 507, "Insufficient Storage";
    NETWORK_AUTHENTICATION_REQUIRED = 511, "Network Authentication Required";
}

impl Status {
    /// The status of this code, if it is one: 100 to 599.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        if code >= 100 && code <= 599 { Some(Self(code)) } else { None }
    }

    /// The code.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0
    }

    /// The first digit of the code: 1 to 5.
    #[must_use]
    pub const fn class(self) -> u16 {
        self.0 / 100
    }

    /// Whether an answer of this status has content at all (RFC 9110, sections 6.4.1 and 15.3.6).
    #[must_use]
    pub const fn has_content(self) -> bool {
        self.0 >= 200 && !matches!(self.0, 204 | 205 | 304)
    }
}

impl core::fmt::Debug for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}

/// Writes one answer. Fields come in the order of the calls; one of the three ends consumes the encoder.
#[derive(Debug)]
pub struct ResponseEncoder<'a> {
    out: &'a mut Vec<u8>,
    status: Status,
}

impl<'a> ResponseEncoder<'a> {
    /// Writes the status line behind what `out` holds.
    pub fn new(out: &'a mut Vec<u8>, status: Status) -> Self {
        out.extend_from_slice(b"HTTP/1.1 ");
        push_number(out, u64::from(status.code()));
        out.push(b' ');
        out.extend_from_slice(status.reason().as_bytes());
        out.extend_from_slice(b"\r\n");
        Self { out, status }
    }

    /// Writes a field. The name is a token, the value a field value.
    #[must_use]
    pub fn field(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value.as_ref());
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Writes fields that are written already: whole lines, each with its CR LF, or nothing.
    #[must_use]
    pub fn lines(self, lines: &[u8]) -> Self {
        self.out.extend_from_slice(lines);
        self
    }

    /// Where the next byte will stand in the caller's `Vec`: to find a field again that changes later.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.out.len()
    }

    /// Ends the head for a body of `len` bytes that somebody else sends, or that a `HEAD` request does not get.
    pub fn content_length(self, len: u64) {
        if self.status.code() >= 200 && self.status != Status::NO_CONTENT {
            self.out.extend_from_slice(b"Content-Length: ");
            push_number(self.out, len);
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// Ends the head and writes the body. A status without content gets none.
    pub fn body(self, body: &[u8]) {
        if !self.status.has_content() {
            return self.without_content();
        }
        self.out.extend_from_slice(b"Content-Length: ");
        push_number(self.out, body.len() as u64);
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(body);
    }

    /// Ends the head of an answer that has no content and no length: 1xx, 204, 304. A 205 has no content either, but has to
    /// say so (RFC 9112, section 6.3).
    pub fn without_content(self) {
        if self.status == Status::RESET_CONTENT {
            return self.content_length(0);
        }
        self.out.extend_from_slice(b"\r\n");
    }
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789"[usize::try_from(number % 10).unwrap_or(0)];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_its_fields_in_order_and_one_length() {
        let mut out = b"before".to_vec();
        ResponseEncoder::new(&mut out, Status::NOT_FOUND).field("A", "1").field("B", b"\xff").body(b"gone");
        assert_eq!(out, b"beforeHTTP/1.1 404 Not Found\r\nA: 1\r\nB: \xff\r\nContent-Length: 4\r\n\r\ngone");
    }

    #[test]
    fn statuses_without_content_get_none() {
        let mut out = Vec::new();
        ResponseEncoder::new(&mut out, Status::NO_CONTENT).body(b"x");
        ResponseEncoder::new(&mut out, Status::NO_CONTENT).content_length(1);
        ResponseEncoder::new(&mut out, Status::NOT_MODIFIED).body(b"x");
        ResponseEncoder::new(&mut out, Status::CONTINUE).without_content();
        ResponseEncoder::new(&mut out, Status::RESET_CONTENT).body(b"x");
        assert_eq!(
            out,
            b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n\
              HTTP/1.1 100 Continue\r\n\r\n\
              HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn lengths_are_written_whole() {
        for number in [0, 9, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn codes_outside_the_range_are_none() {
        assert_eq!(Status::from_code(99), None);
        assert_eq!(Status::from_code(600), None);
        assert_eq!(Status::from_code(299).map(Status::reason), Some(""));
        assert_eq!(Status::NOT_FOUND.to_string(), "404 Not Found");
    }
}
