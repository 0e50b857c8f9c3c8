//! A service is told once when the kernel has taken its output, and not before.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tidegate_engine::{EngineConfig, ListenerWord, Reason};

use crate::lab::Seen;
use crate::support::{Server, pattern};

const LEN: usize = 6_000_000;

under_each_model!(
    who_asks_is_told_once_when_all_has_been_taken,
    nobody_is_told_while_the_peer_does_not_read,
    the_last_answer_is_told_of_before_the_connection_ends,
    a_service_may_go_on_sending_from_there,
    a_panic_there_is_one_connections_end,
    an_answer_that_is_told_of_has_none_behind_it_that_waits,
);

/// What is told next; nothing else may be.
fn told(server: &Server) -> usize {
    server.see(|seen| match seen {
        Seen::Sent(queued) => Some(queued),
        Seen::Opened(_) => None,
        other => panic!("{other:?}"),
    })
}

fn who_asks_is_told_once_when_all_has_been_taken(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("tell echo first\n");
    client.expect("first");
    assert_eq!(told(&server), 0);
    client.send("echo unasked\n");
    client.expect("unasked");
    // With nothing to send.
    client.send("tell count 1\n");
    assert_eq!(told(&server), 0);
    client.round_trip();
    client.send("done\n");
    assert_eq!(client.rest(), b"");
    drop(client);
    let end = server.see(|seen| match seen {
        Seen::Closed(closed) => Some(closed.reason),
        other => panic!("told again: {other:?}"),
    });
    assert_eq!(end, Reason::DONE);
}

fn nobody_is_told_while_the_peer_does_not_read(config: EngineConfig) {
    let server = Server::new(config);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&pattern(LEN)).unwrap();
    give(&server, &file);
    let (mut client, handle) = server.client_with_handle();
    client.send(format!("tell file 0 {LEN}\necho behind\n"));
    server.wait_for(ListenerWord::BytesOut, 1);
    // The kernel's buffers are full. What another thread says is heard of, and still nothing has been told.
    handle.post(crate::lab::Note::Say("a note".to_owned())).unwrap();
    client.send("block\n");
    let first = server.see(|seen| match seen {
        Seen::Sent(_) => Some("told"),
        Seen::Blocked => Some("not told"),
        _ => None,
    });
    assert_eq!(first, "not told");
    server.unblock.send(()).unwrap();
    assert!(client.bytes(LEN) == pattern(LEN));
    client.expect("behind");
    client.expect("a note");
    assert_eq!(told(&server), 0);
}

fn give(server: &Server, file: &File) {
    *server.control.file.lock().unwrap() = Some(Arc::new(OwnedFd::from(file.try_clone().unwrap())));
}

fn the_last_answer_is_told_of_before_the_connection_ends(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("tell echo the last\ndone\n");
    client.expect("the last");
    assert_eq!(client.rest(), b"");
    // The peer has not ended its side, so the connection is not closed yet.
    assert_eq!(told(&server), 0);
    drop(client);
    server.expect_close(Reason::DONE);
}

fn a_service_may_go_on_sending_from_there(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("plan say it\ntell echo first\n");
    client.expect("first");
    client.expect("it has been sent");
    assert_eq!((told(&server), told(&server)), (0, 0));
    client.round_trip();
}

fn a_panic_there_is_one_connections_end(config: EngineConfig) {
    let server = Server::new(config);
    let mut bystander = server.client();
    let mut client = server.client();
    client.send("plan sent\ntell echo first\n");
    client.expect("first");
    client.until_reset();
    server.expect_close(Reason::PANIC);
    bystander.round_trip();
}

fn an_answer_that_is_told_of_has_none_behind_it_that_waits(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    // The first is taken while the second is being made, perhaps by another thread; then it is told of with that one.
    for _ in 0..10 {
        client.send(format!("tell echo first\ntell big {LEN}\ncount 1\n"));
        client.expect("first");
        assert_eq!(client.line().len(), LEN);
        let queued = server.see(|seen| match seen {
            Seen::Sent(queued) => Some(queued),
            _ => None,
        });
        assert_eq!(queued, 0);
    }
    client.round_trip();
    client.send("done\n");
    client.rest();
    drop(client);
    // It may have been told of on its own.
    let reason = server.see(|seen| match seen {
        Seen::Sent(queued) => {
            assert_eq!(queued, 0);
            None
        }
        Seen::Closed(closed) => Some(closed.reason),
        _ => None,
    });
    assert_eq!(reason, Reason::DONE);
}
