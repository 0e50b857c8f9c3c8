//! `AddressTable`: how many connections each address has with each process, in memory that the processes share.
//!
//! ```text
//!   words:  in use of each seat │ places of seat 0 │ places of seat 1 │ …      a seat: a process that counts
//!   place:  address, count        found by the address, among the 8 of its set
//! ```
//!
//! Every process writes its own seat alone, and adds up what stands in all of them, so there is no lock between them and
//! nothing to put right when one is killed but to [`clear`](AddressTable::clear) its seat. Invariant: the count of a place is
//! 0 whenever its address changes.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Words;

/// The counts of the processes of a generation.
#[derive(Clone, Debug)]
pub struct AddressTable {
    words: Arc<dyn Words>,
    seats: usize,
    places: usize,
}

/// A place in the seat of this process, by its number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

/// Places in which an address may stand.
const WAYS: usize = 8;
const WORDS_OF_A_PLACE: usize = 2;

impl AddressTable {
    /// The most places that a seat has.
    pub const MAX_PLACES: usize = 32 << 10;

    /// How many places a seat needs for so many addresses at a time: a power of two.
    #[must_use]
    pub const fn places_for(addresses: usize) -> usize {
        let wanted = if addresses < Self::MAX_PLACES { addresses } else { Self::MAX_PLACES };
        let wanted = wanted.next_power_of_two();
        if wanted < WAYS { WAYS } else { wanted }
    }

    /// How many words a table has.
    #[must_use]
    pub const fn words_needed(seats: usize, places: usize) -> usize {
        seats + seats * places * WORDS_OF_A_PLACE
    }

