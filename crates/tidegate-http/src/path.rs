//! `normalize_path`: the path of a request to a relative path that cannot leave its root.
//!
//! Invariant: what comes out has no empty, `.` or `..` segment, no NUL, does not begin with `/`, and is decoded exactly
//! once. It is bytes, not text, as file names are. Symbolic links are not this function's business.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::bytes::{PLAIN, class, hex};

/// Why a path is not served. All are answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The path does not begin with `/`.
    #[error("path is not absolute")]
    NotAbsolute,
    /// `%` without two hexadecimal digits behind it.
    #[error("malformed percent-encoding")]
    Encoding,
    /// An encoded `/` or NUL: as a file name it could only be meant to deceive.
    #[error("encoded slash or NUL")]
    Forbidden,
    /// `..` above the root.
    #[error("path leaves the root")]
    Escapes,
}

/// Decodes and normalises a path as [`Head::path`](crate::Head::path) answers it.
///
/// The result is relative to the root: `""` for `/`. A `/` at the end stays, and `/.` and `/..` at the end name a
/// directory, so they leave one. Several slashes count as one. The result borrows when there is nothing to do.
///
/// ```
/// use tidegate_http::{PathError, normalize_path};
/// assert_eq!(normalize_path(b"/a/./b//c%20d/../e/").as_deref(), Ok(&b"a/b/e/"[..]));
/// assert_eq!(normalize_path(b"/a/%2e%2e/../etc"), Err(PathError::Escapes));
/// ```
///
/// # Errors
///
/// See [`PathError`].
pub fn normalize_path(path: &[u8]) -> Result<Cow<'_, [u8]>, PathError> {
    let rest = path.strip_prefix(b"/").ok_or(PathError::NotAbsolute)?;
    if is_normal(rest) {
        return Ok(Cow::Borrowed(rest));
    }
    let mut out: Vec<u8> = Vec::with_capacity(rest.len());
    for segment in rest.split(|&b| b == b'/') {
        // A slash ends each segment that is followed by another; the next one takes it back when it is empty or a dot.
        if !out.is_empty() && !out.ends_with(b"/") {
            out.push(b'/');
        }
        let start = out.len();
        decode_onto(&mut out, segment)?;
        match &out[start..] {
            b"." => out.truncate(start),
            b".." => {
                out.truncate(start);
                pop_segment(&mut out)?;
            }
            _ => {}
        }
    }
    Ok(Cow::Owned(out))
}

/// `out` is empty or ends with `/`.
fn pop_segment(out: &mut Vec<u8>) -> Result<(), PathError> {
    out.pop().ok_or(PathError::Escapes)?;
    let start = out.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    out.truncate(start);
    Ok(())
}

/// Whether a relative path needs nothing done: a single look, since nearly all paths are of this kind.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = b'/';
    for &byte in path {
        let at_start = previous == b'/';
        if class(byte) & PLAIN == 0 && (at_start || byte == b'%' || byte == 0) {
            return false;
        }
        previous = byte;
    }
    true
}

