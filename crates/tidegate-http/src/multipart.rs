//! `Multipart`: several ranges of a representation in one answer, as `multipart/byteranges` (RFC 9110, section 14.6).
//!
//! ```text
//!  --BOUNDARY CRLF                                   head of the first part
//!  Content-Type: text/plain CRLF
//!  Content-Range: bytes 0-4/100 CRLF
//!  CRLF
//!  hello                                             5 bytes of the representation
//!  CRLF --BOUNDARY CRLF Content-Type: … CRLF CRLF    head of the second part
//!  …
//!  CRLF --BOUNDARY-- CRLF                            the end
//! ```
//!
//! Invariant: only what stands between the ranges is here; the caller sends it and the ranges in turn. The length of the
//! whole is known before the first byte is sent.

use alloc::string::String;
use alloc::vec::Vec;

use crate::ByteRange;

/// The frame around the parts of an answer.
///
/// ```
/// use tidegate_http::{ByteRange, Multipart};
///
/// let ranges = [ByteRange::new(0, 1), ByteRange::new(8, 9)].map(|range| range.expect("a range"));
/// let multipart = Multipart::new(&ranges, 10, "text/plain", 1);
/// let content = b"0123456789";
/// let mut body = Vec::new();
/// for (head, range) in multipart.parts() {
///     body.extend_from_slice(head.as_bytes());
///     body.extend_from_slice(&content[range.first() as usize..=range.last() as usize]);
/// }
/// body.extend_from_slice(multipart.end().as_bytes());
/// assert_eq!(body.len() as u64, multipart.content_length());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multipart {
    boundary: String,
    parts: Vec<(String, ByteRange)>,
    end: String,
}

impl Multipart {
    /// The frame for `ranges` of a representation of `size` bytes and of this type.
    ///
    /// The boundary is made from `nonce`, which is to be a number that nobody can foresee: a representation that holds the
    /// boundary would be cut in the wrong place.
    #[must_use]
    pub fn new(ranges: &[ByteRange], size: u64, content_type: &str, nonce: u128) -> Self {
        let boundary = alloc::format!("{nonce:032x}");
        let head = |(index, &range): (usize, &ByteRange)| {
            let line_end = if index == 0 { "" } else { "\r\n" };
            let content_range = crate::content_range(range, size);
            let head = alloc::format!(
                "{line_end}--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {content_range}\r\n\r\n"
            );
            (head, range)
        };
        let parts = ranges.iter().enumerate().map(head).collect();
        let end = alloc::format!("\r\n--{boundary}--\r\n");
        Self { boundary, parts, end }
    }

    /// The value of `Content-Type` of the whole answer.
    #[must_use]
    pub fn content_type(&self) -> String {
        alloc::format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// The length of the whole body in bytes. Saturates.
    #[must_use]
    pub fn content_length(&self) -> u64 {
        let frame: usize = self.parts.iter().map(|(head, _)| head.len()).sum::<usize>() + self.end.len();
        self.parts.iter().fold(frame as u64, |sum, (_, range)| sum.saturating_add(range.len()))
    }

    /// For each range what is to be sent before it, in order.
    pub fn parts(&self) -> impl Iterator<Item = (&str, ByteRange)> {
        self.parts.iter().map(|(head, range)| (head.as_str(), *range))
    }

    /// What is to be sent behind the last range.
    #[must_use]
    pub fn end(&self) -> &str {
        &self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_that_of_the_rfc() {
        // RFC 9110, section 15.3.7.2, with a boundary of our own.
        let ranges = [ByteRange::new(500, 999).unwrap(), ByteRange::new(7000, 7999).unwrap()];
        let multipart = Multipart::new(&ranges, 8000, "application/pdf", 0xbeef);
        let boundary = "0000000000000000000000000000beef";
        assert_eq!(multipart.content_type(), format!("multipart/byteranges; boundary={boundary}"));
        let parts: Vec<_> = multipart.parts().collect();
        assert_eq!(
            parts[0].0,
            format!(
                "--{boundary}\r\nContent-Type: application/pdf\r\nContent-Range: bytes 500-999/8000\r\n\r\n"
            )
        );
        assert_eq!(
            parts[1].0,
            format!(
                "\r\n--{boundary}\r\nContent-Type: application/pdf\r\nContent-Range: bytes 7000-7999/8000\r\n\r\n"
            )
        );
        assert_eq!((parts[0].1, parts[1].1), (ranges[0], ranges[1]));
        assert_eq!(multipart.end(), format!("\r\n--{boundary}--\r\n"));
        let frame = parts[0].0.len() + parts[1].0.len() + multipart.end().len();
        assert_eq!(multipart.content_length(), frame as u64 + 1500);
    }
}
