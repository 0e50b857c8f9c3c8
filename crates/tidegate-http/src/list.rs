//! Lists and weights of RFC 9110: `#element` (section 5.6.1), parameters (5.6.6) and `q` (12.4.2).
//!
//! Invariant: a comma or semicolon within quotes separates nothing. Nothing is allocated, and input of any kind only ends
//! an iteration.

use crate::bytes::trim_ows;

/// The parts of `text` between `separator`s that do not stand within quotes, without the blanks around them.
///
/// Empty elements are left out (RFC 9110, section 5.6.1.2).
pub(crate) fn elements(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    Elements { rest: Some(text), separator }.map(trim_ows).filter(|element| !element.is_empty())
}

struct Elements<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.rest?;
        let (mut quoted, mut at) = (false, 0);
        while let Some(&byte) = text.get(at) {
            match byte {
                b'"' => quoted = !quoted,
                // A quoted pair: the next byte means itself.
                b'\\' if quoted => at += 1,
                _ if byte == self.separator && !quoted => {
                    self.rest = Some(&text[at + 1..]);
                    return Some(&text[..at]);
                }
                _ => {}
            }
            at += 1;
        }
        self.rest = None;
        Some(text)
    }
}

/// `text` before and behind the first `separator` outside of quotes.
pub(crate) fn split_once(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let mut elements = Elements { rest: Some(text), separator };
    let first = elements.next().unwrap_or_default();
    (first, elements.rest)
}

/// A weight in thousandths: `0`, `1`, or either with up to three digits behind a dot; at most 1000.
pub(crate) fn weight(text: &[u8]) -> Option<u16> {
    let (&whole, rest) = text.split_first()?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut weight = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    let mut place = 100;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        weight += u16::from(digit - b'0') * place;
        place /= 10;
    }
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_separated_outside_of_quotes_only() {
        let cases: [(&str, &[&str]); 8] = [
            ("", &[]),
            (",", &[]),
            ("a", &["a"]),
            (" a ,\tb,, c,", &["a", "b", "c"]),
            ("\"a,b\",c", &["\"a,b\"", "c"]),
            ("\"a\\\",b\",c", &["\"a\\\",b\"", "c"]),
            ("\"a,b", &["\"a,b"]),
            ("a\\,b", &["a\\", "b"]),
        ];
        for (text, expected) in cases {
            let found: Vec<_> = elements(text.as_bytes(), b',').collect();
            let expected: Vec<_> = expected.iter().map(|e| e.as_bytes()).collect();
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(split_once(b"a;b;c", b';'), (&b"a"[..], Some(&b"b;c"[..])));
        assert_eq!(split_once(b"a", b';'), (&b"a"[..], None));
    }

    #[test]
    fn weights_have_at_most_three_digits_and_are_at_most_one() {
        for (text, expected) in [
            ("0", 0),
            ("0.", 0),
            ("1", 1000),
            ("1.", 1000),
            ("1.000", 1000),
            ("0.5", 500),
            ("0.05", 50),
            ("0.001", 1),
            ("0.999", 999),
        ] {
            assert_eq!(weight(text.as_bytes()), Some(expected), "{text}");
        }
        for text in
            ["", "2", "1.001", "1.1", "0.0001", "00", "01", ".5", "-1", "0,5", "0.a", "0.5 ", "1.0000"]
        {
            assert_eq!(weight(text.as_bytes()), None, "{text}");
        }
    }
}
