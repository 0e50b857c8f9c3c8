//! The timer queue that a configuration names.
//!
//! Invariant: an [`AnyQueue`] is the queue of its [`Kind`] for life, and behaves as that queue does.
//!
//! It is no trait object: each call is a jump by kind, and the queue is not boxed.

use crate::{Heap, Instant, List, TimerKey, TimerQueue, Tree, Wheel};
use core::fmt;

/// Which timer queue to use.
///
/// | | insert | cancel | next deadline | pop, each | resolution | bytes for a timer |
/// |---|---|---|---|---|---|---|
/// | [`Wheel`](Self::Wheel) | O(1) | O(1) | O(1) | O(1) amortised | 1 ms | 24 + value |
/// | [`Heap`](Self::Heap) | O(log n), O(1) on average | O(log n) | O(1) | O(log n) | 1 ns | 32 + value |
/// | [`Tree`](Self::Tree) | O(log n) | O(log n) | O(log n) | O(log n) | 1 ns | 46 to 79 + value |
/// | [`List`](Self::List) | O(n), O(1) at the end | O(1) | O(1) | O(1) | 1 ns | 24 + value |
///
/// Take the wheel unless you know better: a server's time-outs are many, long, and nearly all cancelled or put off. Of
/// the others, which are exact to the nanosecond, take
///
/// * the heap, when deadlines finer than a millisecond matter;
/// * the tree, when besides that nearly all timers fire: of the two it hands out what has expired in less time, and
///   takes several times as long to cancel;
/// * the list, for a few dozen timers, or for any number that all last equally long.
///
/// `examples/compare.rs` measures them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// A hierarchical [timer wheel](crate::Wheel).
    #[default]
    Wheel,
    /// A binary [heap](crate::Heap).
    Heap,
    /// A [B-tree](crate::Tree).
    Tree,
    /// A sorted, doubly linked [list](crate::List).
    List,
}

impl Kind {
    /// Every kind, in the order in which to offer them.
    pub const ALL: [Self; 4] = [Self::Wheel, Self::Heap, Self::Tree, Self::List];

    /// The name in a configuration: `wheel`, `heap`, `tree` or `list`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wheel => "wheel",
            Self::Heap => "heap",
            Self::Tree => "tree",
            Self::List => "list",
        }
    }
}

/// A [`TimerQueue`] whose [`Kind`] is chosen when it is made.
///
/// It is as large as a [`Wheel`], whatever its kind, about 2 KiB: make one for each event loop, not one for each
/// connection.
///
/// ```
/// use core::time::Duration;
/// use tidegate_timer::{AnyQueue, Instant, Kind, TimerQueue};
///
/// let start = Instant::from_nanos(0);
/// for kind in Kind::ALL {
///     let mut timers = AnyQueue::new(kind, start);
///     timers.insert(start + Duration::from_secs(5), "heartbeat");
///     assert_eq!(timers.pop_expired(start + Duration::from_secs(4)), None);
///     assert_eq!(timers.pop_expired(start + Duration::from_secs(5)), Some("heartbeat"));
/// }
/// ```
#[expect(
    clippy::large_enum_variant,
    reason = "the wheel is the default, a loop has one queue, and a box would cost every call an indirection"
)]
pub enum AnyQueue<T> {
    /// See [`Kind::Wheel`].
    Wheel(Wheel<T>),
    /// See [`Kind::Heap`].
    Heap(Heap<T>),
    /// See [`Kind::Tree`].
    Tree(Tree<T>),
    /// See [`Kind::List`].
    List(List<T>),
}

impl<T> AnyQueue<T> {
    /// Makes a queue without timers, whose time is `now`.
    #[must_use]
    pub fn new(kind: Kind, now: Instant) -> Self {
        match kind {
            Kind::Wheel => Self::Wheel(Wheel::new(now)),
            Kind::Heap => Self::Heap(Heap::new(now)),
            Kind::Tree => Self::Tree(Tree::new(now)),
            Kind::List => Self::List(List::new(now)),
        }
    }

