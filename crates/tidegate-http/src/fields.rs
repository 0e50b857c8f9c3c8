//! `Fields`: the field lines of a head that has been parsed, one after the other.
//!
//! The parser keeps only what every request needs; whoever wants another field looks here, and only then is it paid for.
//! Invariant: the bytes have passed the parser. On others the iterator ends early, and never panics.

use crate::bytes::trim_ows;

/// A field line: `name ":" OWS value OWS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as it was sent; compare it without case.
    pub name: &'a [u8],
    /// The value without the blanks around it. May hold bytes above ASCII.
    pub value: &'a [u8],
}

/// Iterates over the field lines of a head; see [`Head::fields`](crate::Head::fields).
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `bytes` begins with the first field line.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The values of all lines with this name, in order. `name` is compared without case.
    pub fn named(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let end = memchr::memchr(b'\n', self.rest)?;
        let (line, rest) = self.rest.split_at(end + 1);
        let line = line.strip_suffix(b"\r\n")?;
        let colon = memchr::memchr(b':', line)?;
        self.rest = rest;
        Some(Field { name: &line[..colon], value: trim_ows(&line[colon + 1..]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order_and_are_found_without_case() {
        let fields = Fields::new(b"Host: a\r\nX-A:1\r\nx-a:  2 \r\nEmpty:\r\n\r\n");
        assert_eq!(fields.clone().count(), 4);
        assert_eq!(fields.clone().named("X-a").collect::<Vec<_>>(), [&b"1"[..], b"2"]);
        assert_eq!(fields.clone().named("empty").collect::<Vec<_>>(), [b""]);
        assert_eq!(fields.named("none").next(), None);
    }

    #[test]
    fn bytes_that_are_no_fields_end_the_iteration() {
        for bytes in [&b""[..], b"abc", b"abc\r\n", b"a:b\n", b":\r"] {
            assert_eq!(Fields::new(bytes).next(), None, "{bytes:?}");
        }
    }
}
