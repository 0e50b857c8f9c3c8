//! `EntityTag`: entity tags and their two comparisons (RFC 9110, section 8.8.3).
//!
//! Invariant: a tag that was parsed holds no quote and no blank, so it can be written back as it is.

/// An entity tag: `"opaque"`, or `W/"opaque"` when it is weak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityTag<'a> {
    weak: bool,
    opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads one tag; nothing may follow it.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (tag, rest) = Self::parse_prefix(text)?;
        rest.is_empty().then_some(tag)
    }

    /// Reads a tag at the start of `text`, and answers what follows.
    pub(crate) fn parse_prefix(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', inner)?;
        let opaque = &inner[..end];
        opaque.iter().all(|&b| is_opaque_byte(b)).then_some((Self { weak, opaque }, &inner[end + 1..]))
    }

    /// Whether the tag begins with `W/`.
    #[must_use]
    pub const fn is_weak(&self) -> bool {
        self.weak
    }

    /// The same bytes, byte for byte: equal and neither is weak.
    #[must_use]
    pub fn strong_eq(&self, other: &EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Equivalent content: equal, weak or not.
    #[must_use]
    pub fn weak_eq(&self, other: &EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }
}

const fn is_opaque_byte(byte: u8) -> bool {
    byte == 0x21 || (byte >= 0x23 && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_follow_the_table_of_the_rfc() {
        // RFC 9110, section 8.8.3.2.
        let cases = [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ];
        for (a, b, strong, weak) in cases {
            let tag = |text: &'static str| EntityTag::parse(text.as_bytes()).unwrap();
            assert_eq!(tag(a).strong_eq(&tag(b)), strong, "{a} {b}");
            assert_eq!(tag(a).weak_eq(&tag(b)), weak, "{a} {b}");
        }
    }

    #[test]
    fn what_is_no_tag_is_none() {
        for text in
            ["", "a", "\"a", "a\"", "w/\"a\"", "W/a", "W \"a\"", "\"a b\"", "\"a\"b", "\"a\x7f\"", "\"a\" "]
        {
            assert_eq!(EntityTag::parse(text.as_bytes()), None, "{text:?}");
        }
        assert!(EntityTag::parse(b"\"\"").is_some());
        assert!(EntityTag::parse(b"W/\"\xc3\xa4!#\"").is_some_and(|tag| tag.is_weak()));
    }
}
