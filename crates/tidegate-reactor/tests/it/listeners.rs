//! Listeners, the waker and the clock.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use tidegate_reactor::{AcceptError, Completion, Errno, PeerAddress, Token};

use crate::support::{Any, Backend, Bench, client, expect_rest, listener, until};

with_each_backend!(
    a_connection_is_accepted_with_its_peers_address,
    peers_of_a_unix_socket_have_no_address,
    more_peers_than_one_turn_accepts_are_all_accepted,
    a_paused_listener_is_silent_and_its_queue_waits,
    what_is_no_longer_listened_to_brings_nothing_and_stays_open_for_its_other_holders,
    a_shared_socket_serves_each_peer_once,
    a_queue_can_be_emptied_by_hand,
    what_was_accepted_before_a_pause_can_be_taken,
    the_ids_of_listeners_that_were_given_up_are_used_again,
    a_refused_peer_gets_the_answer_and_the_end,
    a_waker_ends_the_wait_of_another_thread_every_time,
    a_wait_lasts_until_its_deadline,
);

fn a_connection_is_accepted_with_its_peers_address(backend: Backend) {
    let mut bench = Bench::new(backend);
    let client = client(bench.address);
    let (listener, peer) = until(&mut bench.reactor, |_, completion| match completion {
        Completion::Accepted { listener, peer, .. } => Some((listener, peer)),
        other => panic!("{other:?}"),
    });
    assert_eq!(listener, bench.listener);
    assert_eq!(peer, PeerAddress::Inet(client.local_addr().unwrap()));
}

fn peers_of_a_unix_socket_have_no_address(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let socket = UnixListener::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut reactor = Any::new(backend);
    reactor.listen(socket.into(), true).unwrap();
    let mut peer = UnixStream::connect(&path).unwrap();
    let socket = until(&mut reactor, |_, completion| match completion {
        Completion::Accepted { peer: PeerAddress::Unix, socket, .. } => Some(socket),
        other => panic!("{other:?}"),
    });
    reactor.open(Token { slot: 0, generation: 1 }, socket).unwrap();
    peer.write_all(b"over unix").unwrap();
    until(&mut reactor, |reactor, completion| {
        assert!(matches!(completion, Completion::Received(_)), "{completion:?}");
        assert_eq!(reactor.received(), b"over unix");
        Some(())
    });
}

fn more_peers_than_one_turn_accepts_are_all_accepted(backend: Backend) {
    let mut bench = Bench::new(backend);
    let clients: Vec<_> = (0..100).map(|_| client(bench.address)).collect();
    let mut accepted = Vec::new();
    while accepted.len() < clients.len() {
        bench.reactor.wait_for(Duration::from_secs(5));
        let before = accepted.len();
        while let Some(completion) = bench.reactor.next() {
            let Completion::Accepted { socket, .. } = completion else { panic!("{completion:?}") };
            accepted.push(socket);
        }
        assert!(accepted.len() > before, "nobody came within 5 s");
        assert!(accepted.len() - before <= 64);
    }
}

fn a_paused_listener_is_silent_and_its_queue_waits(backend: Backend) {
    let mut bench = Bench::new(backend);
    bench.reactor.pause_accept(bench.listener);
    bench.reactor.pause_accept(bench.listener);
    let _waiting = client(bench.address);
    bench.expect_silence();
    expect_rest(&mut bench.reactor);
    bench.reactor.resume_accept(bench.listener).unwrap();
    bench.reactor.resume_accept(bench.listener).unwrap();
    until(&mut bench.reactor, |_, c| matches!(c, Completion::Accepted { .. }).then_some(()));
}

fn what_is_no_longer_listened_to_brings_nothing_and_stays_open_for_its_other_holders(backend: Backend) {
    let mut bench = Bench::new(backend);
    bench.reactor.unlisten(bench.listener);
    bench.reactor.unlisten(bench.listener);
    let peer = client(bench.address);
    bench.expect_silence();
    expect_rest(&mut bench.reactor);
    let gone = bench.reactor.accept_now(bench.listener);
    assert!(matches!(gone, Err(AcceptError::Broken(Errno::BADF))), "{gone:?}");
    let mut successor = Any::new(backend);
    successor.listen(bench.socket.try_clone().unwrap(), false).unwrap();
    let address = until(&mut successor, |_, completion| match completion {
        Completion::Accepted { peer, .. } => Some(peer),
        other => panic!("{other:?}"),
    });
    assert_eq!(address, PeerAddress::Inet(peer.local_addr().unwrap()));
}

