//! `Chart`: figures as a picture in SVG, for people who look at it in a browser or a document.
//!
//! Invariant: whatever the numbers are, the picture is well-formed XML of a bounded size: what is not finite (or, on a
//! logarithmic axis, not above zero) is left out, long series are thinned to what a screen can show, and no name can bring in
//! markup. Background and text follow the reader's light or dark scheme; a viewer that knows no schemes shows it on white.

mod bars;
mod page;
mod scale;

pub use bars::{Bar, BarChart};
pub use page::{Picture, page};

use plotters::coord::Shift;
use plotters::prelude::*;

use page::{GRID, INK, TEXT_PX, Width, clean, colour, font};
use scale::{Scale, figure};

/// Series over two axes.
///
/// ```
/// use tidegate_bench::chart::{Axis, Chart, Kind, Series};
///
/// let chart = Chart {
///     title: "Throughput".into(),
///     x: Axis { label: "connections".into(), log: true },
///     y: Axis { label: "requests/s".into(), log: false },
///     series: vec![Series { name: "echo".into(), points: vec![(1.0, 30e3), (400.0, 200e3)], kind: Kind::Line }],
/// };
/// assert!(chart.svg().starts_with("<svg "));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// What is drawn, later ones over earlier ones.
    pub series: Vec<Series>,
}

/// One axis. A linear one that goes up begins at zero, so that no difference looks bigger than it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// Logarithmic.
    pub log: bool,
}

/// One set of points.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// In the legend.
    pub name: String,
    /// `(x, y)`, for a line in the order in which it goes.
    pub points: Vec<(f64, f64)>,
    /// How they are drawn.
    pub kind: Kind,
}

/// How points are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Joined by a line.
    Line,
    /// Each by itself.
    Dots,
    /// Each as a bar that stands on the x axis.
    Bars,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// The size of one chart in the picture.
const SIZE: (u32, u32) = (900, 480);
const MARGIN: u32 = 12;
const TITLE_HEIGHT: u32 = 34;
const LEGEND_ROW: u32 = 20;
const MAX_LEGEND: usize = 24;
/// A series with fewer points shows each of them on its line.
const FEW_POINTS: usize = 60;
/// More than that are thinned: each [`KEPT`] of them stand for a stretch.
const MAX_POINTS: usize = 4000;
const KEPT: usize = 4;

impl Chart {
    /// The picture.
    ///
    /// # Panics
    ///
    /// Never: it is drawn into memory.
    #[must_use]
    pub fn svg(&self) -> String {
        page(&[Picture::Chart(self)])
    }

    /// Width and height in pixels.
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let series = self.drawable();
        let rows = legend_rows(&self.series);
        let (head, rest) = area.split_vertically(TITLE_HEIGHT);
        let (legend, body) = rest.split_vertically(rows.len().try_into().unwrap_or(1) * LEGEND_ROW);
        page::title(&head, &self.title)?;
        for (nth, row) in (0..).zip(&rows) {
            draw_legend(&legend, nth, row)?;
        }
        let bars = self.series.iter().any(|series| series.kind == Kind::Bars);
        let all = || series.iter().flat_map(|(_, points)| points);
        let x = Scale::of(all().map(|point| point.0), self.x.log, bars.then(|| bar_width(&series)));
        let y = Scale::of(all().map(|point| point.1), self.y.log, None).down_to_zero();
        let mut chart = ChartBuilder::on(&body)
            .margin(MARGIN)
            .margin_right(MARGIN * 3)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_labels(12)
            .y_labels(8)
            .x_label_formatter(&|value| figure(*value))
            .y_label_formatter(&|value| figure(*value))
            .x_desc(clean(&self.x.label))
            .y_desc(clean(&self.y.label))
            .label_style(font(TEXT_PX))
            .axis_desc_style(font(TEXT_PX))
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;
        let floor = chart.y_range().start;
        let half = bar_width(&series) / 2.0;
        for (nth, (kind, points)) in series.iter().enumerate() {
            let ink = colour(nth);
            let dot = |point: &(f64, f64), px: i32| Circle::new(*point, px, ink.filled());
            match kind {
                Kind::Line => {
                    chart.draw_series(LineSeries::new(points.iter().copied(), ink.stroke_width(2)))?;
                    if points.len() < FEW_POINTS {
                        chart.draw_series(points.iter().map(|point| dot(point, 3)))?;
                    }
                }
                Kind::Dots => {
                    chart.draw_series(points.iter().map(|point| dot(point, 2)))?;
                }
                Kind::Bars => {
                    chart.draw_series(points.iter().map(|&(x, y)| {
                        Rectangle::new([(x - half, floor), (x + half, y)], ink.mix(0.8).filled())
                    }))?;
                }
            }
        }
        Ok(())
    }

    /// The points that can be shown.
    fn drawable(&self) -> Vec<(Kind, Vec<(f64, f64)>)> {
        let fits = |value: f64, axis: &Axis| {
            value.is_finite() && value.abs() < LARGEST && (!axis.log || value > 0.0)
        };
        let of = |series: &Series| {
            let points = series.points.iter().copied();
            let points = points.filter(|&(x, y)| fits(x, &self.x) && fits(y, &self.y)).collect();
            (series.kind, thinned(points))
        };
        self.series.iter().map(of).collect()
    }
}

