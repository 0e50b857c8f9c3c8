//! `AddressCounts`: how many connections each address has, where a listener limits them.
//!
//! Invariant: an address is in the table as long as it has a connection that was counted, so the table is never larger than
//! there are connections. Addresses are hashed with a key of the process: nobody can choose them so that they collide.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_reactor::PeerAddress;

/// The counts of the loops that share them: those of a worker, so that its limit holds whichever loop a connection is given to.
///
/// An IPv6 address counts by its first 64 bits, which is what a subscriber has at the least. Peers on Unix sockets have no
/// address, and are not counted. The lock is taken when a connection of a listener with a limit begins and when it ends.
#[derive(Clone, Debug, Default)]
pub struct AddressCounts {
    table: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

impl AddressCounts {
    /// Without any.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a connection in. False when its address has `limit` already.
    pub(crate) fn enter(&self, peer: PeerAddress, limit: u32) -> bool {
        let Some(address) = counted(peer) else { return true };
        let mut table = self.lock();
        let count = table.entry(address).or_default();
        if *count >= limit {
            // A limit of 0 is none, so there is a count.
            return false;
        }
        *count += 1;
        true
    }

    /// Counts a connection out that was counted in.
    pub(crate) fn leave(&self, peer: PeerAddress) {
        let Some(address) = counted(peer) else { return };
        if let Entry::Occupied(mut entry) = self.lock().entry(address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        // No change of the table can be left half done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands for a peer in the table.
fn counted(peer: PeerAddress) -> Option<IpAddr> {
    let PeerAddress::Inet(address) = peer else { return None };
    Some(match address.ip().to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> PeerAddress {
        PeerAddress::Inet(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_refused_at_its_limit_and_served_when_one_has_ended() {
        let counts = AddressCounts::new();
        assert!(counts.enter(peer("192.0.2.1:1"), 2) && counts.enter(peer("192.0.2.1:2"), 2));
        assert!(!counts.enter(peer("192.0.2.1:3"), 2) && !counts.enter(peer("[::ffff:192.0.2.1]:4"), 2));
        assert!(counts.enter(peer("192.0.2.2:1"), 2));
        counts.leave(peer("192.0.2.1:1"));
        assert!(counts.enter(peer("192.0.2.1:5"), 2));
        for left in ["192.0.2.1:2", "192.0.2.1:5", "192.0.2.2:1"] {
            counts.leave(peer(left));
        }
        assert!(counts.lock().is_empty());
    }

    #[test]
    fn a_network_of_64_bits_is_one_peer_and_unix_sockets_are_none() {
        let counts = AddressCounts::new();
        assert!(counts.enter(peer("[2001:db8:0:1::1]:1"), 1));
        assert!(!counts.enter(peer("[2001:db8:0:1:ffff::9]:1"), 1));
        assert!(counts.enter(peer("[2001:db8:0:2::1]:1"), 1));
        assert!((0..3).all(|_| counts.enter(PeerAddress::Unix, 1)));
        counts.leave(PeerAddress::Unix);
        assert_eq!(counts.lock().len(), 2);
    }
}
