//! `FormDataParser`: the parts of a form that is `multipart/form-data` (RFC 7578, on RFC 2046, section 5.1), as its bytes come.
//!
//! ```text
//!  [ Preamble ] --boundary--> [ Delimiter ] -- CR ---------> [ DelimiterLf ] -- LF --> [ Head ]
//!                               |  ^   | blank                ^                        | empty line
//!                               |  |   +-----> [ Padding ] CR-+                        v
//!                             - |  +-------------------- CR LF --boundary ---------- [ Data ]
//!                               v
//!                            [ Dash ] -- - --> [ Closed ] -- CR --> [ ClosedLf ] -- LF --> [ Epilogue ]
//!
//!  [ Padding ] and [ Closed ] take blanks.
//! ```
//!
//! Invariant: a line that begins with `--` and the boundary is never data, and never anything but a delimiter: what follows it
//! on its line is refused unless the grammar has it, so that no two programs see different parts. The data is not limited
//! here; the caller counts it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use memchr::memmem;

use crate::form_part::parse_head;
use crate::{Fields, FormDataError, FormPart, MediaType};

/// Limits of what stands around the data of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormDataLimits {
    /// How many parts it may have.
    pub max_parts: usize,
    /// How long the head of a part may be, in bytes, with the empty line at its end.
    pub max_head_bytes: usize,
    /// How long the name of a part and that of its file may be, in bytes each.
    pub max_name_bytes: usize,
    /// How much may stand before the first part, behind the last and between a boundary and the end of its line, in bytes in
    /// all. Nobody needs it, and it is dropped.
    pub max_overhead_bytes: usize,
}

impl Default for FormDataLimits {
    fn default() -> Self {
        Self {
            max_parts: 1000,
            max_head_bytes: 4 << 10,
            max_name_bytes: 1 << 10,
            max_overhead_bytes: 4 << 10,
        }
    }
}

/// What has been found in a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormEvent<'a> {
    /// A part begins.
    Part(FormPart),
    /// Data of this part; not empty.
    Data(&'a [u8]),
    /// The part has ended.
    PartEnd,
    /// There are no more parts. What still follows is dropped.
    End,
}

/// What one step took from the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormStep<'a> {
    /// How many bytes of the input are done with.
    pub consumed: usize,
    /// What they say; `None` when that is not known yet, or nothing.
    pub event: Option<FormEvent<'a>>,
}

/// Reads a form. [`FormDataParser::step`] is called until nothing is left of the input, and [`FormDataParser::finish`] when no
/// more comes.
///
/// ```
/// use tidegate_http::{FormDataLimits, FormDataParser, FormEvent};
///
/// let body = b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nhello\r\n--x--\r\n";
/// let mut parser = FormDataParser::new(b"x", FormDataLimits::default())?;
/// let (mut rest, mut data) = (&body[..], Vec::new());
/// while !rest.is_empty() {
///     let step = parser.step(rest)?;
///     match step.event {
///         Some(FormEvent::Part(part)) => assert_eq!((part.name(), part.base_name()), ("file", Some("a.txt"))),
///         Some(FormEvent::Data(bytes)) => data.extend_from_slice(bytes),
///         Some(FormEvent::PartEnd | FormEvent::End) | None => {}
///     }
///     rest = &rest[step.consumed..];
/// }
/// parser.finish()?;
/// assert_eq!(data, b"hello");
/// # Ok::<(), tidegate_http::FormDataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FormDataParser {
    state: State,
    /// `CR LF - -` and the boundary. A CR stands only in front: so a match that fails begins anew with the byte that failed.
    delimiter: Box<[u8]>,
    /// How many bytes of the delimiter the end of what has come so far is.
    matched: usize,
    /// How many of these were there before the part began and are no data of it: the line end of its head.
    lent: usize,
    /// What has come of the head of a part; no more than its limit.
    head: Vec<u8>,
    parts: usize,
    overhead_left: usize,
    limits: FormDataLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Preamble,
    Delimiter,
    Padding,
    DelimiterLf,
    Head,
    Data,
    Dash,
    Closed,
    ClosedLf,
    Epilogue,
}

/// What some bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing that is known yet, or nothing that counts.
    Nothing,
    /// So many bytes that belong to no part.
    Outside(usize),
    Part(FormPart),
    /// Data: these bytes of the input.
    Plain(Range<usize>),
    /// Data: these bytes of the delimiter.
    Held(Range<usize>),
    PartEnd,
    End,
}

