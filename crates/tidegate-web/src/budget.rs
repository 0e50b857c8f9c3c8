//! `Budget`: how much memory the bodies that are being collected may take together.
//!
//! Invariant: all memory of a [`Collected`] body is accounted for, as its bytes come and not as they are announced, and given
//! back when it is dropped. While memory is scarce, whoever takes long for his body holds none: so those who trickle keep no more
//! than half of it from the others for longer than its patience.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The account of a service.
#[derive(Debug)]
pub(crate) struct Budget {
    taken: AtomicUsize,
    max_bytes: usize,
    /// How long a body may take while memory is scarce.
    patience: Duration,
}

/// A body in memory.
#[derive(Debug)]
pub(crate) struct Collected {
    bytes: Vec<u8>,
    /// What of the budget it has: its room.
    taken: usize,
    budget: Arc<Budget>,
}

/// How much room is taken ahead, at most.
const MAX_SLACK: usize = 256 << 10;

impl Budget {
    pub(crate) const fn new(max_bytes: usize, patience: Duration) -> Self {
        Self { taken: AtomicUsize::new(0), max_bytes, patience }
    }

    /// Whether more than half of it is taken.
    fn is_scarce(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.max_bytes / 2
    }

    fn take(&self, bytes: usize) -> bool {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.max_bytes;
        if !fits {
            self.taken.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

impl Collected {
    pub(crate) const fn new(budget: Arc<Budget>) -> Self {
        Self { bytes: Vec::new(), taken: 0, budget }
    }

    /// Appends; false when there is no memory left for it.
    pub(crate) fn extend(&mut self, part: &[u8]) -> bool {
        let needed = self.bytes.len().saturating_add(part.len());
        // Room for more is taken at once, so that a body of many small parts asks seldom; but most bodies are one part.
        let slack = if self.bytes.is_empty() { 0 } else { (needed / 2).min(MAX_SLACK) };
        let has_room = needed <= self.taken || self.grow(needed.saturating_add(slack)) || self.grow(needed);
        if has_room {
            self.bytes.extend_from_slice(part);
        }
        has_room
    }

    /// Makes it as large as that, if there is memory for it.
    fn grow(&mut self, room: usize) -> bool {
        if !self.budget.take(room - self.taken) {
            return false;
        }
        self.taken = room;
        self.bytes.reserve_exact(room - self.bytes.len());
        true
    }

    /// Whether a body that has been under way for so long has to make room for others.
    pub(crate) fn overstays(&self, age: Duration) -> bool {
        age > self.budget.patience && self.budget.is_scarce()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Collected {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn what_is_dropped_is_given_back() {
        let budget = Arc::new(Budget::new(10, PATIENCE));
        let (mut one, mut two) = (Collected::new(Arc::clone(&budget)), Collected::new(Arc::clone(&budget)));
        assert!(one.extend(b"123456") && two.extend(b"1234"));
        assert!(!two.extend(b"5") && !one.extend(b"7"));
        assert_eq!((one.bytes(), two.bytes()), (&b"123456"[..], &b"1234"[..]));
        drop(one);
        assert!(two.extend(b"567890"));
        drop(two);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn room_is_taken_in_steps_and_never_more_than_is_left() {
        let budget = Arc::new(Budget::new(16 << 20, PATIENCE));
        let mut body = Collected::new(Arc::clone(&budget));
        let (mut steps, mut room) = (0, 0);
        for n in 1..=15 << 14 {
            assert!(body.extend(&[b'x'; 64]));
            assert!(body.taken >= n * 64 && body.taken <= n * 64 + MAX_SLACK);
            steps += usize::from(body.taken != room);
            room = body.taken;
        }
        assert!(steps < 100, "{steps} steps for {} bytes", body.bytes().len());
        let left = (16 << 20) - body.bytes().len();
        assert!(!body.extend(&vec![b'x'; left + 1]) && body.extend(&vec![b'x'; left]) && !body.extend(b"x"));
        assert_eq!((body.bytes().len(), body.taken), (16 << 20, 16 << 20));
        drop(body);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_takes_long_holds_nothing_that_is_scarce() {
        let budget = Arc::new(Budget::new(100, PATIENCE));
        let (mut slow, mut quick) =
            (Collected::new(Arc::clone(&budget)), Collected::new(Arc::clone(&budget)));
        let later = PATIENCE + Duration::from_nanos(1);
        assert!(slow.extend(&[b'x'; 50]) && !slow.overstays(later), "half of it may be held");
        assert!(quick.extend(b"x") && slow.overstays(later));
        assert!(!quick.overstays(PATIENCE));
        drop(slow);
        assert!(!quick.overstays(later), "there is enough again");
    }
}