    /// An address as a word that is never 0, and the same in every process. IPv4 addresses stand where IPv6 has none: in
    /// `0000::/8`, which is reserved (RFC 4291, section 2.4). Of IPv6 the first 64 bits count, which is what a subscriber has
    /// at the least.
    #[must_use]
    pub fn key_of(address: IpAddr) -> u64 {
        match address.to_canonical() {
            IpAddr::V4(address) => 1 << 32 | u64::from(address.to_bits()),
            IpAddr::V6(address) => {
                let prefix = u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX);
                // ::1 and its neighbours.
                prefix.max(1)
            }
        }
    }

    /// A table in this memory, which was zero when it was new. `None` when it has not as many words, or `places` is no
    /// answer of [`places_for`](Self::places_for).
    #[must_use]
    pub fn new(words: Arc<dyn Words>, seats: usize, places: usize) -> Option<Self> {
        let fits = words.words().len() >= Self::words_needed(seats, places);
        (fits && places.is_power_of_two() && places >= WAYS).then_some(Self { words, seats, places })
    }

    /// Forgets all counts of a seat, whose process has ended or has counted nothing yet.
    pub fn clear(&self, seat: usize) {
        let Some(in_use) = self.in_use(seat) else { return };
        // Memory that nobody has written stays untouched, and takes no page.
        if in_use.load(Ordering::SeqCst) != 0 {
            self.places_of(seat).iter().for_each(|word| word.store(0, Ordering::SeqCst));
            in_use.store(0, Ordering::SeqCst);
        }
    }

    /// Takes a place for an address that has none in this seat. `None`: all of its set are taken.
    pub(crate) fn claim(&self, seat: usize, key: u64) -> Option<Place> {
        self.in_use(seat)?.store(1, Ordering::SeqCst);
        let set = self.set_of(key);
        let places = self.places_of(seat);
        let free = |place: &usize| places[place * WORDS_OF_A_PLACE].load(Ordering::SeqCst) == 0;
        let place = (set..set + WAYS).find(free)?;
        places[place * WORDS_OF_A_PLACE].store(key, Ordering::SeqCst);
        Some(Place(place))
    }

    /// Says how many connections the address of a place has with this process; with none, the place is given up.
    pub(crate) fn publish(&self, seat: usize, Place(place): Place, count: u32) {
        let places = self.places_of(seat);
        let at = place * WORDS_OF_A_PLACE;
        places[at + 1].store(count.into(), Ordering::SeqCst);
        if count == 0 {
            places[at].store(0, Ordering::SeqCst);
        }
    }

    /// The connections of an address with all processes but the one in seat `except`.
    pub(crate) fn total(&self, key: u64, except: Option<usize>) -> u64 {
        let others = (0..self.seats).filter(|seat| Some(*seat) != except);
        others.map(|seat| self.count(seat, key)).fold(0, u64::saturating_add)
    }

    fn count(&self, seat: usize, key: u64) -> u64 {
        if self.in_use(seat).is_none_or(|word| word.load(Ordering::SeqCst) == 0) {
            return 0;
        }
        let set = self.set_of(key);
        let places = &self.places_of(seat)[set * WORDS_OF_A_PLACE..(set + WAYS) * WORDS_OF_A_PLACE];
        for place in places.chunks_exact(WORDS_OF_A_PLACE) {
            if place[0].load(Ordering::SeqCst) == key {
                let count = place[1].load(Ordering::SeqCst);
                // Given to another address in between, it is not this one's count.
                return if place[0].load(Ordering::SeqCst) == key { count } else { 0 };
            }
        }
        0
    }

    fn in_use(&self, seat: usize) -> Option<&AtomicU64> {
        self.words.words()[..self.seats].get(seat)
    }

    fn places_of(&self, seat: usize) -> &[AtomicU64] {
        let len = self.places * WORDS_OF_A_PLACE;
        let start = self.seats + seat * len;
        &self.words.words()[start..start + len]
    }

    /// The first place of the set of an address, by Fibonacci hashing. Who fills a set with addresses of his choice has it
    /// that others of the set are counted by each process alone, which refuses none of them too early.
    fn set_of(&self, key: u64) -> usize {
        let mixed = (key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let sets = self.places / WAYS;
        usize::try_from(mixed >> 32).unwrap_or(0) % sets * WAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(seats: usize, places: usize) -> AddressTable {
        let words: Box<[AtomicU64]> =
            (0..AddressTable::words_needed(seats, places)).map(|_| AtomicU64::new(0)).collect();
        AddressTable::new(Arc::new(words), seats, places).unwrap()
    }

    fn key(address: &str) -> u64 {
        AddressTable::key_of(address.parse().unwrap())
    }

    #[test]
    fn seats_are_added_up_and_one_that_is_cleared_counts_no_more() {
        let table = table(3, 64);
        let (a, b) = (key("192.0.2.1"), key("2001:db8::1"));
        for (seat, count) in [(0, 2), (1, 3), (2, 5)] {
            let place = table.claim(seat, a).unwrap();
            table.publish(seat, place, count);
        }
        let place = table.claim(1, b).unwrap();
        table.publish(1, place, 7);
        assert_eq!([table.total(a, None), table.total(a, Some(1)), table.total(b, Some(0))], [10, 7, 7]);
        table.clear(1);
        assert_eq!([table.total(a, None), table.total(b, None)], [7, 0]);
        table.clear(9);
    }

    #[test]
    fn a_place_without_connections_is_free_again_and_a_full_set_has_none() {
        let table = table(1, 8);
        let places: Vec<Place> = (1..=8).map(|n| table.claim(0, n).unwrap()).collect();
        assert_eq!(table.claim(0, 9), None);
        table.publish(0, places[3], 1);
        table.publish(0, places[3], 0);
        assert_eq!(table.claim(0, 9), Some(places[3]));
        table.publish(0, places[3], 1);
        assert_eq!((table.total(4, None), table.total(9, None)), (0, 1));
    }

    #[test]
    fn what_is_too_small_is_no_table() {
        let words = |count: usize| -> Arc<dyn Words> {
            let words: Box<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
            Arc::new(words)
        };
        assert!(AddressTable::new(words(2 * 8 * 2 + 1), 2, 8).is_none());
        assert!(AddressTable::new(words(2 * 8 * 2 + 2), 2, 8).is_some());
        assert!(
            AddressTable::new(words(1000), 2, 12).is_none() && AddressTable::new(words(1000), 2, 4).is_none()
        );
        let places = [0, 9, 10_000, 1_000_000].map(AddressTable::places_for);
        assert_eq!(places, [8, 16, 16 << 10, AddressTable::MAX_PLACES]);
    }

    #[test]
    fn addresses_spread_over_the_sets() {
        let table = table(1, 16 << 10);
        let claimed = (0..8 << 10u32).filter(|n| {
            let address = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n));
            table.claim(0, AddressTable::key_of(address)).is_some()
        });
        assert!(claimed.count() > (8 << 10) * 98 / 100);
        assert_ne!(key("::1"), 0);
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }
}
