//! HTTP/1.1 without I/O: request heads, body framing, chunked coding, conditional requests and answers.
//!
//! Bytes go in, decisions come out; nothing here can name a socket, a file or a clock. Two types to read first:
//! [`HeadParser`], which turns received bytes into a [`Head`] of offsets, and [`ResponseEncoder`], which writes an answer
//! into the caller's `Vec`. Input never panics, and every length has a limit ([`HeadLimits`], [`ChunkedDecoder`]).
//!
//! Responses are not parsed and requests are not written: this is the server's half of RFC 9112.
//!
//! ```
//! use tidegate_http::{HeadLimits, Parsed, ResponseEncoder, Status, parse_head};
//!
//! let input = b"GET /hello?x=1 HTTP/1.1\r\nHost: example.org\r\n\r\n";
//! let Ok(Parsed::Head(head)) = parse_head(input, &HeadLimits::default()) else { panic!("a valid head") };
//! assert_eq!(head.path(input), b"/hello");
//! assert_eq!(head.query(input), Some(&b"x=1"[..]));
//! assert_eq!(head.end(), input.len());
//!
//! let mut out = Vec::new();
//! ResponseEncoder::new(&mut out, Status::OK).field("Content-Type", "text/plain").body(b"hi");
//! assert_eq!(out, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi");
//! ```
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod accept;
mod accept_encoding;
mod authorization;
mod bytes;
mod chunked;
mod cookie;
mod date;
mod error;
mod etag;
mod fields;
mod form;
mod form_data;
mod form_data_error;
mod form_part;
mod forwarded;
mod head;
mod host;
mod list;
mod media_type;
mod method;
mod multipart;
mod parser;
mod path;
mod precondition;
mod range;
mod response;

pub use accept::Accept;
pub use accept_encoding::{AcceptEncoding, ContentCoding};
pub use authorization::Credentials;
pub use bytes::{is_field_value, is_token};
pub use chunked::{ChunkStep, ChunkedDecoder};
pub use cookie::{CookieError, Cookies, SameSite, SetCookie};
pub use date::{HTTP_DATE_LEN, format_http_date, parse_http_date};
pub use error::HttpError;
pub use etag::EntityTag;
pub use fields::{Field, Fields};
pub use form::{FormError, MAX_FORM_PAIRS, check_form};
pub use form_data::{FormDataLimits, FormDataParser, FormEvent, FormStep};
pub use form_data_error::FormDataError;
pub use form_part::FormPart;
pub use forwarded::{forwarded_client, forwarded_secure};
pub use head::{BodyFraming, Head, HeadLimits, Parsed, Version};
pub use host::Host;
pub use media_type::MediaType;
pub use method::Method;
pub use multipart::Multipart;
pub use parser::{HeadParser, parse_head};
pub use path::{PathError, normalize_path};
pub use precondition::{Precondition, Validators, evaluate_preconditions};
pub use range::{
    ByteRange, Ranges, Representation, content_range, if_range_holds, parse_ranges, select_ranges,
    unsatisfied_range,
};
pub use response::{ResponseEncoder, Status};
