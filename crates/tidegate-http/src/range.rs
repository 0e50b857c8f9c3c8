//! Byte ranges: what a `Range` field selects from a representation (RFC 9110, section 14), as a function of both.
//!
//! Invariant: every range that comes out lies within the representation and is not empty, there are at most as many as the
//! limit, and together they are not longer than the representation. So no request for parts costs more than one for the
//! whole, which is what a set over a limit gets.
//!
//! Ranges are not joined and not sorted: they are sent as they were asked for.

use alloc::string::String;
use alloc::vec::Vec;

use crate::bytes::trim_ows;
use crate::{EntityTag, Fields, Method, Validators, parse_http_date};

/// A part of a representation: the bytes `first` to `last`, both included. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    first: u64,
    last: u64,
}

/// What of a representation is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// All of it, with 200: there is no `Range`, or one to be ignored.
    Whole,
    /// One part, with 206 and [`content_range`].
    Single(ByteRange),
    /// Two parts or more, with 206 as `multipart/byteranges`.
    Several(Vec<ByteRange>),
    /// Nothing of what was asked for is there: 416 with [`unsatisfied_range`].
    Unsatisfiable,
}

impl ByteRange {
    /// The bytes `first` to `last`, both included; `None` when `last` comes before `first`.
    #[must_use]
    pub const fn new(first: u64, last: u64) -> Option<Self> {
        // A length of 2^64 would not fit.
        if last < first || last - first == u64::MAX { None } else { Some(Self { first, last }) }
    }

    /// The offset of the first byte.
    #[must_use]
    pub const fn first(self) -> u64 {
        self.first
    }

    /// The offset of the last byte.
    #[must_use]
    pub const fn last(self) -> u64 {
        self.last
    }

    /// How many bytes there are; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u64 {
        self.last - self.first + 1
    }
}

/// What ranges are taken from.
#[derive(Clone, Copy, Debug)]
pub struct Representation<'a> {
    /// Its length in bytes.
    pub size: u64,
    /// What `If-Range` is compared with.
    pub validators: Validators<'a>,
    /// When the answer is made, in seconds since 1970; see [`if_range_holds`].
    pub unix_time: u64,
}

/// What `fields` select: `If-Range` first, then `Range`.
///
/// `Range` has a meaning for `GET` only (RFC 9110, section 14.2). To be asked after the preconditions, and only where the
/// answer would be 200. More than `max_ranges` ranges select the whole.
///
/// ```
/// use tidegate_http::{HeadLimits, Parsed, Ranges, Representation, Validators, parse_head, select_ranges};
///
/// let input = b"GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=-500\r\n\r\n";
/// let Ok(Parsed::Head(head)) = parse_head(input, &HeadLimits::default()) else { panic!("a valid head") };
/// let file = Representation { size: 10_000, validators: Validators::default(), unix_time: 784_111_777 };
/// let selected = select_ranges(head.method(), &head.fields(input), &file, 16);
/// assert!(matches!(selected, Ranges::Single(range) if range.first() == 9500 && range.last() == 9999));
/// ```
#[must_use]
pub fn select_ranges(
    method: Method,
    fields: &Fields<'_>,
    of: &Representation<'_>,
    max_ranges: usize,
) -> Ranges {
    if method != Method::Get {
        return Ranges::Whole;
    }
    let mut values = fields.clone().named("range");
    // It is no list that may span lines.
    let (Some(value), None) = (values.next(), values.next()) else { return Ranges::Whole };
    if !if_range_holds(fields, &of.validators, of.unix_time) {
        return Ranges::Whole;
    }
    parse_ranges(value, of.size, max_ranges)
}

/// Whether `If-Range` lets the `Range` beside it be honoured (RFC 9110, section 13.1.5). It does when it is not there.
///
/// A tag is compared strongly. A date holds only when it is exactly that of the last modification, and this lies at least a
/// second before `now`: within one second the representation may have changed twice (RFC 9110, section 8.8.2.2).
#[must_use]
pub fn if_range_holds(fields: &Fields<'_>, state: &Validators<'_>, now: u64) -> bool {
    let mut values = fields.clone().named("if-range");
    let Some(value) = values.next() else { return true };
    if values.next().is_some() {
        return false;
    }
    if let Some(tag) = EntityTag::parse(value) {
        return state.etag.is_some_and(|current| current.strong_eq(&tag));
    }
    parse_http_date(value).is_some_and(|date| state.last_modified == Some(date) && date < now)
}

