//! `Host`: the host and port that a request is for, from `Host` or from the target (RFC 9110, section 7.2).
//!
//! Invariant: a host that was parsed is a name of letters, digits and `-._~` whose labels are not empty, an IPv4 address,
//! or an IPv6 address in brackets. RFC 3986 would also let sub-delims and percent-encoding stand in a name; no name of DNS
//! has them, and `a,b` or `a%2f` are read differently by different programs, so they are refused.

use alloc::borrow::Cow;

use core::net::Ipv6Addr;

use crate::bytes::{DOT, NAME, class};

/// A host and the port that was named with it, as they were sent.
///
/// ```
/// use tidegate_http::Host;
///
/// let host = Host::parse(b"Example.ORG.:8080").expect("a host");
/// assert_eq!((host.name(), host.port()), ("example.org".into(), Some(8080)));
/// assert!(Host::parse(b"a, b").is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// ASCII. Brackets included.
    name: &'a str,
    port: Option<u16>,
}

/// The longest name of DNS, with a dot at its end (RFC 3986, section 3.2.2).
const MAX_NAME_BYTES: usize = 255;
const MAX_PORT: u32 = u16::MAX as u32;

impl<'a> Host<'a> {
    /// Reads `uri-host [ ":" port ]`. `None` for what is none, and for an empty one: an `http` URI has a host (RFC 9110,
    /// section 4.2.1).
    #[must_use]
    #[inline]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let prefix = parse_prefix(text).filter(|prefix| prefix.len == text.len())?;
        Some(Self { name: str::from_utf8(&text[..prefix.name_len]).ok()?, port: prefix.port })
    }

    /// The host in lower case, without a dot at its end: two that mean the same are equal. An IPv6 address keeps its
    /// brackets and its spelling.
    #[must_use]
    pub fn name(&self) -> Cow<'a, str> {
        let name = self.name.strip_suffix('.').unwrap_or(self.name);
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            return Cow::Owned(name.to_ascii_lowercase());
        }
        Cow::Borrowed(name)
    }

    /// The host as it was sent.
    #[must_use]
    pub const fn as_sent(&self) -> &'a str {
        self.name
    }

    /// The port, when there is one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether this is the host of that name, which is in lower case and has no dot at its end.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.strip_suffix('.').unwrap_or(self.name).eq_ignore_ascii_case(name)
    }
}

/// A host at the start of some text.
pub(crate) struct Prefix {
    name_len: usize,
    port: Option<u16>,
    /// With the port.
    pub(crate) len: usize,
}

/// The host with its port at the start of `text`, whatever follows. This is done for every request.
#[inline]
pub(crate) fn parse_prefix(text: &[u8]) -> Option<Prefix> {
    let name_len = match text {
        [b'[', ..] => ip_literal_len(text)?,
        _ => reg_name_len(text)?,
    };
    let Some(b':') = text.get(name_len) else { return Some(Prefix { name_len, port: None, len: name_len }) };
    let (mut port, mut len) = (0u32, name_len + 1);
    while let Some(digit @ b'0'..=b'9') = text.get(len) {
        port = port * 10 + u32::from(digit - b'0');
        if port > MAX_PORT {
            return None;
        }
        len += 1;
    }
    let port = u16::try_from(port).ok()?;
    // A colon without a port is the same as none (RFC 3986, section 6.2.3).
    Some(Prefix { name_len, port: (len > name_len + 1).then_some(port), len })
}

/// The length of the name at the start of `text`: up to the first byte that no name has, or all of it.
#[inline]
fn reg_name_len(text: &[u8]) -> Option<usize> {
    let mut previous = DOT;
    let mut empty_label = 0;
    let mut len = 0;
    for &byte in text {
        let class = class(byte);
        if class & NAME == 0 {
            break;
        }
        // The empty label behind the last dot is the root, which alone is no host.
        empty_label |= class & previous;
        previous = class;
        len += 1;
    }
    (len > 0 && len <= MAX_NAME_BYTES && empty_label & DOT == 0).then_some(len)
}

/// The length of `"[" IPv6address "]"` at the start of `text`. There is no IPvFuture.
fn ip_literal_len(text: &[u8]) -> Option<usize> {
    let end = memchr::memchr(b']', text)?;
    let address = str::from_utf8(&text[1..end]).ok()?;
    address.parse::<Ipv6Addr>().ok()?;
    Some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_are_split_into_name_and_port() {
        for (text, name, port) in [
            ("a", "a", None),
            ("Example.org", "example.org", None),
            ("example.org.", "example.org", None),
            ("example.org.:80", "example.org", Some(80)),
            ("example.org:", "example.org", None),
            ("127.0.0.1:65535", "127.0.0.1", Some(65_535)),
            ("a:0", "a", Some(0)),
            ("a:00080", "a", Some(80)),
            ("a_b-c~d.e1", "a_b-c~d.e1", None),
            ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de", None),
            ("[::1]", "[::1]", None),
            ("[2001:DB8::1]:8443", "[2001:db8::1]", Some(8443)),
            ("[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]", None),
        ] {
            let host = Host::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((&*host.name(), host.port()), (name, port), "{text}");
            assert!(host.is(name) && !host.is("other"), "{text}");
        }
        assert!(matches!(Host::parse(b"a.b").unwrap().name(), Cow::Borrowed("a.b")));
        assert_eq!(Host::parse(b"A.b.").unwrap().as_sent(), "A.b.");
    }

    #[test]
    fn what_is_no_host_is_none() {
        for text in [
            "",
            ":",
            ":80",
            ".",
            "..",
            ".a",
            "a..b",
            "a b",
            " a",
            "a ",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "u@a",
            "u:p@a",
            "a;b",
            "a%41",
            "a%2fb",
            "a\\b",
            "a'b",
            "a!b",
            "a$b",
            "a&b",
            "a(b)",
            "a*b",
            "*",
            "a+b",
            "a=b",
            "a\"b",
            "a<b>",
            "a:b",
            "a:+80",
            "a:-1",
            "a:65536",
            "a:99999999999999999999",
            "a:80:80",
            "a:80 ",
            "a::",
            "[",
            "[]",
            "[::1",
            "::1",
            "[::1]a",
            "[::1]]",
            "[::g]",
            "[1.2.3.4]",
            "[fe80::1%25eth0]",
            "[v1.a]",
            "[::1]:x",
            "a[::1]",
            "\u{e4}.de",
            "a\0b",
            "a\tb",
        ] {
            assert_eq!(Host::parse(text.as_bytes()), None, "{text:?}");
        }
        assert!(Host::parse("a".repeat(255).as_bytes()).is_some());
        assert!(Host::parse("a".repeat(256).as_bytes()).is_none());
        assert!(Host::parse(b"\xff").is_none());
    }

    proptest! {
        #[test]
        fn a_host_holds_nothing_that_could_mean_something_else(text in proptest::collection::vec(
            prop::sample::select(&b"aZ0.-_:[]%,/@* \t\x7f\xff"[..]), 0..12,
        )) {
            if let Some(host) = Host::parse(&text) {
                let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._~:[]".contains(c);
                prop_assert!(!host.name().is_empty() && host.name().chars().all(allowed));
                let again = match host.port() {
                    None => host.name().into_owned(),
                    Some(port) => format!("{}:{port}", host.name()),
                };
                let again = Host::parse(again.as_bytes());
                prop_assert_eq!(again.map(|h| (h.name().into_owned(), h.port())), Some((host.name().into_owned(), host.port())));
            }
        }
    }
}
