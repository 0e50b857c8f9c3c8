//! The eight bytes in front of every frame.
//!
//! A [`Header`] is what stands on the wire, right or wrong: the limits are the decoder's matter.

/// Bytes of a header; also the length of the shortest frame.
pub const HEADER: usize = 8;

/// Bytes of the longest frame, its header included.
pub const MAX_FRAME: usize = 30_000;

/// Bytes of the longest body.
pub const MAX_BODY: usize = MAX_FRAME - HEADER;

/// The head of a frame, as the wire has it: packed and big-endian.
///
/// ```text
///  0               2               4                               8
///  +---------------+---------------+-------------------------------+-- ... --+
///  | length u16    | code u16      | crc32 u32                     | body    |
///  +---------------+---------------+-------------------------------+-- ... --+
/// ```
///
/// ```
/// let header = tidegate_frame::Header { length: 108, code: 5, crc32: 0xf89f_0202 };
/// assert_eq!(header.to_bytes(), [0x00, 0x6c, 0x00, 0x05, 0xf8, 0x9f, 0x02, 0x02]);
/// assert_eq!(tidegate_frame::Header::from_bytes(header.to_bytes()), header);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of header and body together; valid from [`HEADER`] to [`MAX_FRAME`].
    pub length: u16,
    /// What the frame means.
    pub code: u16,
    /// The zlib CRC-32 of the body; 0 when there is none.
    pub crc32: u32,
}

impl Header {
    /// Reads the fields; checks none of them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; HEADER]) -> Self {
        let [l0, l1, c0, c1, s0, s1, s2, s3] = bytes;
        Self {
            length: u16::from_be_bytes([l0, l1]),
            code: u16::from_be_bytes([c0, c1]),
            crc32: u32::from_be_bytes([s0, s1, s2, s3]),
        }
    }

    /// The fields as the wire has them.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEADER] {
        let [l0, l1] = self.length.to_be_bytes();
        let [c0, c1] = self.code.to_be_bytes();
        let [s0, s1, s2, s3] = self.crc32.to_be_bytes();
        [l0, l1, c0, c1, s0, s1, s2, s3]
    }
}
