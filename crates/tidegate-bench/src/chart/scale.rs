//! `Scale`: an axis, linear or logarithmic, and the round numbers on it.
//!
//! Invariant: its range is finite and not empty, and on a logarithmic one above zero.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    /// An axis that these finite numbers fit on (positive ones if it is logarithmic), with so much room around each.
    pub(super) fn of(values: impl Iterator<Item = f64>, log: bool, room: Option<f64>) -> Self {
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return Self { from: if log { 1.0 } else { 0.0 }, to: if log { 10.0 } else { 1.0 }, log };
        }
        if log {
            return Self { from: low / 1.1, to: high * 1.1, log };
        }
        let room = room.unwrap_or(0.0);
        let (low, high) = (low - room, high + room);
        // A single number, or numbers that differ by less than a float can tell apart on a screen.
        let least = (low.abs().max(high.abs()) * 1e-9).max(1e-300);
        if high - low < least {
            let pad = if high == 0.0 { 0.5 } else { high.abs() * 0.1 };
            return Self { from: low - pad, to: high + pad, log };
        }
        Self { from: low, to: high, log }
    }

    /// The same from zero, when it is linear and all of it is above, with a little room at the top.
    pub(super) fn down_to_zero(self) -> Self {
        if self.log {
            return self;
        }
        let room = (self.to - self.from) * 0.05;
        let from =
            if self.from >= 0.0 || self.to <= 0.0 && self.from > -1e-9 { 0.0 } else { self.from - room };
        Self { from, to: self.to + room, log: false }
    }

    /// Where a number lies between the two ends, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        if self.log {
            (value.max(self.from).ln() - self.from.ln()) / (self.to.ln() - self.from.ln())
        } else {
            (value - self.from) / (self.to - self.from)
        }
    }

    /// 1, 2, 5, 10 … and their like, at most `most`.
    fn linear_points(&self, most: usize) -> Vec<f64> {
        let span = self.to - self.from;
        let most = most.max(2);
        let base = 10f64.powf((span / most as f64).log10().floor());
        let fits = |step: &f64| span / step < most as f64;
        let step =
            [1.0, 2.0, 5.0, 10.0, 20.0].map(|times| times * base).into_iter().find(fits).unwrap_or(span);
        let first = (self.from / step).ceil();
        (0..most)
            .map(|nth| (first + nth as f64) * step)
            .take_while(|value| *value <= self.to + step * 1e-9)
            .collect()
    }

    /// The decades, as many of them as fit, and 2 and 5 between when there is room for these.
    fn log_points(&self, most: usize) -> Vec<f64> {
        let (first, last) = (self.from.log10().floor(), self.to.log10().ceil());
        let decades = last - first;
        let every = (decades / most.max(1) as f64).ceil().max(1.0);
        let between: &[f64] = if decades * 3.0 <= most as f64 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decade = |nth: usize| 10f64.powf(first + nth as f64 * every);
        let points =
            (0..=most).map(decade).flat_map(|decade| between.iter().map(move |times| times * decade));
        let points: Vec<f64> = points.filter(|value| (self.from..=self.to).contains(value)).collect();
        if points.len() < 3 && self.to / self.from < 100.0 { self.linear_points(most) } else { points }
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (from, to) = (f64::from(limit.0), f64::from(limit.1));
        let place = from + (to - from) * self.share(*value).clamp(0.0, 1.0);
        #[expect(clippy::cast_possible_truncation, reason = "a place between two pixels")]
        let pixel = place.round() as i32;
        pixel
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let most = hint.bold_points().min(40);
        if self.log { self.log_points(most) } else { self.linear_points(most) }
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Scale {
    fn format(value: &f64) -> String {
        figure(*value)
    }
}

/// A number as it stands at an axis or a bar: three or four digits, with k, M, G behind large ones.
pub(super) fn figure(value: f64) -> String {
    let size = value.abs();
    let (value, unit) = match size {
        _ if size >= 1e15 || (size > 0.0 && size < 1e-6) => return format!("{value:.0e}"),
        _ if size >= 1e9 => (value / 1e9, "G"),
        _ if size >= 1e6 => (value / 1e6, "M"),
        _ if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        size if size >= 100.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.01 => 4,
        _ => 6,
    };
    let text = format!("{value:.digits$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{}{unit}", if text == "-0" { "0" } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f64], log: bool, most: usize) -> Vec<f64> {
        Scale::of(values.iter().copied(), log, None).key_points(most)
    }

    #[test]
    fn points_are_round_and_few() {
        assert_eq!(points(&[0.0, 10.0], false, 6), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(points(&[0.0, 200_000.0], false, 5), [0.0, 50_000.0, 100_000.0, 150_000.0, 200_000.0]);
        assert_eq!(points(&[1.0, 1000.0], true, 5), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(points(&[1.0, 90.0], true, 12), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        // Within one decade a logarithmic axis has round numbers too.
        assert!(points(&[210.0, 480.0], true, 8).len() >= 3);
        for (low, high, log) in
            [(1e-90, 1e90, true), (1.0, 1.0, true), (1.0, 1.0, false), (-5.0, 7e60, false)]
        {
            let found = points(&[low, high], log, 8);
            assert!(
                (1..=9).contains(&found.len()) && found.iter().all(|point| point.is_finite()),
                "{low} {high} {found:?}"
            );
        }
    }

    #[test]
    fn ends_lie_on_the_ends() {
        let scale = Scale::of([1.0, 100.0].into_iter(), false, None);
        assert_eq!((scale.map(&1.0, (10, 110)), scale.map(&100.0, (10, 110))), (10, 110));
        let log = Scale { from: 1.0, to: 100.0, log: true };
        assert_eq!(log.map(&10.0, (0, 100)), 50);
        assert_eq!((log.map(&0.0, (0, 100)), log.map(&1e9, (100, 0))), (0, 0));
        assert_eq!(Scale::of([3.0, 9.0].into_iter(), false, None).down_to_zero().from, 0.0);
        assert!(Scale::of([-3.0, 9.0].into_iter(), false, None).down_to_zero().from < -3.0);
    }

    #[test]
    fn figures_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (2.5, "2.5"),
            (0.05, "0.05"),
            (1234.0, "1234"),
            (12_500.0, "12.5k"),
            (150_000.0, "150k"),
            (2e6, "2M"),
            (3e9, "3G"),
            (-20_000.0, "-20k"),
            (1e20, "1e20"),
            (1e-9, "1e-9"),
        ] {
            assert_eq!(figure(value), text);
        }
    }
}
