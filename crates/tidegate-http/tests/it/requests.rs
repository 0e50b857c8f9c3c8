//! Reads a request with its body as a server does, from pieces; and requests that are to be taken, with what they say.

use tidegate_http::{BodyFraming, ChunkedDecoder, Head, HeadLimits, HeadParser, HttpError, Parsed};

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not complete.
    Need,
    Refused(HttpError),
    /// Head, data of the body, and how many bytes all of it took.
    Request(Head, Vec<u8>, usize),
}

/// Gives the pieces to the parser, and what follows the head to the decoder that the head asks for.
pub(crate) fn read(pieces: &[&[u8]]) -> Outcome {
    let limits = HeadLimits::default();
    let (mut parser, mut decoder) = (HeadParser::new(), None);
    let (mut input, mut taken, mut body) = (Vec::new(), 0, Vec::new());
    let mut head = None;
    for piece in pieces {
        input.extend_from_slice(piece);
        if head.is_none() {
            match parser.parse(&input, &limits) {
                Ok(Parsed::Need) => continue,
                Ok(Parsed::Head(found)) => {
                    taken = found.end();
                    decoder = Some(ChunkedDecoder::for_request(&found, &limits));
                    head = Some(found);
                }
                Err(error) => return Outcome::Refused(error),
            }
        }
        let (Some(head), Some(decoder)) = (head, &mut decoder) else { continue };
        match read_body(head, decoder, &input, &mut taken, &mut body) {
            Ok(false) => {}
            Ok(true) => return Outcome::Request(head, body, taken),
            Err(error) => return Outcome::Refused(error),
        }
    }
    Outcome::Need
}

/// True when the body has ended.
fn read_body(
    head: Head,
    decoder: &mut ChunkedDecoder,
    input: &[u8],
    taken: &mut usize,
    body: &mut Vec<u8>,
) -> Result<bool, HttpError> {
    let length = match head.body() {
        BodyFraming::None => 0,
        BodyFraming::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
        BodyFraming::Chunked => {
            while *taken < input.len() {
                let step = decoder.step(&input[*taken..])?;
                body.extend_from_slice(&input[*taken..][step.data]);
                *taken += step.consumed;
                if step.done {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
    };
    let take = (length - body.len()).min(input.len() - *taken);
    body.extend_from_slice(&input[*taken..*taken + take]);
    *taken += take;
    Ok(body.len() == length)
}

/// The ways in which a request may arrive: byte by byte, and in two pieces at every place. Of a long one not every way.
pub(crate) fn splits(request: &[u8]) -> Vec<Vec<&[u8]>> {
    let long = request.len() > 1000;
    let mut ways = vec![request.chunks(if long { 61 } else { 1 }).collect()];
    for at in (1..request.len()).step_by(if long { 251 } else { 1 }) {
        ways.push(vec![&request[..at], &request[at..]]);
    }
    ways
}

/// Reads a request in every way, and insists on one outcome that takes all of it.
#[track_caller]
fn taken(request: &[u8]) -> (Head, Vec<u8>) {
    let whole = read(&[request]);
    for pieces in splits(request) {
        assert_eq!(read(&pieces), whole, "{}", request.escape_ascii());
    }
    let followed = [request, b"GET / HTTP/1.1\r\n"].concat();
    assert_eq!(read(&[&followed]), whole, "with another request behind it");
    match whole {
        Outcome::Request(head, body, len) if len == request.len() => (head, body),
        other => panic!("{}: {other:?}", request.escape_ascii()),
    }
}

#[test]
fn the_messages_of_the_rfc_are_taken() {
    // RFC 9110, sections 3.9, 7.7, 9.3.6, 9.3.7, 10.1.1, 12.5; RFC 9112, sections 3.2, 7.1.
    let cases: [(&str, &str, &str); 13] = [
        (
            "GET /hello.txt HTTP/1.1\r\nUser-Agent: curl/7.64.1\r\nHost: www.example.com\r\nAccept-Language: en, mi\r\n\r\n",
            "/hello.txt",
            "www.example.com",
        ),
        ("GET /where?q=now HTTP/1.1\r\nHost: www.example.org\r\n\r\n", "/where", "www.example.org"),
        (
            "GET http://www.example.org/pub/WWW/TheProject.html HTTP/1.1\r\nHost: other\r\n\r\n",
            "/pub/WWW/TheProject.html",
            "www.example.org",
        ),
        (
            "CONNECT www.example.com:80 HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
            "www.example.com:80",
            "www.example.com",
        ),
        (
            "CONNECT server.example.com:443 HTTP/1.1\r\nHost: server.example.com:80\r\nProxy-Authorization: basic aGVsbG86d29ybGQ=\r\n\r\n",
            "server.example.com:443",
            "server.example.com",
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: www.example.org:8001\r\n\r\n", "*", "www.example.org"),
        ("OPTIONS http://www.example.org:8001 HTTP/1.1\r\nHost: a\r\n\r\n", "*", "www.example.org"),
        (
            "PUT /somewhere/fun HTTP/1.1\r\nHost: origin.example.com\r\nContent-Type: video/h264\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nfour",
            "/somewhere/fun",
            "origin.example.com",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nAccept: text/*;q=0.3, text/plain;q=0.7, text/plain;format=flowed\r\nAccept-Encoding: gzip;q=1.0, identity; q=0.5, *;q=0\r\n\r\n",
            "/",
            "a",
        ),
        ("DELETE /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "/a", "a"),
        (
            "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Expires\r\n\r\n4\r\nfour\r\n0\r\nExpires: now\r\n\r\n",
            "/b",
            "a",
        ),
        ("TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nVia: 1.1 p\r\n\r\n", "/", "a"),
        (
            "GET / HTTP/1.1\r\nHost: [2001:db8::7]:8443\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "/",
            "[2001:db8::7]",
        ),
    ];
    for (request, path, host) in cases {
        let bytes = request.as_bytes();
        let (head, body) = taken(bytes);
        assert_eq!(head.path(bytes), path.as_bytes(), "{request}");
        assert_eq!(head.host(bytes).map(|host| host.name().into_owned()).as_deref(), Some(host), "{request}");
        assert_eq!(body, if request.contains("four") { &b"four"[..] } else { b"" }, "{request}");
    }
}

#[test]
fn bodies_end_where_their_framing_says() {
    for (request, body) in [
        ("POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n\r\n\0", &b"\r\n\0"[..]),
        ("\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", b"x"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=\"\\\"\"\r\na\r\n\r\n0\r\n\r\n",
            b"a\r\n",
        ),
    ] {
        assert_eq!(taken(request.as_bytes()).1, body, "{request}");
    }
}

#[test]
fn empty_lines_extensions_and_trailers_share_one_limit() {
    let limits = HeadLimits::default();
    // A trailer `X: a…a` with its line end has 5 bytes more than its value.
    let request = |lines: usize, value: usize| {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{}{head}0\r\nX: {}\r\n\r\n", "\r\n".repeat(lines), "a".repeat(value))
    };
    for lines in [0, 1, 100, 1000] {
        let left = limits.max_overhead_bytes - 2 * lines;
        assert!(matches!(read(&[request(lines, left - 4).as_bytes()]), Outcome::Request(..)), "{lines}");
        assert_eq!(
            read(&[request(lines, left - 3).as_bytes()]),
            Outcome::Refused(HttpError::ChunkOverhead),
            "{lines}"
        );
    }
}
