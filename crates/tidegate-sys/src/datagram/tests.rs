//! Datagrams over loopback and Unix sockets of the test's own.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use super::*;

fn local(ip: impl Into<std::net::IpAddr>) -> SocketAddr {
    (ip.into(), 0).into()
}

fn socket(ip: impl Into<std::net::IpAddr>) -> (UdpSocket, Address, Traits) {
    let socket = UdpSocket::bind(local(ip)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let address = socket.local_addr().unwrap().into();
    (socket, address, Traits::default())
}

/// Receives what is there: over loopback a datagram has arrived when it was sent.
fn received(socket: &UdpSocket, traits: Traits) -> Inbound {
    let mut batch = Inbound::new(64 << 10);
    batch.receive(socket, traits).unwrap();
    batch
}

#[test]
fn an_address_is_read_as_it_was_written() {
    for text in ["127.0.0.1:7", "0.0.0.0:0", "[::1]:65535", "[fe80::1%3]:9"] {
        let inet: SocketAddr = text.parse().unwrap();
        let address = Address::from(inet);
        assert_eq!((address.inet(), address.path(), address.is_unnamed()), (Some(inet), None, false));
        assert_eq!(address.to_string(), text);
    }
    let path = Path::new("/run/a socket");
    let address = Address::of_path(path).unwrap();
    assert_eq!((address.path(), address.inet()), (Some(path), None));
    assert_eq!(address.to_string(), "unix:/run/a socket");
    assert_eq!(Address::of_path(Path::new("")).unwrap_err(), Errno::INVAL);
    let longest = "x".repeat(107);
    assert_eq!(Address::of_path(Path::new(&longest)).unwrap().path(), Some(Path::new(&longest)));
    assert_eq!(Address::of_path(Path::new(&"x".repeat(108))).unwrap_err(), Errno::NAMETOOLONG);
    assert!(Address::unnamed().is_unnamed());
    assert_eq!(Address::unnamed().to_string(), "unix");
}

#[test]
fn a_batch_goes_there_and_back_in_order() {
    let ((here, _, plain), (there, to, _)) = (socket(Ipv4Addr::LOCALHOST), socket(Ipv4Addr::LOCALHOST));
    let mut out = Outbound::default();
    (0..50u8).for_each(|n| out.push(&to, None, &[n; 10]));
    assert_eq!(out.send(&here, plain).unwrap(), BATCH);
    assert_eq!(out.len(), 50 - BATCH);
    assert_eq!(out.send(&here, plain).unwrap(), 50 - BATCH);
    assert_eq!((out.is_empty(), out.queued_bytes()), (true, 0));
    assert_eq!(out.send(&here, plain).unwrap(), 0);
    let mut came = Vec::new();
    let mut batch = Inbound::new(2000);
    while let Ok(count) = batch.receive(&there, plain) {
        for at in 0..count {
            let datagram = batch.get(at).unwrap();
            assert_eq!(datagram.from.inet(), Some(here.local_addr().unwrap()));
            assert_eq!((datagram.bytes.len(), datagram.truncated, datagram.segment), (10, false, 0));
            came.push(datagram.bytes[0]);
        }
        assert!(batch.get(count).is_none());
    }
    assert_eq!(came, (0..50).collect::<Vec<u8>>());
    assert!(batch.is_empty());
}

#[test]
fn what_does_not_fit_is_marked() {
    let ((here, _, plain), (there, to, _)) = (socket(Ipv4Addr::LOCALHOST), socket(Ipv4Addr::LOCALHOST));
    for len in [99, 100, 101] {
        here.send_to(&vec![1; len], to.inet().unwrap()).unwrap();
    }
    let mut batch = Inbound::new(100);
    assert_eq!(batch.receive(&there, plain).unwrap(), 3);
    let found: Vec<_> =
        (0..3).map(|at| batch.get(at).unwrap()).map(|it| (it.bytes.len(), it.truncated)).collect();
    assert_eq!(found, [(99, false), (100, false), (100, true)]);
}

#[test]
fn empty_datagrams_are_datagrams() {
    let ((here, _, _), (there, to, _)) = (socket(Ipv4Addr::LOCALHOST), socket(Ipv4Addr::LOCALHOST));
    let traits = prepare(&here).unwrap();
    let mut out = Outbound::default();
    for bytes in [&b""[..], b"", b"x", b"", b"xy"] {
        out.push(&to, None, bytes);
    }
    assert_eq!(out.send(&here, traits).unwrap(), 5);
    let lens: Vec<_> = (0..5).map(|_| there.recv(&mut [0; 9]).unwrap()).collect();
    assert_eq!(lens, [0, 0, 1, 0, 2]);
}

#[test]
fn runs_of_equal_size_leave_as_one_and_come_as_many() {
    let ((here, _, _), (there, to, plain)) = (socket(Ipv4Addr::LOCALHOST), socket(Ipv4Addr::LOCALHOST));
    let (other, to_other, _) = socket(Ipv4Addr::LOCALHOST);
    let traits = prepare(&here).unwrap();
    assert!(traits.segments, "this kernel has UDP_SEGMENT");
    let mut out = Outbound::default();
    let lens = [40, 40, 40, 7, 40, 40];
    lens.iter().for_each(|len| out.push(&to, None, &vec![b'a'; *len]));
    out.push(&to_other, None, b"elsewhere");
    assert_eq!(out.send(&here, traits).unwrap(), 7);
    let batch = received(&there, plain);
    let came: Vec<_> = (0..batch.len()).map(|at| batch.get(at).unwrap().bytes.len()).collect();
    assert_eq!(came, lens);
    assert_eq!(received(&other, plain).get(0).unwrap().bytes, b"elsewhere");
}

#[test]
fn what_was_joined_says_the_size_of_its_segments() {
    let ((here, _, _), (there, to, _)) = (socket(Ipv4Addr::LOCALHOST), socket(Ipv4Addr::LOCALHOST));
    let (sends, receives) = (prepare(&here).unwrap(), prepare(&there).unwrap());
    let mut out = Outbound::default();
    [30, 30, 30, 11].iter().for_each(|len| out.push(&to, None, &vec![b'a'; *len]));
    assert_eq!(out.send(&here, sends).unwrap(), 4);
    let batch = received(&there, receives);
    let datagram = batch.get(0).unwrap();
    assert_eq!((batch.len(), datagram.bytes.len(), datagram.segment), (1, 101, 30));
}

#[test]
fn a_socket_at_every_address_knows_which_one_was_meant() {
    for (any, own) in [
        (local(Ipv4Addr::UNSPECIFIED), local(Ipv4Addr::new(127, 0, 0, 9))),
        (local(Ipv6Addr::UNSPECIFIED), local(Ipv6Addr::LOCALHOST)),
    ] {
        let Ok(server) = UdpSocket::bind(any) else { continue };
        let traits = prepare(&server).unwrap();
        let meant = SocketAddr::new(own.ip(), server.local_addr().unwrap().port());
        let client = UdpSocket::bind(SocketAddr::new(own.ip().to_canonical(), 0)).unwrap();
        client.send_to(b"hello", meant).unwrap();
        let batch = received(&server, traits);
        let datagram = batch.get(0).unwrap();
        let arrival = datagram.arrival.unwrap();
        assert_eq!((arrival.local, arrival.to_many), (own.ip(), false));
        // A peer that has connected its socket hears nobody but the address that it has sent to.
        client.connect(meant).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut out = Outbound::default();
        out.push(datagram.from, Some(&arrival), b"back");
        out.push(datagram.from, Some(&arrival), b"more");
        assert_eq!(out.send(&server, traits).unwrap(), 2);
        assert_eq!((client.recv(&mut [0; 9]).unwrap(), client.recv(&mut [0; 9]).unwrap()), (4, 4));
    }
}

#[test]
fn a_datagram_that_cannot_be_sent_does_not_keep_the_others() {
    let ((here, _, plain), (there, to, _)) = (socket(Ipv4Addr::LOCALHOST), socket(Ipv4Addr::LOCALHOST));
    let mut out = Outbound::default();
    out.push(&to, None, &[0; 70_000]);
    out.push(&to, None, b"small");
    assert_eq!(out.send(&here, plain).unwrap_err(), Errno::MSGSIZE);
    assert_eq!(out.skip(), Some(70_000));
    assert_eq!(out.send(&here, plain).unwrap(), 1);
    assert_eq!(there.recv(&mut [0; 9]).unwrap(), 5);
    assert_eq!(out.skip(), None);
}

#[test]
fn what_has_left_is_forgotten_while_others_wait() {
    let mut out = Outbound::default();
    let (a, b): (Address, Address) = (local(Ipv4Addr::LOCALHOST).into(), local(Ipv6Addr::LOCALHOST).into());
    let count = MAX_KEPT + 3;
    (0..count).for_each(|n| out.push(if n % 2 == 0 { &a } else { &b }, None, b"abc"));
    for left in (1..count).rev() {
        assert_eq!(out.skip(), Some(3));
        assert_eq!(out.len(), left);
    }
    let one = out.queued_bytes();
    out.push(&b, None, b"abc");
    assert_eq!(out.queued_bytes(), 2 * one);
}

/// As many as are kept of those that have left.
const MAX_KEPT: usize = 4096;

#[test]
fn unix_sockets_have_paths_or_no_names() {
    let folder = tempfile::tempdir().unwrap();
    let (server, own) = (folder.path().join("server"), folder.path().join("client"));
    let socket = bind_unix_datagrams(&server, &DatagramOptions::default(), 0o600).unwrap();
    let traits = prepare(&socket).unwrap();
    assert_eq!(traits, Traits::default());
    let (named, unnamed) = (UnixDatagram::bind(&own).unwrap(), UnixDatagram::unbound().unwrap());
    named.send_to(b"named", &server).unwrap();
    unnamed.send_to(b"unnamed", &server).unwrap();
    let mut batch = Inbound::new(100);
    assert_eq!(batch.receive(&socket, traits).unwrap(), 2);
    let (first, second) = (batch.get(0).unwrap(), batch.get(1).unwrap());
    assert_eq!((first.from.path(), first.from.is_unnamed()), (Some(&*own), false));
    assert_eq!((second.from.path(), second.from.is_unnamed()), (None, true));
    let mut out = Outbound::default();
    out.push(first.from, None, b"back");
    assert_eq!(out.send(&socket, traits).unwrap(), 1);
    assert_eq!(named.recv(&mut [0; 9]).unwrap(), 4);
}

#[test]
fn a_path_that_somebody_has_is_refused_and_a_stale_one_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let bind = || bind_unix_datagrams(&path, &DatagramOptions::default(), 0o600);
    drop(bind().unwrap());
    let live = bind().unwrap();
    assert_eq!(bind().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    drop(live);
    std::fs::remove_file(&path).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert_eq!(bind().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(bind().unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_group_shares_a_port_and_nobody_else_joins() {
    let options = DatagramOptions { receive_buffer: Some(50_000), send_buffer: Some(60_000) };
    let group = bind_udp_group(local(Ipv4Addr::LOCALHOST), &options, 3).unwrap();
    let address = crate::socket::local_address(&group[0]).unwrap();
    assert!(group.iter().all(|socket| crate::socket::local_address(socket).unwrap() == address));
    assert_eq!(crate::socket::buffer_sizes(&group[2]).unwrap(), (100_000, 120_000));
    for count in [1, 2] {
        let error = bind_udp_group(address, &options, count).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    }
    let (client, _, _) = socket(Ipv4Addr::LOCALHOST);
    let clients: Vec<_> = (0..60).map(|_| socket(Ipv4Addr::LOCALHOST).0).collect();
    clients.iter().chain([&client]).for_each(|it| assert_eq!(it.send_to(b"x", address).unwrap(), 1));
    let mut batch = Inbound::new(10);
    let mut waiting =
        |socket| std::iter::from_fn(|| batch.receive(socket, Traits::default()).ok()).sum::<usize>();
    let counts: Vec<usize> = group.iter().map(&mut waiting).collect();
    assert_eq!(counts.iter().sum::<usize>(), 61);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn a_socket_for_connections_is_refused() {
    let listener = std::net::TcpListener::bind(local(Ipv4Addr::LOCALHOST)).unwrap();
    assert_eq!(prepare(&listener).unwrap_err(), Errno::PROTOTYPE);
}

#[test]
fn control_data_that_no_kernel_writes_says_nothing() {
    for len in [0usize, 1, 15, 17, usize::MAX] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&len.to_ne_bytes());
        assert_eq!(control::read(&bytes), control::Said::default(), "{len}");
    }
    assert_eq!(control::read(&[0xff; 64]), control::Said::default());
    assert_eq!(control::read(&[0; 15]), control::Said::default());
}
