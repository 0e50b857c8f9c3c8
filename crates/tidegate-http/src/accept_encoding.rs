//! `AcceptEncoding`: which content codings a client takes, and which it likes best (RFC 9110, section 12.5.3).
//!
//! Invariant: a coding that the client has not named, or has refused, is never chosen; `identity` is the exception that the
//! RFC makes: it is taken unless it is refused.

use crate::Fields;
use crate::bytes::{is_token, trim_ows};
use crate::list::{elements, weight};

/// A content coding (RFC 9110, section 8.4.1; RFC 7932; RFC 8878), in the order in which a server would choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContentCoding {
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
    /// `gzip`, which may also be called `x-gzip`.
    Gzip,
    /// No coding at all.
    Identity,
}

impl ContentCoding {
    /// The name, as `Content-Encoding` has it. `identity` is not written there.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        // All codings are compared without case (RFC 9110, section 8.4.1).
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"br") => Some(Self::Brotli),
            4 if is(b"gzip") => Some(Self::Gzip),
            4 if is(b"zstd") => Some(Self::Zstd),
            6 if is(b"x-gzip") => Some(Self::Gzip),
            8 if is(b"identity") => Some(Self::Identity),
            _ => None,
        }
    }
}

/// What the `Accept-Encoding` lines of a request come to.
///
/// ```
/// use tidegate_http::{AcceptEncoding, ContentCoding};
///
/// let accepted = AcceptEncoding::parse_value(b"gzip, br;q=0.5, *;q=0");
/// assert_eq!(accepted.best(&[ContentCoding::Brotli, ContentCoding::Gzip]), Some(ContentCoding::Gzip));
/// assert_eq!(accepted.best(&[ContentCoding::Identity]), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptEncoding {
    /// By the number of the coding.
    weights: [Weight; 4],
}

/// Twice the weight in thousandths; 0 is refused.
type Weight = u16;

/// What `identity` has when nothing is said about it: less than anything that is asked for.
const UNNAMED_IDENTITY: Weight = 1;

impl AcceptEncoding {
    /// Nothing but `identity`, as without any `Accept-Encoding`. The RFC would allow any coding then, but who does not ask
    /// for one often cannot decode it.
    pub const IDENTITY: Self = Self { weights: [0, 0, 0, UNNAMED_IDENTITY] };

    /// Reads all `Accept-Encoding` lines of a request.
    #[must_use]
    pub fn parse(fields: &Fields<'_>) -> Self {
        Self::from_elements(fields.clone().named("accept-encoding").flat_map(|value| elements(value, b',')))
    }

    /// Reads the value of one `Accept-Encoding` line.
    #[must_use]
    pub fn parse_value(value: &[u8]) -> Self {
        Self::from_elements(elements(value, b','))
    }

    /// An element that breaks the grammar counts as not there; of one that is there twice the lower weight counts.
    fn from_elements<'a>(elements: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut named: [Option<Weight>; 4] = [None; 4];
        let mut any = None;
        for element in elements {
            let Some((name, weight)) = parse_element(element) else { continue };
            let place = match ContentCoding::from_name(name) {
                Some(coding) => &mut named[coding as usize],
                None if name == b"*" => &mut any,
                None => continue,
            };
            *place = Some(place.map_or(weight, |other: Weight| other.min(weight)));
        }
        let mut weights = Self::IDENTITY.weights;
        for (weight, named) in weights.iter_mut().zip(named) {
            *weight = named.or(any).unwrap_or(*weight);
        }
        Self { weights }
    }

    /// Whether the client takes the coding.
    #[must_use]
    pub const fn accepts(&self, coding: ContentCoding) -> bool {
        self.weights[coding as usize] > 0
    }

    /// The coding of `offered` that the client likes best; of several that it likes alike, the first. `None` when it takes
    /// none of them, which is a 406, or an answer in `identity` all the same.
    #[must_use]
    pub fn best(&self, offered: &[ContentCoding]) -> Option<ContentCoding> {
        let mut best: Option<(Weight, ContentCoding)> = None;
        for &coding in offered {
            let weight = self.weights[coding as usize];
            if weight > best.map_or(0, |(weight, _)| weight) {
                best = Some((weight, coding));
            }
        }
        best.map(|(_, coding)| coding)
    }
}

