//! Who asks, when proxies that are trusted stand between: `X-Forwarded-For` and `X-Forwarded-Proto`.
//!
//! ```text
//!  X-Forwarded-For: made up, 203.0.113.9, 10.0.0.2        peer: 10.0.0.1
//!                                ^             ^                   ^
//!                        not trusted: it is    trusted             trusted, so the list is looked at
//!                        the client
//! ```
//!
//! Invariant: every address up to the one that comes out was written by a proxy that is trusted. What stands further left
//! may be made up, and is not looked at.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Fields;
use crate::bytes::trim_ows;

/// The address of the client: `peer`, or, as long as that is trusted, the next one from the right of all
/// `X-Forwarded-For` lines together.
///
/// An entry that is no address ends the search: the trusted proxy that wrote it is the last that is known. When all are
/// trusted, the first address is the client's. IPv4 addresses in IPv6 form become IPv4.
///
/// ```
/// use tidegate_http::{HeadLimits, Parsed, forwarded_client, parse_head};
///
/// let input = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4, 203.0.113.9, 10.0.0.2\r\n\r\n";
/// let Ok(Parsed::Head(head)) = parse_head(input, &HeadLimits::default()) else { panic!("a valid head") };
/// let trusted = |ip: std::net::IpAddr| ip.to_string().starts_with("10.");
/// let client = forwarded_client(&head.fields(input), [10, 0, 0, 1].into(), trusted);
/// assert_eq!(client.to_string(), "203.0.113.9");
/// ```
#[must_use]
pub fn forwarded_client(fields: &Fields<'_>, peer: IpAddr, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer.to_canonical();
    if !is_trusted(client) {
        return client;
    }
    // Lines can only be gone through from the front, so each round looks for the line before the one just done. There are
    // as many lines as the head has fields at most, and nearly always one.
    let lines = fields.clone().named("x-forwarded-for").count();
    for index in (0..lines).rev() {
        let Some(line) = fields.clone().named("x-forwarded-for").nth(index) else { return client };
        for entry in line.rsplit(|&b| b == b',').map(trim_ows) {
            let Some(address) = parse_address(entry) else { return client };
            client = address;
            if !is_trusted(client) {
                return client;
            }
        }
    }
    client
}

/// Whether the client spoke TLS to the proxy, as the last `X-Forwarded-Proto` of a trusted peer says. `None` when it says
/// neither `http` nor `https`.
///
/// To be asked only when the peer itself is trusted.
#[must_use]
pub fn forwarded_secure(fields: &Fields<'_>) -> Option<bool> {
    let line = fields.clone().named("x-forwarded-proto").last()?;
    let proto = line.rsplit(|&b| b == b',').map(trim_ows).next()?;
    if proto.eq_ignore_ascii_case(b"https") {
        Some(true)
    } else if proto.eq_ignore_ascii_case(b"http") {
        Some(false)
    } else {
        None
    }
}

/// An address as proxies write it: bare, in brackets, or either with a port.
fn parse_address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || {
        // `SocketAddr` would take a scope, which means nothing here.
        let address = text.parse::<SocketAddr>().ok()?.ip();
        (!text.contains('%')).then_some(address)
    };
    let v4 = || text.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    let v6 = || text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let address = v4().or_else(v6).or_else(bracketed).or_else(with_port)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(lines: &str, peer: &str) -> String {
        let trusted = |ip: IpAddr| ip.to_string().starts_with("10.") || ip == IpAddr::V6(Ipv6Addr::LOCALHOST);
        forwarded_client(&Fields::new(format!("{lines}\r\n").as_bytes()), peer.parse().unwrap(), trusted)
            .to_string()
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_not_trusted() {
        for (lines, peer, expected) in [
            ("Host: a", "192.0.2.1", "192.0.2.1"),
            ("Host: a", "10.0.0.1", "10.0.0.1"),
            // A peer that is not trusted may claim what it likes.
            ("X-Forwarded-For: 198.51.100.1", "192.0.2.1", "192.0.2.1"),
            ("X-Forwarded-For: 198.51.100.1", "10.0.0.1", "198.51.100.1"),
            ("X-Forwarded-For: 8.8.8.8, 198.51.100.1", "10.0.0.1", "198.51.100.1"),
            ("X-Forwarded-For: 8.8.8.8, 198.51.100.1,10.1.1.1 , 10.2.2.2", "10.0.0.1", "198.51.100.1"),
            (
                "X-Forwarded-For: 8.8.8.8\r\nx-forwarded-for: 198.51.100.1\r\nX-Forwarded-For: 10.1.1.1",
                "::1",
                "198.51.100.1",
            ),
            ("X-Forwarded-For: 10.9.9.9, 10.1.1.1", "10.0.0.1", "10.9.9.9"),
            ("X-Forwarded-For: 2001:db8::1", "::ffff:10.0.0.1", "2001:db8::1"),
            ("X-Forwarded-For: [2001:db8::1]:443", "10.0.0.1", "2001:db8::1"),
            ("X-Forwarded-For: [2001:db8::1]", "10.0.0.1", "2001:db8::1"),
            ("X-Forwarded-For: 198.51.100.1:4711", "10.0.0.1", "198.51.100.1"),
            ("X-Forwarded-For: 8.8.8.8, ::ffff:198.51.100.1", "10.0.0.1", "198.51.100.1"),
            // What is no address ends the search at the last that is known.
            ("X-Forwarded-For: 8.8.8.8, unknown", "10.0.0.1", "10.0.0.1"),
            ("X-Forwarded-For: 8.8.8.8, unknown, 10.1.1.1", "10.0.0.1", "10.1.1.1"),
            ("X-Forwarded-For: 8.8.8.8,", "10.0.0.1", "10.0.0.1"),
            ("X-Forwarded-For:", "10.0.0.1", "10.0.0.1"),
            ("X-Forwarded-For: 8.8.8.8 1.1.1.1", "10.0.0.1", "10.0.0.1"),
            ("X-Forwarded-For: 010.1.1.1", "10.0.0.1", "10.0.0.1"),
            ("X-Forwarded-For: [fe80::1%2]:1", "10.0.0.1", "10.0.0.1"),
            ("X-Forwarded-For: \"8.8.8.8\"", "10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(client(lines, peer), expected, "{lines} from {peer}");
        }
    }

    #[test]
    fn the_last_proto_counts() {
        for (lines, expected) in [
            ("Host: a", None),
            ("X-Forwarded-Proto: https", Some(true)),
            ("X-Forwarded-Proto: HTTP", Some(false)),
            ("X-Forwarded-Proto: https, http", Some(false)),
            ("X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https", Some(true)),
            ("X-Forwarded-Proto: https,", None),
            ("X-Forwarded-Proto: wss", None),
        ] {
            assert_eq!(
                forwarded_secure(&Fields::new(format!("{lines}\r\n").as_bytes())),
                expected,
                "{lines}"
            );
        }
    }
}
