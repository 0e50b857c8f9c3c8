//! Request bodies: dropped, limited, awaited, and never taken for requests.

use tidegate_web::{Status, Web};

use crate::client::{Server, get, request};

const MAX: usize = 10 << 20;

fn server() -> Server {
    Server::start(Web::builder().respond("/hello", Status::OK, "", "Hello, World!"))
}

/// The chunked coding of `len` bytes, in chunks of at most `size`.
fn chunked(len: usize, size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut left = len;
    while left > 0 {
        let take = left.min(size);
        out.extend_from_slice(format!("{take:x};ext=1\r\n").as_bytes());
        out.resize(out.len() + take, b'x');
        out.extend_from_slice(b"\r\n");
        left -= take;
    }
    out.extend_from_slice(b"0\r\nTrailer: t\r\n\r\n");
    out
}

#[test]
fn bodies_up_to_the_limit_are_dropped_and_the_connection_goes_on() {
    let server = server();
    let mut client = server.connect();
    for len in [1, 5, 70_000, MAX] {
        client.send(request("POST", "/hello", &format!("Content-Length: {len}\r\n")));
        client.send(vec![b'G'; len]);
        assert_eq!(client.answer().status, 405, "{len}");
        client.send(request("POST", "/hello", "Transfer-Encoding: chunked\r\n"));
        // Not so many chunks that what stands beside their sizes is too much.
        client.send(chunked(len, 9000.max(len / 100)));
        assert_eq!(client.answer().status, 405, "{len} chunked");
        assert_eq!(client.ask(get("/hello")).status, 200);
    }
}

#[test]
fn a_get_with_a_body_is_answered_when_the_body_has_ended() {
    let server = server();
    let mut client = server.connect();
    client.send(request("GET", "/hello", "Content-Length: 30\r\n") + "GET /missing HTTP/1.1\r\nHost: ");
    client.send(b"a\r\n");
    client.send(get("/missing"));
    let statuses = [client.answer().status, client.answer().status];
    assert_eq!(statuses, [200, 404]);
}

#[test]
fn a_body_that_announces_too_much_is_refused_before_it_comes() {
    let server = server();
    for method in ["GET", "POST"] {
        for length in [(MAX + 1).to_string(), "99999999999999999999999999".to_owned()] {
            let mut client = server.connect();
            let answer = client.ask(request(method, "/hello", &format!("Content-Length: {length}\r\n")));
            assert_eq!((answer.status, answer.closes()), (413, true), "{method} {length}");
            client.expect_end();
        }
    }
}

#[test]
fn a_chunked_body_is_refused_when_it_has_grown_too_large() {
    let server = server();
    let mut client = server.connect();
    client.send(request("POST", "/hello", "Transfer-Encoding: chunked\r\n"));
    let body = chunked(MAX + 1, 40_960);
    // Up to the last byte of data, so that nothing is under way when the server ends the connection.
    client.send(&body[..body.len() - b"\r\n0\r\nTrailer: t\r\n\r\n".len()]);
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (413, true));
    client.expect_end();
}

#[test]
fn a_broken_chunk_ends_the_connection() {
    let server = server();
    for body in ["x\r\n", "5\r\nhelloX", "5\nhello", "ffffffffffffffffff\r\n", "0\r\n bad: x\r\n\r\n"] {
        let mut client = server.connect();
        client.send(request("POST", "/hello", "Transfer-Encoding: chunked\r\n") + body);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (400, true), "{body:?}");
        client.expect_end();
    }
}

#[test]
fn who_expects_100_is_told_to_go_on_when_the_request_will_be_served() {
    let server = server();
    let mut client = server.connect();
    let lines = "Content-Length: 3\r\nExpect: 100-continue\r\n";
    client.send(request("GET", "/hello", lines));
    assert_eq!(client.answer().status, 100);
    client.send("abc");
    assert_eq!(client.answer().status, 200);

    // Without a body there is nothing to wait for.
    assert_eq!(client.ask(request("GET", "/hello", "Expect: 100-continue\r\n")).status, 200);

    // HTTP/1.0 knows no interim answers.
    let text = format!("GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n{lines}\r\nabc");
    assert_eq!(client.ask(text).status, 200);
}

#[test]
fn who_expects_100_is_refused_when_the_request_will_not_be_served() {
    let server = server();
    for (method, length, status) in [("POST", 3, 405), ("BREW", 3, 501), ("POST", MAX + 1, 413)] {
        let mut client = server.connect();
        let lines = format!("Content-Length: {length}\r\nExpect: 100-continue\r\n");
        let answer = client.ask(request(method, "/hello", &lines));
        assert_eq!((answer.status, answer.closes()), (status, true), "{method} {length}");
        client.expect_end();
    }
    let mut client = server.connect();
    let answer = client.ask(request("GET", "/hello", "Content-Length: 3\r\nExpect: a-miracle\r\n"));
    assert_eq!((answer.status, answer.closes()), (417, true));
    client.expect_end();
}
