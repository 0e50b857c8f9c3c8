//! Ends: the peer's, the service's, and refusals.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::{UnixListener, UnixStream};

use tidegate_engine::{ConnHandle, EngineConfig, ListenerWord, Reason, Refusal, Socket};

use crate::lab::{Note, Seen};
use crate::support::{Server, Setup, closes, until};

under_each_model!(
    a_peer_that_leaves_is_done,
    a_half_closed_connection_goes_on_when_the_service_says_so,
    a_half_closed_peer_that_vanishes_is_noticed,
    a_reset_by_the_peer_has_its_errno,
    the_last_words_of_a_local_peer_that_died_are_heard,
    a_local_peer_that_does_not_read_any_more_is_heard_on,
    an_abort_for_abuse_is_a_reset,
    an_abort_in_order_sends_the_answers_before_it,
    what_an_ended_connection_had_written_reaches_nobody_else,
    messages_after_the_last_one_are_not_handled,
    a_refused_peer_reads_the_answer_and_the_end,
);

under_all_models_at_once!(a_lingering_peer_does_not_stay);

fn a_peer_that_leaves_is_done(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.round_trip();
    drop(client);
    let closed = server.expect_close(Reason::PEER_CLOSED);
    assert_eq!((closed.bytes_in, closed.bytes_out, closed.errno), (20, 15, None));
}

fn a_half_closed_connection_goes_on_when_the_service_says_so(config: EngineConfig) {
    let server = Server::new(config);
    let (mut client, handle) = server.client_with_handle();
    client.send("keep\necho before\n");
    client.end_input();
    client.expect("before");
    client.expect("eof");
    handle.send("big news\n").unwrap();
    client.expect("big news");
    handle.close(Reason::DONE).unwrap();
    assert_eq!(client.rest(), b"");
    server.expect_close(Reason::DONE);
}

fn a_half_closed_peer_that_vanishes_is_noticed(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("keep\n");
    client.end_input();
    client.expect("eof");
    client.reset();
    server.expect_close(Reason::PEER_RESET);
}

fn a_reset_by_the_peer_has_its_errno(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.round_trip();
    client.reset();
    let closed = server.expect_close(Reason::PEER_RESET);
    assert_eq!(closed.errno, Some(tidegate_reactor::Errno::CONNRESET.raw_os_error()));
}

/// A server on a Unix socket, and a client of it. The directory is the socket's.
fn local(config: EngineConfig) -> (Server, UnixStream, ConnHandle<Note>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lab.sock");
    let socket = Socket::own(UnixListener::bind(&path).unwrap());
    let server = Server::on(Setup::new(config), (Ipv4Addr::LOCALHOST, 0).into(), vec![socket]);
    let client = UnixStream::connect(path).unwrap();
    let handle = server.see(|seen| if let Seen::Opened(handle) = seen { Some(handle) } else { None });
    (server, client, handle, directory)
}

fn the_last_words_of_a_local_peer_that_died_are_heard(config: EngineConfig) {
    const WORDS: usize = 2000;
    let (server, mut client, handle, _directory) = local(config);
    client.write_all(b"echo never read\nblock\n").unwrap();
    server.see(|seen| matches!(seen, Seen::Blocked).then_some(()));
    // The server hears of this before it hears of the input, and cannot send it.
    handle.send("news").unwrap();
    client.write_all("count 1\necho and an answer\n".repeat(WORDS).as_bytes()).unwrap();
    drop(client);
    server.unblock.send(()).unwrap();
    server.expect_close(Reason::PEER_RESET);
    assert_eq!(server.listener().service(0), WORDS as u64);
}

fn a_local_peer_that_does_not_read_any_more_is_heard_on(config: EngineConfig) {
    let (server, mut client, handle, _directory) = local(config);
    client.shutdown(Shutdown::Read).unwrap();
    for _ in 0..10 {
        handle.send("news").unwrap();
        client.write_all(b"count 1\n").unwrap();
    }
    until(|| server.listener().service(0) == 10);
    client.write_all(b"done\n").unwrap();
    server.expect_close(Reason::DONE);
}

fn an_abort_for_abuse_is_a_reset(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("echo lost\nabort\n");
    client.until_reset();
    server.expect_close(Reason::FLOOD);
}

fn an_abort_in_order_sends_the_answers_before_it(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("echo kept\nbye\n");
    assert_eq!(client.rest(), b"kept\n");
    server.expect_close(Reason::DONE);
}

fn what_an_ended_connection_had_written_reaches_nobody_else(config: EngineConfig) {
    let server = Server::new(config);
    let mut bystander = server.client();
    bystander.round_trip();
    for last in ["abort", "panic", "!"] {
        let mut client = server.client();
        client.send(format!("echo secret\n{last}\n"));
        client.until_reset();
        server.closed();
        bystander.round_trip();
    }
}

fn messages_after_the_last_one_are_not_handled(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("done\necho never\ncount 1\n");
    assert_eq!(client.rest(), b"");
    drop(client);
    server.expect_close(Reason::DONE);
    assert_eq!(server.listener().service(0), 0);
}

fn a_lingering_peer_does_not_stay(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("done\n");
    assert_eq!(client.rest(), b"");
    // It never ends its side; two seconds later it has had its time.
    server.expect_close(Reason::DONE);
}

fn a_refused_peer_reads_the_answer_and_the_end(config: EngineConfig) {
    let server = Server::new(config);
    *server.control.refuse.lock().unwrap() = Some(Refusal { reason: Reason::OVERLOADED, answer: b"go away" });
    let mut client = server.client();
    // What it has said meanwhile does not cost it the answer.
    client.send("x".repeat(10_000));
    assert_eq!(client.rest(), b"go away");
    drop(client);
    until(|| server.listener().closed(Reason::OVERLOADED) == 1);
    *server.control.refuse.lock().unwrap() = Some(Reason::REFUSED.into());
    assert_eq!(server.client().until_reset(), b"");
    until(|| server.listener().closed(Reason::REFUSED) == 1);
    assert_eq!(server.count(ListenerWord::Accepted), 2);
    assert_eq!(closes(&server), 0, "a refused connection has no session");
    *server.control.refuse.lock().unwrap() = None;
    server.client().round_trip();
}
