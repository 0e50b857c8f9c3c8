//! Every status that refuses a request, and what becomes of the connection.

use tidegate_web::{Status, Web};

use crate::client::{Server, get, request};

fn server() -> Server {
    Server::start(Web::builder().respond("/hello", Status::OK, "", "Hello, World!"))
}

#[test]
fn a_request_that_cannot_be_understood_ends_its_connection() {
    let server = server();
    let host = "Host: a\r\n";
    let cases = [
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (400, "GET /\r\n\r\n".to_owned()),
        (400, "nonsense\r\n\r\n".to_owned()),
        (400, "GET / HTTP/1.1\nHost: a\n\n".to_owned()),
        (400, format!("GET / HTTP/1.1\r\n{host}{host}\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}A : b\r\n\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}A: b\r\n c\r\n\r\n")),
        (400, format!("GET / HTTP/1.1\r\n{host}A: \0\r\n\r\n")),
        (400, format!("GET /\u{1} HTTP/1.1\r\n{host}\r\n")),
        (400, format!("GET / HTTP/1.x\r\n{host}\r\n")),
        (400, format!("POST / HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n")),
        (400, format!("POST / HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 1\r\n\r\n")),
        (400, format!("POST / HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")),
        (400, format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked, x\r\n\r\n")),
        (400, format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nx")),
        (414, format!("GET /{} HTTP/1.1\r\n{host}\r\n", "t".repeat(8192))),
        (431, format!("GET / HTTP/1.1\r\n{host}A: {}\r\n\r\n", "a".repeat(16 << 10))),
        (431, format!("GET / HTTP/1.1\r\n{host}{}\r\n", "A: b\r\n".repeat(100))),
        (501, format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip\r\n\r\n")),
        (505, format!("GET / HTTP/2.0\r\n{host}\r\n")),
    ];
    for (status, text) in cases {
        let mut client = server.connect();
        // What comes behind it is not taken for a request.
        client.send(text.clone() + &get("/hello"));
        let answer = client.answer();
        assert_eq!(answer.status, status, "{text:?}");
        assert!(answer.closes(), "{text:?}");
        client.expect_end();
    }
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
        (405, request("OPTIONS", "*", "")),
        (405, request("TRACE", "/hello", "")),
        (405, request("CONNECT", "a:1", "")),
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
