//! One suite for every timer queue: random runs against a naive model, and the promises of the trait one by one.
//!
//! A queue's own tests call [`suite!`], which makes a test of each; what only that queue promises they test themselves.
//! A queue whose resolution is [`EXACT`] must pop in the order of deadlines and of insertion; every queue must do so
//! for timers of the same deadline.

use crate::{Instant, TimerKey, TimerQueue};
use alloc::rc::Rc;
use core::time::Duration;
use proptest::prelude::*;

/// The resolution of a queue that fires in the very nanosecond.
pub(crate) const EXACT: Duration = Duration::from_nanos(1);

/// Makes the tests for the queues that `$new` makes from the time.
///
/// `$resolution` is how late a timer may fire, `$wakes` how often a loop may have to wake for a timer, and `$cases`
/// how many random runs there are of each property.
macro_rules! suite {
    ($new:expr, $resolution:expr, $wakes:expr, $cases:expr) => {
        proptest::proptest! {
            #![proptest_config(proptest::prelude::ProptestConfig::with_cases($cases))]

            #[test]
            fn behaves_as_the_model(start in $crate::conformance::nanos(), steps in $crate::conformance::steps()) {
                let start = $crate::Instant::from_nanos(start);
                $crate::conformance::check(($new)(start), $resolution, start, &steps);
            }

            #[test]
            fn a_sleeper_meets_every_deadline(
                start in $crate::conformance::nanos(),
                spans in proptest::collection::vec($crate::conformance::nanos(), 1..40),
            ) {
                // Later than the start by the resolution: what is overdue fires as late as it was inserted.
                let start = $crate::Instant::from_nanos(start);
                let deadlines: Vec<_> = spans
                    .iter()
                    .map(|&span| start + $resolution + core::time::Duration::from_nanos(span))
                    .collect();
                $crate::conformance::check_sleeper(($new)(start), $resolution, &deadlines, $wakes);
            }
        }

        $crate::conformance::suite! { promises $new;
            an_overdue_timer_fires_at_the_next_pop,
            time_does_not_run_backwards,
            time_does_not_run_backwards_while_popping,
            equal_deadlines_fire_in_the_order_of_insertion,
            the_last_instant_is_never,
            a_key_is_stale_after_its_timer_fired_and_its_place_was_used_again,
            a_key_is_stale_after_it_was_cancelled,
            a_timer_due_and_not_yet_popped_can_be_cancelled,
            the_steady_state_reuses_its_places,
            a_queue_drops_the_values_it_still_has,
        }
    };
    (promises $new:expr; $($promise:ident),+ $(,)?) => {
        $(
            #[test]
            fn $promise() {
                $crate::conformance::$promise($new);
            }
        )+
    };
}
pub(crate) use suite;

/// One thing that a caller does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Insert a timer that is due so long after now.
    Insert(u64),
    /// Insert a timer that was due so long ago.
    InsertPast(u64),
    /// Insert a timer with the deadline of one that there is already.
    InsertSame(prop::sample::Index),
    /// Cancel one of all the timers there ever were.
    Cancel(prop::sample::Index),
    /// Let time pass, and pop what has expired.
    Advance(u64),
    /// As `Advance`, and for each timer popped insert another one so long after now, while popping.
    AdvanceAndRepeat(u64, u64),
    /// Pop what has expired as of so long ago, which must count as now.
    Retreat(u64),
    /// Sleep until the next deadline, and pop what has expired.
    Sleep,
}

/// Strategy of a whole run.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => nanos().prop_map(Step::Insert),
        1 => nanos().prop_map(Step::InsertPast),
        2 => any::<prop::sample::Index>().prop_map(Step::InsertSame),
        4 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        3 => nanos().prop_map(Step::Advance),
        1 => (nanos(), 1_u64..1 << 40).prop_map(|(by, after)| Step::AdvanceAndRepeat(by, after)),
        1 => nanos().prop_map(Step::Retreat),
        3 => Just(Step::Sleep),
    ];
    prop::collection::vec(step, 0..150)
}

