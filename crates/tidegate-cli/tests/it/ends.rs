//! Who ends a connection first, as `/metrics` counts it: the side that keeps TIME_WAIT for it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rustix::net::sockopt;
use tempfile::tempdir;

use crate::http::{Connection, get, metric};
use crate::support::{BOUND, Server, Setup, wait_until};

/// Connections of the web that the peer, and that the server ended first.
fn first(server: &Server) -> (u64, u64) {
    let text = get(server.address("admin"), "/metrics").body;
    let count = |side| {
        let labels = ["listener=\"web\"", side];
        metric(&text, "tidegate_connections_closed_first_total", &labels)
    };
    (count("side=\"peer\""), count("side=\"server\""))
}

#[track_caller]
fn check(server: &Server, expect: (u64, u64)) {
    wait_until(&format!("peer and server have ended {expect:?} first"), || first(server) == expect);
}

#[test]
fn every_end_is_counted_for_the_side_that_began_it() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let web = server.address("web");
    check(&server, (0, 0));

    let mut leaves = Connection::open(web);
    assert_eq!(leaves.get("/hello").status, 200);
    drop(leaves);
    check(&server, (1, 0));

    // It asks for the end, and the server sends FIN first.
    let mut asks = Connection::open(web);
    asks.send("GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    assert_eq!(asks.answer().unwrap().status, 200);
    assert!(asks.ends_in_order());
    drop(asks);
    check(&server, (1, 1));

    // The same, but its FIN is there before the answer leaves.
    let mut half = TcpStream::connect(web).unwrap();
    half.set_read_timeout(Some(BOUND)).unwrap();
    half.write_all(b"GET /hello HTTP/1.1\r\nHost: test\r\n").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    half.read_to_end(&mut Vec::new()).unwrap();
    check(&server, (2, 1));

    let mut resets = Connection::open(web);
    assert_eq!(resets.get("/hello").status, 200);
    resets.reset();
    check(&server, (3, 1));

    // A broken head: the server says so and ends.
    let mut wrong = Connection::open(web);
    wrong.send("GET\r\n\r\n");
    assert_eq!(wrong.answer().unwrap().status, 400);
    assert!(wrong.ends_in_order());
    check(&server, (3, 2));
}

impl Connection {
    /// Ends the connection with a reset (`SO_LINGER` with a time of 0, socket(7)).
    fn reset(self) {
        let stream = self.into_stream();
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
}
