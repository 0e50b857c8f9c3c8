//! `MediaType`: the type of a content with its parameters (RFC 9110, section 8.3.1).
//!
//! Invariant: type, subtype and the names of the parameters are tokens, and no parameter stands twice.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::Fields;
use crate::bytes::{is_field_value, is_token, trim_ows};
use crate::list::{elements, split_once};

/// A `Content-Type`.
///
/// ```
/// use tidegate_http::MediaType;
///
/// let media_type = MediaType::parse(b"Text/HTML; charset=\"utf-8\"").expect("a type");
/// assert!(media_type.is("text", "html"));
/// assert_eq!(media_type.parameter("charset").as_deref(), Some(&b"utf-8"[..]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaType<'a> {
    kind: &'a [u8],
    subtype: &'a [u8],
    /// With the semicolons; valid.
    parameters: &'a [u8],
}

impl<'a> MediaType<'a> {
    /// Reads `type "/" subtype *( OWS ";" OWS [ parameter ] )`.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (name, parameters) = split_once(value, b';');
        let (kind, subtype) = split_once(trim_ows(name), b'/');
        let (subtype, parameters) = (subtype?, parameters.unwrap_or_default());
        let mut names: Vec<&[u8]> = Vec::new();
        for element in elements(parameters, b';') {
            let (name, value) = parse_parameter(element)?;
            if names.len() == MAX_PARAMETERS || names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return None;
            }
            unquote(value)?;
            names.push(name);
        }
        (is_token(kind) && is_token(subtype)).then_some(Self { kind, subtype, parameters })
    }

    /// The `Content-Type` of a request. `None` when there is none, more than one, or one that is not valid.
    #[must_use]
    pub fn of(fields: &Fields<'a>) -> Option<Self> {
        let mut values = fields.clone().named("content-type");
        let value = values.next()?;
        if values.next().is_some() { None } else { Self::parse(value) }
    }

    /// Whether this is `kind/subtype`, without case and whatever the parameters are.
    #[must_use]
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind.as_bytes())
            && self.subtype.eq_ignore_ascii_case(subtype.as_bytes())
    }

    /// Whether this is JSON: `application/json`, or a type that is built on it (RFC 6839, section 3.1).
    #[must_use]
    pub fn is_json(&self) -> bool {
        let suffix = self.subtype.len().checked_sub(5).map(|start| &self.subtype[start..]);
        self.is("application", "json") || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"))
    }

    /// The value of a parameter, without its quotes.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        let (_, value) = elements(self.parameters, b';')
            .filter_map(parse_parameter)
            .find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()))?;
        unquote(value)
    }
}

const MAX_PARAMETERS: usize = 16;

/// `token "=" ( token / quoted-string )`. No blanks around the `=` (RFC 9110, section 5.6.6).
fn parse_parameter(element: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = split_once(element, b'=');
    is_token(name).then_some((name, value?))
}

/// A token as it is, a quoted string without quotes and backslashes.
fn unquote(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let [b'"', inner @ .., b'"'] = value else {
        return is_token(value).then_some(Cow::Borrowed(value));
    };
    if !is_field_value(inner) {
        return None;
    }
    if !inner.iter().any(|b| matches!(b, b'\\' | b'"')) {
        return Some(Cow::Borrowed(inner));
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => out.push(*bytes.next()?),
            _ => out.push(byte),
        }
    }
    Some(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_one_type() {
        // RFC 9110, section 8.3.1.
        for text in [
            "text/html;charset=utf-8",
            "Text/HTML;Charset=\"utf-8\"",
            "text/html; charset=\"utf-8\"",
            "text/html;charset=UTF-8",
            " text/html ; charset=\"utf\\-8\" ;",
            "text/html;;charset=utf-8;a=\"b;c,d=\\\"\"",
        ] {
            let media_type = MediaType::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            assert!(
                media_type.is("text", "html") && !media_type.is("text", "plain") && !media_type.is_json()
            );
            let charset = media_type.parameter("charset").unwrap();
            assert!(charset.eq_ignore_ascii_case(b"utf-8"), "{text}");
            assert_eq!(media_type.parameter("boundary"), None);
        }
    }

    #[test]
    fn what_is_no_type_is_none() {
        for text in [
            "",
            "text",
            "text/",
            "/html",
            "text/html/x",
            "text html",
            "text /html",
            "text/ html",
            "text/html; charset",
            "text/html; =a",
            "text/html; a=",
            "text/html; a =b",
            "text/html; a= b",
            "text/html; a=\"b",
            "text/html; a=\"b\"c",
            "text/html; a=\"\x01\"",
            "text/html; a=b; A=c",
            "text/html, text/plain",
            "text/h\u{e4}",
            "text/html; a=\"\\\"",
        ] {
            assert_eq!(MediaType::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(
            MediaType::parse(("a/b".to_owned() + &";".repeat(9000)).as_bytes()).map(|t| t.is("a", "b")),
            Some(true)
        );
        let many: String = (0..17).map(|n| format!(";p{n}=1")).collect();
        assert_eq!(MediaType::parse(format!("a/b{many}").as_bytes()), None);
    }

    #[test]
    fn json_is_known_by_its_name_or_its_suffix() {
        for (text, is_json) in [
            ("application/json; charset=utf-8", true),
            ("application/problem+JSON", true),
            ("application/jsonp", false),
            ("text/json", false),
            ("a/json", false),
            ("+json/a", false),
        ] {
            assert_eq!(MediaType::parse(text.as_bytes()).unwrap().is_json(), is_json, "{text}");
        }
    }

    #[test]
    fn only_one_content_type_counts() {
        let of = |text: &'static str| MediaType::of(&Fields::new(text.as_bytes()));
        assert!(of("Content-Type: a/b\r\n").is_some_and(|t| t.is("a", "b")));
        assert_eq!(of("Content-Type: a/b\r\nContent-Type: a/b\r\n"), None);
        assert_eq!(of("Host: a\r\n"), None);
    }
}
