//! Deadlines and the end of a server.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tidegate_engine::Reason;
use tidegate_web::{Status, Web, WebBuilder};

use crate::client::{PATIENCE, Server, eventually, get, request};

/// Soon for a deadline that is to pass, and far for one that is not: nobody asserts how long it takes.
const SHORT: Duration = Duration::from_millis(100);
const LONGER: Duration = Duration::from_millis(700);

fn hello() -> WebBuilder {
    Web::builder().respond("/hello", Status::OK, "", "Hello, World!")
}

#[test]
fn a_head_that_does_not_end_is_408() {
    let server = Server::start(hello().head_timeout(SHORT));
    for start in ["G", "GET /hello HTTP/1.1\r\nHost: a\r\n", "\r\n"] {
        let mut client = server.connect();
        client.send(start);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (408, true), "{start:?}");
        client.expect_end();
    }
    // Also behind a request that was answered.
    let mut client = server.connect();
    client.send(get("/hello") + "GET ");
    assert_eq!(client.answer().status, 200);
    assert_eq!(client.answer().status, 408);
    client.expect_end();
}

#[test]
fn a_body_that_stands_still_is_408() {
    let server = Server::start(hello().body_timeout(SHORT));
    for (lines, part) in [
        ("Content-Length: 5\r\n", ""),
        ("Content-Length: 5\r\n", "abc"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nab"),
    ] {
        let mut client = server.connect();
        client.send(request("POST", "/hello", lines) + part);
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (408, true), "{lines} {part}");
        client.expect_end();
    }
}

#[test]
fn a_body_that_trickles_is_408_for_a_reason_of_its_own() {
    let server = Server::start(hello().min_rate(100_000).min_rate_grace(SHORT));
    for (lines, part) in [
        ("Content-Length: 1000000\r\n", "x"),
        ("Transfer-Encoding: chunked\r\n", "1\r\nx\r\n"),
        ("Transfer-Encoding: chunked\r\n", "FFFFFF\r\nx"),
    ] {
        let before = server.metrics().closed(Reason::SLOW_BODY);
        let mut client = server.connect();
        client.send(request("POST", "/hello", lines));
        let mut stream = client.stream.try_clone().unwrap();
        // Each byte comes long before the time in which it would stand still.
        let trickling = std::thread::spawn(move || {
            while stream.write_all(part.as_bytes()).is_ok() {
                std::thread::park_timeout(SHORT / 10);
            }
        });
        let answer = client.answer();
        assert_eq!((answer.status, answer.closes()), (408, true), "{lines} {part}");
        client.stream.shutdown(std::net::Shutdown::Both).unwrap();
        trickling.join().unwrap();
        eventually(|| server.metrics().closed(Reason::SLOW_BODY) == before + 1);
    }
    // Without a lowest rate it is waited for as long as it moves.
    let server = Server::start(hello().min_rate(0).min_rate_grace(SHORT));
    let mut client = server.connect();
    client.send(request("POST", "/hello", "Content-Length: 30\r\n"));
    for _ in 0..30 {
        client.send("x");
        std::thread::park_timeout(SHORT / 10);
    }
    assert_eq!(client.answer().status, 405);
}

#[test]
fn a_client_that_does_not_read_its_answer_is_reset() {
    let long = vec![b'x'; 16 << 20];
    let slow = hello().respond("/long", Status::OK, "", long).min_rate(100_000).min_rate_grace(SHORT);
    let server = Server::start(slow);
    let mut client = server.connect();
    client.send(get("/long"));
    eventually(|| server.metrics().closed(Reason::SLOW_READER) == 1);
}

#[test]
fn an_address_may_have_so_many_connections() {
    let server = Server::start(hello().max_connections_per_address(2));
    let mut served = [server.connect(), server.connect()];
    for client in &mut served {
        assert_eq!(client.ask(get("/hello")).status, 200);
    }
    // The reset may be there before the connection has been told of.
    let heard = TcpStream::connect(server.address).and_then(|mut refused| refused.read(&mut [0]));
    assert_eq!(heard.unwrap_err().kind(), ErrorKind::ConnectionReset);
    eventually(|| server.metrics().closed(Reason::ADDRESS_LIMIT) == 1);
    drop(served);
    eventually(|| server.metrics().closed(Reason::PEER_CLOSED) == 2);
    assert_eq!(server.connect().ask(get("/hello")).status, 200);
}

