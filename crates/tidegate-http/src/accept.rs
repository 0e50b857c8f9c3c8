//! `Accept`: which of several media types a client likes best (RFC 9110, section 12.5.1).
//!
//! Invariant: the most specific range that matches a type decides about it, whatever stands before it.

use alloc::vec::Vec;

use crate::Fields;
use crate::bytes::{is_token, trim_ows};
use crate::list::{elements, split_once, weight};

/// What the `Accept` lines of a request come to.
///
/// ```
/// use tidegate_http::Accept;
///
/// let accept = Accept::parse_value(b"text/html, application/json;q=0.9, */*;q=0.1");
/// assert_eq!(accept.best(&["application/json", "text/html"]), Some("text/html"));
/// assert_eq!(accept.weight("image/png"), 100);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept<'a> {
    /// Empty when the client says nothing, which means everything. At most `MAX_RANGES`.
    ranges: Vec<MediaRange<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MediaRange<'a> {
    kind: &'a [u8],
    subtype: &'a [u8],
    /// In thousandths.
    weight: u16,
}

/// A browser sends fewer than ten. Those behind count as not there.
const MAX_RANGES: usize = 32;

impl<'a> Accept<'a> {
    /// Reads all `Accept` lines of a request.
    #[must_use]
    pub fn parse(fields: &Fields<'a>) -> Self {
        Self::from_elements(fields.clone().named("accept").flat_map(|value| elements(value, b',')))
    }

    /// Reads the value of one `Accept` line.
    #[must_use]
    pub fn parse_value(value: &'a [u8]) -> Self {
        Self::from_elements(elements(value, b','))
    }

    /// A range that breaks the grammar counts as not there. So does one with parameters: the types that are offered have
    /// none.
    fn from_elements(elements: impl Iterator<Item = &'a [u8]>) -> Self {
        Self { ranges: elements.filter_map(parse_range).take(MAX_RANGES).collect() }
    }

    /// How much the client likes `media_type`, a `type/subtype` without parameters, in thousandths; 0 is not at all.
    #[must_use]
    pub fn weight(&self, media_type: &str) -> u16 {
        self.judge(media_type).0
    }

    /// The weight of a type, and how specific the range is that gave it.
    fn judge(&self, media_type: &str) -> (u16, u8) {
        if self.ranges.is_empty() {
            return (1000, 0);
        }
        let (kind, subtype) = media_type.split_once('/').unwrap_or((media_type, ""));
        let mut best = (0, 0);
        for range in &self.ranges {
            let is = |pattern: &[u8], part: &str| pattern.eq_ignore_ascii_case(part.as_bytes());
            let specificity = match (range.kind, range.subtype) {
                (b"*", b"*") => 1,
                (kind_asked, b"*") if is(kind_asked, kind) => 2,
                (kind_asked, subtype_asked) if is(kind_asked, kind) && is(subtype_asked, subtype) => 3,
                _ => continue,
            };
            if specificity > best.1 {
                best = (range.weight, specificity);
            }
        }
        best
    }

    /// The type of `offered` that the client likes best; of several that it likes alike, the one that it names most
    /// exactly, and of those the first. `None` when it takes none of them.
    #[must_use]
    pub fn best<'b>(&self, offered: &[&'b str]) -> Option<&'b str> {
        let mut best: Option<((u16, u8), &str)> = None;
        for &media_type in offered {
            let judged = self.judge(media_type);
            if judged.0 > 0 && best.is_none_or(|(other, _)| judged > other) {
                best = Some((judged, media_type));
            }
        }
        best.map(|(_, media_type)| media_type)
    }
}

/// `( "*/*" / type "/*" / type "/" subtype ) [ OWS ";" OWS "q=" qvalue ]`.
fn parse_range(element: &[u8]) -> Option<MediaRange<'_>> {
    let (name, parameter) = split_once(element, b';');
    let (kind, subtype) = split_once(trim_ows(name), b'/');
    let subtype = subtype?;
    let weight = match parameter.map(trim_ows) {
        None => 1000,
        Some([b'q' | b'Q', b'=', value @ ..]) => weight(value)?,
        Some(_) => return None,
    };
    let valid = is_token(kind) && is_token(subtype) && (kind != b"*" || subtype == b"*");
    valid.then_some(MediaRange { kind, subtype, weight })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_range_decides() {
        // RFC 9110, section 12.5.1, without the parameters that no type here has.
        let accept =
            Accept::parse_value(b"text/*;q=0.3, text/plain;q=0.7, text/plain;format=flowed, */*;q=0.5");
        for (media_type, weight) in
            [("text/plain", 700), ("text/html", 300), ("image/jpeg", 500), ("TEXT/Plain", 700)]
        {
            assert_eq!(accept.weight(media_type), weight, "{media_type}");
        }
        let accept = Accept::parse_value(b"audio/*; q=0.2, audio/basic");
        assert_eq!(accept.best(&["audio/mpeg", "audio/basic"]), Some("audio/basic"));
        assert_eq!(accept.best(&["text/html"]), None);
    }

    #[test]
    fn what_browsers_and_tools_send_is_understood() {
        let offered = ["text/html", "application/json"];
        for (value, best) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", Some("text/html")),
            ("*/*", Some("text/html")),
            ("application/json", Some("application/json")),
            ("application/json, text/plain, */*", Some("application/json")),
            ("text/html;q=0.5, application/json;q=0.6", Some("application/json")),
            ("text/html;q=0, */*", Some("application/json")),
            ("application/*", Some("application/json")),
            ("image/png", None),
            ("*/*;q=0", None),
            ("", Some("text/html")),
            // What breaks the grammar counts as not there.
            ("*/html, application/json", Some("application/json")),
            ("text/html;q=2, application/json;q=0.1", Some("application/json")),
            ("text, application/json;q=0.1", Some("application/json")),
            ("nonsense", Some("text/html")),
        ] {
            assert_eq!(Accept::parse_value(value.as_bytes()).best(&offered), best, "{value}");
        }
        let fields = Fields::new(b"Accept: text/html;q=0.1\r\naccept: application/json\r\n");
        assert_eq!(Accept::parse(&fields).best(&offered), Some("application/json"));
        assert_eq!(Accept::parse(&Fields::new(b"")).best(&offered), Some("text/html"));
    }

    #[test]
    fn the_number_of_ranges_is_limited() {
        let value = "a/b,".repeat(MAX_RANGES) + "text/html";
        assert_eq!(Accept::parse_value(value.as_bytes()).weight("text/html"), 0);
    }
}