/// Beyond this the arithmetic of the axes would not be finite any more.
const LARGEST: f64 = 1e100;

/// Of each stretch of a long series the first, the last, the lowest and the highest point, so that no spike goes away.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= MAX_POINTS {
        return points;
    }
    let stretch = points.len().div_ceil(MAX_POINTS / KEPT);
    let of_stretch = |points: &[(f64, f64)]| {
        let by_y = |a: &usize, b: &usize| points[*a].1.total_cmp(&points[*b].1);
        let low = (0..points.len()).min_by(by_y).unwrap_or(0);
        let high = (0..points.len()).max_by(by_y).unwrap_or(0);
        let mut kept = [0, low, high, points.len() - 1];
        kept.sort_unstable();
        kept.map(|index| points[index])
    };
    points.chunks(stretch).flat_map(of_stretch).collect()
}

/// So wide that the closest bars do not touch.
fn bar_width(series: &[(Kind, Vec<(f64, f64)>)]) -> f64 {
    let mut places: Vec<f64> = series
        .iter()
        .filter(|(kind, _)| *kind == Kind::Bars)
        .flat_map(|(_, points)| points)
        .map(|point| point.0)
        .collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let gap = places.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    if gap.is_finite() { gap * 0.8 } else { 1.0 }
}

/// Which names stand in which row of the legend, each with its place; a single series without a name needs none.
fn legend_rows(series: &[Series]) -> Vec<Vec<(usize, i32, String)>> {
    let mut rows: Vec<Vec<(usize, i32, String)>> = Vec::new();
    let mut at = i32::MAX;
    for (nth, series) in
        series.iter().enumerate().take(MAX_LEGEND).filter(|(_, series)| !series.name.is_empty())
    {
        let name = clean(&series.name);
        let width = name.width() + 34;
        if at.saturating_add(width) > 860 {
            rows.push(Vec::new());
            at = 64;
        }
        if let Some(row) = rows.last_mut() {
            row.push((nth, at, name));
        }
        at += width;
    }
    rows
}

