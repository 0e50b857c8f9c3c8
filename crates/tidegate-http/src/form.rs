//! `FormPairs`: the names and values of a query or of a form that is `application/x-www-form-urlencoded` (WHATWG URL,
//! section 5.1).
//!
//! Invariant: what comes out is text. Where the specification puts U+FFFD for bytes that are no UTF-8, they are an error
//! here, so that nobody is told that two names are the same which are not.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

/// Why a query or form cannot be read. Answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// A name or value is not UTF-8 when it has been decoded.
    #[error("pair {index} of the form is not UTF-8")]
    NotUtf8 {
        /// Which pair, from 0.
        index: usize,
    },
    /// There are more pairs than [`MAX_FORM_PAIRS`].
    #[error("more than {MAX_FORM_PAIRS} pairs in the form")]
    TooMany,
}

/// How many pairs a form may have.
pub const MAX_FORM_PAIRS: usize = 1000;

/// Iterates over the pairs of a form. After an error it ends.
///
/// ```
/// use tidegate_http::FormPairs;
///
/// let pairs: Result<Vec<_>, _> = FormPairs::new(b"name=J%C3%BCrgen+K&x").collect();
/// assert_eq!(pairs, Ok(vec![("name".into(), "Jürgen K".into()), ("x".into(), "".into())]));
/// ```
#[derive(Clone, Debug)]
pub struct FormPairs<'a> {
    rest: &'a [u8],
    index: usize,
}

impl<'a> FormPairs<'a> {
    /// The pairs of a query without its `?`, or of the body of a form.
    #[must_use]
    pub const fn new(text: &'a [u8]) -> Self {
        Self { rest: text, index: 0 }
    }
}

impl<'a> Iterator for FormPairs<'a> {
    type Item = Result<(Cow<'a, str>, Cow<'a, str>), FormError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let [b'&', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let index = self.index;
        if index == MAX_FORM_PAIRS {
            self.rest = &[];
            return Some(Err(FormError::TooMany));
        }
        let end = memchr::memchr(b'&', self.rest).unwrap_or(self.rest.len());
        let (pair, rest) = self.rest.split_at(end);
        let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (name, value) = (&pair[..equals], pair.get(equals + 1..).unwrap_or_default());
        let (Some(name), Some(value)) = (decode(name), decode(value)) else {
            self.rest = &[];
            return Some(Err(FormError::NotUtf8 { index }));
        };
        (self.rest, self.index) = (rest, index + 1);
        Some(Ok((name, value)))
    }
}

/// `+` is a blank, `%XX` is a byte, and a `%` that is followed by something else is itself, as the specification says.
fn decode(text: &[u8]) -> Option<Cow<'_, str>> {
    if !text.iter().any(|b| matches!(b, b'+' | b'%')) {
        return str::from_utf8(text).ok().map(Cow::Borrowed);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        out.push(match (byte, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            _ => *byte,
        });
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        FormPairs::new(text.as_bytes())
            .map(|pair| pair.map(|(name, value)| (name.into_owned(), value.into_owned())).unwrap())
            .collect()
    }

    #[test]
    fn pairs_are_split_and_decoded() {
        let cases: [(&str, &[(&str, &str)]); 13] = [
            ("", &[]),
            ("&&", &[]),
            ("a", &[("a", "")]),
            ("a=", &[("a", "")]),
            ("=a", &[("", "a")]),
            ("=", &[("", "")]),
            ("a=b&c=d", &[("a", "b"), ("c", "d")]),
            ("a=b=c&&a=d&", &[("a", "b=c"), ("a", "d")]),
            ("a+b=c+%2B", &[("a b", "c +")]),
            ("%26=%3D%3d", &[("&", "==")]),
            ("q=100%&r=%zz&s=%4", &[("q", "100%"), ("r", "%zz"), ("s", "%4")]),
            ("%e2%82%ac=%00", &[("\u{20ac}", "\0")]),
            ("a;b=c?/d", &[("a;b", "c?/d")]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
            assert_eq!(pairs(text), expected, "{text}");
        }
        let plain = FormPairs::new(b"a=b").next().unwrap().unwrap();
        assert!(matches!(plain, (Cow::Borrowed("a"), Cow::Borrowed("b"))));
    }

    #[test]
    fn what_is_no_text_ends_the_form() {
        for text in [&b"a=b&%ff=c&d=e"[..], b"a=b&c=\xff&d=e", b"a=b&c=%c3&d=e"] {
            let all: Vec<_> = FormPairs::new(text).collect();
            assert_eq!(all[1..], [Err(FormError::NotUtf8 { index: 1 })], "{}", text.escape_ascii());
        }
    }

    #[test]
    fn the_number_of_pairs_is_limited() {
        assert_eq!(FormPairs::new("a&".repeat(MAX_FORM_PAIRS).as_bytes()).count(), MAX_FORM_PAIRS);
        let many = "a&".repeat(MAX_FORM_PAIRS + 1);
        assert_eq!(FormPairs::new(many.as_bytes()).last(), Some(Err(FormError::TooMany)));
    }

    proptest! {
        #[test]
        fn pairs_that_were_encoded_are_read_back(
            expected in proptest::collection::vec((".{0,8}", ".{0,8}"), 0..6),
        ) {
            let encode = |text: &str| text.bytes().map(|b| match b {
                b' ' => "+".to_owned(),
                _ if b.is_ascii_alphanumeric() => char::from(b).to_string(),
                _ => format!("%{b:02X}"),
            }).collect::<String>();
            let text: Vec<_> = expected.iter().map(|(n, v)| format!("{}={}", encode(n), encode(v))).collect();
            prop_assert_eq!(pairs(&text.join("&")), expected);
        }
    }
}