/// Spans of every magnitude, from a nanosecond to centuries, and the edges of ticks and levels.
pub(crate) fn nanos() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0_u32..62, any::<u64>()).prop_map(|(bits, random)| random & ((1 << bits) - 1)),
        4 => 0_u64..300_000_000,
        2 => (0_u32..7, 0_u64..3, 0_u64..3)
            .prop_map(|(level, ticks, nanos)| (64_u64.pow(level) + ticks) * 1_000_000 + nanos),
        1 => Just(0),
    ]
}

/// Runs `steps` on `queue`, whose time is `now`, and on the model side by side.
pub(crate) fn check<Q: TimerQueue<usize>>(queue: Q, resolution: Duration, now: Instant, steps: &[Step]) {
    let mut run = Run { queue, resolution, now, pending: Vec::new(), keys: Vec::new() };
    for step in steps {
        run.step(step);
        run.check_size_and_next_deadline();
    }
    // Cancelling in the end finds exactly what the model still has.
    for id in 0..run.keys.len() {
        run.cancel(id);
    }
    assert!(run.queue.is_empty());
    assert_eq!(run.queue.next_deadline(), None);
}

/// Sleeps from one `next_deadline` to the next: all timers fire, none early, none late by the resolution or more,
/// and there are at most `wakes_per_timer` wakes for each.
pub(crate) fn check_sleeper<Q: TimerQueue<Instant>>(
    mut queue: Q,
    resolution: Duration,
    deadlines: &[Instant],
    wakes_per_timer: usize,
) {
    for &deadline in deadlines {
        queue.insert(deadline, deadline);
    }
    let mut fired = 0;
    let mut wakes = 0;
    while let Some(now) = queue.next_deadline() {
        wakes += 1;
        assert!(wakes <= wakes_per_timer * deadlines.len(), "woke {wakes} times for {fired} timers");
        while let Some(deadline) = queue.pop_expired(now) {
            assert!(deadline <= now, "{deadline:?} fired early, at {now:?}");
            assert!(
                now.saturating_duration_since(deadline) < resolution,
                "{deadline:?} fired late, at {now:?}"
            );
            fired += 1;
        }
    }
    assert_eq!(fired, deadlines.len());
}

struct Run<Q> {
    queue: Q,
    resolution: Duration,
    now: Instant,
    /// The model: deadline and id of each timer, in no order.
    pending: Vec<(Instant, usize)>,
    /// The key of every timer there ever was, by id.
    keys: Vec<TimerKey>,
}

