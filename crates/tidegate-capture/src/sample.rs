//! `Sample` and `Spread`: times of which percentiles are told; and `Course`, how they went over time.
//!
//! Invariant: each has a limit of its own, whatever is recorded. Count, least, greatest and mean are always exact; a
//! [`Sample`] keeps every time up to [`KEPT`] of them and every second, fourth, … beyond; a [`Spread`] counts all that are more
//! in a histogram with three digits; a [`Course`] keeps the greater of two neighbours when it gets too long.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Times of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    extent: Extent,
    /// Every `1 << shift`th time.
    kept: Vec<u64>,
    shift: u32,
}

/// Times of all connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread {
    extent: Extent,
    /// All of them, until they are so many that the histogram takes less room.
    few: Vec<u64>,
    many: Option<Histogram<u32>>,
}

/// What is exact.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    count: u64,
    min: u64,
    max: u64,
    sum: u128,
}

/// Times, as they are told: how many there were, and how long so many of them took at most. In nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Percentiles {
    pub count: u64,
    pub min_ns: u64,
    pub mean_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

/// How many times a [`Sample`] keeps.
pub(crate) const KEPT: usize = 512;
/// How many points a [`Course`] keeps.
const MAX_POINTS: usize = 4_096;
/// An hour.
const LONGEST_NS: u64 = 3_600_000_000_000;

impl Sample {
    pub(crate) fn record(&mut self, ns: u64) {
        if self.extent.count.is_multiple_of(1 << self.shift) {
            self.kept.push(ns);
        }
        self.extent.record(ns);
        if self.kept.len() == KEPT {
            let mut nth = 0;
            self.kept.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.shift += 1;
        }
    }

    /// Memory beside itself that it has taken, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.kept.capacity() * size_of::<u64>()
    }

    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        self.extent.percentiles(nearest_rank(&self.kept))
    }
}

impl Spread {
    pub(crate) fn record(&mut self, ns: u64) {
        self.extent.record(ns);
        match &mut self.many {
            Some(histogram) => histogram.saturating_record(ns.max(1)),
            None => self.few.push(ns),
        }
        if self.few.len() == KEPT {
            let mut histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3)
                .expect("1 < 2 * 1 <= longest, and 3 digits are allowed");
            self.few.iter().for_each(|ns| histogram.saturating_record((*ns).max(1)));
            (self.few, self.many) = (Vec::new(), Some(histogram));
        }
    }

    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        match &self.many {
            Some(histogram) => self.extent.percentiles(|per_mille| {
                let quantile = f64::from(u16::try_from(per_mille).unwrap_or(1000)) / 1000.0;
                histogram.value_at_quantile(quantile)
            }),
            None => self.extent.percentiles(nearest_rank(&self.few)),
        }
    }
}

/// The least of the times that so many of 1000 are not above.
fn nearest_rank(times: &[u64]) -> impl Fn(usize) -> u64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    move |per_mille| sorted[(sorted.len() * per_mille).div_ceil(1000).max(1) - 1]
}

impl Extent {
    fn record(&mut self, ns: u64) {
        self.min = if self.count == 0 { ns } else { self.min.min(ns) };
        self.max = self.max.max(ns);
        self.count += 1;
        self.sum += u128::from(ns);
    }

    fn percentiles(&self, at: impl Fn(usize) -> u64) -> Option<Percentiles> {
        let mean = self.sum.checked_div(u128::from(self.count))?;
        // A histogram's buckets reach over the ends.
        let at = |per_mille| at(per_mille).clamp(self.min, self.max);
        Some(Percentiles {
            count: self.count,
            min_ns: self.min,
            mean_ns: u64::try_from(mean).unwrap_or(u64::MAX),
            p50_ns: at(500),
            p90_ns: at(900),
            p99_ns: at(990),
            p999_ns: at(999),
            max_ns: self.max,
        })
    }
}

/// A figure over time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Course {
    points: Vec<Point>,
    /// The greatest of those that make up the next point, and how many they are.
    next: Option<(Point, u32)>,
    shift: u32,
}

/// A time at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// How long, in nanoseconds.
    pub ns: u64,
}

impl Course {
    pub(crate) fn record(&mut self, time_ns: u64, ns: u64) {
        let point = Point { time_ns, ns };
        let (greatest, count) = match self.next.take() {
            Some((before, count)) => (if before.ns > ns { before } else { point }, count + 1),
            None => (point, 1),
        };
        if count < 1 << self.shift {
            self.next = Some((greatest, count));
            return;
        }
        self.points.push(greatest);
        if self.points.len() == MAX_POINTS {
            let pairs =
                self.points.chunks(2).filter_map(|pair| pair.iter().copied().max_by_key(|point| point.ns));
            self.points = pairs.collect();
            self.shift += 1;
        }
    }

    pub(crate) fn into_points(mut self) -> Vec<Point> {
        self.points.extend(self.next.map(|(point, _)| point));
        self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_times_have_exact_percentiles() {
        let mut sample = Sample::default();
        assert_eq!(sample.percentiles(), None);
        (1..=100).rev().for_each(|ns| sample.record(ns));
        let told = sample.percentiles().unwrap();
        assert_eq!((told.count, told.min_ns, told.mean_ns, told.max_ns), (100, 1, 50, 100));
        assert_eq!((told.p50_ns, told.p90_ns, told.p99_ns, told.p999_ns), (50, 90, 99, 100));
    }

    #[test]
    fn many_times_take_no_more_room_and_keep_their_shape() {
        let (mut sample, mut spread) = (Sample::default(), Spread::default());
        for ns in 1..=100_000_u64 {
            // Every time once, in an order without a period that a stride could hit.
            let ns = ns * 7_919 % 100_003;
            sample.record(ns);
            spread.record(ns);
        }
        assert!(sample.kept.len() < KEPT && sample.kept.capacity() <= 2 * KEPT);
        for told in [sample.percentiles().unwrap(), spread.percentiles().unwrap()] {
            assert_eq!(told.count, 100_000);
            assert!(told.p50_ns.abs_diff(50_000) < 4_000 && told.p90_ns.abs_diff(90_000) < 4_000, "{told:?}");
        }
    }

    #[test]
    fn times_without_bound_are_counted_at_the_bound() {
        let mut spread = Spread::default();
        spread.record(0);
        spread.record(u64::MAX);
        let told = spread.percentiles().unwrap();
        assert_eq!((told.min_ns, told.max_ns, told.count), (0, u64::MAX, 2));
    }

    #[test]
    fn a_long_course_keeps_its_spike() {
        let mut course = Course::default();
        for time in 0..100_000 {
            course.record(time, if time == 33_333 { 9 } else { 1 });
        }
        let points = course.into_points();
        assert!(points.len() < MAX_POINTS && points.is_sorted_by_key(|point| point.time_ns));
        assert!(points.contains(&Point { time_ns: 33_333, ns: 9 }));
    }
}
