//! `BarChart`: named figures as bars from left to right, for what has no order of its own.
//!
//! Invariant: all bars begin at zero and share one measure, so that their lengths can be compared.

use plotters::prelude::*;

use super::page::{INK, TEXT_PX, Width, clean, colour, font, title};
use super::scale::figure;
use super::{Area, Drawn, LARGEST, TITLE_HEIGHT};

/// Named bars, from top to bottom in the order given.
#[derive(Clone, Debug, PartialEq)]
pub struct BarChart {
    /// Above it.
    pub title: String,
    /// What the lengths are, with the unit.
    pub label: String,
    /// The bars; at most [`BarChart::MAX_BARS`] are drawn.
    pub bars: Vec<Bar>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// To the left of it.
    pub name: String,
    /// Its length; one that is negative or not finite is drawn as none.
    pub value: f64,
}

const WIDTH: u32 = 900;
const ROW: i32 = 22;
const HEAD: i32 = 22;
/// For the figure behind the longest bar.
const FIGURE_PX: i32 = 80;
const LEFT: i32 = 16;
const MAX_NAME_PX: i32 = 420;

impl BarChart {
    /// More would be no picture any more.
    pub const MAX_BARS: usize = 200;

    /// The picture.
    ///
    /// # Panics
    ///
    /// Never: it is drawn into memory.
    #[must_use]
    pub fn svg(&self) -> String {
        super::page(&[super::Picture::Bars(self)])
    }

    pub(super) fn size(&self) -> (u32, u32) {
        let rows = i32::try_from(self.bars.len().min(Self::MAX_BARS)).unwrap_or(0);
        (WIDTH, TITLE_HEIGHT + u32::try_from(HEAD + rows * ROW + ROW).unwrap_or(0))
    }

    pub(super) fn draw(&self, area: &Area<'_>) -> Drawn {
        let (head, body) = area.split_vertically(TITLE_HEIGHT);
        title(&head, &self.title)?;
        let bars = self.bars.iter().take(Self::MAX_BARS);
        let names: Vec<String> = bars.clone().map(|bar| clean(&bar.name)).collect();
        let from = LEFT + names.iter().map(Width::width).max().unwrap_or(0).min(MAX_NAME_PX) + 12;
        let room = f64::from(i32::try_from(WIDTH).unwrap_or(0) - from - FIGURE_PX);
        let longest = bars.clone().map(|bar| shown(bar.value)).fold(0.0, f64::max);
        body.draw(&Text::new(clean(&self.label), (from, 0), font(TEXT_PX)))?;
        for ((nth, bar), name) in (0..).zip(bars).zip(names) {
            let top = HEAD + nth * ROW;
            let share = if longest > 0.0 { shown(bar.value) / longest } else { 0.0 };
            #[expect(clippy::cast_possible_truncation, reason = "a place between two pixels")]
            let to = from + (room * share).round() as i32;
            body.draw(&Rectangle::new([(from, top), (to, top + ROW - 6)], colour(0).filled()))?;
            body.draw(&PathElement::new([(from, top - 2), (from, top + ROW - 4)], INK))?;
            body.draw(&Text::new(name, (LEFT, top + 2), font(TEXT_PX)))?;
            body.draw(&Text::new(figure(shown(bar.value)), (to + 6, top + 2), font(TEXT_PX)))?;
        }
        Ok(())
    }
}

fn shown(value: f64) -> f64 {
    if value.is_finite() { value.clamp(0.0, LARGEST) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(values: &[f64]) -> BarChart {
        let bar = |value: &f64| Bar { name: format!("model {value}"), value: *value };
        BarChart { title: "t".into(), label: "req/s".into(), bars: values.iter().map(bar).collect() }
    }

    #[test]
    fn lengths_are_in_proportion() {
        let svg = bars(&[10.0, 20.0, 5.0]).svg();
        let widths: Vec<i32> = svg
            .lines()
            .filter(|line| line.starts_with("<rect x="))
            .filter_map(|line| line.split("width=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(widths.len(), 3);
        assert!(
            (widths[1] - widths[0] * 2).abs() <= 1 && (widths[0] - widths[2] * 2).abs() <= 1,
            "{widths:?}"
        );
    }

    #[test]
    fn odd_values_and_too_many_of_them_are_no_trouble() {
        let svg = bars(&[f64::NAN, f64::INFINITY, -1.0, 0.0]).svg();
        assert!(!svg.contains("\"NaN") && svg.contains("model NaN"));
        let many = bars(&vec![1.0; 1000]);
        assert_eq!(many.svg().matches("model").count(), BarChart::MAX_BARS);
    }
}