/// Reads the value of a `Range` field for a representation of `size` bytes.
///
/// Whatever is wrong in it, an unknown unit, more than `max_ranges` ranges, or ranges that are longer together than the
/// representation make it select the whole, which RFC 9110, section 14.2, leaves to the server.
#[must_use]
pub fn parse_ranges(value: &[u8], size: u64, max_ranges: usize) -> Ranges {
    // Names of range units have no case (RFC 9110, section 14.1).
    let Some((unit, set)) = value.split_at_checked(UNIT.len()) else { return Ranges::Whole };
    if !unit.eq_ignore_ascii_case(UNIT) {
        return Ranges::Whole;
    }
    let mut selected = Selected { first: None, more: Vec::new(), left: size };
    let mut asked = 0;
    // A list may have empty elements (RFC 9110, section 5.6.1.2).
    for spec in set.split(|&b| b == b',').map(trim_ows).filter(|spec| !spec.is_empty()) {
        asked += 1;
        if asked > max_ranges {
            return Ranges::Whole;
        }
        match parse_spec(spec, size) {
            Spec::Invalid => return Ranges::Whole,
            // A suffix of nothing can be satisfied, but no `Content-Range` can say so.
            Spec::EmptySuffix => return Ranges::Whole,
            Spec::Unsatisfiable => {}
            Spec::Range(range) => {
                if !selected.push(range) {
                    return Ranges::Whole;
                }
            }
        }
    }
    if asked == 0 { Ranges::Whole } else { selected.into_ranges() }
}

/// The value of `Content-Range` for a part of a representation of `size` bytes.
///
/// ```
/// # use tidegate_http::{ByteRange, content_range};
/// # let Some(range) = ByteRange::new(42, 1233) else { panic!("a range") };
/// assert_eq!(content_range(range, 1234), "bytes 42-1233/1234");
/// ```
#[must_use]
pub fn content_range(range: ByteRange, size: u64) -> String {
    alloc::format!("bytes {}-{}/{size}", range.first, range.last)
}

/// The value of `Content-Range` in a 416 for a representation of `size` bytes: `bytes */1234`.
#[must_use]
pub fn unsatisfied_range(size: u64) -> String {
    alloc::format!("bytes */{size}")
}

const UNIT: &[u8] = b"bytes=";

/// The ranges so far. The first has a place of its own, so that the usual case allocates nothing.
struct Selected {
    first: Option<ByteRange>,
    more: Vec<ByteRange>,
    /// How many bytes the next ranges may have together.
    left: u64,
}

impl Selected {
    /// False when the range is more than may be asked for.
    fn push(&mut self, range: ByteRange) -> bool {
        let Some(left) = self.left.checked_sub(range.len()) else { return false };
        self.left = left;
        match self.first {
            None => self.first = Some(range),
            Some(first) => {
                if self.more.is_empty() {
                    self.more.push(first);
                }
                self.more.push(range);
            }
        }
        true
    }

    fn into_ranges(self) -> Ranges {
        match self.first {
            None => Ranges::Unsatisfiable,
            Some(range) if self.more.is_empty() => Ranges::Single(range),
            Some(_) => Ranges::Several(self.more),
        }
    }
}

enum Spec {
    Range(ByteRange),
    /// Begins behind the end, or is a suffix of 0 bytes.
    Unsatisfiable,
    EmptySuffix,
    Invalid,
}

/// One `first-last`, `first-` or `-length`.
fn parse_spec(spec: &[u8], size: u64) -> Spec {
    let Some(dash) = memchr::memchr(b'-', spec) else { return Spec::Invalid };
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    if first.is_empty() {
        return match number(last) {
            None => Spec::Invalid,
            Some(0) => Spec::Unsatisfiable,
            Some(_) if size == 0 => Spec::EmptySuffix,
            Some(length) => range_or_invalid(size - length.min(size), size - 1),
        };
    }
    let Some(first) = number(first) else { return Spec::Invalid };
    let last = match last {
        [] => u64::MAX,
        digits => match number(digits) {
            Some(last) if last >= first => last,
            _ => return Spec::Invalid,
        },
    };
    if first >= size { Spec::Unsatisfiable } else { range_or_invalid(first, last.min(size - 1)) }
}

fn range_or_invalid(first: u64, last: u64) -> Spec {
    ByteRange::new(first, last).map_or(Spec::Invalid, Spec::Range)
}

