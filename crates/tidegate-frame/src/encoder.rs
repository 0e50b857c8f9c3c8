//! From a code and a body to the bytes of a frame.
//!
//! What [`encode`] writes, [`Decoder`](crate::Decoder) accepts; a body that would not fit is refused before a byte is written.

use alloc::vec::Vec;

use crate::{HEADER, Header, MAX_BODY};

/// A body is longer than [`MAX_BODY`]; holds its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame's body has at most {MAX_BODY} bytes, not {0}")]
pub struct BodyTooLong(pub usize);

/// Appends one frame to `out`.
///
/// # Errors
///
/// [`BodyTooLong`]; `out` is as it was then.
pub fn encode(code: u16, body: &[u8], out: &mut Vec<u8>) -> Result<(), BodyTooLong> {
    let header = encode_header(code, body)?;
    out.reserve(HEADER + body.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(body);
    Ok(())
}

/// The header of the frame that carries `body`, for those who send the body from where it lies.
///
/// # Errors
///
/// [`BodyTooLong`].
pub fn encode_header(code: u16, body: &[u8]) -> Result<[u8; HEADER], BodyTooLong> {
    if body.len() > MAX_BODY {
        return Err(BodyTooLong(body.len()));
    }
    let length = u16::try_from(HEADER + body.len()).map_err(|_| BodyTooLong(body.len()))?;
    Ok(Header { length, code, crc32: crc32fast::hash(body) }.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_body_is_encoded_and_one_byte_more_is_refused() {
        let body = vec![7; MAX_BODY + 1];
        let mut out = vec![1, 2, 3];
        assert_eq!(encode(9, &body, &mut out), Err(BodyTooLong(29_993)));
        assert_eq!(out, [1, 2, 3]);
        encode(9, &body[..MAX_BODY], &mut out).unwrap();
        assert_eq!(out.len(), 3 + 30_000);
        assert_eq!(out[3..5], [0x75, 0x30]);
    }

    #[test]
    fn a_frame_without_a_body_has_the_checksum_zero() {
        assert_eq!(encode_header(7, b"").unwrap(), [0, 8, 0, 7, 0, 0, 0, 0]);
    }
}
