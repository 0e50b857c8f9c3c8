//! Who asks, when proxies that are trusted stand between: `X-Forwarded-For` and `X-Forwarded-Proto`.
//!
//! ```text
//!  X-Forwarded-For: made up, 203.0.113.9, 10.0.0.2        peer: 10.0.0.1
//!                                ^             ^                   ^
//!                        not trusted: it is    trusted             trusted, so the list is looked at
//!                        the client
//! ```
//!
//! Whether the peer itself is trusted is for the caller to say; these are to be asked only when it is.
//!
//! Invariant: every address up to the one that comes out was written by a proxy that is trusted. What stands further left
//! may be made up, and is not looked at.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::Fields;
use crate::bytes::trim_ows;

/// How many proxies in a row are believed.
const MAX_PROXIES: usize = 32;

/// The address of the client, as a trusted peer tells it: of all `X-Forwarded-For` lines together the first from the right that
/// is not trusted. Its port is 0 where none is told. `None` when nothing is told.
///
/// An entry that is no address ends the search: the trusted proxy that wrote it is the last that is known. When all are
/// trusted, the first address is the client's; but no more than 32 are looked at. IPv4 addresses in IPv6 form become IPv4.
///
/// ```
/// use tidegate_http::{HeadLimits, Parsed, forwarded_client, parse_head};
///
/// let input = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4, 203.0.113.9, 10.0.0.2\r\n\r\n";
/// let Ok(Parsed::Head(head)) = parse_head(input, &HeadLimits::default()) else { panic!("a valid head") };
/// let trusted = |ip: std::net::IpAddr| ip.to_string().starts_with("10.");
/// let client = forwarded_client(&head.fields(input), trusted);
/// assert_eq!(client.map(|client| client.ip()), Some([203, 0, 113, 9].into()));
/// ```
#[must_use]
pub fn forwarded_client(fields: &Fields<'_>, is_trusted: impl Fn(IpAddr) -> bool) -> Option<SocketAddr> {
    // Fields can only be gone through from the front.
    let lines: Vec<&[u8]> = fields.clone().named("x-forwarded-for").collect();
    let entries = lines.iter().rev().flat_map(|line| line.rsplit(|&b| b == b','));
    let mut client = None;
    for entry in entries.take(MAX_PROXIES) {
        let Some(address) = parse_address(trim_ows(entry)) else { break };
        client = Some(address);
        if !is_trusted(address.ip()) {
            break;
        }
    }
    client
}

/// Whether the client spoke TLS to the proxy, as the last `X-Forwarded-Proto` of a trusted peer says: whatever is not `https`
/// is no TLS. `None` when there is none.
#[must_use]
pub fn forwarded_secure(fields: &Fields<'_>) -> Option<bool> {
    let line = fields.clone().named("x-forwarded-proto").last()?;
    let proto = line.rsplit(|&b| b == b',').next()?;
    Some(trim_ows(proto).eq_ignore_ascii_case(b"https"))
}

/// An address as proxies write it: bare, in brackets, or either with a port.
fn parse_address(entry: &[u8]) -> Option<SocketAddr> {
    let text = str::from_utf8(entry).ok()?;
    // A scope means nothing here, and `SocketAddr` would take it.
    if text.contains('%') {
        return None;
    }
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let bare = text.parse::<IpAddr>().ok().or_else(bracketed).map(|ip| SocketAddr::new(ip, 0));
    let address = bare.or_else(|| text.parse().ok())?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(lines: &str) -> String {
        let trusted = |ip: IpAddr| ip.to_string().starts_with("10.");
        let client = forwarded_client(&Fields::new(format!("{lines}\r\n").as_bytes()), trusted);
        client.map(|client| client.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_not_trusted() {
        for (lines, expected) in [
            ("Host: a", ""),
            ("X-Forwarded-For: 198.51.100.1", "198.51.100.1:0"),
            ("X-Forwarded-For: 8.8.8.8, 198.51.100.1", "198.51.100.1:0"),
            ("X-Forwarded-For: 8.8.8.8, 198.51.100.1,10.1.1.1 , 10.2.2.2", "198.51.100.1:0"),
            (
                "X-Forwarded-For: 8.8.8.8\r\nx-forwarded-for: 198.51.100.1\r\nX-Forwarded-For: 10.1.1.1",
                "198.51.100.1:0",
            ),
            ("X-Forwarded-For: 10.9.9.9, 10.1.1.1", "10.9.9.9:0"),
            ("X-Forwarded-For: 2001:db8::1", "[2001:db8::1]:0"),
            ("X-Forwarded-For: [2001:db8::1]:443", "[2001:db8::1]:443"),
            ("X-Forwarded-For: [2001:db8::1]", "[2001:db8::1]:0"),
            ("X-Forwarded-For: 198.51.100.1:4711", "198.51.100.1:4711"),
            ("X-Forwarded-For: 8.8.8.8, ::ffff:198.51.100.1", "198.51.100.1:0"),
            // What is no address ends the search at the last that is known.
            ("X-Forwarded-For: 8.8.8.8, unknown", ""),
            ("X-Forwarded-For: 8.8.8.8, unknown, 10.1.1.1", "10.1.1.1:0"),
            ("X-Forwarded-For: 8.8.8.8,", ""),
            ("X-Forwarded-For:", ""),
            ("X-Forwarded-For: 8.8.8.8 1.1.1.1", ""),
            ("X-Forwarded-For: 010.1.1.1", ""),
            ("X-Forwarded-For: [198.51.100.1]", ""),
            ("X-Forwarded-For: [fe80::1%2]:1", ""),
            ("X-Forwarded-For: \"8.8.8.8\"", ""),
            ("X-Forwarded-For: 198.51.100.1,\u{e9}", ""),
        ] {
            assert_eq!(client(lines), expected, "{lines}");
        }
        let many = "X-Forwarded-For: 198.51.100.1".to_owned() + &", 10.0.0.2".repeat(MAX_PROXIES);
        assert_eq!(client(&many), "10.0.0.2:0");
    }

    #[test]
    fn the_last_proto_counts() {
        for (lines, expected) in [
            ("Host: a", None),
            ("X-Forwarded-Proto: https", Some(true)),
            ("X-Forwarded-Proto: HTTPS", Some(true)),
            ("X-Forwarded-Proto: HTTP", Some(false)),
            ("X-Forwarded-Proto: https, http", Some(false)),
            ("X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https", Some(true)),
            ("X-Forwarded-Proto: https,", Some(false)),
            ("X-Forwarded-Proto: wss", Some(false)),
        ] {
            let found = forwarded_secure(&Fields::new(format!("{lines}\r\n").as_bytes()));
            assert_eq!(found, expected, "{lines}");
        }
    }
}
