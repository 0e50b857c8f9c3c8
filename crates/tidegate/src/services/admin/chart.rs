//! Charts as SVG: lines over time, and the bars of a histogram.
//!
//! What a chart looks like is the style sheet's: here are places and classes only, since the page allows no styles of its own
//! and is light or dark. Invariant: whatever the numbers, all that is drawn lies within the view box.

use std::fmt::Write as _;

use maud::{Markup, html};

/// A line of a chart.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// What it says when it is pointed at.
    pub(super) name: &'static str,
    /// How long ago, in seconds, and the value; the oldest first.
    pub(super) points: Vec<(f64, f64)>,
}

/// A chart of lines over time that begins at zero.
#[derive(Clone, Debug)]
pub(super) struct TimeChart<'a> {
    /// What it says to who does not see it.
    pub(super) label: String,
    /// One or two; the first has an area.
    pub(super) series: &'a [Series],
    /// The seconds from its left end to its right one.
    pub(super) span: f64,
    /// What a value reads as.
    pub(super) text: fn(f64) -> String,
    /// The top is no lower than this.
    pub(super) least_top: f64,
}

/// A bar of a histogram.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    /// What stands below its right end.
    pub(super) limit: String,
    /// What it says when it is pointed at.
    pub(super) title: String,
    pub(super) value: u64,
}

impl TimeChart<'_> {
    pub(super) fn draw(&self) -> Markup {
        let highest = self.series.iter().flat_map(|series| &series.points).map(|point| point.1);
        let highest = highest.map(sound).fold(self.least_top, f64::max);
        let step = step_to(highest);
        let top = (highest / step).ceil().max(1.0) * step;
        let grid = (0..=MOST_LINES).map(|line| f64::from(line) * step).take_while(|value| *value <= top);
        html! {
            svg .chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(self.label) {
                @for value in grid {
                    @let y = number(place_y(value, top));
                    line .grid x1=(LEFT) x2=(WIDTH) y1=(y) y2=(y) {}
                    text .tick x=(LEFT - 4.0) y=(number(place_y(value, top) + 3.0)) text-anchor="end" {
                        ((self.text)(value))
                    }
                }
                @for (share, anchor) in [(1.0, "start"), (0.5, "middle"), (0.0, "end")] {
                    text .tick x=(number(self.place_x(share * self.span))) y=(HEIGHT - 4.0) text-anchor=(anchor) {
                        (ago(share * self.span))
                    }
                }
                @for (index, series) in self.series.iter().enumerate() {
                    @if index == 0 {
                        path .area d=(self.areas(series, top)) {}
                    }
                    path class=(format!("line s{index}")) d=(self.lines(series, top)) { title { (series.name) } }
                }
            }
        }
    }

    /// The line, with a gap where nothing is known.
    fn lines(&self, series: &Series, top: f64) -> String {
        let mut path = String::with_capacity(series.points.len() * 12);
        for piece in pieces(&series.points) {
            self.line(piece, top, &mut path);
            if piece.len() == 1 {
                // Its round ends make a point of a line without a length.
                path.push_str("h0");
            }
        }
        path
    }

    /// What is below the line.
    fn areas(&self, series: &Series, top: f64) -> String {
        let mut path = String::with_capacity(series.points.len() * 12);
        let floor = number(place_y(0.0, top));
        for piece in pieces(&series.points) {
            let [(first, _), .., (last, _)] = piece else { continue };
            self.line(piece, top, &mut path);
            let _ = write!(
                path,
                "L{} {floor}L{} {floor}Z",
                number(self.place_x(*last)),
                number(self.place_x(*first))
            );
        }
        path
    }

    fn line(&self, piece: &[(f64, f64)], top: f64, path: &mut String) {
        for (index, (ago, value)) in piece.iter().enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            // Writing to a String does not fail.
            let _ = write!(path, "{letter}{} {}", number(self.place_x(*ago)), number(place_y(*value, top)));
        }
    }

    fn place_x(&self, ago: f64) -> f64 {
        let share = 1.0 - (ago / self.span).clamp(0.0, 1.0);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }
}

/// A histogram, whose bars are in order.
pub(super) fn histogram(label: &str, bars: &[Bar]) -> Markup {
    let most = bars.iter().map(|bar| bar.value).max().unwrap_or(0).max(1);
    let wide = (WIDTH - LEFT - RIGHT) / (bars.len().max(1) as f64);
    // As many limits as there is room for, each of some 54 units.
    let every = (54.0 / wide).ceil().max(1.0);
    let is_named = |index: usize| (index as f64 + 1.0) % every == 0.0;
    html! {
        svg .chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(label) {
            line .grid x1=(LEFT) x2=(WIDTH) y1=(HEIGHT - BOTTOM) y2=(HEIGHT - BOTTOM) {}
            @for (index, bar) in bars.iter().enumerate() {
                @let x = LEFT + index as f64 * wide;
                @let high = (bar.value as f64 / most as f64) * (HEIGHT - BOTTOM - TOP);
                // What was there at all is seen.
                @let high = if bar.value > 0 { high.max(1.5) } else { 0.0 };
                g .bar {
                    title { (bar.title) }
                    rect .reach x=(number(x)) y=(TOP) width=(number(wide)) height=(HEIGHT - BOTTOM - TOP) {}
                    rect .fill x=(number(x + 1.0)) y=(number(HEIGHT - BOTTOM - high)) width=(number((wide - 2.0).max(1.0)))
                        height=(number(high)) rx="2" {}
                }
                @if is_named(index) {
                    text .tick x=(number(x + wide)) y=(HEIGHT - 4.0) text-anchor="end" { (bar.limit) }
                }
            }
        }
    }
}

