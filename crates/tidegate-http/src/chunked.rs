//! `ChunkedDecoder`: the chunked transfer coding of RFC 9112, section 7.1, as a state machine over bytes.
//!
//! ```text
//!            digit      digit                   LF, size > 0        size bytes
//!  [ Start ] ----> [ Size ] --+--> [ SizeLf ] -------------> [ Data ] -----+
//!      ^              | ;     | CR     |                                   v
//!      |              v       |        | LF, size = 0                  [ DataCr ]
//!      |       ( extensions )-+        v                                   | CR
//!      |                         [ TrailerStart ] <---+                    v
//!      +---------------------------- | ---- | ------- | --- LF ------- [ DataLf ]
//!                                 CR |      | token   | LF
//!                                    v      v         |
//!                               [ EndLf ] [ TrailerName ] -:-> [ TrailerValue ] -CR-> [ TrailerLf ]
//!                                    | LF
//!                                    v
//!                                 [ End ]
//!
//!  extensions: [ ExtensionStart ] token [ ExtensionName ] = [ ValueStart ] token [ ValueToken ]
//!                       ^                  |  ;                       | "            |  ;
//!                       +------------------+----- [ AfterValue ] <-- [ Quoted ]      |
//!                       +------------------------------------------------------------+
//! ```
//!
//! Invariant: only CR LF ends a line, and every byte of a line has its place in the grammar, although extensions and
//! trailers are dropped: what one program takes for a trailer another may take for a request. They have one limit for the
//! whole body. The data is not limited here; the caller counts it.

use core::ops::Range;

use crate::bytes::{TOKEN, class};
use crate::{Head, HeadLimits, HttpError};

/// Decodes a chunked body. [`ChunkedDecoder::step`] is called until it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkedDecoder {
    state: State,
    /// Bytes of the current chunk that have not come.
    left: u64,
    /// Bytes of extensions and trailers that may still come.
    overhead_left: u32,
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
    /// Blanks (BWS) before the semicolon of an extension; they may stand nowhere else in front of a line's end.
    BeforeSemicolon,
    ExtensionStart,
    ExtensionName,
    /// Blanks behind a name: a `=` or the next extension must follow.
    AfterName,
    ValueStart,
    ValueToken,
    Quoted,
    QuotedPair,
    AfterValue,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

/// 64 bits in hexadecimal, leading zeros included.
const MAX_SIZE_DIGITS: u8 = 16;

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedDecoder {
    /// A decoder at the start of a body, with 4 KiB for extensions and trailers.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_max_overhead(4 << 10)
    }

    /// A decoder at the start of a body, with so many bytes for extensions and trailers in all.
    #[must_use]
    pub const fn with_max_overhead(max_bytes: u32) -> Self {
        Self { state: State::Start, left: 0, overhead_left: max_bytes, digits: 0 }
    }

    /// A decoder for the body behind `head`, with what the empty lines before the head have left of
    /// [`HeadLimits::max_overhead_bytes`].
    #[must_use]
    pub fn for_request(head: &Head, limits: &HeadLimits) -> Self {
        let left = limits.max_overhead_bytes.saturating_sub(head.empty_line_bytes());
        Self::with_max_overhead(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// Goes through `input` up to the end of the first run of data, the end of the body or the end of the input.
    ///
    /// To be called again with the rest until it is done or nothing is left.
    ///
    /// # Errors
    ///
    /// [`HttpError::Chunk`] for what breaks the grammar, [`HttpError::ChunkOverhead`] for more extensions and trailers than
    /// the limit.
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
            if self.state.is_overhead() {
                self.overhead_left = self.overhead_left.checked_sub(1).ok_or(HttpError::ChunkOverhead)?;
            }
            at += 1;
        }
        Ok(ChunkStep { consumed: at, data: at..at, done: self.state == State::End })
    }

    /// The transition for one byte outside the data.
    fn next(&mut self, byte: u8) -> Result<State, HttpError> {
        use State::{Data, DataCr, DataLf, End, EndLf, Size, SizeLf, Start, TrailerStart};
        match (self.state, byte) {
            (Start | Size, _) if byte.is_ascii_hexdigit() => {
                self.push_digit(byte)?;
                Ok(Size)
            }
            (SizeLf, b'\n') if self.left == 0 => Ok(TrailerStart),
            (SizeLf, b'\n') => Ok(Data),
            (DataCr, b'\r') => Ok(DataLf),
            (DataLf, b'\n') => {
                self.digits = 0;
                Ok(Start)
            }
            (EndLf, b'\n') => Ok(End),
            (state, _) => {
                state.next_of_extension(byte).or_else(|| state.next_of_trailer(byte)).ok_or(HttpError::Chunk)
            }
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
}

impl State {
    /// `*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ) CRLF` (RFC 9112, section 7.1.1).
    fn next_of_extension(self, byte: u8) -> Option<Self> {
        use State::{
            AfterName, AfterValue, BeforeSemicolon, ExtensionName, ExtensionStart, Quoted, QuotedPair, Size,
            SizeLf, ValueStart, ValueToken,
        };
        let token = class(byte) & TOKEN != 0;
        match (self, byte) {
            (Size | ExtensionName | ValueToken | AfterValue, b'\r') => Some(SizeLf),
            (Size | BeforeSemicolon | ExtensionName | AfterName | ValueToken | AfterValue, b';') => {
                Some(ExtensionStart)
            }
            (Size | BeforeSemicolon | ValueToken | AfterValue, b' ' | b'\t') => Some(BeforeSemicolon),
            (ExtensionStart | ValueStart, b' ' | b'\t') => Some(self),
            (ExtensionStart | ExtensionName, _) if token => Some(ExtensionName),
            (ExtensionName | AfterName, b' ' | b'\t') => Some(AfterName),
            (ExtensionName | AfterName, b'=') => Some(ValueStart),
            (ValueStart | ValueToken, _) if token => Some(ValueToken),
            (ValueStart, b'"') => Some(Quoted),
            (Quoted, b'"') => Some(AfterValue),
            (Quoted, b'\\') => Some(QuotedPair),
            (Quoted | QuotedPair, _) if is_line_byte(byte) => Some(Quoted),
            _ => None,
        }
    }

    /// `*( field-line CRLF ) CRLF` (RFC 9112, section 7.1.2).
    fn next_of_trailer(self, byte: u8) -> Option<Self> {
        use State::{EndLf, TrailerLf, TrailerName, TrailerStart, TrailerValue};
        match (self, byte) {
            (TrailerStart, b'\r') => Some(EndLf),
            (TrailerStart | TrailerName, _) if class(byte) & TOKEN != 0 => Some(TrailerName),
            (TrailerName, b':') => Some(TrailerValue),
            (TrailerValue, b'\r') => Some(TrailerLf),
            (TrailerValue, _) if is_line_byte(byte) => Some(TrailerValue),
            (TrailerLf, b'\n') => Some(TrailerStart),
            _ => None,
        }
    }

    /// Whether the byte that led here says nothing about the data.
    const fn is_overhead(self) -> bool {
        !matches!(
            self,
            Self::Start
                | Self::Size
                | Self::SizeLf
                | Self::Data
                | Self::DataCr
                | Self::DataLf
                | Self::TrailerStart
                | Self::EndLf
                | Self::End
        )
    }
}

const fn is_line_byte(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}