/// CR LF, which stand before every delimiter but may be those of what is before the part.
const LINE_END: usize = 2;

impl FormDataParser {
    /// A parser of a form with this boundary.
    ///
    /// # Errors
    ///
    /// [`FormDataError::Boundary`] for what RFC 2046 does not let be a boundary: 1 to 70 of its characters, the last of them no
    /// blank.
    pub fn new(boundary: &[u8], limits: FormDataLimits) -> Result<Self, FormDataError> {
        let is_boundary = (1..=MAX_BOUNDARY_BYTES).contains(&boundary.len())
            && boundary.iter().all(|byte| is_boundary_byte(*byte))
            && !boundary.ends_with(b" ");
        if !is_boundary {
            return Err(FormDataError::Boundary);
        }
        Ok(Self {
            state: State::Preamble,
            delimiter: [b"\r\n--", boundary].concat().into(),
            // The form begins at the start of a line.
            matched: LINE_END,
            lent: LINE_END,
            head: Vec::new(),
            parts: 0,
            overhead_left: limits.max_overhead_bytes,
            limits,
        })
    }

    /// A parser of the body of a request with these fields.
    ///
    /// # Errors
    ///
    /// [`FormDataError::NotFormData`] when its `Content-Type` is missing, repeated, malformed or another one,
    /// [`FormDataError::Boundary`] when that has no boundary or a malformed one.
    pub fn of(fields: &Fields<'_>, limits: FormDataLimits) -> Result<Self, FormDataError> {
        let media_type = MediaType::of(fields).filter(|it| it.is("multipart", "form-data"));
        let media_type = media_type.ok_or(FormDataError::NotFormData)?;
        Self::new(&media_type.parameter("boundary").ok_or(FormDataError::Boundary)?, limits)
    }

