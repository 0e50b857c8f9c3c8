//! Connections that begin with a PROXY header.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use tidegate_engine::{ConnState, EngineConfig, ListenerWord, PeerAddress, Reason, Socket};

use crate::lab::Seen;
use crate::support::{Client, PATIENCE, Server, Setup, closes, until};

under_each_model!(
    the_service_sees_whom_the_header_names,
    a_header_may_come_byte_by_byte_and_with_all_that_follows_it,
    a_balancer_that_speaks_for_itself_keeps_its_address,
    what_is_no_header_is_reset_and_its_service_never_hears_of_it,
    a_header_has_one_deadline_that_bytes_do_not_extend,
    who_ends_before_the_header_was_nobody,
    a_header_on_a_unix_socket_names_an_address_too,
    an_operator_sees_and_closes_who_has_not_said_its_name,
    who_says_its_name_while_the_loop_retires_is_served_and_told,
);

const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n";

/// A header of version 2 with an extension.
fn binary() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x2b".to_vec();
    let source: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
    header.extend(source.octets());
    header.extend([0; 16]);
    header.extend(9u16.to_be_bytes());
    header.extend(443u16.to_be_bytes());
    header.extend([0x04, 0, 4, 0, 0, 0, 0]);
    header
}

fn address(text: &str) -> PeerAddress {
    PeerAddress::Inet(text.parse::<SocketAddr>().unwrap())
}

fn proxied(config: EngineConfig) -> Server {
    Server::start(Setup { proxied: true, ..Setup::new(config) })
}

fn the_service_sees_whom_the_header_names(config: EngineConfig) {
    let server = proxied(config);
    for (header, peer) in [(LINE.to_vec(), "192.0.2.1:56324"), (binary(), "[2001:db8::7]:9")] {
        let mut client = server.client();
        client.send(header);
        client.send("peer\n");
        client.expect(peer);
        let page = server.running.as_ref().unwrap().handle().connections_page(None, 10, PATIENCE).unwrap();
        assert_eq!((page.len(), page[0].peer), (1, address(peer)));
        drop(client);
        assert_eq!(server.expect_close(Reason::PEER_CLOSED).address, address(peer));
    }
}

fn a_header_may_come_byte_by_byte_and_with_all_that_follows_it(config: EngineConfig) {
    let server = proxied(config);
    for header in [LINE.to_vec(), binary()] {
        let mut pieces = server.client();
        let mut whole = server.client();
        for byte in &header {
            pieces.send([*byte]);
        }
        pieces.send("echo in pieces\n");
        pieces.expect("in pieces");
        whole.send([&header[..], b"echo one\necho two\necho thr"].concat());
        whole.expect("one");
        whole.expect("two");
        whole.send("ee\n");
        whole.expect("three");
        // With the end behind it.
        let mut last = server.client();
        last.send([&header[..], b"echo last words\n"].concat());
        last.end_input();
        assert_eq!(last.rest(), b"last words\n");
    }
}

fn a_balancer_that_speaks_for_itself_keeps_its_address(config: EngineConfig) {
    let server = proxied(config);
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x00",
    ] {
        let mut client = server.client();
        client.send(header);
        client.send("peer\n");
        client.expect(&client.stream().local_addr().unwrap().to_string());
    }
}

fn what_is_no_header_is_reset_and_its_service_never_hears_of_it(config: EngineConfig) {
    let server = proxied(config);
    let wrong = [
        &b"echo hello\n"[..],
        b"PROXY TCP4 1.2.3.4\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
        b"PROXY TCP4 \xff",
    ];
    for (bad, input) in (1..).zip(wrong) {
        let mut client = server.client();
        client.send(input);
        if input.ends_with(b"\xff") {
            client.send([b'x'; 120]);
        }
        client.until_reset();
        until(|| server.listener().closed(Reason::PROXY_HEADER) == bad);
    }
    assert_eq!(closes(&server), 0);
    let mut good = server.client();
    good.send(LINE);
    good.round_trip();
}

