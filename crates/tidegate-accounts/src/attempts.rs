//! How often somebody may try to log in or to register: counts that all processes of a server share and that survive a reload.
//!
//! Invariant: an attempt is counted before the password is looked at, and taken back when it was right, so that many at once
//! find out no more than one after the other. Counts are of a name at an address, of an address, and of a name; the last two
//! may have [`BREADTH`] times as many. Registrations are counted for an address, and none is taken back that was decided. The table has a limit: when it is full, the oldest count is forgotten.
//!
//! The counts are not synced to the disk one by one. What a crash of the machine forgets of them are some seconds.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use crate::AccountsError;
use crate::store::Store;

/// Who tries to be whom.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// From the strictest count to the loosest: each with its limit. None is no limit.
    counts: Vec<(String, u32)>,
}

/// How many times the failures of one name at one address an address may have with all names, and a name from all
/// addresses.
pub(crate) const BREADTH: u32 = 10;

/// Counts that are kept.
const MAX_COUNTS: i64 = 100_000;

impl Attempt {
    /// At most `max_failures` of them, at least 1. A peer of a Unix socket has no address, and all of them count as one.
    pub(crate) fn new(name: &str, address: Option<IpAddr>, max_failures: u32) -> Self {
        let address = network(address);
        let (few, many) = (max_failures.max(1), max_failures.max(1).saturating_mul(BREADTH));
        Self {
            counts: vec![
                (format!("both {address} {name}"), few),
                (format!("address {address}"), many),
                (format!("name {name}"), many),
            ],
        }
    }

    /// Somebody wants an account: at most `max` of an address; 0: no limit.
    pub(crate) fn to_register(address: Option<IpAddr>, max: u32) -> Self {
        let counts =
            if max == 0 { Vec::new() } else { vec![(format!("register {}", network(address)), max)] };
        Self { counts }
    }
}

/// Who has one address of IPv6 has most often 2⁶⁴ of them.
fn network(address: Option<IpAddr>) -> String {
    match address.map(|address| address.to_canonical()) {
        None => "unix".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).to_string(),
    }
}