/// How much of something is used, in thousandths.
pub(super) fn gauge(permille: u64) -> Markup {
    html! {
        svg .gauge viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            rect .reach x="0" y="0" width="100" height="8" rx="2" {}
            rect class=(if permille >= HOT_PERMILLE { "fill hot" } else { "fill" }) x="0" y="0" height="8" rx="2"
                width=(number(permille.min(1000) as f64 / 10.0)) {}
        }
    }
}

/// The pieces of a line between the gaps.
fn pieces(points: &[(f64, f64)]) -> impl Iterator<Item = &[(f64, f64)]> {
    points.chunk_by(|before, after| before.0 - after.0 <= GAP_SECONDS)
}

fn place_y(value: f64, top: f64) -> f64 {
    TOP + (1.0 - (sound(value) / top).clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM)
}

/// A value that can be drawn.
fn sound(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, HIGHEST) }
}

/// 1, 2 or 5 times a power of ten, so that there are at most [`MOST_LINES`] of it up to `highest`.
fn step_to(highest: f64) -> f64 {
    let least = (highest / f64::from(MOST_LINES)).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(least.log10().floor());
    let fits = |times: &f64| times * power >= least * (1.0 - 1e-9);
    [1.0, 2.0, 5.0, 10.0].into_iter().find(fits).unwrap_or(10.0) * power
}

/// A place, to the tenth of a unit.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn ago(seconds: f64) -> String {
    match seconds {
        seconds if seconds <= 0.0 => "now".to_owned(),
        seconds if seconds < 120.0 => format!("{seconds:.0} s ago"),
        seconds => format!("{:.0} min ago", seconds / 60.0),
    }
}

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 134.0;
/// Room for the numbers of the grid.
const LEFT: f64 = 50.0;
const RIGHT: f64 = 2.0;
const TOP: f64 = 6.0;
const BOTTOM: f64 = 20.0;
/// Values beyond it are drawn as it.
const HIGHEST: f64 = 1e18;
/// Lines of the grid above the lowest.
const MOST_LINES: u32 = 3;
/// A sample is missing when there is none for as long.
const GAP_SECONDS: f64 = 12.0;
/// From here on there is little left.
const HOT_PERMILLE: u64 = 850;

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)]) -> String {
        let series = [Series { name: "a", points: points.to_vec() }];
        let text = |value: f64| format!("{value}");
        let chart = TimeChart { label: "a<b".to_owned(), series: &series, span: 600.0, text, least_top: 1.0 };
        chart.draw().into_string()
    }

    #[test]
    fn a_grid_has_few_round_lines_that_reach_the_highest() {
        for (highest, step) in
            [(1.0, 0.5), (3.0, 1.0), (3.1, 2.0), (10.0, 5.0), (100.0, 50.0), (0.003, 0.001), (7e9, 5e9)]
        {
            assert!((step_to(highest) / step - 1.0).abs() < 1e-6, "{highest}: {}", step_to(highest));
        }
    }

    #[test]
    fn a_line_breaks_where_nothing_is_known() {
        let svg = chart(&[(600.0, 0.0), (590.0, 3.0), (300.0, 1.0), (295.0, 2.0), (0.0, 1.0)]);
        assert_eq!((svg.matches('M').count(), svg.matches("h0").count()), (5, 1), "three pieces: {svg}");
        assert!(svg.contains("M50 114L55.1 6M"), "{svg}");
        assert!(svg.contains("aria-label=\"a&lt;b\""));
    }

    #[test]
    fn whatever_the_numbers_nothing_is_drawn_outside() {
        for value in [0.0, 1e-300, 1.0, 1e18, f64::MAX, f64::INFINITY, f64::NAN] {
            let svg = chart(&[(1e9, value), (5.0, value), (-5.0, 0.5)]);
            let path = svg.split(" d=\"").nth(2).unwrap().split('"').next().unwrap();
            for place in path.split(['M', 'L', 'Z', 'h']).filter(|place| place.contains(' ')) {
                let (x, y) = place.split_once(' ').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{value}: {place}");
            }
        }
    }

    #[test]
    fn bars_are_as_high_as_their_values_and_none_is_lost() {
        let bar = |value| Bar { limit: "8 µs".to_owned(), title: "<t>".to_owned(), value };
        let svg = histogram("label", &[bar(0), bar(1), bar(1_000_000)]).into_string();
        let heights: Vec<&str> = svg.split("class=\"fill\"").skip(1).collect();
        let height = |of: &str| of.split("height=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        assert_eq!(heights.iter().map(|it| height(it)).collect::<Vec<_>>(), ["0", "1.5", "108"]);
        assert!(svg.contains("&lt;t&gt;"));
        assert!(histogram("none", &[]).into_string().contains("svg"));
    }
}