fn decode_onto(out: &mut Vec<u8>, segment: &[u8]) -> Result<(), PathError> {
    let mut rest = segment;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte == 0 {
            return Err(PathError::Forbidden);
        }
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let [high, low, after @ ..] = after else { return Err(PathError::Encoding) };
        let hex = |digit| hex(digit).ok_or(PathError::Encoding);
        let decoded = hex(*high)? << 4 | hex(*low)?;
        if decoded == b'/' || decoded == 0 {
            return Err(PathError::Forbidden);
        }
        out.push(decoded);
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_paths_are_borrowed() {
        for path in ["/", "/a", "/a/", "/a.b/c-d_e~f", "/a/b.tar.gz", "/a..b", "/a./b"] {
            let normal = normalize_path(path.as_bytes()).unwrap();
            assert!(matches!(normal, Cow::Borrowed(_)), "{path}");
            assert_eq!(*normal, path.as_bytes()[1..]);
        }
    }

    #[test]
    fn dots_slashes_and_escapes_are_resolved() {
        let cases = [
            ("//", ""),
            ("/.", ""),
            ("/./", ""),
            ("/a/.", "a/"),
            ("/a/..", ""),
            ("/a/b/..", "a/"),
            ("/a/b/../", "a/"),
            ("/a/b/../c", "a/c"),
            ("/a//b///c", "a/b/c"),
            ("//a", "a"),
            ("/%61%2Eb", "a.b"),
            ("/a/%2e/b", "a/b"),
            ("/a/%2e%2E/b", "b"),
            ("/a/.%2e/b", "b"),
            ("/.hidden", ".hidden"),
            ("/..a/...", "..a/..."),
            ("/%25", "%"),
            ("/%2525", "%25"),
            ("/a%3Fb%23", "a?b#"),
            ("/%c3%a4", "\u{e4}"),
        ];
        for (path, expected) in cases {
            assert_eq!(normalize_path(path.as_bytes()).as_deref(), Ok(expected.as_bytes()), "{path}");
        }
    }

    #[test]
    fn what_deceives_is_refused() {
        use PathError::{Encoding, Escapes, Forbidden, NotAbsolute};
        let cases = [
            ("", NotAbsolute),
            ("*", NotAbsolute),
            ("a/b", NotAbsolute),
            ("/..", Escapes),
            ("/../", Escapes),
            ("/a/../../b", Escapes),
            ("/%2e%2e/etc/passwd", Escapes),
            ("/a/./.././../b", Escapes),
            ("//../a", Escapes),
            ("/..%2f", Forbidden),
            ("/a%2Fb", Forbidden),
            ("/a%00", Forbidden),
            ("/a\0b", Forbidden),
            ("/%", Encoding),
            ("/%2", Encoding),
            ("/%zz", Encoding),
            ("/a%2x", Encoding),
        ];
        for (path, expected) in cases {
            assert_eq!(normalize_path(path.as_bytes()), Err(expected), "{path}");
        }
    }

    /// The same by the book: a list of decoded segments.
    fn naive(path: &[u8]) -> Option<Vec<u8>> {
        let text = path.strip_prefix(b"/")?;
        let mut stack: Vec<Vec<u8>> = Vec::new();
        let mut directory = true;
        for segment in text.split(|&b| b == b'/') {
            let mut decoded = Vec::new();
            let mut bytes = segment.iter().copied();
            while let Some(byte) = bytes.next() {
                if byte != b'%' {
                    decoded.push(byte);
                    continue;
                }
                let digits = [bytes.next()?, bytes.next()?];
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                let byte = u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?;
                (byte != b'/').then_some(())?;
                decoded.push(byte);
            }
            (!decoded.contains(&0)).then_some(())?;
            directory = matches!(&decoded[..], b"" | b"." | b"..");
            match &decoded[..] {
                b"" | b"." => {}
                b".." => drop(stack.pop()?),
                _ => stack.push(decoded),
            }
        }
        let mut out = stack.join(&b'/');
        if directory && !out.is_empty() {
            out.push(b'/');
        }
        Some(out)
    }

    proptest! {
        #[test]
        fn normalising_agrees_with_a_naive_one(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("/"), Just("/"), Just("."), Just(".."), Just("%2e"), Just("%2f"), Just("%00"), Just("a"),
                    Just("b.c"), Just("%"), Just("%41"), Just("\0"), Just("\u{e4}"),
                ],
                0..12,
            ),
        ) {
            let path = format!("/{}", parts.concat());
            let ours = normalize_path(path.as_bytes());
            prop_assert_eq!(ours.clone().ok().map(Cow::into_owned), naive(path.as_bytes()));
            if let Ok(normal) = ours {
                prop_assert!(normal.is_empty() || !normal.starts_with(b"/"));
                prop_assert!(normal.split(|&b| b == b'/').all(|s| s != b"." && s != b".."));
                prop_assert!(!normal.contains(&0));
            }
        }
    }
}