#[test]
fn an_idle_connection_ends_without_a_word() {
    let server = Server::start(hello().keep_alive(LONGER));
    let mut fresh = server.connect();
    fresh.expect_end();
    let mut used = server.connect();
    assert_eq!(used.ask(get("/hello")).status, 200);
    used.expect_end();
    let mut with_body = server.connect();
    assert_eq!(with_body.ask(request("POST", "/hello", "Content-Length: 1\r\n") + "x").status, 405);
    with_body.expect_end();
}

#[test]
fn who_ends_his_side_still_gets_his_answers() {
    let server = Server::start(hello());
    let mut client = server.connect();
    client.send(get("/hello") + &get("/hello") + "GET /hel");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!([client.answer().status, client.answer().status], [200, 200]);
    client.expect_end();
}

#[test]
fn a_server_that_retires_ends_what_is_idle_and_finishes_the_rest() {
    let server = Server::start(hello());
    let mut idle = server.connect();
    assert_eq!(idle.ask(get("/hello")).status, 200);
    let mut in_head = server.connect();
    assert_eq!(in_head.ask(get("/hello")).status, 200);
    in_head.send("GET /hello HTT");
    let mut in_body = server.connect();
    assert_eq!(in_body.ask(get("/hello")).status, 200);
    in_body.send(request("POST", "/hello", "Content-Length: 4\r\n") + "ab");
    // The loop has read these pieces before it answers what was sent after them, and it reads before it obeys.
    let mut later = server.connect();
    assert_eq!(later.ask(get("/hello")).status, 200);

    server.running().quit(PATIENCE);
    idle.expect_end();
    in_head.send("P/1.1\r\nHost: a\r\n\r\n");
    let answer = in_head.answer();
    assert_eq!((answer.status, answer.closes()), (200, true));
    in_head.expect_end();
    in_body.send("cd");
    let answer = in_body.answer();
    assert_eq!((answer.status, answer.closes()), (405, true));
    in_body.expect_end();
    server.join();
}

#[test]
fn a_server_that_drains_answers_once_more_and_then_ends() {
    let server = Server::start(hello());
    let mut idle = server.connect();
    assert_eq!(idle.ask(get("/hello")).status, 200);
    let mut pipelining = server.connect();
    assert_eq!(pipelining.ask(get("/hello")).status, 200);
    let mut silent = server.connect();
    assert_eq!(silent.ask(get("/hello")).status, 200);

    server.running().quit(Duration::MAX);
    // Who comes first shows that the server has heard it.
    let answer = idle.ask(get("/hello"));
    assert_eq!(answer.status, 200);
    assert!(answer.closes(), "an idle client is answered once more, and told that this was the last");
    idle.expect_end();
    pipelining.send(get("/hello").repeat(5) + "GET /hel");
    for number in 1..=5 {
        let answer = pipelining.answer();
        assert_eq!((answer.status, answer.closes()), (200, false), "answer {number}");
    }
    pipelining.send("lo HTTP/1.1\r\nHost: a\r\n\r\n".to_owned() + &get("/hello"));
    assert_eq!([pipelining.answer().closes(), pipelining.answer().closes()], [false, true]);
    pipelining.expect_end();
    assert!(!server.running().is_finished(), "the silent client may stay");

    // Now there is no time any more.
    server.running().quit(PATIENCE);
    silent.expect_end();
    server.join();
}

#[test]
fn an_idle_client_of_a_server_that_drains_has_its_keep_alive_time() {
    let server = Server::start(hello().keep_alive(LONGER));
    let mut idle = server.connect();
    assert_eq!(idle.ask(get("/hello")).status, 200);
    server.running().quit(Duration::MAX);
    idle.expect_end();
    server.join();
}

#[test]
fn a_request_with_a_body_is_not_the_last_while_another_follows() {
    let server = Server::start(hello());
    let mut client = server.connect();
    assert_eq!(client.ask(get("/hello")).status, 200);
    server.running().quit(Duration::MAX);
    client.send(request("POST", "/hello", "Content-Length: 4\r\n") + "abcd" + &get("/hello"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (405, false));
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (200, true));
    client.expect_end();
    server.join();
}
