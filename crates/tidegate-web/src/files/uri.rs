//! Paths as they stand in a URI (RFC 3986, section 3.3).

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// What is encoded in a path.
pub(crate) const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// What is encoded in one segment of a path, which may stand in an attribute of a page.
pub(crate) const SEGMENT: &AsciiSet = &PATH.add(b'/').add(b'&').add(b'\'');

/// Where a directory is that was asked for without its slash. Built from the normalised path: what was sent could begin
/// with two slashes, which a client would take for another host.
pub(crate) fn directory_location(path: &[u8], query: Option<&[u8]>) -> String {
    let mut location = format!("/{}/", percent_encode(path, PATH));
    if let Some(query) = query {
        location.push('?');
        // Encodes nothing that a target may hold, so the query stays as it was sent.
        location.extend(percent_encode(query, CONTROLS));
    }
    location
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_stays_on_this_host_and_keeps_the_query() {
        assert_eq!(directory_location(b"evil.example", None), "/evil.example/");
        assert_eq!(directory_location(b"a b/c%\xff", Some(b"x=%20&y")), "/a%20b/c%25%FF/?x=%20&y");
    }
}