impl Store {
    /// Counts an attempt. When there have been too many, it is not counted, and the answer is how many seconds it takes until
    /// the next one is.
    pub(crate) fn begin_attempt(
        &self,
        attempt: &Attempt,
        now: i64,
        window: Duration,
    ) -> Result<Option<i64>, AccountsError> {
        let window = i64::try_from(window.as_secs()).unwrap_or(i64::MAX).max(1);
        self.unsynced(|counts| {
            counts.prepare_cached("DELETE FROM attempts WHERE expires_at <= ?1")?.execute([now])?;
            for (who, limit) in &attempt.counts {
                let mut query =
                    counts.prepare_cached("SELECT count, expires_at FROM attempts WHERE who = ?1")?;
                let found: Option<(u32, i64)> =
                    query.query_row([who], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
                if let Some((count, expires_at)) = found
                    && count >= *limit
                {
                    return Ok(Some((expires_at - now).clamp(1, window)));
                }
            }
            for (who, _) in &attempt.counts {
                count_one(counts, who, now.saturating_add(window))?;
            }
            Ok(None)
        })
    }

    /// The attempt was right.
    pub(crate) fn forgive_attempt(&self, attempt: &Attempt) -> Result<(), AccountsError> {
        let Some(((both, _), others)) = attempt.counts.split_first() else { return Ok(()) };
        self.unsynced(|counts| {
            counts.prepare_cached("DELETE FROM attempts WHERE who = ?1")?.execute([both])?;
            others.iter().try_for_each(|(who, _)| count_one_less(counts, who))
        })
    }

    /// Nobody has looked whether the attempt was right.
    pub(crate) fn take_attempt_back(&self, attempt: &Attempt) -> Result<(), AccountsError> {
        self.unsynced(|counts| attempt.counts.iter().try_for_each(|(who, _)| count_one_less(counts, who)))
    }

    /// A transaction that need not be on the disk when it is done.
    fn unsynced<T>(
        &self,
        body: impl FnOnce(&Transaction<'_>) -> Result<T, AccountsError>,
    ) -> Result<T, AccountsError> {
        self.db.pragma_update(None, "synchronous", "NORMAL")?;
        let done = (|| {
            let transaction = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
            let done = body(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })();
        self.db.pragma_update(None, "synchronous", "FULL")?;
        done
    }
}

fn count_one_less(counts: &Connection, who: &str) -> Result<(), AccountsError> {
    let less = "UPDATE attempts SET count = count - 1 WHERE who = ?1 AND count > 0";
    counts.prepare_cached(less)?.execute([who])?;
    Ok(())
}

fn count_one(counts: &Connection, who: &str, expires_at: i64) -> Result<(), AccountsError> {
    let mut insert = counts.prepare_cached(
        "INSERT INTO attempts (who, count, expires_at) VALUES (?1, 1, ?2)
         ON CONFLICT (who) DO UPDATE SET count = count + 1",
    )?;
    insert.execute(params![who, expires_at])?;
    let oldest = counts.last_insert_rowid().saturating_sub(MAX_COUNTS);
    counts.prepare_cached("DELETE FROM attempts WHERE id <= ?1")?.execute([oldest])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("accounts.db"), WINDOW).unwrap();
        (dir, store)
    }

    fn attempt(name: &str, address: &str) -> Attempt {
        Attempt::new(name, Some(address.parse().unwrap()), 3)
    }

    #[test]
    fn the_fourth_waits_until_the_window_of_the_first_is_over() {
        let (_dir, store) = store();
        let ada = attempt("ada", "192.0.2.1");
        for second in 0..3 {
            assert_eq!(store.begin_attempt(&ada, 1000 + second, WINDOW).unwrap(), None);
        }
        assert_eq!(store.begin_attempt(&ada, 1010, WINDOW).unwrap(), Some(50));
        assert_eq!(store.begin_attempt(&ada, 1059, WINDOW).unwrap(), Some(1));
        assert_eq!(store.begin_attempt(&attempt("bob", "192.0.2.1"), 1059, WINDOW).unwrap(), None);
        assert_eq!(store.begin_attempt(&attempt("ada", "192.0.2.2"), 1059, WINDOW).unwrap(), None);
        assert_eq!(store.begin_attempt(&ada, 1060, WINDOW).unwrap(), None);
    }

    #[test]
    fn who_was_right_begins_anew() {
        let (_dir, store) = store();
        let ada = attempt("ada", "192.0.2.1");
        for _ in 0..200 {
            assert_eq!(store.begin_attempt(&ada, 1000, WINDOW).unwrap(), None);
            store.forgive_attempt(&ada).unwrap();
        }
        assert_eq!(store.begin_attempt(&ada, 1000, WINDOW).unwrap(), None);
    }

    #[test]
    fn an_address_may_not_try_all_names_and_all_addresses_not_one_name() {
        let (_dir, store) = store();
        for n in 0..30 {
            assert_eq!(
                store.begin_attempt(&attempt(&format!("user {n}"), "192.0.2.1"), 1000, WINDOW).unwrap(),
                None
            );
            let of_one = attempt("eve", &format!("2001:db8:0:{n}::1"));
            assert_eq!(store.begin_attempt(&of_one, 1000, WINDOW).unwrap(), None);
        }
        assert_eq!(store.begin_attempt(&attempt("one more", "192.0.2.1"), 1000, WINDOW).unwrap(), Some(60));
        assert_eq!(store.begin_attempt(&attempt("eve", "192.0.2.9"), 1000, WINDOW).unwrap(), Some(60));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        assert_eq!(network(Some("2001:db8:1:2:3:4:5:6".parse().unwrap())), "2001:db8:1:2::");
        assert_eq!(network(Some("::ffff:192.0.2.1".parse().unwrap())), "192.0.2.1");
        assert_eq!(network(None), "unix");
    }

    #[test]
    fn the_table_forgets_the_oldest_when_it_is_full() {
        let (_dir, store) = store();
        let ada = attempt("ada", "192.0.2.1");
        for _ in 0..3 {
            assert_eq!(store.begin_attempt(&ada, 1000, WINDOW).unwrap(), None);
        }
        // As if so many others had come since.
        let skip = "UPDATE sqlite_sequence SET seq = seq + 99998 WHERE name = 'attempts'";
        store.db.execute(skip, []).unwrap();
        assert!(store.begin_attempt(&ada, 1000, WINDOW).unwrap().is_some());
        assert_eq!(store.begin_attempt(&attempt("bob", "192.0.2.2"), 1000, WINDOW).unwrap(), None);
        assert_eq!(store.begin_attempt(&ada, 1000, WINDOW).unwrap(), None, "its count is gone");
    }

    #[test]
    fn registrations_are_counted_by_address_alone() {
        let (_dir, store) = store();
        let of = |address: &str| Attempt::to_register(Some(address.parse().unwrap()), 2);
        for _ in 0..2 {
            assert_eq!(store.begin_attempt(&of("192.0.2.1"), 1000, WINDOW).unwrap(), None);
        }
        assert_eq!(store.begin_attempt(&of("192.0.2.1"), 1000, WINDOW).unwrap(), Some(60));
        assert_eq!(store.begin_attempt(&of("192.0.2.2"), 1000, WINDOW).unwrap(), None);
        assert_eq!(store.begin_attempt(&attempt("ada", "192.0.2.1"), 1000, WINDOW).unwrap(), None);
        store.take_attempt_back(&of("192.0.2.1")).unwrap();
        assert_eq!(store.begin_attempt(&of("192.0.2.1"), 1000, WINDOW).unwrap(), None);
        for _ in 0..50 {
            assert_eq!(store.begin_attempt(&Attempt::to_register(None, 0), 1000, WINDOW).unwrap(), None);
        }
    }

    #[test]
    fn counting_leaves_the_connection_as_careful_as_it_was() {
        let (_dir, store) = store();
        store.begin_attempt(&attempt("ada", "192.0.2.1"), 1000, WINDOW).unwrap();
        let level: i64 = store.db.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        assert_eq!(level, 2, "FULL");
    }
}
