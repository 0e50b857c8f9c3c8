//! Peers that vanish without a word, in a network of the test's own: the kernel finds out, and the server says so.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::net::sockopt;
use tempfile::tempdir;

use crate::network::Network;
use crate::support::{BOUND, Setup, wait_until};

/// No packet of these tests, until the network is cut.
const NOTHING: &str = "tcp dport 1";

#[test]
fn a_peer_that_vanishes_is_reaped_whether_it_was_silent_or_owed_an_acknowledgement() {
    let Some(network) = Network::open("gone", NOTHING) else { return };
    let dir = tempdir().unwrap();
    let site = dir.path().join("site");
    std::fs::create_dir(&site).unwrap();
    std::fs::write(site.join("big"), vec![b'x'; 8 << 20]).unwrap();
    let mut setup = Setup::new(&dir)
        .set("listen.web.address=10.99.2.1:0")
        .set("listen.web.keepalive=1s")
        .set("listen.web.user_timeout=2s")
        // Nothing but the kernel is to find out.
        .set("web.keep_alive=1h")
        .set("web.min_rate=0")
        .set("log.level=debug")
        .set(format!("web.root={}", site.display()));
    setup.program = network.server_program(&dir);
    let mut server = setup.start();
    let web = server.address("web");
    let mut clients: Vec<TcpStream> =
        network.as_client(|| (0..2).map(|_| TcpStream::connect_timeout(&web, BOUND).unwrap()).collect());
    for client in &mut clients {
        sockopt::set_socket_recv_buffer_size(&*client, 64 << 10).unwrap();
        client.set_read_timeout(Some(BOUND)).unwrap();
        client.write_all(b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        assert!(client.read(&mut [0; 1024]).unwrap() > 0);
    }
    let open = |server: &crate::support::Server| {
        let status = server.status();
        status.listeners.iter().find(|listener| listener.name == "web").unwrap().connections
    };
    assert_eq!(open(&server), 2);
    // One is silent. The other has asked for much, and what was sent to it is never acknowledged.
    clients[1].write_all(b"GET /big HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(clients[1].read(&mut [0; 1024]).unwrap() > 0);
    network.cut();
    wait_until("both are found to have gone", || open(&server) == 0);
    for _ in 0..2 {
        // ETIMEDOUT, errno(3).
        server.wait_lines(&["connection closed", "peer-reset", "errno=110"]);
    }
}
