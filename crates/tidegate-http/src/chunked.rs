//! `ChunkedDecoder`: the chunked transfer coding of RFC 9112, section 7.1, as a state machine over bytes.
//!
//! ```text
//!            digit      digit                   LF, size > 0        size bytes
//!  [ Start ] ----> [ Size ] --+--> [ SizeLf ] -------------> [ Data ] -----+
//!      ^              | ;     | CR     |                                   v
//!      |              v       |        | LF, size = 0                  [ DataCr ]
//!      |       [ Extension ]--+        v                                   | CR
//!      |                         [ TrailerStart ] <---+                    v
//!      +---------------------------- | ---- | ------- | --- LF ------- [ DataLf ]
//!                                 CR |      | token   | LF
//!                                    v      v         |
//!                               [ EndLf ] [ Trailer ] -CR-> [ TrailerLf ]
//!                                    | LF
//!                                    v
//!                                 [ End ]
//! ```
//!
//! Invariant: only CR LF ends a line. Extensions and trailers are read and dropped, up to a limit for the whole body. The
//! data is not limited here; the caller counts it.

use core::ops::Range;

use crate::HttpError;
use crate::bytes::{TOKEN, class};

/// Decodes a chunked body. [`ChunkedDecoder::step`] is called until it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkedDecoder {
    state: State,
    /// Bytes of the current chunk that have not come.
    left: u64,
    /// Bytes of extensions and trailers so far; at most `MAX_OVERHEAD_BYTES`.
    overhead: u16,
    /// Digits of the current size; at most `MAX_SIZE_DIGITS`, so that `left` does not overflow.
    digits: u8,
}

/// What one step took from the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkStep {
    /// How many bytes of the input are done with.
    pub consumed: usize,
    /// Which of them are data; may be empty.
    pub data: Range<usize>,
    /// The body has ended; what follows in the input is the next request.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Size,
    SizeBlank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

/// All extensions and trailers of a body together.
const MAX_OVERHEAD_BYTES: u16 = 8 << 10;
/// 64 bits in hexadecimal, leading zeros included.
const MAX_SIZE_DIGITS: u8 = 16;

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedDecoder {
    /// A decoder at the start of a body.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Start, left: 0, overhead: 0, digits: 0 }
    }

    /// Goes through `input` up to the end of the first run of data, the end of the body or the end of the input.
    ///
    /// To be called again with the rest until it is done or nothing is left.
    ///
    /// # Errors
    ///
    /// [`HttpError::Chunk`] for what breaks the grammar, [`HttpError::ChunkOverhead`] for more than 8 KiB of extensions and
    /// trailers.
    pub fn step(&mut self, input: &[u8]) -> Result<ChunkStep, HttpError> {
        let mut at = 0;
        while at < input.len() && self.state != State::End {
            if self.state == State::Data {
                let rest = input.len() - at;
                // Never more than `rest`, so it fits.
                let take = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                self.left -= take as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                return Ok(ChunkStep { consumed: at + take, data: at..at + take, done: false });
            }
            self.state = self.next(input[at])?;
            at += 1;
        }
        Ok(ChunkStep { consumed: at, data: at..at, done: self.state == State::End })
    }

    /// The transition for one byte outside the data.
    fn next(&mut self, byte: u8) -> Result<State, HttpError> {
        use State::{
            Data, DataCr, DataLf, End, EndLf, Extension, Size, SizeBlank, SizeLf, Start, Trailer, TrailerLf,
            TrailerStart,
        };
        let in_line = (byte >= b' ' && byte != 0x7f) || byte == b'\t';
        match (self.state, byte) {
            (Start | Size, _) if byte.is_ascii_hexdigit() => {
                self.push_digit(byte)?;
                Ok(Size)
            }
            (Size | Extension, b'\r') => Ok(SizeLf),
            (Size | SizeBlank, b';') => self.overhead(Extension),
            // Blanks may stand before the semicolon only (BWS).
            (Size | SizeBlank, b' ' | b'\t') => self.overhead(SizeBlank),
            (Extension | Trailer, _) if in_line => self.overhead(self.state),
            (SizeLf, b'\n') if self.left == 0 => Ok(TrailerStart),
            (SizeLf, b'\n') => Ok(Data),
            (DataCr, b'\r') => Ok(DataLf),
            (DataLf, b'\n') => {
                self.digits = 0;
                Ok(Start)
            }
            (TrailerStart, b'\r') => Ok(EndLf),
            (TrailerStart, _) if class(byte) & TOKEN != 0 => self.overhead(Trailer),
            (Trailer, b'\r') => Ok(TrailerLf),
            (TrailerLf, b'\n') => Ok(TrailerStart),
            (EndLf, b'\n') => Ok(End),
            _ => Err(HttpError::Chunk),
        }
    }

    fn push_digit(&mut self, byte: u8) -> Result<(), HttpError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        if self.digits == MAX_SIZE_DIGITS {
            return Err(HttpError::Chunk);
        }
        self.digits += 1;
        self.left = (self.left << 4) | u64::from(digit);
        Ok(())
    }

    const fn overhead(&mut self, next: State) -> Result<State, HttpError> {
        if self.overhead == MAX_OVERHEAD_BYTES {
            return Err(HttpError::ChunkOverhead);
        }
        self.overhead += 1;
        Ok(next)
    }
}
