//! Connections: receiving, sending, both ends, and breaking.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

use tidegate_reactor::{Completion, End, Errno, More};

use crate::support::{Backend, Bench, is_writable, pattern, reset, until};

with_each_backend!(
    bytes_arrive_whole_and_then_the_end,
    a_busy_peer_does_not_hold_a_turn,
    a_short_send_is_followed_by_writable_every_time,
    a_paused_connection_is_silent_and_loses_nothing,
    pausing_between_two_pieces_of_a_busy_peer_loses_nothing,
    the_other_direction_of_a_half_closed_connection_works,
    a_reset_is_reported_once_with_its_cause,
    a_reset_is_heard_while_paused,
    a_reset_is_heard_after_the_peers_end,
    a_reset_behind_an_end_that_nobody_has_seen_yet_is_heard,
    a_close_ends_with_fin_or_reset_as_asked,
    a_stale_token_reaches_nobody,
    events_of_a_connection_that_was_closed_in_the_same_turn_are_dropped,
    a_file_is_sent_from_its_offset_to_its_end,
);

fn bytes_arrive_whole_and_then_the_end(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    let sent = pattern(1 << 20);
    let expected = sent.clone();
    let writer = std::thread::spawn(move || client.write_all(&sent).unwrap());
    let (bytes, end) = bench.receive();
    assert!(bytes == expected);
    assert!(matches!(end, Completion::Ended(t) if t == token), "{end:?}");
    writer.join().unwrap();
}

fn a_busy_peer_does_not_hold_a_turn(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, _) = bench.connect();
    let writer = std::thread::spawn(move || client.write_all(&pattern(4 << 20)).unwrap());
    let mut left = 4 << 20;
    while left > 0 {
        bench.reactor.wait(None).unwrap();
        let (mut turns, before) = (0, left);
        while let Some(completion) = bench.reactor.next() {
            if let Completion::Received(_) = completion {
                left -= bench.reactor.received().len();
                turns += 1;
            }
        }
        let most = match backend {
            // The first and one from the list.
            Backend::EDGE => 2,
            Backend::Epoll(_) => 1,
            // Its buffers, of which each may be filled in several pieces; the bytes are what takes time.
            Backend::Uring => usize::MAX,
        };
        assert!(turns <= most, "{turns} receives in one turn");
        assert!(before - left <= 2 << 20, "{} bytes in one turn", before - left);
    }
    writer.join().unwrap();
}

fn a_short_send_is_followed_by_writable_every_time(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    for _ in 0..3 {
        let sent = pattern(2 << 20);
        let mut at = bench.reactor.send(token, &sent, More::No).unwrap();
        assert!(at > 0 && at < sent.len(), "{at} bytes were taken of a client that does not read");
        bench.reactor.await_writable(token);
        let (mut peer, n) = (client.try_clone().unwrap(), sent.len());
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; n];
            peer.read_exact(&mut got).unwrap();
            got
        });
        while at < sent.len() {
            until(&mut bench.reactor, |_, c| is_writable(&c, token));
            at += bench
                .reactor
                .send_vectored(token, &[IoSlice::new(&sent[at..at]), IoSlice::new(&sent[at..])])
                .unwrap();
            bench.reactor.await_writable(token);
        }
        bench.deliver(token);
        assert!(reader.join().unwrap() == sent);
    }
    client.write_all(b"still here").unwrap();
    let mut bytes = Vec::new();
    until(&mut bench.reactor, |reactor, completion| {
        if let Completion::Received(_) = completion {
            bytes.extend_from_slice(reactor.received());
        }
        (bytes == b"still here").then_some(())
    });
}

fn a_paused_connection_is_silent_and_loses_nothing(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    client.write_all(b"one").unwrap();
    assert_eq!(bench.receive_bytes(3), b"one");
    bench.reactor.pause(token);
    client.write_all(b"two").unwrap();
    bench.expect_silence();
    client.shutdown(Shutdown::Write).unwrap();
    bench.expect_silence();
    bench.reactor.resume(token);
    let (bytes, end) = bench.receive();
    assert_eq!(bytes, b"two");
    assert!(matches!(end, Completion::Ended(t) if t == token), "{end:?}");
}

fn pausing_between_two_pieces_of_a_busy_peer_loses_nothing(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    let sent = pattern(3 << 20);
    let expected = sent.clone();
    let writer = std::thread::spawn(move || client.write_all(&sent).unwrap());
    let mut bytes = Vec::new();
    let waker = bench.reactor.waker();
    let end = until(&mut bench.reactor, |reactor, completion| {
        match completion {
            Completion::Received(_) => {
                bytes.extend_from_slice(reactor.received());
                reactor.pause(token);
                waker.wake();
            }
            Completion::Woken => reactor.resume(token),
            Completion::Ended(token) => return Some(token),
            other => panic!("{other:?}"),
        }
        None
    });
    assert_eq!(end, token);
    assert!(bytes == expected);
    writer.join().unwrap();
}

