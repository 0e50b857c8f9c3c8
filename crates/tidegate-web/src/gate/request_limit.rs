//! `RequestLimit`: how many requests an address may make, as a token bucket for each.
//!
//! A bucket is one number, the moment at which it would be full again (the *theoretical arrival time* of the generic cell
//! rate algorithm): there is nothing to refill and nothing to sweep. The buckets stand in a table of a fixed size that the
//! loops, and with a shared memory the workers, have in common: sets of [`WAYS`] places, found by the address. Invariant: an
//! address without a place has a full bucket, so a place whose bucket is full again may be given away, and one that is given
//! away too early costs the server some requests more, never a client some of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_engine::{AddressTable, Words};

/// How often an address may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRate {
    /// Requests per second in the long run, at least 1.
    pub per_second: u32,
    /// Requests at once after a pause, at least 1.
    pub burst: u32,
}

/// The buckets of all addresses.
#[derive(Clone, Debug)]
pub(crate) struct RequestLimit {
    /// Nanoseconds that a request costs.
    cost: u64,
    /// How far ahead of the clock a bucket may be.
    allowance: u64,
    table: Arc<dyn Words>,
}

/// Words that a table takes: two for each of its places.
pub const REQUEST_LIMIT_WORDS: usize = PLACES * 2;

/// Addresses that are limited at the same time.
const PLACES: usize = 16 << 10;
/// Places in which an address may stand.
const WAYS: usize = 8;
const SETS: usize = PLACES / WAYS;
/// How often a place is looked for that another thread has taken meanwhile.
const ATTEMPTS: usize = 4;

impl RequestLimit {
    /// A limit over this memory, which was zero when it was new.
    ///
    /// # Panics
    ///
    /// When there are fewer than [`REQUEST_LIMIT_WORDS`] words.
    pub(crate) fn new(rate: RequestRate, table: Arc<dyn Words>) -> Self {
        Self::of_cost(1_000_000_000 / u64::from(rate.per_second.max(1)), rate.burst, table)
    }

