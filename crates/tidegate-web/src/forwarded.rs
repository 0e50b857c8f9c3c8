//! Who asks, when a balancer stands in between: `X-Forwarded-For` and `X-Forwarded-Proto` of proxies that are trusted.
//!
//! Invariant: what anybody but a trusted proxy has written is never believed. The list is read from its end, where the
//! nearest proxy has added whom it was asked by; what stands before the first address that is not trusted can be made up.

use std::net::{IpAddr, SocketAddr};

use tidegate_engine::PeerAddress;

use crate::exchange::Client;
use crate::gate::Networks;

/// The client behind a peer. `forwarded_for` and `proto` are the values of all fields of these names, in their order.
pub(crate) fn client_behind<'a>(
    peer: Client,
    trusted: &Networks,
    forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    proto: Option<&'a [u8]>,
) -> Client {
    if !trusted.contains(ip_of(peer.address)) {
        return peer;
    }
    let mut client = peer;
    if let Some(proto) = proto.and_then(|list| list.rsplit(|&b| b == b',').next()) {
        client.secure = proto.trim_ascii().eq_ignore_ascii_case(b"https");
    }
    for element in forwarded_for.rev().flat_map(|list| list.rsplit(|&b| b == b',')).take(MAX_PROXIES) {
        let Some(address) = parse(element) else { break };
        client.address = PeerAddress::Inet(address);
        if !trusted.contains(Some(address.ip())) {
            break;
        }
    }
    client
}

/// The address of a peer; a Unix socket has none.
pub(crate) fn ip_of(address: PeerAddress) -> Option<IpAddr> {
    match address {
        PeerAddress::Inet(address) => Some(address.ip()),
        _ => None,
    }
}

/// Proxies in a row that are believed.
const MAX_PROXIES: usize = 32;

/// `192.0.2.1`, `2001:db8::1`, and both with a port as some proxies write them.
fn parse(element: &[u8]) -> Option<SocketAddr> {
    let text = str::from_utf8(element.trim_ascii()).ok()?;
    // RFC 7239 has brackets around addresses of IPv6, and some send them here, too.
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| text.parse()).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: &str, fields: &[&str], expect: &str) {
        let trusted = Networks::new(["10.0.0.0/8", "2001:db8::/32"]).unwrap();
        let address = PeerAddress::Inet(SocketAddr::new(peer.parse().unwrap(), 7));
        let fields = fields.iter().map(|field| field.as_bytes());
        let client = client_behind(Client { address, secure: false }, &trusted, fields, None);
        assert_eq!(ip_of(client.address), Some(expect.parse().unwrap()));
    }

    #[test]
    fn the_first_from_the_end_who_is_not_trusted_is_the_client() {
        check("192.0.2.1", &["198.51.100.1"], "192.0.2.1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.1"], "198.51.100.1");
        check("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1");
        check("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.2.2.2"], "198.51.100.1");
        check("10.0.0.1", &["1.1.1.1", "198.51.100.1 ,10.2.2.2", "2001:db8::9"], "198.51.100.1");
        check("10.0.0.1", &["10.3.3.3, 10.2.2.2"], "10.3.3.3");
        check("::ffff:10.0.0.1", &["[2001:db9::1]:443"], "2001:db9::1");
        check("10.0.0.1", &["198.51.100.1:1234"], "198.51.100.1");
    }

    #[test]
    fn what_is_no_address_ends_the_list() {
        check("10.0.0.1", &["198.51.100.1, unknown, 10.2.2.2"], "10.2.2.2");
        check("10.0.0.1", &["unknown"], "10.0.0.1");
        check("10.0.0.1", &[""], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.1,\u{e9}"], "10.0.0.1");
        let many = "198.51.100.1".to_owned() + &", 10.0.0.2".repeat(100);
        check("10.0.0.1", &[&many], "10.0.0.2");
    }

    #[test]
    fn only_a_trusted_proxy_says_that_the_connection_was_secure() {
        let trusted = Networks::new(["10.0.0.1", "unix"]).unwrap();
        let secure = |address, before, proto: Option<&'static str>| {
            let peer = Client { address, secure: before };
            client_behind(peer, &trusted, std::iter::empty(), proto.map(str::as_bytes)).secure
        };
        let proxy = PeerAddress::Inet("10.0.0.1:5".parse().unwrap());
        let other = PeerAddress::Inet("10.0.0.2:5".parse().unwrap());
        assert!(secure(proxy, false, Some("https")) && secure(PeerAddress::Unix, false, Some("HTTPS")));
        assert!(!secure(proxy, true, Some("https, http")) && !secure(other, false, Some("https")));
        assert!(secure(other, true, Some("http")) && secure(proxy, true, None));
    }
}
