//! `limit_rate`: bodies come whole, in order, and not faster than they may.

use std::fs;
use std::time::{Duration, Instant};

use tidegate_engine::{Dispatch, EngineConfig, ListenerWord};
use tidegate_web::Web;

use crate::client::{Server, eventually, get, request};
use crate::sites::{folder, site};

const LEN: usize = 300_000;

fn big() -> (tempfile::TempDir, Vec<u8>) {
    let dir = folder("small");
    let bytes: Vec<u8> = (0u32..).flat_map(u32::to_le_bytes).take(LEN).collect();
    fs::write(dir.path().join("big"), &bytes).unwrap();
    (dir, bytes)
}

#[test]
fn a_body_takes_at_least_as_long_as_its_rate_says() {
    let (dir, bytes) = big();
    for dispatch in [Dispatch::Inline, Dispatch::Pool] {
        let config = EngineConfig { dispatch, ..EngineConfig::default() };
        let server = Server::start_with(config, Web::builder().site(site(&["*"], &dir).limit_rate(400_000)));
        let mut client = server.connect();
        let begin = Instant::now();
        // The second waits for the first, and is small.
        client.send(get("/big") + &get("/") + &request("HEAD", "/big", ""));
        assert!(client.answer().body == bytes);
        // 300 kB at 400 kB/s, of which the first eighth of a second comes at once. More time is the machine's.
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(600), "{took:?}");
        assert_eq!(client.answer().text(), "small");
        assert_eq!(client.head().field("content-length"), Some("300000"));
        assert_eq!(client.ask(get("/")).text(), "small");
    }
}

#[test]
fn small_bodies_and_ranges_in_a_row_are_no_faster() {
    let (dir, bytes) = big();
    let server = Server::start(Web::builder().site(site(&["*"], &dir).limit_rate(40_000)));
    let mut client = server.connect();
    let begin = Instant::now();
    let parts = (0..20).map(|part| format!("Range: bytes={}-{}\r\n", part * 1000, part * 1000 + 999));
    client.send(parts.map(|range| request("GET", "/big", &range)).collect::<String>());
    for part in bytes.chunks(1000).take(20) {
        assert!(client.answer().body == part);
    }
    // 20 kB at 40 kB/s, of which the first piece comes at once. More time is the machine's.
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(400), "{took:?}");
}

#[test]
fn the_last_answer_is_whole_before_the_connection_ends() {
    let (dir, bytes) = big();
    let server = Server::start(Web::builder().site(site(&["*"], &dir).limit_rate(2_000_000)));
    let mut client = server.connect();
    let answer = client.ask(request("GET", "/big", "Connection: close\r\n"));
    assert!(answer.closes() && answer.body == bytes);
    client.expect_end();
    let mut client = server.connect();
    client.send(get("/big"));
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.answer().body == bytes);
    client.expect_end();
}

#[test]
fn who_goes_away_in_the_middle_is_let_go() {
    let (dir, _) = big();
    let server = Server::start(Web::builder().site(site(&["*"], &dir).limit_rate(1000)));
    let mut client = server.connect();
    client.send(get("/big"));
    client.head();
    drop(client);
    eventually(|| server.metrics().get(ListenerWord::Open) == 0);
    assert_eq!(server.get("/").text(), "small");
}