impl<Q: TimerQueue<usize>> Run<Q> {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Insert(after) => self.insert(self.now + Duration::from_nanos(*after)),
            Step::InsertPast(before) => {
                self.insert(Instant::from_nanos(self.now.as_nanos().saturating_sub(*before)));
            }
            Step::InsertSame(pick) if !self.pending.is_empty() => self.insert(pick.get(&self.pending).0),
            Step::Cancel(pick) if !self.keys.is_empty() => self.cancel(pick.index(self.keys.len())),
            Step::InsertSame(_) | Step::Cancel(_) => {}
            Step::Advance(by) => self.advance(self.now + Duration::from_nanos(*by), None),
            Step::AdvanceAndRepeat(by, after) => {
                self.advance(self.now + Duration::from_nanos(*by), Some(Duration::from_nanos(*after)));
            }
            Step::Retreat(by) => {
                self.advance(Instant::from_nanos(self.now.as_nanos().saturating_sub(*by)), None);
            }
            Step::Sleep => self.advance(self.queue.next_deadline().unwrap_or(self.now).max(self.now), None),
        }
    }

    fn insert(&mut self, deadline: Instant) {
        let id = self.keys.len();
        self.keys.push(self.queue.insert(deadline, id));
        self.pending.push((deadline, id));
    }

    fn cancel(&mut self, id: usize) {
        let position = self.pending.iter().position(|&(_, pending)| pending == id);
        assert_eq!(self.queue.cancel(self.keys[id]), position.map(|_| id));
        if let Some(position) = position {
            self.pending.swap_remove(position);
        }
    }

    fn advance(&mut self, told: Instant, repeat_after: Option<Duration>) {
        self.now = self.now.max(told);
        let now = self.now;
        while let Some(id) = self.queue.pop_expired(told) {
            let position = self.pending.iter().position(|&(_, pending)| pending == id);
            let (deadline, _) =
                self.pending.swap_remove(position.expect("no timer fires twice or when cancelled"));
            assert!(deadline <= now, "timer {id} of {deadline:?} fired early, at {now:?}");
            assert!(deadline != Instant::MAX, "timer {id} fired, and should never");
            self.check_order(deadline, id);
            // The bound keeps a run finite in which the repeated timer is due within the resolution.
            if let Some(after) = repeat_after.filter(|_| self.keys.len() < 1_000) {
                self.insert(now + after);
            }
        }
        for &(deadline, id) in &self.pending {
            let late = now.saturating_duration_since(deadline);
            assert!(
                deadline > now || late < self.resolution,
                "timer {id} of {deadline:?} not fired at {now:?}"
            );
        }
        if let Some(next) = self.queue.next_deadline() {
            assert!(next > now || now == Instant::MAX, "a loop would spin: next {next:?} at {now:?}");
        }
    }

    /// Nothing is pending that should have fired before timer `id`.
    fn check_order(&self, deadline: Instant, id: usize) {
        let overtaken = self.pending.iter().find(|&&(pending, earlier)| {
            let same = pending == deadline && earlier < id;
            same || self.resolution == EXACT && pending < deadline
        });
        assert_eq!(overtaken, None, "timer {id} of {deadline:?} fired first");
    }

    fn check_size_and_next_deadline(&self) {
        assert_eq!(self.queue.len(), self.pending.len());
        assert_eq!(self.queue.is_empty(), self.pending.is_empty());
        let resolution = u64::try_from(self.resolution.as_nanos()).expect("a resolution is short");
        let earliest = self.pending.iter().map(|&(deadline, _)| deadline).min();
        match (self.queue.next_deadline(), earliest) {
            (None, None) => {}
            (Some(next), Some(earliest)) => {
                let latest = earliest.as_nanos().div_ceil(resolution).saturating_mul(resolution);
                assert!(next <= Instant::from_nanos(latest), "next {next:?}, but one is due at {earliest:?}");
            }
            (next, earliest) => panic!("next {next:?}, earliest {earliest:?}"),
        }
    }
}

pub(crate) fn an_overdue_timer_fires_at_the_next_pop<Q: TimerQueue<char>>(new: impl Fn(Instant) -> Q) {
    let mut queue = new(at(100));
    queue.insert(at(7), 'a');
    assert!(queue.next_deadline().is_some_and(|next| next <= at(7)));
    assert_eq!(drain(&mut queue, at(100)), ['a']);
    queue.insert(at(0), 'b');
    assert_eq!(drain(&mut queue, at(0)), ['b'], "its time was 100 when it was made");
}

pub(crate) fn time_does_not_run_backwards<Q: TimerQueue<char>>(new: impl Fn(Instant) -> Q) {
    let mut queue = new(at(0));
    assert_eq!(queue.pop_expired(at(100)), None);
    assert_eq!(queue.pop_expired(at(50)), None);
    queue.insert(at(80), 'a');
    queue.insert(at(101), 'b');
    assert_eq!(drain(&mut queue, at(50)), ['a'], "100 counts, so 80 is past");
}

pub(crate) fn time_does_not_run_backwards_while_popping<Q: TimerQueue<char>>(new: impl Fn(Instant) -> Q) {
    let mut queue = new(at(0));
    for (due, name) in [(10, 'a'), (10, 'b'), (90, 'c'), (101, 'd')] {
        queue.insert(at(due), name);
    }
    assert_eq!(queue.pop_expired(at(100)), Some('a'));
    assert_eq!(drain(&mut queue, at(50)), ['b', 'c']);
}

pub(crate) fn equal_deadlines_fire_in_the_order_of_insertion<Q: TimerQueue<u64>>(new: impl Fn(Instant) -> Q) {
    let mut queue = new(at(0));
    let keys: Vec<_> = (0..100).map(|id| queue.insert(at(70 + id % 2), id)).collect();
    // What is inserted next takes the places that become free here, so places and order differ.
    for key in keys.iter().step_by(3) {
        assert!(queue.cancel(*key).is_some());
    }
    assert_eq!(queue.pop_expired(at(60)), None);
    for id in 100..140 {
        queue.insert(at(70 + id % 2), id);
    }
    let expected: Vec<u64> = (0..140).filter(|id| *id >= 100 || id % 3 != 0).collect();
    let of = |odd| expected.iter().copied().filter(move |id| id % 2 == odd);
    assert_eq!(drain(&mut queue, at(70)), of(0).collect::<Vec<_>>());
    assert_eq!(drain(&mut queue, at(71)), of(1).collect::<Vec<_>>());
}

