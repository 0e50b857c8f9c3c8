//! From bytes to frames.
//!
//! ```text
//!             2 bytes            length bytes          checksum
//! Need(2) ──────────────▶ Need(length) ──────────▶ Frame | BadChecksum
//!                │
//!                └─▶ BadLength                      (nothing is resynchronised after an error)
//! ```
//!
//! The decoder keeps no bytes and no state between calls: the caller's buffer is the state. Since it says how many bytes it
//! needs, the checksum of a frame is computed once, however the frame arrives. It does not judge codes or bodies.

use alloc::vec::Vec;

use crate::{HEADER, Header, MAX_FRAME};

/// Finds frames at the start of a buffer.
///
/// ```
/// use tidegate_frame::{Decoder, FrameError, Step};
/// let decoder = Decoder::new();
/// assert_eq!(decoder.decode(b""), Ok(Step::Need(2)));
/// assert_eq!(decoder.decode(&[0x00, 0x6c]), Ok(Step::Need(108)));
/// assert_eq!(decoder.decode(&[0x00, 0x07]), Err(FrameError::BadLength(7)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoder;

/// What stands at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// No complete frame; asking again is of use once the input has this many bytes.
    Need(usize),
    /// A complete frame whose checksum is right.
    Frame {
        /// How many bytes of the input it takes, its header included.
        len: usize,
        /// Its header. The body is `&input[HEADER..len]`.
        header: Header,
    },
}

/// The input is not this protocol, or was damaged on its way. The connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header names a length outside the limits.
    #[error("a frame has {HEADER} to {MAX_FRAME} bytes, not {0}")]
    BadLength(u16),
    /// The body is not the one that was sent.
    #[error("the checksum of the body is {found:08x}, the header says {expected:08x}")]
    BadChecksum {
        /// What the header says.
        expected: u32,
        /// What the body has.
        found: u32,
    },
}

impl Decoder {
    /// A decoder with the limits of version 1.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// Looks at the start of `input`.
    ///
    /// # Errors
    ///
    /// [`FrameError::BadLength`] as soon as the first two bytes say so, and [`FrameError::BadChecksum`] once the frame is
    /// complete. A longer input with the same start gives the same error.
    pub fn decode(self, input: &[u8]) -> Result<Step, FrameError> {
        let Some(&[high, low]) = input.first_chunk() else {
            return Ok(Step::Need(2));
        };
        let length = u16::from_be_bytes([high, low]);
        let len = usize::from(length);
        if !(HEADER..=MAX_FRAME).contains(&len) {
            return Err(FrameError::BadLength(length));
        }
        let Some((&head, body)) = input.get(..len).and_then(<[u8]>::split_first_chunk) else {
            return Ok(Step::Need(len));
        };
        let header = Header::from_bytes(head);
        let found = crc32fast::hash(body);
        if found != header.crc32 {
            return Err(FrameError::BadChecksum { expected: header.crc32, found });
        }
        Ok(Step::Frame { len, header })
    }
}

