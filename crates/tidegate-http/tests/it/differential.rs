//! The head parser against `httparse`, which hyper uses: whatever we take, it takes and reads alike; what only it takes is
//! on a list.

use proptest::prelude::*;
use tidegate_http::{Head, HeadLimits, HttpError, Parsed, Version, parse_head};

use crate::corpus::malformed;

/// What the other parser makes of a head.
#[derive(Debug, PartialEq, Eq)]
enum Theirs {
    Partial,
    Refused(httparse::Error),
    Head(Lines),
}

/// A head by its parts: method, target, minor version, fields and length.
type Lines = (Vec<u8>, Vec<u8>, u8, Vec<(Vec<u8>, Vec<u8>)>, usize);

fn theirs(input: &[u8]) -> Theirs {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(input) {
        Ok(httparse::Status::Partial) => Theirs::Partial,
        Err(error) => Theirs::Refused(error),
        Ok(httparse::Status::Complete(len)) => Theirs::Head((
            request.method.unwrap_or_default().into(),
            request.path.unwrap_or_default().into(),
            request.version.unwrap_or_default(),
            request.headers.iter().map(|field| (field.name.into(), field.value.to_vec())).collect(),
            len,
        )),
    }
}

fn lines(head: &Head, input: &[u8]) -> Lines {
    (
        head.method_token(input).to_vec(),
        head.target(input).to_vec(),
        u8::from(head.version() == Version::Http11),
        head.fields(input).map(|field| (field.name.to_vec(), field.value.to_vec())).collect(),
        head.end(),
    )
}

/// Why we refuse a head that `httparse` takes. Everything else has to be refused by both.
fn is_known_difference(error: HttpError, input: &[u8]) -> bool {
    let bare_line_feed =
        || input.iter().enumerate().any(|(at, &b)| b == b'\n' && (at == 0 || input[at - 1] != b'\r'));
    let target = || {
        let Theirs::Head((_, target, ..)) = theirs(input) else { return Vec::new() };
        target
    };
    match error {
        // RFC 9112, section 2.2, lets a line feed alone end a line. A proxy in front may see it differently.
        HttpError::LineEnd => bare_line_feed(),
        // It takes bytes in a target that no URI has: above ASCII, and `"<>#\`.
        HttpError::RequestLine => target().iter().any(|b| !b.is_ascii() || b"\"<>#\\".contains(b)),
        // It leaves the meaning of target, fields and their combination to its caller.
        HttpError::Target
        | HttpError::Host
        | HttpError::ContentLength
        | HttpError::AmbiguousLength
        | HttpError::TransferEncoding
        | HttpError::UnknownTransferCoding => true,
        // It has no limits but the number of fields.
        HttpError::MethodTooLong
        | HttpError::TargetTooLong
        | HttpError::HeadTooLarge
        | HttpError::TooManyFields
        | HttpError::EmptyLines => true,
        HttpError::Version
        | HttpError::VersionNotSupported
        | HttpError::Field
        | HttpError::Folding
        | HttpError::Chunk
        | HttpError::ChunkOverhead => false,
    }
}

/// A minor version above 1, which counts as 1 with us (RFC 9110, section 2.5), and is refused there.
fn has_later_minor_version(input: &[u8]) -> bool {
    input.windows(9).any(|w| w.starts_with(b"HTTP/1.") && (b'2'..=b'9').contains(&w[7]) && w[8] == b'\r')
}

/// Compares the two, and says what is wrong.
fn disagreement(input: &[u8]) -> Option<String> {
    let theirs = theirs(input);
    let ours = parse_head(input, &HeadLimits::default());
    let agree = match (&ours, &theirs) {
        (Ok(Parsed::Head(head)), Theirs::Head(other)) => lines(head, input) == *other,
        (Ok(_), Theirs::Refused(httparse::Error::Version)) => has_later_minor_version(input),
        (Ok(Parsed::Head(_)), _) => false,
        (Ok(Parsed::Need), Theirs::Partial) => true,
        (Ok(Parsed::Need), _) => false,
        (Err(error), Theirs::Head(_)) => is_known_difference(*error, input),
        // We may see earlier that a head cannot become one any more.
        (Err(_), Theirs::Partial | Theirs::Refused(_)) => true,
    };
    (!agree).then(|| format!("{}: {ours:?}, but {theirs:?}", input.escape_ascii()))
}

