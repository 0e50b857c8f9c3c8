//! `FileCache`: the files that were asked for lately, open or in memory.
//!
//! Invariant: never more than its capacity; `index` names every slot, and nothing else. An entry is fresh for the second
//! in which its path was last opened, so a replaced file is seen within a second and a busy one is opened once in it. What
//! is not there is not remembered.
//!
//! Room is made by the clock algorithm: a hand goes round and takes the first entry that was not used since its last pass.
//! On the way it drops what has not been looked at for a minute, so that a deleted file does not keep its disk space for
//! ever.

use std::collections::HashMap;
use std::sync::Arc;

use super::static_file::{Identity, StaticFile};

/// The cache. Paths are normalised and relative to the root.
#[derive(Debug)]
pub(crate) struct FileCache<F = StaticFile> {
    capacity: usize,
    slots: Vec<Slot<F>>,
    index: HashMap<Arc<[u8]>, usize>,
    hand: usize,
}

#[derive(Debug)]
struct Slot<F> {
    path: Arc<[u8]>,
    file: F,
    /// The second in which the path was last opened.
    checked_at: u64,
    used: bool,
}

/// What the cache has to know about a file.
pub(crate) trait Identified {
    fn identity(&self) -> Identity;
}

impl Identified for StaticFile {
    fn identity(&self) -> Identity {
        Self::identity(self)
    }
}

/// After this many seconds without a look an entry goes.
const STALE_AFTER: u64 = 60;
/// How many entries the hand passes with each file that is opened.
const SWEEP: usize = 16;

impl<F: Identified> FileCache<F> {
    /// A cache of at most `capacity` entries, at least 1.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), slots: Vec::new(), index: HashMap::new(), hand: 0 }
    }

    /// The file of a path, if it was opened in the second `now`.
    #[inline]
    pub(crate) fn fresh(&mut self, path: &[u8], now: u64) -> Option<&mut F> {
        let slot = &mut self.slots[*self.index.get(path)?];
        if slot.checked_at != now {
            return None;
        }
        slot.used = true;
        Some(&mut slot.file)
    }

    /// The path was opened again: answers its file if that is still the one that is kept.
    pub(crate) fn confirm(&mut self, path: &[u8], identity: Identity, now: u64) -> Option<&mut F> {
        self.sweep(now);
        let slot = &mut self.slots[*self.index.get(path)?];
        if slot.file.identity() != identity {
            return None;
        }
        slot.checked_at = now;
        slot.used = true;
        Some(&mut slot.file)
    }

    /// Keeps a file, in place of what was kept for the path.
    pub(crate) fn insert(&mut self, path: &[u8], file: F, now: u64) -> &mut F {
        self.remove(path);
        if self.slots.len() >= self.capacity {
            self.evict();
        }
        let path: Arc<[u8]> = path.into();
        let at = self.slots.len();
        self.index.insert(Arc::clone(&path), at);
        self.slots.push(Slot { path, file, checked_at: now, used: false });
        &mut self.slots[at].file
    }

    /// The path names no file any more.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        if let Some(&at) = self.index.get(path) {
            self.remove_at(at);
        }
    }

    /// Gives everything back; what is being sent lives on until it has been.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.index.clear();
    }

    fn remove_at(&mut self, at: usize) {
        let gone = self.slots.swap_remove(at);
        self.index.remove(&gone.path);
        if let Some(moved) = self.slots.get(at) {
            self.index.insert(Arc::clone(&moved.path), at);
        }
    }

    /// Takes one entry away. There is one, and the second round finds what the first one marked as unused.
    fn evict(&mut self) {
        loop {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            if !std::mem::take(&mut self.slots[self.hand].used) {
                return self.remove_at(self.hand);
            }
        }
    }

    fn sweep(&mut self, now: u64) {
        for _ in 0..SWEEP.min(self.slots.len()) {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let stale = self
                .slots
                .get(self.hand)
                .is_some_and(|slot| now.saturating_sub(slot.checked_at) > STALE_AFTER);
            if stale {
                self.remove_at(self.hand);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Fake(Identity);

    impl Identified for Fake {
        fn identity(&self) -> Identity {
            self.0
        }
    }

    fn fake(size: u64) -> Fake {
        Fake(Identity::for_test(size))
    }

    #[track_caller]
    fn check_index(cache: &FileCache<Fake>) {
        assert_eq!(cache.index.len(), cache.slots.len());
        assert!(cache.slots.len() <= cache.capacity);
        for (at, slot) in cache.slots.iter().enumerate() {
            assert_eq!(cache.index.get(&slot.path), Some(&at));
        }
    }

    #[test]
    fn an_entry_is_fresh_for_its_second_and_confirmed_by_its_identity() {
        let mut cache = FileCache::new(4);
        cache.insert(b"a", fake(1), 10);
        assert!(cache.fresh(b"a", 10).is_some());
        assert!(
            cache.fresh(b"a", 11).is_none()
                && cache.fresh(b"a", 9).is_none()
                && cache.fresh(b"b", 10).is_none()
        );
        assert!(cache.confirm(b"a", fake(2).0, 11).is_none());
        assert!(cache.confirm(b"a", fake(1).0, 11).is_some());
        assert!(cache.fresh(b"a", 11).is_some());
        cache.insert(b"a", fake(2), 11);
        assert_eq!(cache.fresh(b"a", 11), Some(&mut fake(2)));
        cache.remove(b"a");
        cache.remove(b"a");
        assert!(cache.fresh(b"a", 11).is_none());
        check_index(&cache);
    }

    #[test]
    fn what_is_used_outlives_what_is_not_when_room_is_made() {
        let mut cache = FileCache::new(8);
        for n in 0..1000u32 {
            cache.insert(&n.to_be_bytes(), fake(u64::from(n)), 1);
            cache.insert(b"used", fake(1), 1);
            check_index(&cache);
            // The entry survives some insertions between two uses.
            for m in 0..3u32 {
                assert!(cache.fresh(b"used", 1).is_some(), "{n} {m}");
                cache.insert(&(n * 10 + m + 10_000).to_be_bytes(), fake(0), 1);
                check_index(&cache);
            }
        }
    }

    #[test]
    fn what_nobody_looks_at_goes_after_a_minute() {
        let mut cache = FileCache::new(100);
        for n in 0..40u8 {
            cache.insert(&[n], fake(1), 100);
        }
        cache.insert(b"busy", fake(1), 100);
        for now in 101..200 {
            assert!(cache.confirm(b"busy", fake(1).0, now).is_some());
            check_index(&cache);
        }
        assert_eq!(cache.slots.len(), 1);
        cache.clear();
        check_index(&cache);
    }
}
