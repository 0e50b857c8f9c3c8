//! Queries and forms on whatever comes: what passes is what `form_urlencoded`, which reads them behind `Form` and `Query`, reads
//! without putting U+FFFD for anything.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode;
use tidegate_http::{FormError, MAX_FORM_PAIRS, check_form};

fuzz_target!(|data: &[u8]| {
    let pieces = data.split(|&b| b == b'&').filter(|pair| !pair.is_empty());
    let mut pairs = 0;
    let mut mangled = None;
    for (number, (piece, (name, value))) in (1..).zip(pieces.zip(form_urlencoded::parse(data))) {
        let mut sides = piece.splitn(2, |&b| b == b'=').map(decode);
        let sent = [sides.next().unwrap_or_default(), sides.next().unwrap_or_default()];
        if mangled.is_none() && sent != [name.as_bytes(), value.as_bytes()] {
            mangled = Some(number);
        }
        pairs = number;
    }
    assert_eq!(pairs, form_urlencoded::parse(data).count());
    let expected = match mangled.filter(|number| *number <= MAX_FORM_PAIRS) {
        Some(number) => Err(FormError::NotUtf8 { number }),
        None if pairs > MAX_FORM_PAIRS => Err(FormError::TooMany),
        None => Ok(()),
    };
    assert_eq!(check_form(data), expected);
});

/// The bytes that were sent, whatever they are.
fn decode(side: &[u8]) -> Cow<'_, [u8]> {
    let blanks: Vec<u8> = side.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
    percent_decode(&blanks).collect::<Vec<_>>().into()
}