pub(crate) fn the_last_instant_is_never<Q: TimerQueue<char>>(new: impl Fn(Instant) -> Q) {
    let mut queue = new(at(0));
    let never = queue.insert(Instant::MAX, 'a');
    queue.insert(at(1) + Duration::from_secs(1 << 33), 'b');
    assert_eq!(drain(&mut queue, Instant::MAX), ['b']);
    assert_eq!(queue.next_deadline(), Some(Instant::MAX));
    assert_eq!(queue.cancel(never), Some('a'));
    assert_eq!(queue.next_deadline(), None);
}

pub(crate) fn a_key_is_stale_after_its_timer_fired_and_its_place_was_used_again<Q: TimerQueue<char>>(
    new: impl Fn(Instant) -> Q,
) {
    let mut queue = new(at(0));
    let old = queue.insert(at(1), 'a');
    assert_eq!(queue.pop_expired(at(1)), Some('a'));
    assert_eq!(queue.cancel(old), None, "it has fired");
    let new = queue.insert(at(2), 'b');
    assert_eq!(new.index, old.index);
    assert_eq!(queue.cancel(old), None, "somebody else's");
    assert_eq!(queue.cancel(new), Some('b'));
}

pub(crate) fn a_key_is_stale_after_it_was_cancelled<Q: TimerQueue<char>>(new: impl Fn(Instant) -> Q) {
    let mut queue = new(at(0));
    let old = queue.insert(at(1), 'a');
    assert_eq!(queue.cancel(old), Some('a'));
    assert_eq!(queue.cancel(old), None);
    queue.insert(at(1), 'b');
    assert_eq!(queue.cancel(old), None);
    assert_eq!(drain(&mut queue, at(5)), ['b']);
}

pub(crate) fn a_timer_due_and_not_yet_popped_can_be_cancelled<Q: TimerQueue<char>>(
    new: impl Fn(Instant) -> Q,
) {
    let mut queue = new(at(0));
    queue.insert(at(1), 'a');
    let second = queue.insert(at(1), 'b');
    queue.insert(at(1), 'c');
    assert_eq!(queue.pop_expired(at(5)), Some('a'));
    assert_eq!(queue.cancel(second), Some('b'));
    assert_eq!(drain(&mut queue, at(5)), ['c']);
    assert!(queue.is_empty());
}

pub(crate) fn the_steady_state_reuses_its_places<Q: TimerQueue<u64>>(new: impl Fn(Instant) -> Q) {
    let mut queue = new(at(0));
    for round in 0..2_000 {
        let key = queue.insert(at(round + 60_000), round);
        assert_eq!(key.index, 0);
        assert_eq!(queue.pop_expired(at(round)), None);
        assert_eq!(queue.cancel(key), Some(round));
    }
}

pub(crate) fn a_queue_drops_the_values_it_still_has<Q: TimerQueue<Rc<()>>>(new: impl Fn(Instant) -> Q) {
    let value = Rc::new(());
    let mut queue = new(at(0));
    let keys = [1, 2, 3, 4].map(|due| queue.insert(at(due), Rc::clone(&value)));
    drop(queue.cancel(keys[2]));
    drop(queue.pop_expired(at(1)));
    assert_eq!(Rc::strong_count(&value), 3, "what has left is dropped by whom it was handed to");
    drop(queue);
    assert_eq!(Rc::strong_count(&value), 1);
}

/// Pops all that has expired.
pub(crate) fn drain<T>(queue: &mut impl TimerQueue<T>, now: Instant) -> Vec<T> {
    core::iter::from_fn(|| queue.pop_expired(now)).collect()
}

/// The promises are tested at whole milliseconds, which every queue can tell apart.
fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}