fn a_header_has_one_deadline_that_bytes_do_not_extend(config: EngineConfig) {
    let mut setup = Setup { proxied: true, ..Setup::new(config) };
    setup.limits.head_timeout = Some(Duration::from_millis(100));
    let server = Server::start(setup);
    let mut silent = server.client();
    let client = server.client();
    // It is not heard to its end: there are more bytes than there is time.
    let say = |byte: &u8| {
        std::thread::park_timeout(Duration::from_millis(10));
        client.stream().write_all(&[*byte])
    };
    let said = LINE.iter().try_for_each(say);
    assert!(said.is_err() || client.stream().read(&mut [0]).is_err());
    silent.until_reset();
    until(|| server.listener().closed(Reason::HEAD_TIMEOUT) == 2);
    assert_eq!(closes(&server), 0);
}

fn who_ends_before_the_header_was_nobody(config: EngineConfig) {
    let server = proxied(config);
    drop(server.client());
    until(|| server.listener().closed(Reason::PEER_CLOSED) == 1);
    let client = server.client();
    client.send(&LINE[..10]);
    client.end_input();
    until(|| server.listener().closed(Reason::PROXY_HEADER) == 1);
    let client = server.client();
    client.send(&LINE[..10]);
    server.wait_for(ListenerWord::BytesIn, 20);
    client.reset();
    until(|| server.listener().closed(Reason::PEER_RESET) == 1);
    assert_eq!(closes(&server), 0);
}

fn a_header_on_a_unix_socket_names_an_address_too(config: EngineConfig) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let socket = Socket::own(UnixListener::bind(&path).unwrap());
    let nowhere = ([127, 0, 0, 1], 0).into();
    let server = Server::on(Setup { proxied: true, ..Setup::new(config) }, nowhere, vec![socket]);
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&[LINE, b"peer\n"].concat()).unwrap();
    let mut answer = [0; 16];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"192.0.2.1:56324\n");
    // It is heard on, as on any Unix socket, though it does not read any more.
    let handle = server.see(|seen| if let Seen::Opened(handle) = seen { Some(handle) } else { None });
    client.shutdown(Shutdown::Read).unwrap();
    for _ in 0..10 {
        handle.send("news").unwrap();
        client.write_all(b"count 1\n").unwrap();
    }
    until(|| server.listener().service(0) == 10);
    client.write_all(b"done\n").unwrap();
    assert_eq!(server.expect_close(Reason::DONE).address, address("192.0.2.1:56324"));
}

fn an_operator_sees_and_closes_who_has_not_said_its_name(config: EngineConfig) {
    let server = proxied(config);
    let mut client = server.client();
    client.send(&LINE[..20]);
    server.wait_for(ListenerWord::BytesIn, 20);
    let handle = server.running.as_ref().unwrap().handle();
    let page = handle.connections_page(None, 10, PATIENCE).unwrap();
    assert_eq!((page.len(), page[0].state), (1, ConnState::Greeting));
    assert_eq!(page[0].next_close.map(|(reason, _)| reason), Some(Reason::HEAD_TIMEOUT));
    handle.close(page[0].id, Reason::OPERATOR).unwrap();
    assert_eq!(client.rest(), b"");
    until(|| server.listener().closed(Reason::OPERATOR) == 1);
}

fn who_says_its_name_while_the_loop_retires_is_served_and_told(config: EngineConfig) {
    let mut server = proxied(config);
    let mut client = server.client();
    client.send(&LINE[..20]);
    server.wait_for(ListenerWord::BytesIn, 20);
    let mut other = Client::new(server.address);
    other.send([LINE, b"echo there and back\n"].concat());
    other.expect("there and back");
    let running = server.running.take().unwrap();
    running.quit(PATIENCE);
    server.see(|seen| if let Seen::Retire(_) = seen { Some(()) } else { None });
    client.send([&LINE[20..], b"echo served\n"].concat());
    client.expect("served");
    server.see(|seen| if let Seen::Retire(_) = seen { Some(()) } else { None });
    assert_eq!(client.rest(), b"");
    running.join().unwrap();
}
