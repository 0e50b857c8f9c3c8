//! `LoginLimit`: how many wrong passwords an address may try.
//!
//! ```text
//!   taken before the password is looked at ──▶ right: as if nothing had been
//!                                          ├─▶ not looked at: given back
//!                                          └─▶ wrong: comes back by and by
//! ```
//!
//! Invariant: many attempts at once find out no more than one after the other. A name at an address has so many, and an
//! address with all names [`BREADTH`] times as many; these stand in a table of their own, so that nobody who tries many names
//! drives out what his address has used up.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use tidegate_engine::{AddressTable, Words};

use super::networks::Source;
use super::request_limit::RequestLimit;

/// The attempts of all addresses at a site.
#[derive(Clone, Debug)]
pub(crate) struct LoginLimit {
    names: RequestLimit,
    addresses: RequestLimit,
}

/// An attempt that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    name: u64,
    address: u64,
}

/// How many tables of [`REQUEST_LIMIT_WORDS`](crate::REQUEST_LIMIT_WORDS) words the limit of wrong passwords takes.
pub const LOGIN_LIMIT_TABLES: usize = 2;
/// In which time all attempts come back.
const WINDOW: Duration = Duration::from_secs(900);
/// How many times the attempts for one name an address has for all.
const BREADTH: u32 = 10;

impl LoginLimit {
    /// At most `max_failures` at once, at least 1.
    pub(crate) fn new(max_failures: u32, [names, addresses]: [Arc<dyn Words>; LOGIN_LIMIT_TABLES]) -> Self {
        let few = max_failures.max(1);
        let many = few.saturating_mul(BREADTH);
        Self {
            names: RequestLimit::refilled_in(WINDOW, few, names),
            addresses: RequestLimit::refilled_in(WINDOW, many, addresses),
        }
    }

    /// Takes an attempt.
    ///
    /// # Errors
    ///
    /// In how many whole seconds there is one, at least 1.
    pub(crate) fn take(&self, source: Source, name: &str, now_ns: u64) -> Result<Attempt, u64> {
        let address = key_of_source(source);
        let attempt = Attempt { name: key_of_name(address, name), address };
        self.names.take_of(attempt.name, now_ns)?;
        self.addresses
            .take_of(attempt.address, now_ns)
            .inspect_err(|_| self.names.give_back(attempt.name))?;
        Ok(attempt)
    }

    /// The attempt was right: the name has all of them again.
    pub(crate) fn forgive(&self, attempt: Attempt) {
        self.names.refill(attempt.name);
        self.addresses.give_back(attempt.address);
    }

    /// Nobody has looked whether the attempt was right.
    pub(crate) fn give_back(&self, attempt: Attempt) {
        self.names.give_back(attempt.name);
        self.addresses.give_back(attempt.address);
    }
}

/// Who asks, in a word. The peers of Unix sockets are one.
pub(super) fn key_of_source(source: Source) -> u64 {
    // In 0000::/8 as the addresses of IPv4 are, and none of them.
    source.map_or(2, AddressTable::key_of)
}

/// The same word in every worker: they are one program, and this hasher has no keys of its own.
fn key_of_name(address: u64, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (address, name).hash(&mut hasher);
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 5000 * SECOND;

    fn limit(max_failures: u32) -> LoginLimit {
        LoginLimit::new(max_failures, [RequestLimit::own_table(), RequestLimit::own_table()])
    }

    fn at(last: u8) -> Source {
        Some([192, 0, 2, last].into())
    }

    #[test]
    fn a_name_has_some_and_they_come_back_one_by_one() {
        let limit = limit(3);
        for _ in 0..3 {
            limit.take(at(1), "ada", NOW).unwrap();
        }
        assert_eq!(limit.take(at(1), "ada", NOW), Err(300));
        assert!(limit.take(at(1), "bob", NOW).is_ok() && limit.take(at(2), "ada", NOW).is_ok());
        assert!(limit.take(None, "ada", NOW).is_ok());
        assert_eq!(limit.take(at(1), "ada", NOW + 299 * SECOND), Err(1));
        assert!(limit.take(at(1), "ada", NOW + 300 * SECOND).is_ok());
        assert_eq!(limit.take(at(1), "ada", NOW + 300 * SECOND), Err(300));
    }

    #[test]
    fn an_address_has_ten_times_as_many_for_all_names() {
        let limit = limit(1);
        for n in 0..10 {
            limit.take(at(1), &format!("user {n}"), NOW).unwrap();
        }
        assert_eq!(limit.take(at(1), "another", NOW), Err(90));
        // What was refused has cost that name nothing.
        assert!(limit.take(at(1), "another", NOW + 90 * SECOND).is_ok());
        assert!(limit.take(at(2), "another", NOW).is_ok());
    }

    #[test]
    fn who_is_right_has_used_nothing_up() {
        let limit = limit(2);
        for _ in 0..1000 {
            let attempt = limit.take(at(1), "ada", NOW).unwrap();
            limit.forgive(attempt);
            let attempt = limit.take(at(1), "ada", NOW).unwrap();
            limit.give_back(attempt);
        }
        // Who mistook it once and is right then has all of them again.
        limit.take(at(1), "ada", NOW).unwrap();
        limit.forgive(limit.take(at(1), "ada", NOW).unwrap());
        assert!(limit.take(at(1), "ada", NOW).is_ok() && limit.take(at(1), "ada", NOW).is_ok());
        assert!(limit.take(at(1), "ada", NOW).is_err());
    }

    #[test]
    fn trying_many_names_does_not_make_the_address_forgotten() {
        let limit = limit(1);
        let granted = (0..100_000).filter(|n| limit.take(at(1), &n.to_string(), NOW).is_ok()).count();
        assert_eq!(granted, 10);
    }
}
