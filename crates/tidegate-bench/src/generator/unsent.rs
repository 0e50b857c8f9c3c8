//! Requests of a constant rate that were due and never sent, since those before them had no answer.
//!
//! Invariant: they have waited until now, and stand among the latencies with that; left out, the worst would be missing.

use std::time::Duration;

use super::client::Lane;
use super::course::{Pace, Times, now};
use super::tally::Tally;

/// Points of a connection's requests that were not sent, at the most: they are evenly spaced, and so many tell it well enough.
const POINTS: u64 = 4096;

/// Counts them over all connections.
pub(super) fn count_unsent(pace: &Pace, times: &Times, lanes: impl Iterator<Item = Lane>, all: &mut Tally) {
    let now = now();
    for lane in lanes {
        let Some(turn) = lane.turn else { continue };
        let due = |nth| times.go.saturating_add(pace.due(turn, nth));
        let first = first_at(lane.sent, |nth| due(nth) >= times.begin);
        let end = first_at(first, |nth| due(nth) >= times.end);
        let count = end - first;
        all.unsent += count;
        let step = count.div_ceil(POINTS).max(1);
        for nth in (first..end).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            let waited = Duration::from_nanos(now.saturating_sub(due(nth)));
            all.latency.record(waited, step.min(end - nth));
        }
    }
}

/// The first number from `from` on of which `is_there` holds, which holds of all that come after it.
fn first_at(from: u64, is_there: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut step) = (from, 1);
    while !is_there(low + step - 1) {
        low += step;
        step *= 2;
    }
    // Now it is in low..low + step.
    let mut high = low + step - 1;
    while low < high {
        let middle = low + (high - low) / 2;
        if is_there(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_is_found_from_wherever_it_is_looked_for() {
        for first in [0, 1, 2, 3, 17, 1000, 1 << 40] {
            for from in [0, 1, 5, 900] {
                assert_eq!(first_at(from, |nth| nth >= first), first.max(from), "{first} from {from}");
            }
        }
    }

    #[test]
    fn of_ten_that_were_due_four_were_not_sent() {
        let pace = Pace::new(1000.0, 2);
        let times = Times { go: 0, begin: 2_000_000, end: 12_000_000 };
        let lane = |number, sent| Lane { number, turn: Some(number), sent };
        let mut all = Tally::default();
        let silent = Lane { number: 2, turn: None, sent: 0 };
        count_unsent(&pace, &times, [lane(0, 6), lane(1, 2), silent].into_iter(), &mut all);
        assert_eq!((all.unsent, all.latency.count()), (4, 4));
    }
}
