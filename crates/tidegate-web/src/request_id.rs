//! `RequestIds`: a name for each request, for whoever looks for it in several logs.
//!
//! Invariant: an id is visible ASCII without blanks, at most [`MAX_BYTES`]. It is no secret, and cannot be one.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the id of a request comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestIdMode {
    /// There is none.
    #[default]
    Off,
    /// Each request gets a new one.
    New,
    /// The one that the client or a balancer has sent, if it can be one; else a new one.
    Accept,
}

/// Gives ids.
#[derive(Debug)]
pub(crate) struct RequestIds {
    pub(crate) mode: RequestIdMode,
    /// Under keys of this service alone.
    keys: RandomState,
    given: AtomicU64,
}

/// The field that has it, in a request and in its answer.
pub(crate) const FIELD: &str = "X-Request-Id";
/// The longest that is taken over.
const MAX_BYTES: usize = 128;

impl RequestIds {
    pub(crate) fn new(mode: RequestIdMode) -> Self {
        Self { mode, keys: RandomState::new(), given: AtomicU64::new(0) }
    }

    /// The id of a request that came with this one, if it is to have any.
    pub(crate) fn of(&self, sent: Option<&[u8]>) -> Option<Box<str>> {
        match self.mode {
            RequestIdMode::Off => None,
            RequestIdMode::New => Some(self.make()),
            RequestIdMode::Accept => Some(sent.and_then(sound).map_or_else(|| self.make(), Box::from)),
        }
    }

    fn make(&self) -> Box<str> {
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        let half = |which: u8| self.keys.hash_one((which, number));
        format!("{:016x}{:016x}", half(0), half(1)).into()
    }
}

fn sound(sent: &[u8]) -> Option<&str> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.+/=:@".contains(byte);
    let sound = (1..=MAX_BYTES).contains(&sent.len()) && sent.iter().all(fits);
    str::from_utf8(sent).ok().filter(|_| sound)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn new_ids_are_of_one_form_and_all_different() {
        let ids = RequestIds::new(RequestIdMode::New);
        let made: HashSet<_> = (0..10_000).filter_map(|_| ids.of(Some(b"theirs"))).collect();
        assert_eq!(made.len(), 10_000);
        assert!(made.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
        assert_eq!(RequestIds::new(RequestIdMode::Off).of(Some(b"theirs")), None);
    }

    #[test]
    fn what_was_sent_is_taken_over_if_it_can_be_an_id() {
        let ids = RequestIds::new(RequestIdMode::Accept);
        for sent in ["a", "0af7651916cd43dd8448eb211c80319c", "a-b_c.d+e/f=:@"] {
            assert_eq!(ids.of(Some(sent.as_bytes())).as_deref(), Some(sent));
        }
        let long = "a".repeat(129);
        for sent in ["", "a b", "a\"b", "a\\b", "\u{e4}", "<a>", "a,b", &long] {
            assert_ne!(ids.of(Some(sent.as_bytes())).as_deref(), Some(sent), "{sent}");
        }
        assert!(ids.of(None).is_some());
    }
}
