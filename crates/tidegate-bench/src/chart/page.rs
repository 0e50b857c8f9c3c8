//! `page`: pictures one below the other in one SVG, and the colours and letters that all of them have.
//!
//! Invariant: each colour that is drawn is either one that can be read on white and on black, or has a partner in the style
//! sheet for the dark scheme.

use plotters::prelude::*;
use plotters::style::TextStyle;

use super::{Area, BarChart, Chart, Drawn};

/// What can stand on a page.
#[derive(Clone, Copy, Debug)]
pub enum Picture<'a> {
    /// Series over two axes.
    Chart(&'a Chart),
    /// Named bars.
    Bars(&'a BarChart),
}

/// Draws pictures one below the other.
///
/// # Panics
///
/// Never: it is drawn into memory.
#[must_use]
pub fn page(pictures: &[Picture<'_>]) -> String {
    let sizes: Vec<(u32, u32)> = pictures.iter().map(Picture::size).collect();
    let width = sizes.iter().map(|size| size.0).max().unwrap_or(1);
    let height = sizes.iter().map(|size| size.1).sum::<u32>().max(1);
    let mut svg = String::new();
    {
        let mut rest = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        let whole = rest.clone();
        for (picture, (_, height)) in pictures.iter().zip(sizes) {
            let (area, below) = rest.split_vertically(height);
            picture.draw(&area).expect("a drawing in memory does not fail");
            rest = below;
        }
        whole.present().expect("a drawing in memory does not fail");
    }
    // The style sheet and the paper come first, behind the tag that opens the picture.
    let at = svg.find('>').map_or(0, |end| end + 1);
    svg.insert_str(at, STYLE);
    svg
}

impl Picture<'_> {
    fn size(&self) -> (u32, u32) {
        match self {
            Self::Chart(chart) => chart.size(),
            Self::Bars(bars) => bars.size(),
        }
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        match self {
            Self::Chart(chart) => chart.draw(area),
            Self::Bars(bars) => bars.draw(area),
        }
    }
}

/// Text and axes, and the lines behind the figures, as they are on white; [`STYLE`] knows them by these colours.
pub(super) const INK: RGBColor = RGBColor(0x24, 0x29, 0x2E);
pub(super) const GRID: RGBColor = RGBColor(0xDD, 0xE1, 0xE5);
pub(super) const TEXT_PX: u32 = 15;
const TITLE_PX: u32 = 20;

const STYLE: &str = "\n<style>\n\
    @media (prefers-color-scheme: dark) {\n\
    .paper { fill: #16191D }\n\
    [fill=\"#24292E\"] { fill: #D8DEE4 }\n\
    [stroke=\"#24292E\"] { stroke: #9AA4AE }\n\
    [stroke=\"#DDE1E5\"] { stroke: #353B42 }\n\
    }\n</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\" fill=\"#FFFFFF\"/>";

/// Middle tones, told apart by most people who see colours differently, with enough contrast on white and on black.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x2F, 0x81, 0xC8),
    RGBColor(0xD9, 0x6B, 0x1E),
    RGBColor(0x2E, 0x9B, 0x62),
    RGBColor(0xC2, 0x4E, 0x93),
    RGBColor(0x8A, 0x6C, 0xC8),
    RGBColor(0xA8, 0x8B, 0x12),
    RGBColor(0x2B, 0x9C, 0xA3),
    RGBColor(0xC9, 0x4A, 0x4A),
];

/// The colour of the series of this number.
pub(super) fn colour(nth: usize) -> RGBColor {
    COLOURS[nth % COLOURS.len()]
}

pub(super) fn font(px: u32) -> TextStyle<'static> {
    ("sans-serif", px).into_font().color(&INK)
}

pub(super) fn title(area: &Area<'_>, text: &str) -> Drawn {
    area.draw(&Text::new(clean(text), (16, 12), font(TITLE_PX)))
}

/// How wide a text will be, about: what shows it decides on the font.
pub(super) trait Width {
    fn width(&self) -> i32;
}

impl Width for String {
    fn width(&self) -> i32 {
        i32::try_from(self.chars().count()).unwrap_or(i32::MAX / 100) * 7
    }
}

/// A text without what XML does not allow (XML 1.0, section 2.2), and not longer than a line.
pub(super) fn clean(text: &str) -> String {
    let allowed = |char: char| !char.is_control() && !matches!(char, '\u{fffe}' | '\u{ffff}');
    let cut = text.chars().count() > MAX_CHARS;
    let chars = text.chars().take(MAX_CHARS - usize::from(cut));
    chars.map(|char| if allowed(char) { char } else { '\u{fffd}' }).chain(cut.then_some('…')).collect()
}

const MAX_CHARS: usize = 110;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::{Axis, Bar};

    #[test]
    fn pictures_stand_below_each_other() {
        let axis = Axis { label: String::new(), log: false };
        let chart = Chart { title: "upper".into(), x: axis.clone(), y: axis, series: vec![] };
        let bars = BarChart {
            title: "lower".into(),
            label: "req/s".into(),
            bars: vec![Bar { name: "a".into(), value: 1.0 }],
        };
        let svg = page(&[Picture::Chart(&chart), Picture::Bars(&bars)]);
        let height = chart.size().1 + bars.size().1;
        assert!(svg.contains(&format!("height=\"{height}\"")));
        assert!(svg.find("upper") < svg.find("lower"));
        assert!(page(&[]).contains("</svg>"));
    }

    #[test]
    fn every_colour_of_letters_and_lines_has_its_partner_in_the_dark() {
        for RGBColor(red, green, blue) in [INK, GRID] {
            assert!(STYLE.contains(&format!("=\"#{red:02X}{green:02X}{blue:02X}\"]")));
        }
    }

    #[test]
    fn long_texts_are_cut_and_short_ones_are_not() {
        assert_eq!(clean("p99 µs"), "p99 µs");
        let cut = clean(&"x".repeat(1000));
        assert_eq!((cut.chars().count(), cut.ends_with('…')), (MAX_CHARS, true));
    }
}
