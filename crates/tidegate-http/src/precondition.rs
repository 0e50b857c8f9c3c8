//! Preconditions of a request against the state of a resource (RFC 9110, section 13), as a function of both.
//!
//! Invariant: a malformed condition never selects an answer without content: it counts as one that the resource does not
//! meet for `If-None-Match`, as absent for the dates, and as failed for `If-Match`.

use crate::bytes::trim_ows;
use crate::{EntityTag, Fields, Method, parse_http_date};

/// What the resource is compared by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// The current entity tag.
    pub etag: Option<EntityTag<'a>>,
    /// When the resource was last modified, in seconds since 1970.
    pub last_modified: Option<u64>,
}

/// What the preconditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Answer as if there were none.
    Proceed,
    /// 304: the client has it already.
    NotModified,
    /// 412: the client did not want it under these circumstances.
    Failed,
}

/// Evaluates the preconditions for a resource that exists, in the order of RFC 9110, section 13.2.2.
#[must_use]
pub fn evaluate_preconditions(method: Method, fields: &Fields<'_>, state: &Validators<'_>) -> Precondition {
    let reads = matches!(method, Method::Get | Method::Head);
    let tags = |name| match_tags(fields, name);
    let date = |name| single(fields, name).and_then(parse_http_date);

    if let Some(list) = tags("if-match") {
        if !list.any(fields, |tag| state.etag.is_some_and(|current| current.strong_eq(tag))) {
            return Precondition::Failed;
        }
    } else if let (Some(limit), Some(modified)) = (date("if-unmodified-since"), state.last_modified)
        && modified > limit
    {
        return Precondition::Failed;
    }

    if let Some(list) = tags("if-none-match") {
        if list.any(fields, |tag| state.etag.is_some_and(|current| current.weak_eq(tag))) {
            return if reads { Precondition::NotModified } else { Precondition::Failed };
        }
    } else if reads
        && let (Some(since), Some(modified)) = (date("if-modified-since"), state.last_modified)
        && modified <= since
    {
        return Precondition::NotModified;
    }
    Precondition::Proceed
}

/// A field that holds a list of tags or `*`, and is there at least once.
struct TagList {
    name: &'static str,
}

fn match_tags(fields: &Fields<'_>, name: &'static str) -> Option<TagList> {
    fields.clone().named(name).next().map(|_| TagList { name })
}

impl TagList {
    /// Whether one of the tags is the one. `*` is, since the resource exists.
    fn any(&self, fields: &Fields<'_>, is_it: impl Fn(&EntityTag<'_>) -> bool) -> bool {
        fields.clone().named(self.name).any(|value| value == b"*" || any_tag(value, &is_it))
    }
}

/// A list of tags (RFC 9110, section 5.6.1); a tag may hold commas. What follows a malformed element is not looked at.
fn any_tag(value: &[u8], is_it: impl Fn(&EntityTag<'_>) -> bool) -> bool {
    let mut rest = trim_ows(value);
    loop {
        while let [b',', after @ ..] = rest {
            rest = trim_ows(after);
        }
        let Some((tag, after)) = EntityTag::parse_prefix(rest) else { return false };
        let after = trim_ows(after);
        if !matches!(after, [] | [b',', ..]) {
            return false;
        }
        if is_it(&tag) {
            return true;
        }
        rest = after;
    }
}

/// The value of a field that may stand once; more often it counts as absent.
fn single<'a>(fields: &Fields<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = fields.clone().named(name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Precondition::{Failed, NotModified, Proceed};

    const MODIFIED: u64 = 784_111_777;

    #[track_caller]
    fn check(method: Method, lines: &str, expected: Precondition) {
        let head = format!("{lines}\r\n\r\n");
        let state = Validators { etag: EntityTag::parse(b"\"abc,1\""), last_modified: Some(MODIFIED) };
        assert_eq!(
            evaluate_preconditions(method, &Fields::new(head.as_bytes()), &state),
            expected,
            "{lines}"
        );
    }

    #[test]
    fn tags_decide_before_dates() {
        let same = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT";
        let old = "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT";
        check(Method::Get, "Host: a", Proceed);
        check(Method::Get, same, NotModified);
        check(Method::Head, same, NotModified);
        check(Method::Post, same, Proceed);
        check(Method::Get, old, Proceed);
        check(Method::Get, &format!("{same}\r\nIf-None-Match: \"no\""), Proceed);
        check(Method::Get, &format!("{old}\r\nIf-None-Match: \"abc,1\""), NotModified);
        check(Method::Get, &format!("{same}\r\n{same}"), Proceed);
        check(Method::Get, "If-Modified-Since: yesterday", Proceed);
    }

    #[test]
    fn lists_of_tags_may_span_lines_and_hold_commas() {
        for hit in [
            "If-None-Match: *",
            "If-None-Match: \"abc,1\"",
            "If-None-Match: W/\"abc,1\"",
            "If-None-Match: \"x\", \"abc,1\"",
            "If-None-Match: ,, \"x\" ,W/\"y\",\"abc,1\",",
            "If-None-Match: \"x\"\r\nif-none-match: \"abc,1\"",
        ] {
            check(Method::Get, hit, NotModified);
            check(Method::Post, hit, Failed);
        }
        for miss in [
            "If-None-Match: \"abc\"",
            "If-None-Match:",
            "If-None-Match: abc,1",
            "If-None-Match: \"x\" \"abc,1\"",
        ] {
            check(Method::Get, miss, Proceed);
        }
    }

    #[test]
    fn if_match_compares_strongly_and_comes_first() {
        check(Method::Get, "If-Match: \"abc,1\"", Proceed);
        check(Method::Get, "If-Match: *", Proceed);
        check(Method::Get, "If-Match: W/\"abc,1\"", Failed);
        check(Method::Get, "If-Match: \"x\"", Failed);
        check(Method::Get, "If-Match: \"x\"\r\nIf-None-Match: *", Failed);
        check(Method::Get, "If-Match: \"abc,1\"\r\nIf-None-Match: *", NotModified);
        check(Method::Get, "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT", Failed);
        check(Method::Get, "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT", Proceed);
    }
}
