//! Rest: a connection that nothing is wanted of does not keep the loop turning.

use std::io::Read;
use std::time::Duration;

use tidegate_engine::{EngineConfig, ListenerWord, ProcessWord, Reason};

use crate::lab::{Note, letters};
use crate::support::{Client, PATIENCE, Server};

under_each_model!(
    while_it_is_suspended_and_its_peer_goes_on,
    while_it_is_suspended_and_its_peer_has_ended,
    while_it_is_paused_and_its_peer_goes_on,
    while_it_is_half_closed,
    while_its_output_waits,
    after_a_reset_while_suspended,
    while_its_ending_waits_for_its_peer,
    many_slow_readers_get_all_of_it,
);

/// The loop hardly turns while nobody says anything. A few turns are for what is under way and for timers.
fn expect_rest(server: &Server, client: &Client) {
    const MOST_TURNS: u64 = 20;
    let before = server.metrics.get(ProcessWord::LoopTurns);
    client.stream().set_read_timeout(Some(Duration::from_millis(60))).unwrap();
    let silence = client.stream().peek(&mut [0; 1]);
    client.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(silence.is_err() || silence.is_ok_and(|n| n == 0), "the server said something");
    let turns = server.metrics.get(ProcessWord::LoopTurns) - before;
    assert!(turns <= MOST_TURNS, "{turns} turns for nothing");
}

fn while_it_is_suspended_and_its_peer_goes_on(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    let watcher = server.client();
    client.send("suspend\n");
    let handle = server.suspended();
    client.send("echo more\n");
    expect_rest(&server, &watcher);
    handle.post(Note::Say("awake".into())).unwrap();
    client.expect("awake");
    client.expect("more");
}

fn while_it_is_suspended_and_its_peer_has_ended(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    let watcher = server.client();
    client.send("suspend\necho last\n");
    let handle = server.suspended();
    client.end_input();
    expect_rest(&server, &watcher);
    handle.post(Note::Say("awake".into())).unwrap();
    assert_eq!(client.rest(), b"awake\nlast\n");
    server.expect_close(Reason::PEER_CLOSED);
}

fn while_it_is_paused_and_its_peer_goes_on(config: EngineConfig) {
    let server = Server::new(config);
    let (mut client, handle) = server.client_with_handle();
    client.send("pause\necho one\n");
    server.wait_for(ListenerWord::Messages, 1);
    client.send("echo two\n");
    expect_rest(&server, &client);
    handle.post(Note::Resume).unwrap();
    client.expect("one");
    client.expect("two");
}

fn while_it_is_half_closed(config: EngineConfig) {
    let server = Server::new(config);
    let (mut client, handle) = server.client_with_handle();
    client.send("keep\n");
    client.end_input();
    client.expect("eof");
    expect_rest(&server, &client);
    handle.send("news\n").unwrap();
    client.expect("news");
    expect_rest(&server, &client);
}

fn while_its_output_waits(config: EngineConfig) {
    const LEN: u64 = 3_000_000;
    let server = Server::new(config);
    let mut client = server.client();
    let watcher = server.client();
    client.send(format!("big {LEN}\necho behind\n"));
    server.wait_for(ListenerWord::BytesOut, 1);
    expect_rest(&server, &watcher);
    assert!(client.line().into_bytes() == letters(LEN));
    client.expect("behind");
    expect_rest(&server, &client);
}

fn after_a_reset_while_suspended(config: EngineConfig) {
    let server = Server::new(config);
    let client = server.client();
    let watcher = server.client();
    client.send("suspend\necho never\n");
    let handle = server.suspended();
    client.reset();
    let closed = server.expect_close(Reason::PEER_RESET);
    assert_eq!(closed.errno, Some(tidegate_reactor::Errno::CONNRESET.raw_os_error()));
    assert!(!handle.is_open());
    expect_rest(&server, &watcher);
}

fn while_its_ending_waits_for_its_peer(config: EngineConfig) {
    let server = Server::new(config);
    let client = server.client();
    client.send("done\n");
    assert_eq!(client.stream().read(&mut [0; 1]).unwrap(), 0);
    expect_rest(&server, &client);
    drop(client);
    server.expect_close(Reason::DONE);
}

fn many_slow_readers_get_all_of_it(config: EngineConfig) {
    const CLIENTS: usize = 32;
    const LEN: u64 = 400_000;
    const PIECE: usize = 20_000;
    let server = Server::new(config);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    // Each asks again before it has read, so that input waits behind output.
    let script = format!("big {LEN}\n");
    clients.iter().for_each(|client| client.send(script.repeat(2)));
    let mut expected = letters(LEN);
    expected.push(b'\n');
    expected.extend_from_within(..);
    let mut at = 0;
    while at < expected.len() {
        let piece = &expected[at..expected.len().min(at + PIECE)];
        for client in &mut clients {
            assert!(client.bytes(piece.len()) == piece);
        }
        at += piece.len();
    }
    expect_rest(&server, &clients[0]);
    clients.iter_mut().for_each(Client::round_trip);
}