fn a_shared_socket_serves_each_peer_once(backend: Backend) {
    let (socket, address) = listener();
    let mut reactors: Vec<Any> = (0..2).map(|_| Any::new(backend)).collect();
    for reactor in &mut reactors {
        reactor.listen(socket.try_clone().unwrap().into(), true).unwrap();
    }
    let clients: Vec<_> = (0..40).map(|_| client(address)).collect();
    let mut expected: Vec<_> = clients.iter().map(|c| c.local_addr().unwrap().port()).collect();
    let mut seen = Vec::new();
    let mut idle_rounds = 0;
    while seen.len() < clients.len() {
        let before = seen.len();
        for reactor in &mut reactors {
            reactor.wait_for(Duration::from_millis(10));
            while let Some(completion) = reactor.next() {
                let Completion::Accepted { peer: PeerAddress::Inet(peer), .. } = completion else {
                    panic!("{completion:?}")
                };
                seen.push(peer.port());
            }
        }
        idle_rounds = if seen.len() == before { idle_rounds + 1 } else { 0 };
        assert!(idle_rounds < 500, "{} of {} peers were accepted", seen.len(), clients.len());
    }
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

fn a_queue_can_be_emptied_by_hand(backend: Backend) {
    let mut bench = Bench::new(backend);
    bench.reactor.pause_accept(bench.listener);
    let peers: Vec<_> = (0..3).map(|_| client(bench.address)).collect();
    for peer in &peers {
        let (_socket, address) = bench.reactor.accept_now(bench.listener).unwrap();
        assert_eq!(address, PeerAddress::Inet(peer.local_addr().unwrap()));
    }
    assert!(matches!(bench.reactor.accept_now(bench.listener), Err(AcceptError::Empty)));
}

fn what_was_accepted_before_a_pause_can_be_taken(backend: Backend) {
    let mut bench = Bench::new(backend);
    let clients: Vec<_> = (0..100).map(|_| client(bench.address)).collect();
    let mut expected: Vec<_> = clients.iter().map(|c| c.local_addr().unwrap().port()).collect();
    let mut seen = Vec::new();
    let mut see = |peer| {
        let PeerAddress::Inet(peer) = peer else { panic!("{peer:?}") };
        seen.push(peer.port());
    };
    // One turn reports less than all of them.
    bench.reactor.wait_for(Duration::from_secs(5));
    while let Some(completion) = bench.reactor.next() {
        let Completion::Accepted { peer, .. } = completion else { panic!("{completion:?}") };
        see(peer);
    }
    bench.reactor.pause_accept(bench.listener);
    while let Ok((_, peer)) = bench.reactor.take_accepted(bench.listener) {
        see(peer);
    }
    assert_eq!(bench.reactor.take_accepted(bench.listener).err(), Some(AcceptError::Empty));
    while let Ok((_, peer)) = bench.reactor.accept_now(bench.listener) {
        see(peer);
    }
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

fn the_ids_of_listeners_that_were_given_up_are_used_again(backend: Backend) {
    let mut bench = Bench::new(backend);
    for _ in 0..20 {
        let (socket, address) = listener();
        let id = bench.reactor.listen(socket.into(), false).unwrap();
        assert_ne!(id, bench.listener);
        assert!(id.0 < 8, "{id:?}");
        let _peer = client(address);
        until(&mut bench.reactor, |_, completion| {
            assert!(
                matches!(completion, Completion::Accepted { listener, .. } if listener == id),
                "{completion:?}"
            );
            Some(())
        });
        bench.reactor.unlisten(id);
    }
    let peer = client(bench.address);
    let address = until(&mut bench.reactor, |_, completion| match completion {
        Completion::Accepted { listener, peer, .. } if listener == bench.listener => Some(peer),
        other => panic!("{other:?}"),
    });
    assert_eq!(address, PeerAddress::Inet(peer.local_addr().unwrap()));
}

fn a_refused_peer_gets_the_answer_and_the_end(backend: Backend) {
    let mut bench = Bench::new(backend);
    bench.reactor.pause_accept(bench.listener);
    assert_eq!(bench.reactor.refuse_one(bench.listener, b"nobody asked"), Err(AcceptError::Empty));
    let mut peer = client(bench.address);
    peer.write_all(b"a request that is not read").unwrap();
    bench.reactor.refuse_one(bench.listener, b"full house").unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "full house");
}

fn a_waker_ends_the_wait_of_another_thread_every_time(backend: Backend) {
    let mut reactor = Any::new(backend);
    let waker = reactor.waker();
    let (go, turns) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || turns.iter().for_each(|()| waker.wake()));
    for _ in 0..100 {
        go.send(()).unwrap();
        until(&mut reactor, |_, c| matches!(c, Completion::Woken).then_some(()));
    }
    drop(go);
    other.join().unwrap();
    // Several before a wait are one.
    let waker = reactor.waker();
    waker.wake();
    waker.wake();
    until(&mut reactor, |_, c| matches!(c, Completion::Woken).then_some(()));
}

fn a_wait_lasts_until_its_deadline(backend: Backend) {
    let mut reactor = Any::new(backend);
    let deadline = reactor.now() + Duration::from_millis(20);
    while reactor.now() < deadline {
        reactor.wait(Some(deadline)).unwrap();
        assert!(reactor.next().is_none());
    }
    assert!(reactor.unix_time() > 1_700_000_000);
    // A deadline in the past does not wait.
    reactor.wait(Some(deadline)).unwrap();
}
