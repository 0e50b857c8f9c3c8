//! `AddressCounts`: how many connections each address has, where a listener limits them.
//!
//! Invariant: an address is in the table as long as it has a connection that was counted, so the table is never larger than
//! there are connections. Addresses are hashed with a key of the process: nobody can choose them so that they collide. (What
//! processes share is without such a key; see `address_table.rs` for what a full set means.)

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_reactor::PeerAddress;

use crate::address_table::{AddressTable, Place};

/// The counts of the loops that share them: those of a worker, so that its limit holds whichever loop a connection is given to;
/// with [`with_table`](Self::with_table) it holds over several processes.
///
/// An IPv6 address counts by its first 64 bits, which is what a subscriber has at the least. Peers on Unix sockets have no
/// address, and are not counted. The lock, which is of this process, is taken when a connection of a listener with a limit
/// begins and when it ends.
#[derive(Clone, Debug, Default)]
pub struct AddressCounts {
    counts: Arc<Mutex<HashMap<u64, Count>>>,
    shared: Option<Arc<Shared>>,
}

/// The connections of an address.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    connections: u32,
    /// Where the other processes see them, if there is room.
    place: Option<Place>,
}

/// What the processes tell each other.
#[derive(Debug)]
struct Shared {
    table: AddressTable,
    /// That of this process.
    seat: usize,
    /// Those of generations that are left and finish what they have.
    older: Vec<AddressTable>,
}

impl AddressCounts {
    /// Without any.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Without any, and together with other processes: this one counts in the seat of `table` that no other has, where it
    /// forgets what an earlier process has left. What stands in the tables of `older` generations counts, too.
    ///
    /// Two processes that take connections of an address at the same moment never take one too many; for the last place they
    /// may both refuse. An address for which its set of the table has no room is counted by this process alone.
    #[must_use]
    pub fn with_table(table: AddressTable, seat: usize, older: Vec<AddressTable>) -> Self {
        table.clear(seat);
        Self { counts: Arc::default(), shared: Some(Arc::new(Shared { table, seat, older })) }
    }

    /// Counts a connection in. False when its address has `limit` already.
    pub(crate) fn enter(&self, peer: PeerAddress, limit: u32) -> bool {
        let Some(key) = counted(peer) else { return true };
        let mut counts = self.lock();
        let mut count = counts.get(&key).copied().unwrap_or_default();
        let fits = match &self.shared {
            None => count.enter(limit, 0),
            Some(shared) => shared.enter(&mut count, key, limit),
        };
        if count.connections > 0 {
            counts.insert(key, count);
        }
        fits
    }

