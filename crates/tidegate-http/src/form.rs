//! `check_form`: whether a query or a form that is `application/x-www-form-urlencoded` (WHATWG URL, section 5.1) can be read
//! without a loss.
//!
//! Parsers that follow the specification put U+FFFD where bytes are no UTF-8, so that two names that differ can become one.
//! Invariant: what passes here they read without that, and it has no more than [`MAX_FORM_PAIRS`] pairs. The pairs are not
//! given out; a parser that follows the specification does that.

use alloc::vec::Vec;

use crate::bytes::hex;

/// Why a query or form cannot be read. Answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// A name or value is not UTF-8 when it has been decoded.
    #[error("pair {number} of the form is not UTF-8")]
    NotUtf8 {
        /// Which pair, from 1.
        number: usize,
    },
    /// There are more pairs than [`MAX_FORM_PAIRS`].
    #[error("more than {MAX_FORM_PAIRS} pairs in the form")]
    TooMany,
}

/// How many pairs a form may have: each costs far more memory when it has been parsed than the two bytes that it may have
/// here.
pub const MAX_FORM_PAIRS: usize = 1000;

/// Looks at a query without its `?`, or at the body of a form.
///
/// ```
/// use tidegate_http::{FormError, check_form};
///
/// assert_eq!(check_form(b"name=J%C3%BCrgen+K&share=100%"), Ok(()));
/// assert_eq!(check_form(b"name=J%C3%BCrgen&name=J%FCrgen"), Err(FormError::NotUtf8 { number: 2 }));
/// ```
///
/// # Errors
///
/// See [`FormError`].
pub fn check_form(text: &[u8]) -> Result<(), FormError> {
    // Empty ones are no pairs.
    for (index, pair) in text.split(|&b| b == b'&').filter(|pair| !pair.is_empty()).enumerate() {
        if index == MAX_FORM_PAIRS {
            return Err(FormError::TooMany);
        }
        // What stands between name and value is ASCII, so both are text if the whole is.
        let is_text = match memchr::memchr(b'%', pair) {
            None => str::from_utf8(pair).is_ok(),
            Some(_) => str::from_utf8(&decode(pair)).is_ok(),
        };
        if !is_text {
            return Err(FormError::NotUtf8 { number: index + 1 });
        }
    }
    Ok(())
}

/// `%XX` is a byte, and a `%` that is followed by something else is itself, as the specification says.
fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        if let (b'%', [high, low, after @ ..]) = (byte, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            rest = after;
            out.push(high << 4 | low);
        } else {
            out.push(*byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_text_passes() {
        for text in [
            "",
            "&&",
            "a",
            "=",
            "a=b=c&&a=d&",
            "a+b=c+%2B",
            "%26=%3D%3d",
            "q=100%&r=%zz&s=%4",
            "%e2%82%ac=%00",
            "\u{e4}=%C3%a4",
            "%ef%bf%bd=\u{fffd}",
        ] {
            assert_eq!(check_form(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_is_no_text_is_told_with_its_place() {
        for text in [
            &b"a=b&%ff=c&d=e"[..],
            b"&a=b&&c=\xff&d=e",
            b"a=b&c=%c3&d=e",
            // Neither the end of a name nor that of a pair is within a character.
            b"a&%c3=%a4",
            b"a&%c3&%a4",
            b"a&%c3=\xa4",
            b"a&%ed%a0%80",
            b"a&%c3%",
            b"a&%%c3",
        ] {
            assert_eq!(check_form(text), Err(FormError::NotUtf8 { number: 2 }), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn the_number_of_pairs_is_limited() {
        assert_eq!(check_form("a&".repeat(MAX_FORM_PAIRS).as_bytes()), Ok(()));
        assert_eq!(check_form("a&".repeat(MAX_FORM_PAIRS + 1).as_bytes()), Err(FormError::TooMany));
        assert_eq!(check_form("&".repeat(MAX_FORM_PAIRS + 1).as_bytes()), Ok(()));
    }

    proptest! {
        #[test]
        fn text_that_was_encoded_passes_and_bytes_that_are_none_do_not(
            name in ".{0,8}",
            value in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let encode = |bytes: &[u8]| bytes.iter().map(|b| format!("%{b:02X}")).collect::<String>();
            let form = format!("{}={}", encode(name.as_bytes()), encode(&value));
            prop_assert_eq!(check_form(form.as_bytes()).is_ok(), str::from_utf8(&value).is_ok());
        }
    }
}
