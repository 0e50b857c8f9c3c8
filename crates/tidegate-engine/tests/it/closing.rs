//! Ends: the peer's, the service's, and refusals.

use tidegate_engine::{EngineConfig, ListenerWord, Reason, Refusal};

use crate::client::counts;
use crate::support::{Server, closes, until};

under_each_model!(
    a_peer_that_leaves_is_done,
    a_half_closed_connection_goes_on_when_the_service_says_so,
    a_half_closed_peer_that_vanishes_is_noticed,
    a_reset_by_the_peer_has_its_errno,
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
    assert!(counts(closed.bytes_in, 20) && counts(closed.bytes_out, 15), "{closed:?}");
    assert_eq!(closed.errno, None);
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