/// A frame of its own, for those who keep one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it means.
    pub code: u16,
    /// What it carries.
    pub body: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LOGIN, LoginRequest, PING, REGISTER, RegisterRequest, encode};
    use proptest::prelude::*;

    /// What a decoder driven with `chunks` finds, one after another, up to the first error. The driver honours `Need`.
    fn drive<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
        let (mut buf, mut frames, mut at_least) = (Vec::new(), Vec::new(), 0);
        for chunk in chunks {
            buf.extend_from_slice(chunk);
            while buf.len() >= at_least && !buf.is_empty() {
                match Decoder::new().decode(&buf) {
                    Ok(Step::Need(n)) => {
                        assert!(n > buf.len(), "it asks for what is there already");
                        at_least = n;
                    }
                    Ok(Step::Frame { len, header }) => {
                        assert_eq!(usize::from(header.length), len);
                        frames.push(Frame { code: header.code, body: buf[HEADER..len].to_vec() });
                        buf.drain(..len);
                        at_least = 0;
                    }
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    }

    /// The same from the whole stream, written as plainly as it can be: byte arithmetic and a checksum bit by bit.
    fn model(stream: &[u8]) -> (Vec<Frame>, Option<FrameError>) {
        let (mut at, mut frames) = (0, Vec::new());
        while stream.len() - at >= 2 {
            let len = usize::from(stream[at]) * 256 + usize::from(stream[at + 1]);
            if !(8..=30_000).contains(&len) {
                return (frames, Some(FrameError::BadLength(u16::try_from(len).unwrap())));
            }
            if stream.len() - at < len {
                break;
            }
            let frame = &stream[at..at + len];
            let expected = frame[4..8].iter().fold(0, |sum, &byte| sum * 256 + u32::from(byte));
            let found = crc_bit_by_bit(&frame[8..]);
            if expected != found {
                return (frames, Some(FrameError::BadChecksum { expected, found }));
            }
            frames.push(Frame { code: u16::from_be_bytes([frame[2], frame[3]]), body: frame[8..].to_vec() });
            at += len;
        }
        (frames, None)
    }

    fn crc_bit_by_bit(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
        })
    }

    fn golden() -> (Vec<u8>, Vec<Frame>) {
        let register =
            RegisterRequest { kind: 1, username: b"user", password: b"pass" }.encode().unwrap().to_vec();
        let login = LoginRequest { username: b"user", password: b"pass" }.encode().unwrap().to_vec();
        let frames = vec![
            Frame { code: PING, body: vec![] },
            Frame { code: REGISTER, body: register },
            Frame { code: LOGIN, body: login },
            Frame { code: PING, body: vec![] },
        ];
        let mut wire = Vec::new();
        for frame in &frames {
            encode(frame.code, &frame.body, &mut wire).unwrap();
        }
        (wire, frames)
    }

    #[test]
    fn the_golden_frames_are_found_whole_byte_by_byte_and_at_every_split() {
        let (wire, frames) = golden();
        assert_eq!(wire.len(), 8 + 108 + 104 + 8);
        assert_eq!(drive([&wire[..]]), (frames.clone(), None));
        assert_eq!(drive(wire.chunks(1)), (frames.clone(), None));
        for at in 0..=wire.len() {
            let (a, b) = wire.split_at(at);
            assert_eq!(drive([a, b]), (frames.clone(), None), "split at {at}");
        }
    }

    #[test]
    fn a_bad_length_is_seen_at_its_second_byte() {
        for bad in [0_u16, 1, 7, 30_001, u16::MAX] {
            assert_eq!(Decoder::new().decode(&bad.to_be_bytes()), Err(FrameError::BadLength(bad)));
        }
        for good in [8_u16, 30_000] {
            assert_eq!(Decoder::new().decode(&good.to_be_bytes()), Ok(Step::Need(good.into())));
        }
    }

    #[test]
    fn each_flipped_bit_of_body_or_checksum_is_seen() {
        let (wire, _) = golden();
        let frame = &wire[8..116];
        for bit in 4 * 8..frame.len() * 8 {
            let mut damaged = frame.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let result = Decoder::new().decode(&damaged);
            assert!(matches!(result, Err(FrameError::BadChecksum { .. })), "bit {bit}: {result:?}");
        }
    }

    #[test]
    fn a_checksum_without_a_body_is_an_error() {
        let wire = [0, 8, 0, 0, 0, 0, 0, 1];
        assert_eq!(Decoder::new().decode(&wire), Err(FrameError::BadChecksum { expected: 1, found: 0 }));
    }

    #[test]
    fn errors_show_their_numbers() {
        assert_eq!(FrameError::BadLength(7).to_string(), "a frame has 8 to 30000 bytes, not 7");
        let error = FrameError::BadChecksum { expected: 0xf89f_0202, found: 1 };
        assert_eq!(error.to_string(), "the checksum of the body is 00000001, the header says f89f0202");
    }

    /// Streams of good frames, of which some are followed by damage or noise.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let body = prop_oneof![
            8 => prop::collection::vec(any::<u8>(), 0..64),
            1 => prop::collection::vec(any::<u8>(), 29_900..=29_992),
        ];
        let frames = prop::collection::vec((any::<u16>(), body), 0..8);
        let flips = prop::collection::vec((any::<prop::sample::Index>(), 0..8_u32), 0..2);
        let noise = prop::collection::vec(any::<u8>(), 0..12);
        (frames, flips, noise).prop_map(|(frames, flips, noise)| {
            let mut wire = Vec::new();
            for (code, body) in frames {
                encode(code, &body, &mut wire).unwrap();
            }
            for (at, bit) in flips {
                if !wire.is_empty() {
                    let at = at.index(wire.len());
                    wire[at] ^= 1 << bit;
                }
            }
            wire.extend(noise);
            wire
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_model_however_the_stream_is_cut(
            stream in stream(),
            cuts in prop::collection::vec(1_usize..5_000, 0..40),
        ) {
            let expected = model(&stream);
            let (mut rest, mut chunks) = (&stream[..], Vec::new());
            for cut in cuts {
                let (chunk, tail) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = tail;
            }
            chunks.push(rest);
            prop_assert_eq!(&drive(chunks), &expected);
            prop_assert_eq!(&drive([&stream[..]]), &expected);
        }

        #[test]
        fn it_agrees_with_the_model_byte_by_byte_on_noise(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(drive(noise.chunks(1)), model(&noise));
        }

        #[test]
        fn what_is_encoded_is_decoded(code in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let mut wire = Vec::new();
            encode(code, &body, &mut wire).unwrap();
            prop_assert_eq!(drive([&wire[..]]), (vec![Frame { code, body }], None));
        }
    }
}
