//! One suite for every timer queue: random runs against a sorted list, and the promises of the trait.
//!
//! A queue's own tests call [`check`] with the steps of [`steps`], and [`check_sleeper`].

use crate::{Instant, TimerKey, TimerQueue};
use core::time::Duration;
use proptest::prelude::*;

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

    fn advance(&mut self, now: Instant, repeat_after: Option<Duration>) {
        self.now = now;
        while let Some(id) = self.queue.pop_expired(now) {
            let position = self.pending.iter().position(|&(_, pending)| pending == id);
            let (deadline, _) =
                self.pending.swap_remove(position.expect("no timer fires twice or when cancelled"));
            assert!(deadline <= now, "timer {id} of {deadline:?} fired early, at {now:?}");
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