/// `codings [ OWS ";" OWS "q=" qvalue ]`.
fn parse_element(element: &[u8]) -> Option<(&[u8], Weight)> {
    let Some(semicolon) = memchr::memchr(b';', element) else {
        return is_token(element).then_some((element, 2000));
    };
    let name = trim_ows(&element[..semicolon]);
    let [b'q' | b'Q', b'=', value @ ..] = trim_ows(&element[semicolon + 1..]) else { return None };
    Some((name, weight(value)? * 2)).filter(|(name, _)| is_token(name))
}

#[cfg(test)]
mod tests {
    use super::ContentCoding::{Brotli, Gzip, Identity, Zstd};
    use super::*;
    use proptest::prelude::*;

    const ALL: [ContentCoding; 4] = [Brotli, Zstd, Gzip, Identity];

    #[test]
    fn the_examples_of_the_rfc_choose_what_it_says() {
        // RFC 9110, section 12.5.3, and what its rules say about others.
        for (value, best) in [
            ("compress, gzip", Some(Gzip)),
            ("", Some(Identity)),
            ("*", Some(Brotli)),
            ("compress;q=0.5, gzip;q=1.0", Some(Gzip)),
            ("gzip;q=1.0, identity; q=0.5, *;q=0", Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Brotli)),
            ("gzip;q=0.9, zstd, br;q=0.5", Some(Zstd)),
            ("br;q=0.001", Some(Brotli)),
            ("identity, gzip;q=0.5", Some(Identity)),
            ("gzip;q=0.5, *;q=0.8", Some(Brotli)),
            ("br;q=0, *;q=0.1", Some(Zstd)),
            ("br;q=0", Some(Identity)),
            ("identity;q=0", None),
            ("*;q=0", None),
            ("*;q=0, identity", Some(Identity)),
            ("compress, identity;q=0", None),
            ("X-GZIP", Some(Gzip)),
            ("GZip;Q=0.3", Some(Gzip)),
            ("gzip\t; \tq=1", Some(Gzip)),
            (",, gzip ,", Some(Gzip)),
            // What breaks the grammar is as if it were not there.
            ("gzip;q=2", Some(Identity)),
            ("gzip;level=9", Some(Identity)),
            ("gzip;q=1;q=1", Some(Identity)),
            ("gzip q=1", Some(Identity)),
            ("gzip;q =1", Some(Identity)),
            ("br;q=x, gzip", Some(Gzip)),
            // Said twice: the lower one.
            ("br, gzip, br;q=0", Some(Gzip)),
            ("gzip;q=0, x-gzip", Some(Identity)),
        ] {
            assert_eq!(AcceptEncoding::parse_value(value.as_bytes()).best(&ALL), best, "{value}");
        }
    }

    #[test]
    fn lines_are_joined_and_only_what_is_offered_is_chosen() {
        let fields = Fields::new(b"Accept-Encoding: br\r\nHost: a\r\naccept-encoding: gzip;q=0.5\r\n");
        let accepted = AcceptEncoding::parse(&fields);
        assert_eq!(accepted.best(&ALL), Some(Brotli));
        assert_eq!(accepted.best(&[Identity, Gzip]), Some(Gzip));
        assert_eq!(accepted.best(&[Zstd]), None);
        assert_eq!(accepted.best(&[]), None);
        assert!(accepted.accepts(Identity) && accepted.accepts(Gzip) && !accepted.accepts(Zstd));
        assert_eq!(AcceptEncoding::parse(&Fields::new(b"Host: a\r\n")), AcceptEncoding::IDENTITY);
        assert_eq!(AcceptEncoding::IDENTITY.best(&ALL), Some(Identity));
    }

    #[test]
    fn the_servers_order_decides_between_equals() {
        let accepted = AcceptEncoding::parse_value(b"gzip, br, zstd");
        assert_eq!(accepted.best(&[Gzip, Brotli, Zstd]), Some(Gzip));
        assert_eq!(accepted.best(&[Zstd, Gzip, Brotli]), Some(Zstd));
    }

    proptest! {
        #[test]
        fn what_is_refused_is_never_chosen(
            pieces in proptest::collection::vec(
                prop::sample::select(vec!["gzip", "br", "zstd", "identity", "*", "x", ",", ", ", ";q=0", ";q=0.3", "; q=1", "\"", "="]),
                0..12,
            ),
        ) {
            let accepted = AcceptEncoding::parse_value(pieces.concat().as_bytes());
            match accepted.best(&ALL) {
                Some(best) => prop_assert!(accepted.accepts(best)),
                None => prop_assert!(ALL.iter().all(|coding| !accepted.accepts(*coding))),
            }
        }
    }
}