    /// Counts a connection out that was counted in.
    pub(crate) fn leave(&self, peer: PeerAddress) {
        let Some(key) = counted(peer) else { return };
        if let Entry::Occupied(mut entry) = self.lock().entry(key) {
            let count = entry.get_mut();
            count.connections -= 1;
            if let (Some(shared), Some(place)) = (&self.shared, count.place) {
                shared.table.publish(shared.seat, place, count.connections);
            }
            if count.connections == 0 {
                entry.remove();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Count>> {
        // No change of the table can be left half done.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    /// One more, unless that is too many with those of others.
    fn enter(&mut self, limit: u32, others: u64) -> bool {
        let fits = others.saturating_add(self.connections.into()) < limit.into();
        self.connections += u32::from(fits);
        fits
    }
}

impl Shared {
    /// One more, of which the others are told, unless it is too many.
    fn enter(&self, count: &mut Count, key: u64, limit: u32) -> bool {
        // Who is refused here is not even for a moment in the way of somebody else.
        if !count.enter(limit, self.others(key)) {
            return false;
        }
        count.place = count.place.or_else(|| self.table.claim(self.seat, key));
        let Some(place) = count.place else { return true };
        self.table.publish(self.seat, place, count.connections);
        // Of two that come at the same moment, at least one sees the other now.
        if self.others(key).saturating_add(count.connections.into()) > limit.into() {
            count.connections -= 1;
            self.table.publish(self.seat, place, count.connections);
            return false;
        }
        true
    }

    fn others(&self, key: u64) -> u64 {
        let older = self.older.iter().map(|table| table.total(key, None));
        older.fold(self.table.total(key, Some(self.seat)), u64::saturating_add)
    }
}

/// What stands for a peer in the tables.
fn counted(peer: PeerAddress) -> Option<u64> {
    let PeerAddress::Inet(address) = peer else { return None };
    Some(AddressTable::key_of(address.ip()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;
    use crate::Words;

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

    fn table(seats: usize) -> AddressTable {
        let words: Box<[AtomicU64]> =
            (0..AddressTable::words_needed(seats, 64)).map(|_| AtomicU64::new(0)).collect();
        let words: Arc<dyn Words> = Arc::new(words);
        AddressTable::new(words, seats, 64).unwrap()
    }

    #[test]
    fn processes_have_one_limit_and_who_is_killed_has_no_share_in_it() {
        let table = table(2);
        let of_seat = |seat| AddressCounts::with_table(table.clone(), seat, Vec::new());
        let [one, other] = [0, 1].map(of_seat);
        let it = peer("192.0.2.1:1");
        assert!(one.enter(it, 3) && other.enter(it, 3) && other.enter(it, 3));
        assert!(!one.enter(it, 3) && !other.enter(it, 3));
        assert!(one.enter(peer("192.0.2.2:1"), 1) && !other.enter(peer("192.0.2.2:1"), 1));
        // What was refused has left nothing behind.
        one.leave(it);
        assert!(other.enter(it, 3) && !one.enter(it, 3));
        // The second is killed, with three of them; another takes its seat.
        let again = of_seat(1);
        assert!(one.enter(it, 3) && one.enter(it, 3) && again.enter(it, 3));
        assert!(!one.enter(it, 3) && !again.enter(it, 3));
    }

    #[test]
    fn connections_of_an_older_generation_count() {
        let old = table(1);
        let before = AddressCounts::with_table(old.clone(), 0, Vec::new());
        let it = peer("[2001:db8::1]:1");
        assert!(before.enter(it, 2));
        let now = AddressCounts::with_table(table(1), 0, vec![old]);
        assert!(now.enter(it, 2) && !now.enter(it, 2));
        before.leave(it);
        assert!(now.enter(it, 2));
    }

    #[test]
    fn where_the_table_has_no_room_each_process_counts_for_itself() {
        let words: Box<[AtomicU64]> =
            (0..AddressTable::words_needed(2, 8)).map(|_| AtomicU64::new(0)).collect();
        let table = AddressTable::new(Arc::new(words), 2, 8).unwrap();
        let [one, other] = [0, 1].map(|seat| AddressCounts::with_table(table.clone(), seat, Vec::new()));
        for n in 1..=8 {
            assert!(one.enter(peer(&format!("192.0.2.{n}:1")), 1));
        }
        let late = peer("192.0.2.9:1");
        assert!(one.enter(late, 1) && !one.enter(late, 1) && other.enter(late, 1));
        // Room is taken where there is some again.
        one.leave(late);
        one.leave(peer("192.0.2.1:1"));
        other.leave(late);
        assert!(one.enter(late, 1) && !other.enter(late, 1));
    }

    #[test]
    fn threads_of_many_processes_never_have_one_too_many() {
        const LIMIT: u32 = 5;
        let table = table(4);
        let (has, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let order = std::sync::atomic::Ordering::SeqCst;
        thread::scope(|scope| {
            for seat in 0..4 {
                let counts = AddressCounts::with_table(table.clone(), seat, Vec::new());
                for _ in 0..2 {
                    let (counts, has, most) = (counts.clone(), &has, &most);
                    scope.spawn(move || {
                        for _ in 0..5000 {
                            if counts.enter(peer("192.0.2.1:1"), LIMIT) {
                                most.fetch_max(has.fetch_add(1, order) + 1, order);
                                thread::yield_now();
                                has.fetch_sub(1, order);
                                counts.leave(peer("192.0.2.1:1"));
                            }
                        }
                    });
                }
            }
        });
        let most = most.into_inner();
        assert!((1..=u64::from(LIMIT)).contains(&most), "{most}");
        assert_eq!(table.total(AddressTable::key_of("192.0.2.1".parse().unwrap()), None), 0);
    }
}