fn draw_legend(area: &Area<'_>, nth: i32, row: &[(usize, i32, String)]) -> Drawn {
    let top = nth * i32::try_from(LEGEND_ROW).unwrap_or(0);
    for (series, at, name) in row {
        area.draw(&Rectangle::new([(*at, top + 4), (at + 12, top + 14)], colour(*series).filled()))?;
        area.draw(&Text::new(name.as_str(), (at + 18, top + 3), font(TEXT_PX)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(log: bool, kind: Kind, points: Vec<(f64, f64)>) -> Chart {
        let axis = |label: &str| Axis { label: label.into(), log };
        let series = vec![Series { name: "a<b>&\u{1}".into(), points, kind }];
        Chart { title: "t & \"u\"".into(), x: axis("connections"), y: axis("requests/s"), series }
    }

    #[test]
    fn names_bring_in_no_markup_and_no_control_character() {
        let svg = chart(false, Kind::Line, vec![(1.0, 2.0), (2.0, 3.0)]).svg();
        assert!(svg.contains("a&lt;b&gt;&amp;\u{fffd}") && svg.contains("t &amp; &quot;u&quot;"), "{svg}");
        assert!(!svg.contains('\u{1}') && svg.trim_end().ends_with("</svg>"));
        assert_eq!(svg.matches("<svg").count(), 1);
    }

    #[test]
    fn every_kind_draws_each_of_its_points() {
        let points: Vec<_> = (1..=7).map(|n| (f64::from(n), f64::from(n * n))).collect();
        let count = |kind, tag| chart(false, kind, points.clone()).svg().matches(tag).count();
        let rects = chart(false, Kind::Dots, Vec::new()).svg().matches("<rect").count();
        assert_eq!(count(Kind::Dots, "<circle"), 7);
        assert_eq!((count(Kind::Line, "<circle"), count(Kind::Bars, "<rect")), (7, 7 + rects));
        assert_eq!(count(Kind::Line, "<polyline"), count(Kind::Dots, "<polyline") + 1);
    }

    #[test]
    fn what_cannot_be_shown_is_left_out_and_nothing_else() {
        let odd =
            vec![(0.0, 1.0), (1.0, f64::NAN), (f64::INFINITY, 1.0), (-1.0, 5.0), (1e300, 2.0), (3.0, 4.0)];
        assert_eq!(chart(true, Kind::Dots, odd.clone()).svg().matches("<circle").count(), 1);
        assert_eq!(chart(false, Kind::Dots, odd).svg().matches("<circle").count(), 3);
    }

    #[test]
    fn any_numbers_make_a_picture_without_nonsense_in_it() {
        let sets = [
            vec![],
            vec![(0.0, 0.0)],
            vec![(5.0, 5.0), (5.0, 5.0)],
            vec![(-3.0, -9.0), (4.0, -1.0)],
            vec![(1e-90, 1e90), (1e90, 1e-90)],
            vec![(1e15, 1.0), (1e15 + 1.0, 1.000_000_000_1)],
        ];
        for (points, log) in sets.iter().flat_map(|points| [(points, false), (points, true)]) {
            for kind in [Kind::Line, Kind::Dots, Kind::Bars] {
                let svg = chart(log, kind, points.clone()).svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{points:?} {log}");
                assert!(svg.len() < 40_000, "{points:?} {log}: {}", svg.len());
            }
        }
    }

    #[test]
    fn a_long_series_is_thinned_and_keeps_its_spike() {
        let mut points: Vec<_> = (0..1_000_000).map(|n| (f64::from(n), 1.0)).collect();
        points[777_777].1 = 9e9;
        let thin = thinned(points);
        assert!(thin.len() <= MAX_POINTS && thin.contains(&(777_777.0, 9e9)), "{}", thin.len());
        assert!(thin.is_sorted_by(|a, b| a.0 <= b.0));
        assert_eq!((thin[0].0, thin[thin.len() - 1].0), (0.0, 999_999.0));
    }

    #[test]
    fn a_long_legend_has_rows_within_the_picture() {
        let series = |nth| Series {
            name: format!("a series with the number {nth}"),
            points: vec![],
            kind: Kind::Line,
        };
        let all: Vec<_> = (0..40).map(series).collect();
        let rows = legend_rows(&all);
        assert_eq!(rows.iter().map(Vec::len).sum::<usize>(), MAX_LEGEND);
        assert!(rows.len() > 2 && rows.iter().flatten().all(|(_, at, name)| at + name.width() < 880));
        assert!(legend_rows(&[Series { name: String::new(), ..series(0) }]).is_empty());
    }
}