    /// The kind it was made with.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Wheel(_) => Kind::Wheel,
            Self::Heap(_) => Kind::Heap,
            Self::Tree(_) => Kind::Tree,
            Self::List(_) => Kind::List,
        }
    }
}

impl<T> TimerQueue<T> for AnyQueue<T> {
    #[inline]
    fn insert(&mut self, deadline: Instant, value: T) -> TimerKey {
        match self {
            Self::Wheel(queue) => queue.insert(deadline, value),
            Self::Heap(queue) => queue.insert(deadline, value),
            Self::Tree(queue) => queue.insert(deadline, value),
            Self::List(queue) => queue.insert(deadline, value),
        }
    }

    #[inline]
    fn cancel(&mut self, key: TimerKey) -> Option<T> {
        match self {
            Self::Wheel(queue) => queue.cancel(key),
            Self::Heap(queue) => queue.cancel(key),
            Self::Tree(queue) => queue.cancel(key),
            Self::List(queue) => queue.cancel(key),
        }
    }

    #[inline]
    fn next_deadline(&self) -> Option<Instant> {
        match self {
            Self::Wheel(queue) => queue.next_deadline(),
            Self::Heap(queue) => queue.next_deadline(),
            Self::Tree(queue) => queue.next_deadline(),
            Self::List(queue) => queue.next_deadline(),
        }
    }

    #[inline]
    fn pop_expired(&mut self, now: Instant) -> Option<T> {
        match self {
            Self::Wheel(queue) => queue.pop_expired(now),
            Self::Heap(queue) => queue.pop_expired(now),
            Self::Tree(queue) => queue.pop_expired(now),
            Self::List(queue) => queue.pop_expired(now),
        }
    }

    #[inline]
    fn len(&self) -> usize {
        match self {
            Self::Wheel(queue) => queue.len(),
            Self::Heap(queue) => queue.len(),
            Self::Tree(queue) => queue.len(),
            Self::List(queue) => queue.len(),
        }
    }
}

impl<T> fmt::Debug for AnyQueue<T> {
    /// Shows what the queue of its kind shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wheel(queue) => queue.fmt(f),
            Self::Heap(queue) => queue.fmt(f),
            Self::Tree(queue) => queue.fmt(f),
            Self::List(queue) => queue.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AnyQueue, Kind};
    use crate::{Instant, TimerQueue, Wheel};

    /// The suite holds for each kind; it is short, since the queues themselves are held to the long one.
    macro_rules! suite_of {
        ($kind:ident, $name:ident, $resolution:expr, $wakes:expr) => {
            mod $name {
                use crate::conformance::suite;
                use crate::{AnyQueue, Kind};

                suite!(|now| AnyQueue::new(Kind::$kind, now), $resolution, $wakes, 100);
            }
        };
    }

    suite_of!(Wheel, wheel, core::time::Duration::from_millis(1), 8);
    suite_of!(Heap, heap, crate::conformance::EXACT, 1);
    suite_of!(Tree, tree, crate::conformance::EXACT, 1);
    suite_of!(List, list, crate::conformance::EXACT, 1);

    #[test]
    fn is_as_large_as_a_wheel() {
        assert_eq!(size_of::<AnyQueue<u64>>(), size_of::<Wheel<u64>>());
        assert_eq!(size_of::<AnyQueue<[u32; 5]>>(), size_of::<Wheel<[u32; 5]>>());
    }

    #[test]
    fn is_of_the_kind_it_was_made_with() {
        assert_eq!(Kind::default(), Kind::Wheel);
        let names = Kind::ALL.map(|kind| {
            let mut queue = AnyQueue::new(kind, Instant::default());
            queue.insert(Instant::from_nanos(7_000_000), ());
            assert_eq!(queue.kind(), kind);
            let shown = format!("{queue:?}").to_lowercase();
            assert!(shown.starts_with(kind.as_str()) && shown.contains("len: 1"), "{shown}");
            kind.as_str()
        });
        assert_eq!(names, ["wheel", "heap", "tree", "list"]);
    }
}