    /// Goes through `input` up to the next event, or to its end. Takes at least one byte or has an event.
    ///
    /// # Errors
    ///
    /// What is wrong with the form. The parser is good for nothing then.
    pub fn step<'a>(&'a mut self, input: &'a [u8]) -> Result<FormStep<'a>, FormDataError> {
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            let (taken, found) = match self.state {
                State::Preamble | State::Data => self.scan(rest),
                State::Head => self.take_head(rest)?,
                State::Epilogue => (rest.len(), Found::Outside(rest.len())),
                _ => (1, self.next(rest[0])?),
            };
            at += taken;
            let event = match found {
                Found::Nothing => continue,
                Found::Outside(bytes) => {
                    self.spend(bytes)?;
                    continue;
                }
                Found::Part(part) => FormEvent::Part(part),
                Found::Plain(range) => FormEvent::Data(&rest[range]),
                Found::Held(range) => FormEvent::Data(&self.delimiter[range]),
                Found::PartEnd => FormEvent::PartEnd,
                Found::End => FormEvent::End,
            };
            return Ok(FormStep { consumed: at, event: Some(event) });
        }
        Ok(FormStep { consumed: at, event: None })
    }

    /// No more comes.
    ///
    /// # Errors
    ///
    /// [`FormDataError::Truncated`] when the last boundary has not come, or a line end behind it not all of it.
    pub const fn finish(&self) -> Result<(), FormDataError> {
        match self.state {
            State::Closed | State::Epilogue => Ok(()),
            _ => Err(FormDataError::Truncated { part: self.parts }),
        }
    }

    /// Takes one byte behind a boundary.
    fn next(&mut self, byte: u8) -> Result<Found, FormDataError> {
        let (state, found) = match (self.state, byte) {
            (State::Delimiter, b'-') => (State::Dash, Found::Nothing),
            (State::Dash, b'-') => (State::Closed, Found::End),
            (State::Delimiter | State::Padding, b'\r') => (State::DelimiterLf, Found::Nothing),
            (State::DelimiterLf, b'\n') => {
                if self.parts == self.limits.max_parts {
                    return Err(FormDataError::TooManyParts { max: self.limits.max_parts });
                }
                self.parts += 1;
                (State::Head, Found::Nothing)
            }
            (State::Closed, b'\r') => (State::ClosedLf, Found::Nothing),
            (State::ClosedLf, b'\n') => (State::Epilogue, Found::Nothing),
            // Transport padding, which nobody may send and everybody has to take (RFC 2046, section 5.1.1).
            (State::Delimiter | State::Padding, b' ' | b'\t') => (State::Padding, Found::Outside(1)),
            (State::Closed, b' ' | b'\t') => (State::Closed, Found::Outside(1)),
            _ => return Err(FormDataError::Delimiter { part: self.parts }),
        };
        self.state = state;
        Ok(found)
    }

    /// Looks for the delimiter: how many bytes are done with, and what they are.
    fn scan(&mut self, input: &[u8]) -> (usize, Found) {
        if self.matched > 0 {
            let wanted = &self.delimiter[self.matched..];
            let same = wanted.iter().zip(input).take_while(|(a, b)| a == b).count();
            self.matched += same;
            if self.matched == self.delimiter.len() {
                return (same, self.delimited());
            }
            if same == input.len() {
                return (same, Found::Nothing);
            }
            // It was no delimiter, so what looked like one is data; the delimiter has the same bytes.
            let held = mem::take(&mut self.lent)..mem::take(&mut self.matched);
            if !held.is_empty() {
                return (same, self.outside_or(held.len(), Found::Held(held)));
            }
        }
        let plain = memmem::find(input, &self.delimiter).unwrap_or_else(|| input.len() - self.begun(input));
        if plain > 0 {
            return (plain, self.outside_or(plain, Found::Plain(0..plain)));
        }
        self.matched = self.delimiter.len().min(input.len());
        let found = if self.matched == self.delimiter.len() { self.delimited() } else { Found::Nothing };
        (self.delimiter.len().min(input.len()), found)
    }

    /// How many bytes at the end of `input` are the beginning of a delimiter.
    fn begun(&self, input: &[u8]) -> usize {
        let tail = &input[input.len().saturating_sub(self.delimiter.len() - 1)..];
        let begun = memchr::memrchr(b'\r', tail).map_or(&[][..], |start| &tail[start..]);
        if self.delimiter.starts_with(begun) { begun.len() } else { 0 }
    }

    /// What is no delimiter is data of a part, or stands before the first.
    fn outside_or(&self, bytes: usize, data: Found) -> Found {
        if self.state == State::Preamble { Found::Outside(bytes) } else { data }
    }

    /// A delimiter is complete.
    fn delimited(&mut self) -> Found {
        (self.matched, self.lent) = (0, 0);
        match mem::replace(&mut self.state, State::Delimiter) {
            State::Data => Found::PartEnd,
            _ => Found::Nothing,
        }
    }

    /// Takes what belongs to the head of a part.
    fn take_head(&mut self, input: &[u8]) -> Result<(usize, Found), FormDataError> {
        let (part, max) = (self.parts, self.limits.max_head_bytes);
        let before = self.head.len();
        let take = input.len().min(max - before);
        self.head.extend_from_slice(&input[..take]);
        // An empty head has no line before the empty one.
        if self.head.starts_with(b"\r\n") {
            return Err(FormDataError::Disposition { part });
        }
        let from = before.saturating_sub(HEAD_END.len() - 1);
        let Some(found) = memmem::find(&self.head[from..], HEAD_END) else {
            if self.head.len() == max {
                return Err(FormDataError::HeadTooLarge { part, max });
            }
            return Ok((take, Found::Nothing));
        };
        let end = from + found + HEAD_END.len();
        let dash_boundary = &self.delimiter[LINE_END..];
        let parsed =
            parse_head(&self.head[..end - LINE_END], dash_boundary, part, self.limits.max_name_bytes)?;
        self.head = Vec::new();
        self.state = State::Data;
        // A part without data may end where it begins: the empty line is that before the delimiter.
        (self.matched, self.lent) = (LINE_END, LINE_END);
        Ok((end - before, Found::Part(parsed)))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), FormDataError> {
        let left = self.overhead_left.checked_sub(bytes);
        self.overhead_left = left.ok_or(FormDataError::Overhead { max: self.limits.max_overhead_bytes })?;
        Ok(())
    }
}

/// The longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY_BYTES: usize = 70;

/// What ends the head of a part.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// `bchars` of RFC 2046, section 5.1.1.
const fn is_boundary_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'\'' | b'(' | b')' | b'+' | b'_' | b',' | b'-' | b'.' | b'/' | b':' | b'=' | b'?' | b' '
        )
}