fn the_other_direction_of_a_half_closed_connection_works(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (bytes, end) = bench.receive();
    assert_eq!(bytes, b"question");
    assert!(matches!(end, Completion::Ended(t) if t == token), "{end:?}");
    bench.expect_silence();
    assert_eq!(bench.reactor.send(token, b"answer", More::No), Ok(6));
    bench.reactor.shutdown_send(token);
    bench.submit();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

fn a_reset_is_reported_once_with_its_cause(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (client, token) = bench.connect();
    reset(client);
    let (_, end) = bench.receive();
    assert!(matches!(end, Completion::Failed(t, Errno::CONNRESET) if t == token), "{end:?}");
    bench.expect_silence();
}

fn a_reset_is_heard_while_paused(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (client, token) = bench.connect();
    bench.reactor.pause(token);
    reset(client);
    let (_, end) = bench.receive();
    assert!(matches!(end, Completion::Failed(t, Errno::CONNRESET) if t == token), "{end:?}");
}

fn a_reset_is_heard_after_the_peers_end(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (client, token) = bench.connect();
    client.shutdown(Shutdown::Write).unwrap();
    let (_, end) = bench.receive();
    assert!(matches!(end, Completion::Ended(t) if t == token), "{end:?}");
    reset(client);
    let (_, end) = bench.receive();
    assert!(matches!(end, Completion::Failed(t, Errno::PIPE | Errno::CONNRESET) if t == token), "{end:?}");
}

fn a_reset_behind_an_end_that_nobody_has_seen_yet_is_heard(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    reset(client);
    let (bytes, end) = bench.receive();
    assert_eq!(bytes, b"last words");
    assert!(matches!(end, Completion::Ended(t) if t == token), "{end:?}");
    let (_, end) = bench.receive();
    assert!(matches!(end, Completion::Failed(t, Errno::PIPE | Errno::CONNRESET) if t == token), "{end:?}");
    bench.expect_silence();
}

fn a_close_ends_with_fin_or_reset_as_asked(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    bench.reactor.send(token, b"bye", More::No).unwrap();
    bench.reactor.close(token, End::Fin);
    bench.submit();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "bye");
    let (mut client, token) = bench.connect();
    bench.reactor.close(token, End::Reset);
    bench.submit();
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

fn a_stale_token_reaches_nobody(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (_gone, old) = bench.connect();
    bench.reactor.close(old, End::Fin);
    let (mut client, new) = bench.connect();
    assert_eq!(old.slot, new.slot);
    assert_eq!(bench.reactor.send(old, b"for another", More::No), Err(Errno::BADF));
    bench.reactor.pause(old);
    bench.reactor.shutdown_send(old);
    bench.reactor.close(old, End::Reset);
    client.write_all(b"alive").unwrap();
    assert_eq!(bench.receive_bytes(5), b"alive");
    assert_eq!(bench.reactor.send(new, b"yes", More::No), Ok(3));
}

fn events_of_a_connection_that_was_closed_in_the_same_turn_are_dropped(backend: Backend) {
    let mut bench = Bench::new(backend);
    let mut peers: Vec<_> = (0..2).map(|slot| bench.connect_at(slot)).collect();
    for (client, _) in &mut peers {
        client.write_all(b"both are ready").unwrap();
    }
    bench.reactor.wait(None).unwrap();
    let Some(Completion::Received(first)) = bench.reactor.next() else { panic!("both have sent") };
    for (_, token) in &peers {
        bench.reactor.close(*token, End::Fin);
    }
    assert!(bench.reactor.next().is_none(), "{first:?} closed both");
}

fn a_file_is_sent_from_its_offset_to_its_end(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    let mut file = tempfile::tempfile().unwrap();
    let content = pattern(1 << 20);
    file.write_all(&content).unwrap();
    let (first, end) = (1000u64, content.len() as u64);
    let expected = content[1000..].to_vec();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        client.read_exact(&mut got).unwrap();
        assert!(got == expected);
        client
    });
    let mut at = first;
    while at < end {
        let taken = bench.reactor.send_file(token, file.as_fd(), at, end - at).unwrap();
        let taken = taken.expect("the file has as much");
        at += taken as u64;
        if taken == 0 {
            bench.reactor.await_writable(token);
            until(&mut bench.reactor, |_, c| is_writable(&c, token));
        }
    }
    bench.deliver(token);
    let _client = reader.join().unwrap();
    assert_eq!(bench.reactor.send_file(token, file.as_fd(), end, 1), Ok(None), "nothing is there");
}
