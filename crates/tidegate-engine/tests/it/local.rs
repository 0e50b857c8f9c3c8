//! Peers on the same machine, over Unix sockets: what they said before they went is not lost.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::{UnixListener, UnixStream};

use tidegate_engine::{ConnHandle, EngineConfig, Reason, Socket};

use crate::lab::{Note, Seen};
use crate::support::{Server, Setup, until};

under_each_model!(
    the_last_words_of_a_local_peer_that_died_are_heard,
    a_local_peer_that_does_not_read_any_more_is_heard_on,
);

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