    /// A limit of so many at once, all of which are there again after this time.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub(crate) fn refilled_in(time: Duration, burst: u32, table: Arc<dyn Words>) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self::of_cost(nanos / u64::from(burst.max(1)), burst, table)
    }

    fn of_cost(cost: u64, burst: u32, table: Arc<dyn Words>) -> Self {
        assert!(table.words().len() >= REQUEST_LIMIT_WORDS, "a table of {} words", table.words().len());
        Self { cost, allowance: cost * u64::from(burst.max(1) - 1), table }
    }

    /// Memory for a limit of this process alone.
    pub(crate) fn own_table() -> Arc<dyn Words> {
        let words: Box<[AtomicU64]> = (0..REQUEST_LIMIT_WORDS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(words)
    }

    /// Takes a token of the address.
    ///
    /// # Errors
    ///
    /// In how many whole seconds the next one is there, at least 1.
    pub(crate) fn take(&self, address: IpAddr, now_ns: u64) -> Result<(), u64> {
        self.take_of(AddressTable::key_of(address), now_ns)
    }

    /// As [`take`](Self::take), of whoever has this word, which is not 0.
    pub(super) fn take_of(&self, key: u64, now_ns: u64) -> Result<(), u64> {
        let Some(bucket) = self.bucket(key, now_ns) else {
            // All are in use by more than one thread at this moment: whoever it is, it is not the one flood that counts.
            return Ok(());
        };
        let mut full_at = bucket.load(Ordering::Relaxed);
        loop {
            let from = full_at.max(now_ns);
            let ahead = from - now_ns;
            if ahead > self.allowance {
                return Err((ahead - self.allowance).div_ceil(1_000_000_000).max(1));
            }
            let next = from.saturating_add(self.cost);
            match bucket.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }

    /// Puts a token back.
    pub(super) fn give_back(&self, key: u64) {
        if let Some(bucket) = self.bucket_there(key) {
            // Before now and long ago are the same.
            let less = |full_at: u64| Some(full_at.saturating_sub(self.cost));
            let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    /// Fills the bucket.
    pub(super) fn refill(&self, key: u64) {
        if let Some(bucket) = self.bucket_there(key) {
            bucket.store(0, Ordering::Relaxed);
        }
    }

    /// The bucket of this word, if it has one.
    fn bucket_there(&self, key: u64) -> Option<&AtomicU64> {
        let start = set_of(key) * WAYS * 2;
        let mut places = self.table.words()[start..start + WAYS * 2].chunks_exact(2);
        places.find(|place| place[0].load(Ordering::Relaxed) == key).map(|place| &place[1])
    }

    /// The bucket of an address: where it stands, or in the place of the one that will be full first.
    fn bucket(&self, key: u64, now_ns: u64) -> Option<&AtomicU64> {
        let start = set_of(key) * WAYS * 2;
        let set = &self.table.words()[start..start + WAYS * 2];
        for _ in 0..ATTEMPTS {
            let mut victim = &set[..2];
            let mut first = u64::MAX;
            for place in set.chunks_exact(2) {
                let holder = place[0].load(Ordering::Relaxed);
                if holder == key {
                    return Some(&place[1]);
                }
                let full_at = if holder == 0 { 0 } else { place[1].load(Ordering::Relaxed) };
                if full_at < first {
                    (first, victim) = (full_at, place);
                }
            }
            let holder = victim[0].load(Ordering::Relaxed);
            // Full, before it has another owner: who comes next owes nothing for who had it before.
            victim[1].store(now_ns, Ordering::Relaxed);
            let taken = victim[0].compare_exchange(holder, key, Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() {
                return Some(&victim[1]);
            }
        }
        None
    }
}

/// Fibonacci hashing: an attacker who finds addresses of one set drives out only buckets, which favours their owners.
fn set_of(key: u64) -> usize {
    let mixed = (key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> (64 - SETS.trailing_zeros())).unwrap_or(0)
}

const _: () = assert!(SETS.is_power_of_two(), "a set is found by the upper bits");

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limit(per_second: u32, burst: u32) -> RequestLimit {
        RequestLimit::new(RequestRate { per_second, burst }, RequestLimit::own_table())
    }

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(n))
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let limit = limit(10, 5);
        let start = 1000 * SECOND;
        for _ in 0..5 {
            assert_eq!(limit.take(v4(7), start), Ok(()));
        }
        assert_eq!(limit.take(v4(7), start), Err(1));
        assert_eq!(limit.take(v4(8), start), Ok(()), "each has a bucket of its own");
        assert_eq!(limit.take(v4(7), start + SECOND / 10 - 1), Err(1));
        assert_eq!(limit.take(v4(7), start + SECOND / 10), Ok(()));
        assert_eq!(limit.take(v4(7), start + SECOND / 10), Err(1));
        // Never more than the burst, however long the pause was.
        let later = start + 1000 * SECOND;
        assert_eq!((0..20).filter(|_| limit.take(v4(7), later).is_ok()).count(), 5);
    }

    #[test]
    fn who_is_refused_does_not_wait_longer_for_it() {
        let limit = limit(1, 1);
        assert_eq!(limit.take(v4(1), SECOND), Ok(()));
        for _ in 0..1000 {
            assert_eq!(limit.take(v4(1), SECOND + 1), Err(1));
        }
        assert_eq!(limit.take(v4(1), 2 * SECOND), Ok(()));
    }

    #[test]
    fn a_rate_holds_over_a_long_time() {
        let limit = limit(3, 2);
        let granted = (0..100_000u64).filter(|n| limit.take(v4(9), SECOND + n * SECOND / 1000).is_ok());
        let granted = granted.count();
        assert!((300..=303).contains(&granted), "{granted} in 100 s");
    }

    #[test]
    fn a_network_of_ipv6_has_one_bucket() {
        let limit = limit(1, 1);
        let at = |n: u128| IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) + n));
        assert_eq!(limit.take(at(1), SECOND), Ok(()));
        assert_eq!(limit.take(at(u128::from(u64::MAX)), SECOND), Err(1));
        assert_eq!(limit.take(at(1 << 64), SECOND), Ok(()));
        assert_eq!(limit.take(IpAddr::V6(Ipv6Addr::LOCALHOST), SECOND), Ok(()));
        let mapped = Ipv4Addr::from_bits(5).to_ipv6_mapped();
        assert_eq!(limit.take(IpAddr::V6(mapped), SECOND), Ok(()));
        assert_eq!(limit.take(v4(5), SECOND), Err(1));
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_memory_and_forgets_full_buckets_first() {
        let limit = limit(1, 100);
        // One that is far in debt stays, as long as there is one in its set that is not.
        for _ in 0..100 {
            assert_eq!(limit.take(v4(0), SECOND), Ok(()));
        }
        for n in 1..1_000_000 {
            assert_eq!(limit.take(v4(n), SECOND), Ok(()));
        }
        assert_eq!(limit.take(v4(0), SECOND), Err(1));
    }

    #[test]
    fn threads_together_get_no_more_than_one() {
        let limit = limit(1, 1000);
        let granted: usize = std::thread::scope(|scope| {
            let count = || (0..1000).filter(|_| limit.take(v4(3), SECOND).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 1000);
    }

    #[test]
    fn addresses_spread_over_the_sets() {
        let mut counts = vec![0usize; SETS];
        for n in 0..u32::try_from(PLACES).unwrap() {
            counts[set_of(AddressTable::key_of(v4(0x0a00_0000 + n)))] += 1;
        }
        assert!(counts.iter().all(|&count| count <= 4 * WAYS), "{:?}", counts.iter().max());
    }
}
