//! `FormPart`: what the head of a part of a form says (RFC 7578, section 4).
//!
//! Invariant: the names are UTF-8 without control characters, and are what was sent: browsers write `"`, CR and LF as `%22`,
//! `%0D` and `%0A` but leave `%` as it is, so nobody can tell what was meant, and nothing is decoded.

use alloc::string::String;
use alloc::vec::Vec;

use crate::FormDataError;
use crate::bytes::{is_field_value, is_token, trim_ows};
use crate::list::split_once;

/// A part of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormPart {
    name: String,
    file_name: Option<String>,
    content_type: Option<String>,
}

impl FormPart {
    /// The name of the field. It may be empty, and several parts may have the same.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the file as the client sent it, which may be a path, a device, `..` or anything else: no name for a file of
    /// the server's. `None` for what is no file. An empty one without data is how browsers send a field for a file that none
    /// was chosen for.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        self.file_name.as_deref()
    }

    /// The last component of the file's name, be it a path of Unix or of Windows: safe as the name of a file in a directory of
    /// its own.
    ///
    /// `None` when nothing safe is left: it is empty, begins with a dot, has more than 255 bytes, or holds a character that
    /// controls or turns around what is shown.
    #[must_use]
    pub fn base_name(&self) -> Option<&str> {
        let name = self.file_name()?.rsplit(['/', '\\']).next()?.trim();
        let is_safe = (1..=MAX_BASE_NAME_BYTES).contains(&name.len())
            && !name.starts_with('.')
            && !name.chars().any(|c| c.is_control() || is_invisible(c));
        is_safe.then_some(name)
    }

    /// The type of the content as the client sent it: a guess of the client's, and no more. `None` stands for `text/plain`
    /// (RFC 7578, section 4.4).
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }
}

/// The longest name of the usual file systems.
const MAX_BASE_NAME_BYTES: usize = 255;

/// Marks of direction and blanks without width, which make one name look like another.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Reads a head, each line with its CR LF. `dash_boundary` is `--` and the boundary.
pub(crate) fn parse_head(
    head: &[u8],
    dash_boundary: &[u8],
    part: usize,
    max_name_bytes: usize,
) -> Result<FormPart, FormDataError> {
    let (mut disposition, mut content_type, mut encoding) = (None, None, None);
    let mut rest = head;
    while let Some(end) = memchr::memchr(b'\r', rest) {
        let line = &rest[..end];
        rest = rest[end..].strip_prefix(b"\r\n").ok_or(FormDataError::Head { part })?;
        let (name, value) = field(line).ok_or(FormDataError::Head { part })?;
        if line.starts_with(dash_boundary) {
            return Err(FormDataError::Delimiter { part });
        }
        let twice = match name {
            _ if name.eq_ignore_ascii_case(b"Content-Disposition") => disposition.replace(value).is_some(),
            _ if name.eq_ignore_ascii_case(b"Content-Type") => content_type.replace(value).is_some(),
            _ if name.eq_ignore_ascii_case(b"Content-Transfer-Encoding") => encoding.replace(value).is_some(),
            // All others are to be ignored (RFC 7578, section 4.8).
            _ => false,
        };
        if twice {
            return Err(FormDataError::Head { part });
        }
    }
    if !rest.is_empty() {
        return Err(FormDataError::Head { part });
    }
    // Some clients say of each part that it is not encoded.
    let is_plain = |value: &[u8]| {
        [&b"binary"[..], b"8bit", b"7bit"].iter().any(|known| value.eq_ignore_ascii_case(known))
    };
    if !encoding.is_none_or(is_plain) {
        return Err(FormDataError::TransferEncoding { part });
    }
    let (name, file_name) = parse_disposition(disposition.unwrap_or_default(), part)?;
    let text = |bytes: Vec<u8>| {
        if bytes.len() > max_name_bytes {
            return Err(FormDataError::NameTooLong { part, max: max_name_bytes });
        }
        String::from_utf8(bytes).map_err(|_| FormDataError::NotUtf8 { part })
    };
    let content_type = content_type.map(|value| String::from_utf8(value.into()));
    Ok(FormPart {
        name: text(name)?,
        file_name: file_name.map(text).transpose()?,
        content_type: content_type.transpose().map_err(|_| FormDataError::NotUtf8 { part })?,
    })
}

/// `name ":" OWS value OWS`, as in the head of a request.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = (&line[..colon], trim_ows(&line[colon + 1..]));
    (is_token(name) && is_field_value(value)).then_some((name, value))
}

/// `form-data; name="…"; filename="…"`: the name, and that of the file.
fn parse_disposition(value: &[u8], part: usize) -> Result<(Vec<u8>, Option<Vec<u8>>), FormDataError> {
    let malformed = FormDataError::Disposition { part };
    let (kind, mut rest) = split_once(value, b';');
    if !trim_ows(kind).eq_ignore_ascii_case(b"form-data") {
        return Err(malformed);
    }
    let (mut name, mut file_name) = (None, None);
    while let Some(text) = rest {
        let Parameter { name: key, value, after } = parameter(text).ok_or(malformed)?;
        let twice = match key {
            _ if key.eq_ignore_ascii_case(b"name") => name.replace(value).is_some(),
            _ if key.eq_ignore_ascii_case(b"filename") => file_name.replace(value).is_some(),
            _ if key.ends_with(b"*") => return Err(FormDataError::ExtendedName { part }),
            _ => false,
        };
        if twice {
            return Err(malformed);
        }
        rest = after;
    }
    Ok((name.ok_or(malformed)?, file_name))
}

/// A parameter of `Content-Disposition`.
struct Parameter<'a> {
    name: &'a [u8],
    value: Vec<u8>,
    /// What stands behind the semicolon after it.
    after: Option<&'a [u8]>,
}

/// `OWS token "=" ( token / quoted ) OWS [ ";" … ]`.
///
/// In quotes `\"` is a quote and `\\` a backslash, as several clients write them. Any other backslash is itself: browsers send
/// names as they are, and those of Windows have some.
fn parameter(text: &[u8]) -> Option<Parameter<'_>> {
    let text = trim_ows(text);
    let equals = memchr::memchr(b'=', text)?;
    let (name, rest) = (&text[..equals], &text[equals + 1..]);
    if !is_token(name) {
        return None;
    }
    let Some(mut quoted) = rest.strip_prefix(b"\"") else {
        let (value, after) = match memchr::memchr(b';', rest) {
            Some(end) => (&rest[..end], Some(&rest[end + 1..])),
            None => (rest, None),
        };
        let value = trim_ows(value);
        return is_token(value).then(|| Parameter { name, value: value.into(), after });
    };
    let mut value = Vec::new();
    loop {
        quoted = match quoted {
            [b'"', after @ ..] => {
                let after = match trim_ows(after) {
                    [] => None,
                    [b';', after @ ..] => Some(after),
                    _ => return None,
                };
                return Some(Parameter { name, value, after });
            }
            [b'\\', escaped @ (b'"' | b'\\'), after @ ..] => {
                value.push(*escaped);
                after
            }
            [byte, after @ ..] => {
                value.push(*byte);
                after
            }
            [] => return None,
        };
    }
}
