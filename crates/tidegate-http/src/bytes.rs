//! Which bytes may stand where: the character classes of RFC 9110 and RFC 3986, as one table and one word-wise scan.
//!
//! Invariant: every class is decided here and nowhere else, so that two places cannot disagree about a byte.

/// A byte of a token (RFC 9110, section 5.6.2).
pub(crate) const TOKEN: u8 = 1;
/// A byte that may stand in a request target.
pub(crate) const TARGET: u8 = 2;
/// `?`, which ends the path.
pub(crate) const QUERY: u8 = 4;
/// A byte of a host name: `unreserved` of RFC 3986, section 2.3.
pub(crate) const NAME: u8 = 8;
/// A byte that a normalised path may hold without a further look: neither `%` nor `/` nor `.`.
pub(crate) const PLAIN: u8 = 16;
/// `.`, which parts the labels of a name.
pub(crate) const DOT: u8 = 32;

pub(crate) static CLASS: [u8; 256] = class_table();

/// True when `bytes` is a token (RFC 9110, section 5.6.2), as field names and methods are.
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| class(b) & TOKEN != 0)
}

/// True when `bytes` may stand as a field value (RFC 9110, section 5.5): no control character but the tab.
#[must_use]
pub fn is_field_value(bytes: &[u8]) -> bool {
    field_value_len(bytes) == bytes.len()
}

pub(crate) fn class(byte: u8) -> u8 {
    CLASS[usize::from(byte)]
}

/// How many bytes at the start of `bytes` belong to a field value.
pub(crate) fn field_value_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        let hits = control_bytes(u64::from_le_bytes(*word));
        if hits == 0 {
            at += 8;
            continue;
        }
        at += hits.trailing_zeros() as usize / 8;
        if bytes[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    while at < bytes.len() && is_value_byte(bytes[at]) {
        at += 1;
    }
    at
}

const fn is_value_byte(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

/// Marks the bytes of `word` that are below 0x20 or are 0x7f, with their top bit.
///
/// A borrow may mark bytes above the lowest marked one wrongly; the lowest is always right, and only it is used.
fn control_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let below = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = word ^ (ONES * 0x7f);
    let equal = delete.wrapping_sub(ONES) & !delete;
    (below | equal) & TOPS
}

/// `bytes` without the blanks and tabs around it (OWS of RFC 9110, section 5.6.3).
pub(crate) fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

const fn class_table() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut index = 0;
    while index < 256 {
        // The lint does not see that 256 is the end of the loop.
        #[expect(clippy::cast_possible_truncation, reason = "the index is below 256")]
        let byte = index as u8;
        table[index] = class_of(byte);
        index += 1;
    }
    table
}

const fn class_of(byte: u8) -> u8 {
    let alphanumeric = byte.is_ascii_alphanumeric();
    let mut class = 0;
    if alphanumeric || is_one_of(byte, b"!#$%&'*+-.^_`|~") {
        class |= TOKEN;
    }
    // Beyond RFC 3986 stand `[]^`{|}`, which browsers send unencoded in queries (WHATWG URL, query percent-encode set).
    // Not `"<>#\`, nor anything above ASCII.
    if alphanumeric || is_one_of(byte, b"-._~:/?@!$&'()*+,;=%[]^`{|}") {
        class |= TARGET;
    }
    if byte == b'?' {
        class |= QUERY;
    }
    if alphanumeric || is_one_of(byte, b"-._~") {
        class |= NAME;
    }
    if byte == b'.' {
        class |= DOT;
    }
    if byte != b'%' && byte != b'/' && byte != b'.' && byte != 0 {
        class |= PLAIN;
    }
    class
}

const fn is_one_of(byte: u8, set: &[u8]) -> bool {
    let mut index = 0;
    while index < set.len() {
        if set[index] == byte {
            return true;
        }
        index += 1;
    }
    false
}

/// The value of a hexadecimal digit.
pub(crate) const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_wise_scan_agrees_with_a_byte_wise_one_at_every_place() {
        let allowed = |b: u8| b == b'\t' || (b >= 0x20 && b != 0x7f);
        for byte in 0..=255u8 {
            for place in 0..20 {
                for tail in [b'a', b'\t', 0x80, 0xff, 0x7f, 0x00] {
                    let mut bytes = [b'x'; 21];
                    bytes[place] = byte;
                    bytes[20] = tail;
                    let naive = bytes.iter().position(|&b| !allowed(b)).unwrap_or(bytes.len());
                    assert_eq!(field_value_len(&bytes), naive, "{byte:#x} at {place}");
                }
            }
        }
    }

    #[test]
    fn tokens_are_those_of_the_rfc() {
        assert!(is_token(b"Content-Length") && is_token(b"x!#$%&'*+-.^_`|~9"));
        for bad in [&b""[..], b"a b", b"a:", b"a\x7f", b"\xe4", b"a(", b"a/b", b"\"q\"", b"a@", b"{"] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }

    #[test]
    fn blanks_are_trimmed_at_both_ends_only() {
        assert_eq!(trim_ows(b" \t a b\t "), b"a b");
        assert_eq!(trim_ows(b" \t "), b"");
    }
}
