//! Connections on their way to another process: what is said of each beside its descriptor.
//!
//! A message names at least one connection and at most [`BATCH`], in the order of its descriptors. All numbers are
//! big-endian; what a peer has no use for is zero.
//!
//! ```text
//!  0         1         2                          30                60
//! +---------+---------+--------------------------+------------- … -+- …
//! | version | count   | record                   | record          |
//! +---------+---------+--------------------------+------------- … -+- …
//!
//!  record: 0          1          2           4        6               10            14
//!         +----------+----------+-----------+--------+---------------+-------------+------ … ------+
//!         | family u8| zero u8  | site u16  | port   | flowinfo u32  | scope u32   | address 16    |
//!         +----------+----------+-----------+--------+---------------+-------------+------ … ------+
//!          0 Unix, 4 or 6                             only of IPv6                   4 or 16 used
//! ```
//!
//! Invariant: [`decode`] accepts what [`encode`] makes and nothing else, so that a process that reads from a wrong channel, or
//! is of another version, finds out before it serves anybody.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use tidegate_reactor::PeerAddress;

use crate::intake::Arrival;

/// How many connections a message carries at the most.
pub(crate) const BATCH: usize = 16;
/// A message is no longer than this.
pub(crate) const MESSAGE_BYTES: usize = HEAD_BYTES + BATCH * RECORD_BYTES;

const VERSION: u8 = 0x01;
const HEAD_BYTES: usize = 2;
const RECORD_BYTES: usize = 30;
const UNIX: u8 = 0;
const IPV4: u8 = 4;
const IPV6: u8 = 6;

/// What is said of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The listener that it came by, as the receiver numbers them.
    pub(crate) site: usize,
    pub(crate) peer: PeerAddress,
}

/// Why a message is not one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a message of version {0}, where only version 1 is known")]
    Version(u8),
    #[error("a message of {bytes} bytes and {fds} descriptors that is said to carry {count} connections")]
    Length { bytes: usize, fds: usize, count: usize },
    #[error("a connection from listener {site}, of which there are {sites}")]
    Site { site: usize, sites: usize },
    #[error("a peer with an address that is none")]
    Peer,
}

/// Writes the message for these connections, in place of what is in `message`.
///
/// # Panics
///
/// When there are more of them than [`BATCH`].
pub(crate) fn encode(arrivals: &[Arrival], message: &mut Vec<u8>) {
    assert!(arrivals.len() <= BATCH, "a batch is cut before it is written");
    message.clear();
    message.push(VERSION);
    message.push(u8::try_from(arrivals.len()).expect("a batch is smaller than that"));
    for arrival in arrivals {
        let site = u16::try_from(arrival.site).expect("the builder limits the number of listeners");
        message.extend_from_slice(&record(site, arrival.peer));
    }
}

fn record(site: u16, peer: PeerAddress) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[2..4].copy_from_slice(&site.to_be_bytes());
    let PeerAddress::Inet(address) = peer else { return record };
    record[4..6].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            record[0] = IPV4;
            record[14..18].copy_from_slice(&address.ip().octets());
        }
        SocketAddr::V6(address) => {
            record[0] = IPV6;
            record[6..10].copy_from_slice(&address.flowinfo().to_be_bytes());
            record[10..14].copy_from_slice(&address.scope_id().to_be_bytes());
            record[14..].copy_from_slice(&address.ip().octets());
        }
    }
    record
}

/// Reads a message that came with so many descriptors, for a receiver with so many listeners, into `origins`, which is
/// emptied first.
pub(crate) fn decode(
    message: &[u8],
    fds: usize,
    sites: usize,
    origins: &mut Vec<Origin>,
) -> Result<(), Malformed> {
    origins.clear();
    let Some((&[version, count], records)) = message.split_first_chunk::<HEAD_BYTES>() else {
        return Err(Malformed::Length { bytes: message.len(), fds, count: 0 });
    };
    if version != VERSION {
        return Err(Malformed::Version(version));
    }
    let (records, rest) = records.as_chunks::<RECORD_BYTES>();
    let count = usize::from(count);
    if !(1..=BATCH).contains(&count) || records.len() != count || fds != count || !rest.is_empty() {
        return Err(Malformed::Length { bytes: message.len(), fds, count });
    }
    for bytes in records {
        let site = u16::from_be_bytes([bytes[2], bytes[3]]);
        let peer = peer(bytes)?;
        // The one record of each peer: what has no use is zero.
        if record(site, peer) != *bytes {
            return Err(Malformed::Peer);
        }
        let site = usize::from(site);
        if site >= sites {
            return Err(Malformed::Site { site, sites });
        }
        origins.push(Origin { site, peer });
    }
    Ok(())
}

