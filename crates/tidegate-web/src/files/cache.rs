//! `FileCache`: the files that were asked for lately, open or in memory.
//!
//! Invariant: never more entries, nor more bytes in memory, than it may have; `index` names every slot, and nothing else;
//! `bytes` is what the slots weigh together. An entry is fresh for the second in which its path was last opened, so a
//! replaced file is seen within a second and a busy one is opened once in it. What is not there is not remembered.
//!
//! Room is made by the clock algorithm: a hand goes round and takes the first entry that was not used since its last pass.
//! On the way it drops what has not been looked at for a minute, so that a deleted file does not keep its disk space for
//! ever.

use std::collections::HashMap;
use std::sync::Arc;

/// The cache. Paths are normalised and relative to the root.
#[derive(Debug)]
pub(crate) struct FileCache<F> {
    max_entries: usize,
    max_bytes: usize,
    bytes: usize,
    slots: Vec<Slot<F>>,
    index: HashMap<Arc<[u8]>, usize>,
    hand: usize,
}

#[derive(Debug)]
struct Slot<F> {
    path: Arc<[u8]>,
    file: F,
    /// As it was when it was last weighed.
    weight: usize,
    /// The second in which the path was last opened.
    checked_at: u64,
    used: bool,
}

/// What the cache has to know about a file.
pub(crate) trait Cached {
    /// What tells one state of the file from another.
    type State: PartialEq;

    fn state(&self) -> &Self::State;

    /// The memory that it takes, in bytes.
    fn weight(&self) -> usize;
}

/// After this many seconds without a look an entry goes.
const STALE_AFTER: u64 = 60;
/// How many entries the hand passes with each file that is opened.
const SWEEP: usize = 16;

impl<F: Cached> FileCache<F> {
    /// A cache of at most `max_entries`, at least 1, and `max_bytes`.
    pub(crate) fn new(max_entries: usize, max_bytes: usize) -> Self {
        let max_entries = max_entries.max(1);
        Self { max_entries, max_bytes, bytes: 0, slots: Vec::new(), index: HashMap::new(), hand: 0 }
    }

    /// The file of a path, if it was opened in the second `now`.
    #[inline]
    pub(crate) fn fresh(&mut self, path: &[u8], now: u64) -> Option<&F> {
        let slot = &mut self.slots[*self.index.get(path)?];
        if slot.checked_at != now {
            return None;
        }
        slot.used = true;
        Some(&slot.file)
    }

    /// The path was opened again: answers its file if that is still the one that is kept.
    pub(crate) fn confirm(&mut self, path: &[u8], state: &F::State, now: u64) -> Option<&F> {
        self.sweep(now);
        let slot = &mut self.slots[*self.index.get(path)?];
        if slot.file.state() != state {
            return None;
        }
        slot.checked_at = now;
        slot.used = true;
        Some(&slot.file)
    }

    /// Keeps a file, in place of what was kept for the path. One that is too large on its own is not kept.
    pub(crate) fn insert(&mut self, path: &[u8], file: F, now: u64) {
        self.remove(path);
        let weight = file.weight();
        if weight > self.max_bytes {
            return;
        }
        while self.slots.len() >= self.max_entries || self.bytes + weight > self.max_bytes {
            self.evict();
        }
        let path: Arc<[u8]> = path.into();
        self.bytes += weight;
        self.index.insert(Arc::clone(&path), self.slots.len());
        self.slots.push(Slot { path, file, weight, checked_at: now, used: false });
    }

    /// The file of a path has become heavier. Others make room for that, unless it has become too large on its own.
    pub(crate) fn weigh(&mut self, path: &[u8]) {
        let Some(&at) = self.index.get(path) else { return };
        let slot = &mut self.slots[at];
        let weight = slot.file.weight();
        self.bytes = self.bytes - slot.weight + weight;
        slot.weight = weight;
        slot.used = true;
        if weight > self.max_bytes {
            return self.remove_at(at);
        }
        while self.bytes > self.max_bytes {
            self.evict();
        }
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
        self.bytes = 0;
    }

