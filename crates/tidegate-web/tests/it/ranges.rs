//! Parts of files: one range, several, and those that cannot be.

use tidegate_web::{FilesOptions, Web};

use crate::client::{Answer, Client, Server, get, request};
use crate::files::{noise, root, site};

fn ask(client: &mut Client, path: &str, lines: &str) -> Answer {
    client.ask(request("GET", path, lines))
}

#[test]
fn one_range_of_a_small_and_of_a_large_file_is_a_206() {
    let dir = site();
    let server = Server::start(Web::builder().root(root(&dir)));
    let mut client = server.connect();
    for (path, size) in [("/edge.bin", 16 << 10), ("/over.bin", (16 << 10) + 1), ("/large.bin", 5 << 20)] {
        let content = noise(size);
        let whole = client.ask(get(path));
        assert_eq!(whole.field("accept-ranges"), Some("bytes"));
        for (range, first, last) in [
            ("0-0", 0, 0),
            ("0-499", 0, 499),
            ("500-", 500, size - 1),
            ("-1", size - 1, size - 1),
            ("10000-99999999999999", 10_000, size - 1),
            ("-99999999999", 0, size - 1),
        ] {
            let answer = ask(&mut client, path, &format!("Range: bytes={range}\r\n"));
            assert_eq!(answer.status, 206, "{range}");
            let content_range = format!("bytes {first}-{last}/{size}");
            assert_eq!(answer.field("content-range"), Some(content_range.as_str()), "{path} {range}");
            assert!(answer.body == content[first..=last], "{path} {range}");
            for field in ["etag", "last-modified", "content-type"] {
                assert_eq!(answer.field(field), whole.field(field), "{field}");
            }
        }
    }
}

#[test]
fn several_ranges_come_in_parts() {
    let dir = site();
    let server = Server::start(Web::builder().root(root(&dir)));
    let mut client = server.connect();
    for (path, size) in [("/edge.bin", 16 << 10), ("/large.bin", 5 << 20)] {
        let content = noise(size);
        let answer = ask(&mut client, path, "Range: bytes=0-9, -5,100-8000\r\n");
        assert_eq!((answer.status, answer.field("content-range")), (206, None));
        let boundary = answer.field("content-type").unwrap();
        let boundary = boundary.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let mut expected = Vec::new();
        for (first, last) in [(0, 9), (size - 5, size - 1), (100, 8000)] {
            let line_end = if expected.is_empty() { "" } else { "\r\n" };
            expected.extend_from_slice(
                format!(
                    "{line_end}--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                     Content-Range: bytes {first}-{last}/{size}\r\n\r\n"
                )
                .as_bytes(),
            );
            expected.extend_from_slice(&content[first..=last]);
        }
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert!(answer.body == expected, "{path}");
        // Another answer, another boundary: nobody can put it into a file beforehand.
        let again = ask(&mut client, path, "Range: bytes=0-1,4-5\r\n");
        assert_ne!(again.field("content-type"), answer.field("content-type"));
    }
}

#[test]
fn what_is_not_there_is_a_416_and_what_is_no_range_is_ignored() {
    let dir = site();
    let server = Server::start(Web::builder().root(root(&dir)));
    let mut client = server.connect();
    for range in ["13-", "99-100", "13-,20-30", "-0"] {
        let answer = ask(&mut client, "/index.html", &format!("Range: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.field("content-range")), (416, Some("bytes */13")), "{range}");
    }
    let many = (0..17).map(|_| "0-0").collect::<Vec<_>>().join(",");
    for range in ["bytes=", "bytes=5-2", "lines=1-2", "bytes=0-12,0-12", &format!("bytes={many}")] {
        let answer = ask(&mut client, "/index.html", &format!("Range: {range}\r\n"));
        assert_eq!((answer.status, answer.text()), (200, "<h1>home</h1>"), "{range}");
    }
    let answer = ask(&mut client, "/empty.txt", "Range: bytes=0-\r\n");
    assert_eq!((answer.status, answer.field("content-range")), (416, Some("bytes */0")));
    client.send(request("HEAD", "/index.html", "Range: bytes=0-1\r\n"));
    let head = client.head();
    assert_eq!((head.status, head.field("content-length")), (200, Some("13")));
}

#[test]
fn if_range_decides_between_the_part_and_the_whole() {
    let dir = site();
    let server = Server::start(Web::builder().root(root(&dir)));
    let mut client = server.connect();
    let etag = client.ask(get("/index.html")).field("etag").unwrap().to_owned();
    let mut status = |condition: &str| {
        ask(&mut client, "/index.html", &format!("Range: bytes=0-1\r\nIf-Range: {condition}\r\n")).status
    };
    assert_eq!(status(&etag), 206);
    assert_eq!(status("\"other\""), 200);
    assert_eq!(status(&format!("W/{etag}")), 200);
    assert_eq!(status("Thu, 01 Jan 1970 00:00:00 GMT"), 200);
}

#[test]
fn preconditions_come_before_ranges() {
    let dir = site();
    let server = Server::start(Web::builder().root(root(&dir)));
    let mut client = server.connect();
    let etag = client.ask(get("/index.html")).field("etag").unwrap().to_owned();
    for (condition, status) in [
        (format!("If-None-Match: {etag}"), 304),
        ("If-Match: \"other\"".to_owned(), 412),
        (format!("If-Match: {etag}"), 206),
        ("If-None-Match: \"other\"".to_owned(), 206),
    ] {
        let lines = format!("Range: bytes=0-1\r\n{condition}\r\n");
        assert_eq!(ask(&mut client, "/index.html", &lines).status, status, "{condition}");
    }
    // Neither the order of the fields nor a range that cannot be changes that.
    let lines = format!("If-None-Match: {etag}\r\nRange: bytes=99-\r\n");
    assert_eq!(ask(&mut client, "/index.html", &lines).status, 304);
}

#[test]
fn ranges_can_be_limited_and_switched_off() {
    let dir = site();
    let ask = |max, range: &str| {
        let options = FilesOptions::new(root(&dir)).max_ranges(max);
        let server = Server::start(Web::builder().files(options));
        server.ask(request("GET", "/index.html", &format!("Range: bytes={range}\r\n"))).status
    };
    assert_eq!((ask(2, "0-0,1-1"), ask(2, "0-0,1-1,2-2"), ask(0, "0-0")), (206, 200, 200));
}