/// `1*DIGIT`; what is beyond 64 bits is behind every end.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &digit| {
        digit.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: u64, last: u64) -> ByteRange {
        ByteRange::new(first, last).unwrap()
    }

    fn of(pairs: &[(u64, u64)]) -> Ranges {
        match pairs {
            [] => Ranges::Unsatisfiable,
            [(first, last)] => Ranges::Single(range(*first, *last)),
            _ => Ranges::Several(pairs.iter().map(|&(first, last)| range(first, last)).collect()),
        }
    }

    #[test]
    fn the_examples_of_the_rfc_select_what_it_says() {
        // RFC 9110, section 14.1.2, for a representation of 10000 bytes.
        for (value, expected) in [
            ("bytes=0-499", &[(0, 499)][..]),
            ("bytes=500-999", &[(500, 999)]),
            ("bytes=-500", &[(9500, 9999)]),
            ("bytes=9500-", &[(9500, 9999)]),
            ("bytes=0-0,-1", &[(0, 0), (9999, 9999)]),
            ("bytes= 0-999, 4500-5499, -1000", &[(0, 999), (4500, 5499), (9000, 9999)]),
            ("bytes=500-600,601-999", &[(500, 600), (601, 999)]),
            ("bytes=500-700,601-999", &[(500, 700), (601, 999)]),
        ] {
            assert_eq!(parse_ranges(value.as_bytes(), 10_000, 16), of(expected), "{value}");
        }
    }

    #[test]
    fn ranges_end_where_the_representation_does() {
        for (value, size, expected) in [
            ("bytes=0-", 1, &[(0, 0)][..]),
            ("bytes=0-99", 10, &[(0, 9)]),
            ("bytes=9-9", 10, &[(9, 9)]),
            ("bytes=10-", 10, &[]),
            ("bytes=10-20,30-", 10, &[]),
            ("bytes=3-4,10-20", 10, &[(3, 4)]),
            ("bytes=-99", 10, &[(0, 9)]),
            ("bytes=-0", 10, &[]),
            ("bytes=-0,1-1", 10, &[(1, 1)]),
            ("bytes=-99999999999999999999999", 10, &[(0, 9)]),
            ("bytes=5-99999999999999999999999", 10, &[(5, 9)]),
            ("bytes=99999999999999999999999-", 10, &[]),
            ("bytes=0-", 0, &[]),
            ("bytes=0-5", 0, &[]),
            ("bytes=-0", 0, &[]),
            ("BYTES=007-8", 10, &[(7, 8)]),
            ("bytes=,, 1-1 ,\t,2-2,", 10, &[(1, 1), (2, 2)]),
            ("bytes=0-18446744073709551615", u64::MAX, &[(0, u64::MAX - 1)]),
        ] {
            assert_eq!(parse_ranges(value.as_bytes(), size, 16), of(expected), "{value} of {size}");
        }
    }

    #[test]
    fn what_is_wrong_or_not_worth_it_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=1--2",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=1-+2",
            "bytes=2-1",
            "bytes=0-1,2-1",
            "bytes=0-1;2-3",
            "bytes=0 -1",
            "bytes=0- 1",
            "bytes =0-1",
            "bytes: 0-1",
            "bites=0-1",
            "lines=0-1",
            "bytes=0-1 2-3",
            "bytes=0x0-1",
            "bytes=1-2-3",
            "bytes=*",
            // Longer than the whole.
            "bytes=0-,0-",
            "bytes=0-9,0-0",
            "bytes=-6,-5",
        ] {
            assert_eq!(parse_ranges(value.as_bytes(), 10, 16), Ranges::Whole, "{value}");
        }
        assert_eq!(parse_ranges(b"bytes=-5", 0, 16), Ranges::Whole);
        assert_eq!(parse_ranges(b"bytes=0-1", 10, 0), Ranges::Whole);
    }

    #[test]
    fn the_number_of_ranges_is_limited_whether_they_can_be_satisfied_or_not() {
        let ranges = |count: u64| (0..count).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(",");
        let parse = |count, size| parse_ranges(format!("bytes={}", ranges(count)).as_bytes(), size, 16);
        assert!(matches!(parse(16, 100), Ranges::Several(ranges) if ranges.len() == 16));
        assert_eq!(parse(17, 100), Ranges::Whole);
        assert_eq!(parse(17, 0), Ranges::Whole);
        assert_eq!(parse(16, 0), Ranges::Unsatisfiable);
    }

    const MODIFIED: u64 = 784_111_777;

    fn select(method: Method, lines: &str, now: u64) -> Ranges {
        let head = format!("{lines}\r\n\r\n");
        let state = Validators { etag: EntityTag::parse(b"\"a\""), last_modified: Some(MODIFIED) };
        let file = Representation { size: 10, validators: state, unix_time: now };
        select_ranges(method, &Fields::new(head.as_bytes()), &file, 16)
    }

    #[test]
    fn only_one_range_field_of_a_get_counts() {
        let later = MODIFIED + 10;
        assert_eq!(select(Method::Get, "Host: a", later), Ranges::Whole);
        assert_eq!(select(Method::Get, "rAnGe: bytes=1-2", later), of(&[(1, 2)]));
        assert_eq!(select(Method::Get, "Range: bytes=1-2\r\nRange: bytes=1-2", later), Ranges::Whole);
        for method in [Method::Head, Method::Post, Method::Put, Method::Other] {
            assert_eq!(select(method, "Range: bytes=1-2", later), Ranges::Whole);
        }
    }

    #[test]
    fn if_range_takes_exactly_what_is_there() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let old = "Sun, 06 Nov 1994 08:49:36 GMT";
        let new = "Sun, 06 Nov 1994 08:49:38 GMT";
        for (condition, now, holds) in [
            ("\"a\"", MODIFIED, true),
            ("W/\"a\"", MODIFIED, false),
            ("\"b\"", MODIFIED, false),
            ("\"a\", \"b\"", MODIFIED, false),
            ("*", MODIFIED, false),
            ("", MODIFIED, false),
            ("a", MODIFIED, false),
            (date, MODIFIED + 1, true),
            // Within the second of the change a date is a weak validator.
            (date, MODIFIED, false),
            ("Sunday, 06-Nov-94 08:49:37 GMT", MODIFIED + 1, true),
            (old, MODIFIED + 10, false),
            (new, MODIFIED + 10, false),
            ("\"a\"\r\nIf-Range: \"a\"", MODIFIED, false),
        ] {
            let expected = if holds { of(&[(1, 2)]) } else { Ranges::Whole };
            let lines = format!("Range: bytes=1-2\r\nIf-Range: {condition}");
            assert_eq!(select(Method::Get, &lines, now), expected, "{condition} at {now}");
        }
        let bare = Validators::default();
        let fields = format!("If-Range: {date}\r\n");
        assert!(!if_range_holds(&Fields::new(fields.as_bytes()), &bare, MODIFIED + 1));
        assert!(!if_range_holds(&Fields::new(b"If-Range: \"a\"\r\n"), &bare, MODIFIED + 1));
    }

    #[test]
    fn a_range_has_a_length_and_a_text() {
        assert_eq!(range(5, 5).len(), 1);
        assert_eq!(ByteRange::new(5, 4), None);
        assert_eq!(ByteRange::new(0, u64::MAX), None);
        assert_eq!(content_range(range(0, 499), 1234), "bytes 0-499/1234");
        assert_eq!(unsatisfied_range(47_022), "bytes */47022");
    }

    /// Selects by looking at every byte of the representation.
    fn naive(specs: &[(Option<u64>, Option<u64>)], size: u64) -> Ranges {
        let mut found = Vec::new();
        for &(first, last) in specs {
            let selected: Vec<u64> = (0..size)
                .filter(|&at| match (first, last) {
                    (Some(first), Some(last)) => first <= at && at <= last,
                    (Some(first), None) => first <= at,
                    (None, Some(length)) => at + length >= size,
                    (None, None) => false,
                })
                .collect();
            if let (Some(&first), Some(&last)) = (selected.first(), selected.last()) {
                found.push((first, last));
            }
        }
        let sum: u64 = found.iter().map(|(first, last)| last - first + 1).sum();
        if sum > size { Ranges::Whole } else { of(&found) }
    }

    proptest! {
        #[test]
        fn valid_sets_agree_with_a_byte_wise_selection(
            specs in proptest::collection::vec((0..2u8, 0..30u64, proptest::option::of(0..15u64)), 1..6),
            size in 1..25u64,
        ) {
            let specs: Vec<_> = specs.iter().map(|&(form, number, more)| match form {
                0 => (Some(number), more.map(|more| number + more)),
                _ => (None, Some(number)),
            }).collect();
            let text: Vec<String> = specs.iter().map(|(first, last)| {
                let text = |n: &Option<u64>| n.map_or(String::new(), |n| n.to_string());
                format!("{}-{}", text(first), text(last))
            }).collect();
            let value = format!("bytes={}", text.join(", "));
            prop_assert_eq!(parse_ranges(value.as_bytes(), size, 16), naive(&specs, size), "{} of {}", value, size);
        }

        #[test]
        fn any_bytes_select_something_that_is_there(
            value in proptest::collection::vec(prop::sample::select(&b"0123456789-, \tx"[..]), 0..30),
            size in prop_oneof![0..20u64, Just(u64::MAX)],
        ) {
            let value = [b"bytes=", &value[..]].concat();
            let ranges = match parse_ranges(&value, size, 4) {
                Ranges::Whole | Ranges::Unsatisfiable => Vec::new(),
                Ranges::Single(range) => vec![range],
                Ranges::Several(ranges) => { prop_assert!(ranges.len() > 1); ranges },
            };
            prop_assert!(ranges.len() <= 4);
            prop_assert!(ranges.iter().all(|range| range.first() <= range.last() && range.last() < size));
            prop_assert!(ranges.iter().map(|range| u128::from(range.len())).sum::<u128>() <= u128::from(size));
        }
    }
}