#[test]
fn the_differences_are_those_that_are_listed() {
    let host = "Host: a\r\n";
    for (request, ours) in [
        (format!("GET / HTTP/1.1\n{host}\r\n"), HttpError::LineEnd),
        (format!("GET / HTTP/1.1\r\n{host}\n"), HttpError::LineEnd),
        (format!("\nGET / HTTP/1.1\r\n{host}\r\n"), HttpError::LineEnd),
        (format!("GET /\u{e4} HTTP/1.1\r\n{host}\r\n"), HttpError::RequestLine),
        (format!("GET /#a HTTP/1.1\r\n{host}\r\n"), HttpError::RequestLine),
        (format!("GET a HTTP/1.1\r\n{host}\r\n"), HttpError::Target),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), HttpError::Host),
        (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), HttpError::Host),
        (format!("GET / HTTP/1.1\r\n{host}Content-Length: +1\r\n\r\n"), HttpError::ContentLength),
        (
            format!("GET / HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            HttpError::AmbiguousLength,
        ),
        (
            format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding: chunked, x\r\n\r\n"),
            HttpError::TransferEncoding,
        ),
        (format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding: x\r\n\r\n"), HttpError::UnknownTransferCoding),
        (format!("{} / HTTP/1.1\r\n{host}\r\n", "M".repeat(33)), HttpError::MethodTooLong),
        (format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(9000)), HttpError::TargetTooLong),
        (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "A: b\r\n".repeat(100)), HttpError::TooManyFields),
        (format!("GET / HTTP/1.1\r\n{host}A: {}\r\n\r\n", "b".repeat(17_000)), HttpError::HeadTooLarge),
        (format!("{}GET / HTTP/1.1\r\n{host}\r\n", "\r\n".repeat(2049)), HttpError::EmptyLines),
    ] {
        let input = request.as_bytes();
        assert!(matches!(theirs(input), Theirs::Head(_)), "{}: {:?}", input.escape_ascii(), theirs(input));
        assert_eq!(parse_head(input, &HeadLimits::default()), Err(ours), "{}", input.escape_ascii());
        assert_eq!(disagreement(input), None);
    }
    let later = b"GET / HTTP/1.2\r\nHost: a\r\n\r\n";
    assert_eq!(theirs(later), Theirs::Refused(httparse::Error::Version));
    assert!(matches!(parse_head(later, &HeadLimits::default()), Ok(Parsed::Head(_))));
}

#[test]
fn malformed_requests_are_refused_by_both_or_are_known_differences() {
    let mut only_ours = 0;
    for entry in malformed() {
        assert_eq!(disagreement(&entry.request), None, "{}", entry.why);
        let refused = parse_head(&entry.request, &HeadLimits::default()).is_err();
        only_ours += usize::from(refused && matches!(theirs(&entry.request), Theirs::Head(_)));
    }
    assert!(only_ours > 50, "{only_ours} requests that httparse takes");
}

/// Heads whose changes meet most of the grammar.
const BASES: [&str; 4] = [
    "GET /a/b?c=d HTTP/1.1\r\nHost: example.org:80\r\nAccept: */*\r\nX: \t y \r\n\r\n",
    "HEAD / HTTP/1.0\r\n\r\n",
    "\r\nPOST http://a/%20 HTTP/1.1\r\nX-Long: two words\r\nhost:\ta\r\nContent-Length: 12\r\n\r\n",
    "X-Y / HTTP/1.1\r\nA:\r\nHost: a\r\nB: \t \r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
];

#[test]
fn every_byte_at_every_place_is_judged_alike() {
    for base in BASES.map(str::as_bytes) {
        for at in 0..base.len() {
            let removed = [&base[..at], &base[at + 1..]].concat();
            assert_eq!(disagreement(&removed), None);
            for byte in 0..=255 {
                let replaced = [&base[..at], &[byte], &base[at + 1..]].concat();
                assert_eq!(disagreement(&replaced), None);
                let inserted = [&base[..at], &[byte], &base[at..]].concat();
                assert_eq!(disagreement(&inserted), None);
            }
        }
    }
}

/// Pieces of heads, so that what is put together is nearly one.
const PIECES: &[&[u8]] = &[
    b"GET ",
    b"POST",
    b"OPTIONS * ",
    b"/",
    b"/a?b=c ",
    b" ",
    b"http://a.b:1/c ",
    b"HTTP/1.1\r\n",
    b"HTTP/1.0\r\n",
    b"HTTP/1.7\r\n",
    b"HTTP/2.0\r\n",
    b"Host: a\r\n",
    b"Host:\tb.c:80 \r\n",
    b"X-Y: z z\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close, x\r\n",
    b":",
    b"a",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\t",
    b"\0",
    b"\x7f",
    b"\x80",
    b"\"",
    b"#",
    b"Empty:\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn heads_of_pieces_are_read_alike(
        pieces in proptest::collection::vec(prop::sample::select(PIECES), 0..10),
        complete in any::<bool>(),
    ) {
        let mut input = pieces.concat();
        if complete {
            input = [b"GET / HTTP/1.1\r\nHost: a\r\n", &input[..], b"\r\n\r\n"].concat();
        }
        prop_assert_eq!(disagreement(&input), None);
    }

    #[test]
    fn changed_heads_are_read_alike(
        base in 0..4usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        inserted in proptest::option::of((any::<prop::sample::Index>(), prop::sample::select(&b" \t\r\n:,\0;\"\x80"[..]))),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut text = BASES[base].as_bytes().to_vec();
        for (index, byte) in changes {
            let at = index.index(text.len());
            text[at] = byte;
        }
        if let Some((index, byte)) = inserted {
            text.insert(index.index(text.len()), byte);
        }
        if !whole {
            text.truncate(cut.index(text.len()));
        }
        prop_assert_eq!(disagreement(&text), None);
    }
}
