//! What peers and service say to each other: frames whose every byte follows from who says it and when.
//!
//! ```text
//!  0      1      2          4                8
//! +------+------+----------+----------------+------ … ------+
//! | kind | arg  | len (be) | number (be)    | len bytes     |
//! +------+------+----------+----------------+------ … ------+
//! ```
//!
//! Invariant: a byte that is missing, doubled, in the wrong place or in the wrong connection shows.

use crate::random::mix;

/// Bytes before the body.
pub(crate) const HEAD_BYTES: usize = 8;
/// The file that services send parts of.
pub(crate) const FILE_BYTES: usize = 64 << 10;
/// What a part of the file begins at: this many bytes for each one of `arg`.
pub(crate) const FILE_UNIT: usize = 16;
/// Said by no connection: the bytes of the file.
pub(crate) const FILE_SPEAKER: u32 = u32::MAX;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// From the peer: what is to be done stands in the plan, under the frame's number.
    Request = 1,
    /// From the service. All of its kinds are numbered together, in the order in which they were sent.
    Answer = 2,
    /// The same, from a file.
    File = 3,
    /// From another thread, by a handle; numbered by themselves.
    Letter = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) arg: u8,
    pub(crate) len: u16,
    pub(crate) number: u32,
}

impl Head {
    pub(crate) fn encode(self) -> [u8; HEAD_BYTES] {
        let [l0, l1] = self.len.to_be_bytes();
        let [n0, n1, n2, n3] = self.number.to_be_bytes();
        [self.kind as u8, self.arg, l0, l1, n0, n1, n2, n3]
    }

    /// The head at the start of `input`, which has at least that many bytes; `None` when it is none.
    pub(crate) fn decode(input: &[u8]) -> Option<Self> {
        let [kind, arg, l0, l1, n0, n1, n2, n3] = *input.first_chunk()?;
        let kind = match kind {
            1 => Kind::Request,
            2 => Kind::Answer,
            3 => Kind::File,
            4 => Kind::Letter,
            _ => return None,
        };
        Some(Self {
            kind,
            arg,
            len: u16::from_be_bytes([l0, l1]),
            number: u32::from_be_bytes([n0, n1, n2, n3]),
        })
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(self) -> usize {
        HEAD_BYTES + usize::from(self.len)
    }

    /// The body that belongs to this head, said on the connection `conn`.
    pub(crate) fn body(self, conn: u32) -> Vec<u8> {
        let len = usize::from(self.len);
        if self.kind == Kind::File {
            let from = usize::from(self.arg) * FILE_UNIT;
            return (from..from + len).map(file_byte).collect();
        }
        let key = mix(u64::from(conn) << 40 | u64::from(self.kind as u8) << 32 | u64::from(self.number));
        (0..len).map(|at| byte(key, at)).collect()
    }

    /// Head and body.
    pub(crate) fn frame(self, conn: u32) -> Vec<u8> {
        let mut frame = self.encode().to_vec();
        frame.extend(self.body(conn));
        frame
    }
}

/// What is said on a connection without frames: by the target of an outgoing one, or first by the service to its peer.
pub(crate) fn spoken(conn: u32, len: usize) -> Vec<u8> {
    let key = mix(u64::from(conn) << 8 | 0xff);
    (0..len).map(|at| byte(key, at)).collect()
}

/// A byte of the file.
pub(crate) fn file_byte(at: usize) -> u8 {
    byte(mix(u64::from(FILE_SPEAKER)), at)
}

fn byte(key: u64, at: usize) -> u8 {
    let at = at as u64;
    // The low byte of a product whose period is not a power of two, so that a shift by any block size shows.
    ((key.wrapping_add(at.wrapping_mul(0x9e37_79b9)) ^ (at / 251)) >> 3).to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_the_trip_and_its_body_is_its_own() {
        let head = Head { kind: Kind::Answer, arg: 7, len: 300, number: 9 };
        assert_eq!(Head::decode(&head.encode()), Some(head));
        assert_eq!(Head::decode(&[9; HEAD_BYTES]), None);
        assert_ne!(head.body(1), head.body(2));
        assert_ne!(head.body(1), Head { number: 10, ..head }.body(1));
        let body = head.body(1);
        assert!((1..40).all(|shift| body[shift..] != body[..body.len() - shift]));
    }
}
