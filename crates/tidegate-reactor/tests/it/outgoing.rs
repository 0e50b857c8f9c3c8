//! Outgoing connections: there, refused, and given up.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use tidegate_reactor::{Completion, End, Errno, More, Target, Token};
use tidegate_sys::socket::{outgoing_tcp, outgoing_unix};

use crate::support::{Any, Backend, PATIENCE, expect_rest, listener, pattern, until};

with_each_backend!(
    a_connection_is_there_and_then_as_any_other,
    what_the_peer_said_at_once_is_not_lost,
    a_unix_socket_is_there,
    a_refusal_is_told_once,
    what_is_closed_before_it_is_there_is_silent,
    what_was_received_is_sent_on_from_where_it_is,
);

const TOKEN: Token = Token { slot: 7, generation: 1 };

fn socket(address: SocketAddr) -> OwnedFd {
    outgoing_tcp(address, None).unwrap()
}

fn connected(reactor: &mut Any, token: Token) {
    until(reactor, |_, completion| match completion {
        Completion::Connected(t) if t == token => Some(()),
        other => panic!("{other:?}"),
    });
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(false).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn received(reactor: &mut Any, token: Token, n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    until(reactor, |reactor, completion| {
        assert!(matches!(completion, Completion::Received(t) if t == token), "{completion:?}");
        bytes.extend_from_slice(reactor.received());
        (bytes.len() >= n).then_some(())
    });
    bytes
}

fn a_connection_is_there_and_then_as_any_other(backend: Backend) {
    let (listener, address) = listener();
    let mut reactor = Any::new(backend);
    reactor.connect(TOKEN, socket(address), &address.into()).unwrap();
    connected(&mut reactor, TOKEN);
    expect_rest(&mut reactor);
    let mut peer = accept(&listener);
    assert_eq!(reactor.send(TOKEN, b"there", More::No).unwrap(), 5);
    let now = reactor.now();
    reactor.wait(Some(now)).unwrap();
    let mut got = [0; 5];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"there");
    peer.write_all(b"back").unwrap();
    assert_eq!(received(&mut reactor, TOKEN, 4), b"back");
    // Far more than the way takes at once: room is told of as for any other.
    let sent = pattern(4 << 20);
    let mut at = reactor.send(TOKEN, &sent, More::No).unwrap();
    let expected = sent.clone();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        peer.read_exact(&mut got).unwrap();
        assert!(got == expected);
        peer
    });
    while at < sent.len() {
        reactor.await_writable(TOKEN);
        until(&mut reactor, |_, completion| crate::support::is_writable(&completion, TOKEN));
        at += reactor.send(TOKEN, &sent[at..], More::No).unwrap();
    }
    // The last of it leaves in the next waits.
    let limit = reactor.now() + PATIENCE;
    while reactor.unsent(TOKEN) && reactor.now() < limit {
        reactor.await_writable(TOKEN);
        reactor.wait(Some(limit)).unwrap();
        while reactor.next().is_some() {}
    }
    drop(reader.join().unwrap());
    until(&mut reactor, |_, completion| match completion {
        Completion::Ended(TOKEN) => Some(()),
        Completion::Writable(TOKEN) => None,
        other => panic!("{other:?}"),
    });
}

fn what_the_peer_said_at_once_is_not_lost(backend: Backend) {
    let (listener, address) = listener();
    let mut reactor = Any::new(backend);
    reactor.connect(TOKEN, socket(address), &address.into()).unwrap();
    let mut peer = accept(&listener);
    peer.write_all(b"first").unwrap();
    drop(peer);
    let mut bytes = Vec::new();
    let mut there = false;
    let limit = reactor.now() + PATIENCE;
    loop {
        reactor.wait(Some(limit)).unwrap();
        assert!(reactor.now() < limit, "the end did not come");
        let mut ended = false;
        while let Some(completion) = reactor.next() {
            match completion {
                Completion::Connected(TOKEN) => there = true,
                Completion::Received(TOKEN) => bytes.extend_from_slice(reactor.received()),
                Completion::Ended(TOKEN) => ended = true,
                other => panic!("{other:?}"),
            }
        }
        if ended {
            break;
        }
    }
    assert!(there);
    assert_eq!(bytes, b"first");
}

fn a_unix_socket_is_there(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let target = Target::from(path.clone());
    let mut reactor = Any::new(backend);
    let unused = outgoing_unix().unwrap();
    assert_eq!(reactor.connect(TOKEN, unused, &target), Err(Errno::NOENT));
    let listener = UnixListener::bind(&path).unwrap();
    reactor.connect(TOKEN, outgoing_unix().unwrap(), &target).unwrap();
    connected(&mut reactor, TOKEN);
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"back").unwrap();
    assert_eq!(received(&mut reactor, TOKEN, 4), b"back");
}

fn a_refusal_is_told_once(backend: Backend) {
    // Another address has the port, so that nobody listens here.
    let holder = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 93), 0)).unwrap();
    let address: SocketAddr = (Ipv4Addr::new(127, 0, 0, 92), holder.local_addr().unwrap().port()).into();
    let mut reactor = Any::new(backend);
    reactor.connect(TOKEN, socket(address), &address.into()).unwrap();
    until(&mut reactor, |_, completion| match completion {
        Completion::Failed(TOKEN, Errno::CONNREFUSED) => Some(()),
        other => panic!("{other:?}"),
    });
    expect_rest(&mut reactor);
    reactor.close(TOKEN, End::Fin);
    expect_rest(&mut reactor);
}

fn what_is_closed_before_it_is_there_is_silent(backend: Backend) {
    let (listener, address) = listener();
    let mut reactor = Any::new(backend);
    reactor.connect(TOKEN, socket(address), &address.into()).unwrap();
    reactor.close(TOKEN, End::Fin);
    expect_rest(&mut reactor);
    // It was established before it was closed, so the peer reads its end.
    assert_eq!(accept(&listener).read(&mut [0]).unwrap(), 0);
    let again = Token { slot: 7, generation: 2 };
    reactor.connect(again, socket(address), &address.into()).unwrap();
    connected(&mut reactor, again);
}

fn what_was_received_is_sent_on_from_where_it_is(backend: Backend) {
    let (listener, address) = listener();
    let mut reactor = Any::new(backend);
    let tokens = [1, 2].map(|slot| Token { slot, generation: 1 });
    let mut peers = Vec::new();
    for token in tokens {
        reactor.connect(token, socket(address), &address.into()).unwrap();
        connected(&mut reactor, token);
        peers.push(accept(&listener));
    }
    for n in [1, 64, 20_000] {
        let sent = pattern(n);
        peers[0].write_all(&sent).unwrap();
        let mut passed = 0;
        until(&mut reactor, |reactor, completion| {
            assert!(matches!(completion, Completion::Received(t) if t == tokens[0]), "{completion:?}");
            let len = reactor.received().len();
            assert_eq!(reactor.send_received(tokens[1], 0..len, More::No).unwrap(), len);
            passed += len;
            (passed == n).then_some(())
        });
        let now = reactor.now();
        reactor.wait(Some(now)).unwrap();
        assert!(reactor.next().is_none());
        let mut got = vec![0; n];
        peers[1].read_exact(&mut got).unwrap();
        assert!(got == sent, "{n} bytes");
    }
}
