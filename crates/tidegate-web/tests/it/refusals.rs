//! Every status that refuses a request, and what becomes of the connection.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_web::{Status, Web};

use crate::client::{Server, get, request};
use crate::corpus::malformed;

fn server() -> Server {
    Server::start(Web::builder().respond("/hello", Status::OK, "", "Hello, World!"))
}

#[test]
fn a_request_that_cannot_be_understood_ends_its_connection() {
    let server = server();
    for entry in malformed() {
        let mut client = server.connect();
        // What comes behind it is not taken for a request. The server may have hung up before all of it has come.
        let sent = [&entry.request, get("/hello").as_bytes()].concat();
        client.offer(&sent);
        let answer = client.answer();
        assert_eq!(answer.status, entry.status, "{}", entry.why);
        assert!(answer.closes(), "{}", entry.why);
        client.expect_end();
    }
}

#[test]
fn the_refusal_of_a_head_request_has_no_content() {
    let server = server();
    let requests = malformed().into_iter().filter_map(|entry| {
        let rest = entry.request.strip_prefix(b"GET ")?.to_vec();
        Some((entry.status, entry.why, rest))
    });
    let mut statuses = BTreeSet::new();
    for (status, why, rest) in requests {
        let mut client = server.connect();
        client.offer(&[b"HEAD ", &rest[..], get("/hello").as_bytes()].concat());
        let answer = client.head();
        assert_eq!((answer.status, answer.closes()), (status, true), "{why}");
        assert_ne!(answer.field("content-length"), Some("0"), "what GET would get, {why}");
        client.expect_end();
        statuses.insert(status);
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [400, 414, 431, 501, 505]);
}

#[test]
fn whatever_ends_the_request_of_a_head_has_no_content() {
    let short = Duration::from_millis(100);
    let server = Server::start(
        Web::builder()
            .respond("/hello", Status::OK, "", "Hello, World!")
            .max_body_bytes(10)
            .head_timeout(short)
            .body_timeout(short),
    );
    for (status, text) in [
        (400, request("HEAD", "/hello", "Transfer-Encoding: chunked\r\n") + "x"),
        (408, "HEAD /hel".to_owned()),
        (408, "HEAD /hello HTTP/1.1\r\nHost: a\r\n".to_owned()),
        (408, request("HEAD", "/hello", "Content-Length: 5\r\n") + "ab"),
        (413, request("HEAD", "/hello", "Content-Length: 50\r\n")),
        (413, request("HEAD", "/hello", "Transfer-Encoding: chunked\r\n") + "b\r\n12345678901"),
    ] {
        let mut client = server.connect();
        client.send(&text);
        let answer = client.head();
        assert_eq!((answer.status, answer.closes()), (status, true), "{text:?}");
        client.expect_end();
    }
    // A method that has not been read could be any.
    for text in ["HEAD", "HEADS / HTTP/1.1\r\n", "HEAD\n"] {
        let mut client = server.connect();
        client.send(text);
        assert!(!client.answer().body.is_empty(), "{text:?}");
        client.expect_end();
    }
}

#[test]
fn a_malformed_request_that_comes_byte_by_byte_gets_the_same_answer() {
    let server = server();
    // Every connection costs as many packets as its request has bytes, so the long ones stay out.
    for entry in malformed().iter().filter(|entry| entry.request.len() < 120).step_by(3) {
        let mut client = server.connect();
        for byte in entry.request.chunks(1).chain([get("/hello").as_bytes()]) {
            client.offer(byte);
        }
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (entry.status, true), "{}", entry.why);
        client.expect_end();
    }
}

#[test]
fn a_malformed_request_behind_good_ones_is_the_last() {
    let server = server();
    for entry in malformed().iter().step_by(7) {
        let mut client = server.connect();
        client.offer(&[get("/hello").as_bytes(), &get("/missing").into_bytes(), &entry.request].concat());
        let statuses = [client.answer().status, client.answer().status, client.answer().status];
        assert_eq!(statuses, [200, 404, entry.status], "{}", entry.why);
        client.expect_end();
    }
}

#[test]
fn options_for_the_whole_server_are_answered() {
    let server = server();
    let mut client = server.connect();
    for text in [request("OPTIONS", "*", ""), request("OPTIONS", "http://a:80", "")] {
        let answer = client.ask(text);
        assert_eq!((answer.status, answer.closes(), answer.text()), (200, false, ""));
        assert_eq!(answer.field("allow"), Some("GET, HEAD, OPTIONS"));
    }
    assert_eq!(client.ask(get("/hello")).status, 200);
}

#[test]
fn a_request_that_is_understood_and_refused_keeps_its_connection() {
    let server = server();
    let mut client = server.connect();
    let cases = [
        (404, get("/missing")),
        (404, get("/")),
        (405, request("POST", "/hello", "Content-Length: 0\r\n")),
        (405, request("DELETE", "/hello", "")),
        (405, request("OPTIONS", "/hello", "")),
        (405, request("TRACE", "/hello", "")),
        (417, request("GET", "/hello", "Expect: a-miracle\r\n")),
        (400, get("/../etc/passwd")),
        (400, get("/%2e%2e/etc/passwd")),
        (400, get("/..%2fetc/passwd")),
        (400, get("/%00")),
        (400, get("/%zz")),
        (501, request("BREW", "/hello", "")),
        (501, request("get", "/hello", "")),
    ];
    for (status, text) in cases {
        let answer = client.ask(&text);
        assert_eq!((answer.status, answer.closes()), (status, false), "{text:?}");
        assert_eq!(answer.field("allow"), (status == 405).then_some("GET, HEAD"), "{text:?}");
        assert!(answer.text().contains(&status.to_string()), "the page names the status");
        assert_eq!(client.ask(get("/hello")).status, 200, "after {text:?}");
    }
}

#[test]
fn what_follows_a_connect_is_not_taken_for_a_request() {
    let server = server();
    let mut client = server.connect();
    let answer = client.ask(request("CONNECT", "a:443", "") + &get("/hello"));
    assert_eq!((answer.status, answer.closes()), (405, true));
    client.expect_end();
}

#[test]
fn answers_before_a_bad_request_are_delivered() {
    let server = server();
    let mut client = server.connect();
    client.send(get("/hello") + &get("/hello") + "bad\r\n\r\n" + &get("/hello"));
    let statuses: Vec<u16> = (0..3).map(|_| client.answer().status).collect();
    assert_eq!(statuses, [200, 200, 400]);
    client.expect_end();
}

#[test]
fn a_client_of_tls_is_told_in_plain_words() {
    let server = server();
    let mut client = server.connect();
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert_eq!(client.answer().status, 400);
    client.expect_end();
}
