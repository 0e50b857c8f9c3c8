//! Fields of an answer that several hands write: its handler, its site, and the service.
//!
//! Invariant: what may be there once is there once. Of two hands the one nearer to the answer wins: what the service says of
//! this connection, then the handler or the file, then the site. `Vary` is the exception, since every hand that chose
//! something has to be heard (RFC 9110, section 12.5.5): what a site says of it is added.

/// A field of a site: name and value.
pub(crate) type SiteField = (Box<str>, Box<str>);

/// Fields that the service writes, and nobody else.
pub(crate) const OWN: [&str; 5] = ["connection", "content-length", "date", "server", "transfer-encoding"];

/// Fields that have one value, so that a second one says something else (RFC 9110, section 5.3).
const SINGLE: [&str; 18] = [
    "accept-ranges",
    "access-control-allow-origin",
    "age",
    "content-disposition",
    "content-encoding",
    "content-location",
    "content-range",
    "content-type",
    "etag",
    "expires",
    "last-modified",
    "location",
    "referrer-policy",
    "retry-after",
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "x-request-id",
];

/// Whether an answer has at most one field of this name.
pub(crate) fn is_single(name: &str) -> bool {
    SINGLE.iter().any(|single| single.eq_ignore_ascii_case(name))
}

/// Whether a field of a site goes to an answer whose own fields of its name have these values.
pub(crate) fn is_added<'a>((name, value): (&str, &str), own: impl IntoIterator<Item = &'a str>) -> bool {
    let mut own = own.into_iter().peekable();
    if own.peek().is_none() {
        return true;
    }
    name.eq_ignore_ascii_case("vary") && !own.any(|own| says_all_of(own, value))
}

/// The fields of an answer, with those of its site.
pub(crate) fn with_site<'a>(
    mut own: Vec<(&'a str, &'a str)>,
    site: &'a [SiteField],
) -> Vec<(&'a str, &'a str)> {
    let count = own.len();
    for (name, value) in site {
        let same = own[..count].iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        if is_added((name, value), same.map(|(_, value)| *value)) {
            own.push((name, value));
        }
    }
    own
}

/// Whether all members of a list are in another one.
fn says_all_of(list: &str, members: &str) -> bool {
    let split = |text: &str, member: &str| {
        text.split(',').any(|other| other.trim() == "*" || other.trim().eq_ignore_ascii_case(member.trim()))
    };
    members.split(',').all(|member| split(list, member))
}

/// Whether whole field lines have one of this name.
pub(crate) fn has_line(lines: &[u8], name: &str) -> bool {
    lines.split(|&byte| byte == b'\n').any(|line| {
        let (start, rest) = line.split_at(name.len().min(line.len()));
        rest.first() == Some(&b':') && start.eq_ignore_ascii_case(name.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_the_site_is_added_when_there_is_none() {
        assert!(is_added(("X-A", "1"), []));
        assert!(!is_added(("X-A", "1"), ["2"]));
        assert!(!is_added(("Cache-Control", "no-store"), ["no-cache"]));
    }

    #[test]
    fn vary_is_added_unless_it_has_been_said() {
        for (site, own, added) in [
            ("Cookie", &[][..], true),
            ("Cookie", &["Accept-Encoding"], true),
            ("accept-encoding", &["Accept-Encoding"], false),
            ("Accept, Cookie", &["Accept-Encoding"], true),
            ("Accept, Cookie", &["Cookie ,accept,X"], false),
            ("Accept", &["*"], false),
            ("Accept", &["Cookie", "Accept"], false),
        ] {
            assert_eq!(is_added(("vary", site), own.iter().copied()), added, "{site} beside {own:?}");
        }
    }

    #[test]
    fn a_line_is_found_by_its_name() {
        let lines = b"X-Request-Id: 1\r\nStrict-Transport-Security: max-age=1\r\n";
        assert!(has_line(lines, "x-request-id") && has_line(lines, "strict-transport-security"));
        assert!(!has_line(lines, "x-request") && !has_line(lines, "max-age=1") && !has_line(b"", "x"));
        assert!(is_single("ETag") && !is_single("Set-Cookie") && !is_single("Vary"));
    }
}
