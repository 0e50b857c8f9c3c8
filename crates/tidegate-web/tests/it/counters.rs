//! What is counted, and the reason under which each kind of end is known.

use std::time::Duration;

use tidegate_engine::Reason;
use tidegate_web::{Status, Web};

use crate::client::{Server, eventually, get, request};
use crate::files::{root, site};

#[test]
fn requests_answers_and_mistakes_are_counted() {
    let dir = site();
    let server =
        Server::start(Web::builder().root(root(&dir)).respond("/hello", Status::OK, "", "Hello, World!"));
    let mut client = server.connect();
    for (path, status) in [("/hello", 200), ("/", 200), ("/dir", 301), ("/missing", 404), ("/../x", 400)] {
        assert_eq!(client.ask(get(path)).status, status, "{path}");
    }
    assert_eq!(client.ask(request("BREW", "/", "")).status, 501);
    assert_eq!(client.ask(request("POST", "/", "Content-Length: 20000000\r\n")).status, 413);
    assert_eq!(server.ask("nonsense\r\n\r\n").status, 400);
    for (name, count) in [
        ("requests", 7),
        ("responses_2xx", 2),
        ("responses_3xx", 1),
        ("responses_4xx", 4),
        ("responses_5xx", 1),
        ("bad_requests", 1),
        ("bodies_too_large", 1),
        ("files_opened", 3),
        ("request_timeouts", 0),
        ("descriptors_exhausted", 0),
    ] {
        assert_eq!(server.counter(name), count, "{name}");
    }
}

#[test]
fn each_end_has_its_reason() {
    let short = Duration::from_millis(100);
    let server = Server::start(
        Web::builder()
            .respond("/hello", Status::OK, "", "Hello, World!")
            .keep_alive(short * 7)
            .head_timeout(short)
            .body_timeout(short),
    );
    for (text, answers, reason) in [
        (request("GET", "/hello", "Connection: close\r\n"), 1, Reason::DONE),
        (get("/hello"), 1, Reason::KEEP_ALIVE_TIMEOUT),
        (String::new(), 0, Reason::KEEP_ALIVE_TIMEOUT),
        ("GET / HT".to_owned(), 1, Reason::HEAD_TIMEOUT),
        (request("POST", "/hello", "Content-Length: 5\r\n") + "ab", 1, Reason::BODY_TIMEOUT),
        ("nonsense\r\n\r\n".to_owned(), 1, Reason::PROTOCOL_ERROR),
        (request("POST", "/hello", "Content-Length: 20000000\r\n"), 1, Reason::PROTOCOL_ERROR),
    ] {
        let before = server.metrics().closed(reason);
        let mut client = server.connect();
        client.send(&text);
        for _ in 0..answers {
            client.answer();
        }
        client.expect_end();
        drop(client);
        eventually(|| server.metrics().closed(reason) == before + 1);
    }
    assert_eq!(server.counter("request_timeouts"), 2);

    let server = Server::start(Web::builder().respond("/hello", Status::OK, "", "Hello, World!"));
    let mut client = server.connect();
    assert_eq!(client.ask(get("/hello")).status, 200);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    client.expect_end();
    eventually(|| server.metrics().closed(Reason::PEER_CLOSED) == 1);
}
