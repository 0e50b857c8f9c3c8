//! `Flow::Suspend`: a message whose answer comes from another thread.

use tidegate_engine::{EngineConfig, ListenerWord, Reason};

use crate::lab::Note;
use crate::support::Server;

under_each_model!(
    messages_wait_for_the_note_and_keep_their_order,
    a_note_may_suspend_anew,
    the_peers_end_meanwhile_is_told_afterwards,
    each_message_of_a_batch_may_suspend,
    what_decode_waited_for_once_does_not_hold_back_what_is_shorter,
    a_reset_meanwhile_ends_the_connection,
    a_note_may_end_the_connection,
);

fn messages_wait_for_the_note_and_keep_their_order(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("echo one\nsuspend\necho two\n");
    let handle = server.suspended();
    client.expect("one");
    // Input that comes meanwhile waits in the kernel.
    client.send("echo three\n");
    client.send("echo four\n");
    std::thread::spawn(move || handle.post(Note::Say("awake".into()))).join().unwrap().unwrap();
    for line in ["awake", "two", "three", "four"] {
        client.expect(line);
    }
    // Whoever handled it may have answered before it was counted.
    server.wait_for(ListenerWord::Messages, 5);
    assert_eq!(server.count(ListenerWord::Messages), 5);
}

fn a_note_may_suspend_anew(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("suspend\necho free\n");
    let handle = server.suspended();
    handle.post(Note::Suspend).unwrap();
    // A send is no note: it does not resume.
    handle.send("sent\n").unwrap();
    client.expect("sent");
    assert_eq!(server.count(ListenerWord::Messages), 1);
    handle.post(Note::Say("awake".into())).unwrap();
    client.expect("awake");
    client.expect("free");
}

fn the_peers_end_meanwhile_is_told_afterwards(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("suspend\necho last\n");
    client.end_input();
    let handle = server.suspended();
    handle.post(Note::Say("awake".into())).unwrap();
    assert_eq!(client.rest(), b"awake\nlast\n");
    server.expect_close(Reason::PEER_CLOSED);
}

fn each_message_of_a_batch_may_suspend(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("suspend\n".repeat(100));
    client.end_input();
    for n in 0..100 {
        server.suspended().post(Note::Say(n.to_string())).unwrap();
        client.expect(&n.to_string());
    }
    assert_eq!(client.rest(), b"");
}

fn what_decode_waited_for_once_does_not_hold_back_what_is_shorter(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    // The first piece makes `decode` ask for a length that the message after the suspension does not have.
    let piece = format!("echo {}", "long".repeat(10));
    client.send(&piece);
    server.wait_for(ListenerWord::BytesIn, piece.len() as u64);
    client.send("\nsuspend\necho x\n");
    client.expect(&"long".repeat(10));
    server.suspended().post(Note::Say("awake".into())).unwrap();
    client.expect("awake");
    client.expect("x");
}

fn a_reset_meanwhile_ends_the_connection(config: EngineConfig) {
    let server = Server::new(config);
    let client = server.client();
    client.send("suspend\n");
    let handle = server.suspended();
    client.reset();
    let closed = server.expect_close(Reason::PEER_RESET);
    assert_eq!(closed.errno, Some(tidegate_reactor::Errno::CONNRESET.raw_os_error()));
    assert!(handle.post(Note::Say("too late".into())).is_err());
}

fn a_note_may_end_the_connection(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("suspend\necho never\n");
    server.suspended().post(Note::Done).unwrap();
    assert_eq!(client.rest(), b"");
    drop(client);
    server.expect_close(Reason::DONE);
}