fn peer(record: &[u8; RECORD_BYTES]) -> Result<PeerAddress, Malformed> {
    let word = |at: usize| u32::from_be_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let port = u16::from_be_bytes([record[4], record[5]]);
    match record[0] {
        UNIX => Ok(PeerAddress::Unix),
        IPV4 => Ok(PeerAddress::Inet((Ipv4Addr::from_bits(word(14)), port).into())),
        IPV6 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(&record[14..]);
            let address = SocketAddrV6::new(Ipv6Addr::from(octets), port, word(6), word(10));
            Ok(PeerAddress::Inet(address.into()))
        }
        _ => Err(Malformed::Peer),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use proptest::prelude::*;

    use super::*;

    fn arrival(site: usize, peer: PeerAddress) -> Arrival {
        Arrival { site, socket: OwnedFd::from(std::fs::File::open("/dev/null").unwrap()), peer }
    }

    fn encoded(origins: &[Origin]) -> Vec<u8> {
        let arrivals: Vec<Arrival> = origins.iter().map(|o| arrival(o.site, o.peer)).collect();
        let mut message = vec![1, 2, 3];
        encode(&arrivals, &mut message);
        message
    }

    fn decoded(message: &[u8], fds: usize) -> Result<Vec<Origin>, Malformed> {
        let mut origins = vec![Origin { site: 9, peer: PeerAddress::Unix }];
        decode(message, fds, 1024, &mut origins).map(|()| origins)
    }

    fn inet(address: &str) -> PeerAddress {
        PeerAddress::Inet(address.parse().unwrap())
    }

    #[test]
    fn the_bytes_are_those_of_the_picture() {
        let message = encoded(&[
            Origin { site: 0x0102, peer: inet("192.0.2.7:443") },
            Origin { site: 3, peer: PeerAddress::Unix },
        ]);
        let mut expected = vec![1, 2, 4, 0, 1, 2, 0x01, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 7];
        expected.extend([0; 12]);
        expected.extend([0, 0, 0, 3]);
        expected.extend([0; 26]);
        assert_eq!(message, expected);
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 5, 6, 7);
        let message = encoded(&[Origin { site: 0, peer: PeerAddress::Inet(scoped.into()) }]);
        assert_eq!(message[2..16], [6, 0, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 7]);
        assert_eq!(message[16..], [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_message_that_says_something_else_than_it_is_is_refused() {
        let good = encoded(&[Origin { site: 1, peer: inet("192.0.2.7:443") }; 2]);
        assert_eq!(decoded(&good, 2).unwrap().len(), 2);
        for len in 0..good.len() {
            assert!(decoded(&good[..len], 2).is_err(), "{len}");
        }
        for fds in [0, 1, 3] {
            assert_eq!(decoded(&good, fds), Err(Malformed::Length { bytes: 62, fds, count: 2 }));
        }
        let with = |at: usize, byte: u8| {
            let mut changed = good.clone();
            changed[at] = byte;
            decoded(&changed, 2)
        };
        assert_eq!(with(0, 2), Err(Malformed::Version(2)));
        assert!(matches!(with(1, 0), Err(Malformed::Length { count: 0, .. })));
        assert_eq!(with(2, 5), Err(Malformed::Peer));
        assert_eq!(with(3, 1), Err(Malformed::Peer), "a zero that is none");
        assert_eq!(with(2, 0), Err(Malformed::Peer), "a Unix peer with a port");
        assert_eq!(with(20, 1), Err(Malformed::Peer), "an address of five bytes");
        assert_eq!(with(4, 4), Err(Malformed::Site { site: 1025, sites: 1024 }));
        assert!(decoded(&[1, 0], 0).is_err(), "nothing is handed over");
        let mut many = vec![1, 17];
        many.extend(good[2..32].repeat(17));
        assert!(decoded(&many, 17).is_err());
    }

    fn peers() -> impl Strategy<Value = PeerAddress> {
        prop_oneof![
            Just(PeerAddress::Unix),
            any::<(u32, u16)>()
                .prop_map(|(ip, port)| PeerAddress::Inet((Ipv4Addr::from_bits(ip), port).into())),
            any::<(u128, u16, u32, u32)>().prop_map(|(ip, port, flow, scope)| {
                PeerAddress::Inet(SocketAddrV6::new(Ipv6Addr::from_bits(ip), port, flow, scope).into())
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            origins in prop::collection::vec((0usize..1024, peers()), 1..=BATCH),
        ) {
            let origins: Vec<Origin> =
                origins.into_iter().map(|(site, peer)| Origin { site, peer }).collect();
            let message = encoded(&origins);
            prop_assert!(message.len() <= MESSAGE_BYTES);
            prop_assert_eq!(decoded(&message, origins.len()), Ok(origins));
        }

        /// Bytes that are nearly a message: what is accepted is what `encode` writes, byte for byte.
        #[test]
        fn nothing_else_is_accepted(
            origins in prop::collection::vec((0usize..1024, peers()), 1..=3),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in 0usize..3,
            fds in 0usize..5,
        ) {
            let origins: Vec<Origin> =
                origins.into_iter().map(|(site, peer)| Origin { site, peer }).collect();
            let mut message = encoded(&origins);
            for (at, byte) in changes {
                let at = at.index(message.len());
                message[at] = byte;
            }
            message.truncate(message.len() - cut);
            if let Ok(origins) = decoded(&message, fds) {
                prop_assert_eq!(origins.len(), fds);
                prop_assert_eq!(encoded(&origins), message);
            }
        }

        #[test]
        fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..600), fds in 0usize..20) {
            let _ = decoded(&bytes, fds);
        }
    }
}
