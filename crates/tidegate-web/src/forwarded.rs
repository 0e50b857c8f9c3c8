//! Who asks, when a balancer stands in between: `X-Forwarded-For` and `X-Forwarded-Proto` of proxies that are trusted.
//!
//! Invariant: what anybody but a trusted proxy has written is never believed. How the fields are read is for
//! [`forwarded_client`] to say.

use std::net::IpAddr;

use tidegate_engine::PeerAddress;
use tidegate_http::{Fields, forwarded_client, forwarded_secure};

use crate::exchange::Client;
use crate::gate::Networks;

/// The client behind a peer whose request has these fields.
pub(crate) fn client_behind(peer: Client, trusted: &Networks, fields: &Fields<'_>) -> Client {
    if !trusted.contains(ip_of(peer.address)) {
        return peer;
    }
    let address = forwarded_client(fields, |ip| trusted.contains(Some(ip)));
    Client {
        address: address.map_or(peer.address, PeerAddress::Inet),
        secure: forwarded_secure(fields).unwrap_or(peer.secure),
    }
}

/// The address of a peer; a Unix socket has none.
pub(crate) fn ip_of(address: PeerAddress) -> Option<IpAddr> {
    match address {
        PeerAddress::Inet(address) => Some(address.ip()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_http::{HeadLimits, Parsed, parse_head};

    fn inet(text: &str) -> PeerAddress {
        PeerAddress::Inet(text.parse().unwrap())
    }

    fn client(peer: PeerAddress, secure: bool, lines: &str) -> (PeerAddress, bool) {
        let trusted = Networks::new(["10.0.0.0/8", "2001:db8::/32", "unix"]).unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let Ok(Parsed::Head(head)) = parse_head(request.as_bytes(), &HeadLimits::default()) else {
            panic!("a head")
        };
        let client =
            client_behind(Client { address: peer, secure }, &trusted, &head.fields(request.as_bytes()));
        (client.address, client.secure)
    }

    #[test]
    fn a_trusted_peer_says_who_asks_and_nobody_else_does() {
        let (proxy, other) = (inet("10.0.0.1:5"), inet("192.0.2.1:5"));
        let lines = "X-Forwarded-For: 1.1.1.1, 198.51.100.1:7, 10.2.2.2, 2001:db8::9\r\n";
        let behind = inet("198.51.100.1:7");
        assert_eq!(client(proxy, true, lines), (behind, true));
        assert_eq!(client(inet("[::ffff:10.0.0.1]:5"), false, lines), (behind, false));
        assert_eq!(client(PeerAddress::Unix, false, lines), (behind, false));
        assert_eq!(client(other, false, lines), (other, false));
        for nothing in ["", "X-Forwarded-For: unknown\r\n"] {
            assert_eq!(client(proxy, false, nothing), (proxy, false), "{nothing}");
        }
    }

    #[test]
    fn a_trusted_peer_says_whether_the_connection_was_secure() {
        let (proxy, other) = (inet("10.0.0.1:5"), inet("192.0.2.1:5"));
        let secure =
            |peer, before, proto: &str| client(peer, before, &format!("X-Forwarded-Proto: {proto}\r\n")).1;
        assert!(secure(proxy, false, "https") && secure(PeerAddress::Unix, false, "HTTPS"));
        assert!(!secure(proxy, true, "https, http") && !secure(other, false, "https"));
        assert!(secure(other, true, "http") && client(proxy, true, "").1);
    }
}
