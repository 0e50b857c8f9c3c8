//! What an operator sees of a loop, and does to its connections.

use std::time::Duration;

use tidegate_engine::{
    ConnId, ConnInfo, ConnState, EngineConfig, HandleError, ProcessWord, Reason, Unanswered,
};

use crate::lab::{Note, Seen};
use crate::support::{Client, PATIENCE, Server, until};

under_each_model!(
    connections_are_told_page_by_page,
    a_connection_is_told_with_what_it_waits_for,
    a_stuck_loop_does_not_keep_who_asks,
    a_loop_that_has_ended_has_no_connections,
    an_operator_closes_a_connection,
    a_turn_is_on_the_clock_only_while_it_lasts,
);

fn page(server: &Server, after: Option<ConnId>, limit: usize) -> Vec<ConnInfo> {
    server.running.as_ref().unwrap().handle().connections_page(after, limit, PATIENCE).unwrap()
}

/// What is known of the only connection.
fn only(server: &Server) -> ConnInfo {
    let page = page(server, None, 10);
    assert_eq!(page.len(), 1);
    page[0]
}

fn connections_are_told_page_by_page(config: EngineConfig) {
    let server = Server::new(config);
    assert_eq!(page(&server, None, 10), []);
    let clients: Vec<Client> = (0..150).map(|_| server.served_client()).collect();
    let mut seen = Vec::new();
    loop {
        let page = page(&server, seen.last().map(|info: &ConnInfo| info.id), 40);
        assert!(page.len() <= 40);
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen.len(), 150);
    assert!(seen.is_sorted_by(|a, b| a.id.slot() < b.id.slot()));
    let mut peers: Vec<String> = seen.iter().map(|info| info.peer.to_string()).collect();
    let mut own: Vec<String> =
        clients.iter().map(|client| client.stream().local_addr().unwrap().to_string()).collect();
    peers.sort_unstable();
    own.sort_unstable();
    assert_eq!(peers, own);
    // What comes after a connection that has gone is what would have come after it.
    let gone = seen[70].id;
    server.running.as_ref().unwrap().handle().close(gone, Reason::OPERATOR).unwrap();
    server.expect_close(Reason::OPERATOR);
    assert_eq!(page(&server, Some(gone), 1)[0].id, seen[71].id);
    assert_eq!(page(&server, None, 0), []);
    assert_eq!(page(&server, None, usize::MAX).len(), 149);
}

fn a_connection_is_told_with_what_it_waits_for(config: EngineConfig) {
    let idle = Duration::from_secs(500);
    let server = Server::with(config, |limits| limits.idle_timeout = Some(idle));
    let (mut client, handle) = server.client_with_handle();
    client.send("echo hello\n");
    client.expect("hello");
    // Another thread may have the connection a moment longer than its answer takes.
    until(|| only(&server).state == ConnState::Open);
    let info = only(&server);
    assert_eq!((info.id, info.site), (handle.id(), 0));
    assert_eq!((info.bytes_in, info.bytes_out, info.queued), (11, 6, 0));
    assert!(info.age < PATIENCE);
    let (reason, left) = info.next_close.unwrap();
    assert!(reason == Reason::IDLE_TIMEOUT && left <= idle && left > idle - PATIENCE, "{info:?}");

    client.send("suspend\n");
    server.suspended();
    until(|| only(&server).state == ConnState::Handling);
    assert_eq!(only(&server).next_close, None);
    handle.post(Note::Say("on".into())).unwrap();
    client.expect("on");
    client.send("big 4000000\n");
    until(|| only(&server).queued > 0);
    let (reason, _) = only(&server).next_close.unwrap();
    assert_eq!(reason, Reason::WRITE_TIMEOUT);
    client.send("done\n");
    client.bytes(4_000_001);
    assert_eq!(client.rest(), b"");
    until(|| only(&server).state == ConnState::Lingering);
    let info = only(&server);
    assert_eq!((info.queued, info.bytes_out), (0, 4_000_001 + 9));
    assert_eq!(info.next_close.unwrap().0, Reason::DONE);
    drop(client);
    server.expect_close(Reason::DONE);

    let mut stays = server.client();
    stays.send("stay\necho staying\n");
    stays.expect("staying");
    server.running.as_ref().unwrap().quit(Duration::from_secs(60));
    server.see(|seen| matches!(seen, Seen::Retire(_)).then_some(()));
    until(|| only(&server).state == ConnState::Retiring);
    assert_eq!(only(&server).next_close.unwrap().0, Reason::SHUTDOWN_TIMEOUT);
}

fn a_stuck_loop_does_not_keep_who_asks(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("block\n");
    server.see(|seen| matches!(seen, Seen::Blocked).then_some(()));
    let handle = server.running.as_ref().unwrap().handle();
    // More than the loop keeps.
    for _ in 0..20 {
        assert_eq!(handle.connections_page(None, 1, Duration::from_millis(1)), Err(Unanswered));
    }
    server.unblock.send(()).unwrap();
    client.round_trip();
    assert_eq!(page(&server, None, 10).len(), 1);
}

fn a_loop_that_has_ended_has_no_connections(config: EngineConfig) {
    let mut server = Server::new(config);
    let mut client = server.client();
    client.round_trip();
    let id = only(&server).id;
    let handle = server.running.as_ref().unwrap().handle();
    server.stop();
    assert_eq!(handle.connections_page(None, 10, PATIENCE), Ok(Vec::new()));
    assert_eq!(handle.close(id, Reason::OPERATOR), Err(HandleError::Gone));
}

fn an_operator_closes_a_connection(config: EngineConfig) {
    let server = Server::new(config);
    let handle = server.running.as_ref().unwrap().handle();
    let mut client = server.client();
    client.send("echo last words\n");
    client.expect("last words");
    let id = only(&server).id;
    let same = ConnId::from_parts(id.slot(), id.generation());
    assert_eq!(same, id);
    let other = ConnId::from_parts(id.slot(), id.generation() + 1);
    assert_eq!(handle.close(other, Reason::OPERATOR), Err(HandleError::Gone));
    handle.close(same, Reason::OPERATOR).unwrap();
    assert_eq!(client.rest(), b"");
    drop(client);
    server.expect_close(Reason::OPERATOR);
    assert_eq!(handle.close(id, Reason::OPERATOR), Err(HandleError::Gone));
}

fn a_turn_is_on_the_clock_only_while_it_lasts(config: EngineConfig) {
    let mut server = Server::new(config);
    let since = || server.metrics.get(ProcessWord::TurnSince);
    let mut client = server.client();
    client.round_trip();
    until(|| since() == 0);
    client.send("block\n");
    server.see(|seen| matches!(seen, Seen::Blocked).then_some(()));
    assert_ne!(since(), 0);
    server.unblock.send(()).unwrap();
    client.round_trip();
    until(|| since() == 0);
    let metrics = server.metrics.clone();
    server.stop();
    assert_eq!(metrics.get(ProcessWord::TurnSince), 0, "a loop that has ended is not stuck");
}