    fn remove_at(&mut self, at: usize) {
        let gone = self.slots.swap_remove(at);
        self.bytes -= gone.weight;
        self.index.remove(&gone.path);
        if let Some(moved) = self.slots.get(at) {
            self.index.insert(Arc::clone(&moved.path), at);
        }
    }

    /// Takes one entry away. There is one, since the limits have room for any that was let in, and the second round finds
    /// what the first one marked as unused.
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
    use std::cell::Cell;

    /// A state and a weight.
    #[derive(Debug, PartialEq)]
    struct Fake(u64, Cell<usize>);

    impl Cached for Fake {
        type State = u64;

        fn state(&self) -> &u64 {
            &self.0
        }

        fn weight(&self) -> usize {
            self.1.get()
        }
    }

    fn fake(state: u64) -> Fake {
        Fake(state, Cell::new(1))
    }

    const MANY: usize = usize::MAX / 2;

    #[track_caller]
    fn check_index(cache: &FileCache<Fake>) {
        assert_eq!(cache.index.len(), cache.slots.len());
        assert!(cache.slots.len() <= cache.max_entries && cache.bytes <= cache.max_bytes);
        assert_eq!(cache.bytes, cache.slots.iter().map(|slot| slot.weight).sum::<usize>());
        for (at, slot) in cache.slots.iter().enumerate() {
            assert_eq!(cache.index.get(&slot.path), Some(&at));
        }
    }

    #[test]
    fn an_entry_is_fresh_for_its_second_and_confirmed_by_its_state() {
        let mut cache = FileCache::new(4, MANY);
        cache.insert(b"a", fake(1), 10);
        assert!(cache.fresh(b"a", 10).is_some());
        assert!(
            cache.fresh(b"a", 11).is_none()
                && cache.fresh(b"a", 9).is_none()
                && cache.fresh(b"b", 10).is_none()
        );
        assert!(cache.confirm(b"a", &2, 11).is_none());
        assert!(cache.confirm(b"a", &1, 11).is_some());
        assert!(cache.fresh(b"a", 11).is_some());
        cache.insert(b"a", fake(2), 11);
        assert_eq!(cache.fresh(b"a", 11), Some(&fake(2)));
        cache.remove(b"a");
        cache.remove(b"a");
        assert!(cache.fresh(b"a", 11).is_none());
        check_index(&cache);
    }

    #[test]
    fn what_is_used_outlives_what_is_not_when_room_is_made() {
        let mut cache = FileCache::new(8, MANY);
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
    fn what_weighs_more_makes_others_go_or_goes_itself() {
        let mut cache = FileCache::new(100, 1000);
        for n in 0..50u8 {
            cache.insert(&[n], Fake(1, Cell::new(100)), 1);
            check_index(&cache);
        }
        assert_eq!((cache.slots.len(), cache.bytes), (10, 1000));
        let heavier = |cache: &mut FileCache<Fake>, weight| {
            cache.fresh(&[49], 1).unwrap().1.set(weight);
            cache.weigh(&[49]);
            check_index(cache);
        };
        heavier(&mut cache, 550);
        assert_eq!((cache.slots.len(), cache.bytes), (5, 950));
        assert!(cache.fresh(&[49], 1).is_some());
        heavier(&mut cache, 1001);
        assert_eq!((cache.slots.len(), cache.bytes), (4, 400));
        cache.insert(b"too large", Fake(1, Cell::new(1001)), 1);
        cache.weigh(b"too large");
        assert_eq!(cache.slots.len(), 4);
        check_index(&cache);
    }

    #[test]
    fn what_nobody_looks_at_goes_after_a_minute() {
        let mut cache = FileCache::new(100, MANY);
        for n in 0..40u8 {
            cache.insert(&[n], fake(1), 100);
        }
        cache.insert(b"busy", fake(1), 100);
        for now in 101..200 {
            assert!(cache.confirm(b"busy", &1, now).is_some());
            check_index(&cache);
        }
        assert_eq!(cache.slots.len(), 1);
        cache.clear();
        check_index(&cache);
    }
}
