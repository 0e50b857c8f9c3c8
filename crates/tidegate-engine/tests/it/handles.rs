//! `ConnHandle`: other threads, stale handles and wrong types.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tidegate_engine::{EngineConfig, HandleError, ListenerWord, ProcessWord, Reason};

use crate::lab::{Bomb, Note, Seen};
use crate::support::{Server, Setup, until};

under_each_model!(
    several_threads_send_to_one_connection,
    a_close_with_fin_delivers_what_is_queued,
    a_close_with_reset_is_one,
    a_stale_handle_is_gone,
    a_stale_handle_never_reaches_the_next_user_of_its_slot,
    letters_that_come_too_late_are_counted_and_dropped,
    a_full_mailbox_says_so,
    a_handle_of_the_wrong_type_is_a_panic_of_its_connection,
);

fn several_threads_send_to_one_connection(config: EngineConfig) {
    let server = Server::new(config);
    let (mut client, handle) = server.client_with_handle();
    assert!(handle.is_open());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let handle = handle.clone();
            scope.spawn(move || {
                for n in 0..500 {
                    if n % 2 == 0 {
                        handle.send(format!("{thread} {n}\n")).unwrap();
                    } else {
                        handle.post(Note::Say(format!("{thread} {n}"))).unwrap();
                    }
                }
            });
        }
        let mut next = [0; 8];
        for _ in 0..8 * 500 {
            let line = client.line();
            let (thread, n) = line.split_once(' ').unwrap();
            let thread: usize = thread.parse().unwrap();
            assert_eq!(n.parse(), Ok(next[thread]), "thread {thread}");
            next[thread] += 1;
        }
    });
}

fn a_close_with_fin_delivers_what_is_queued(config: EngineConfig) {
    let server = Server::new(config);
    let (mut client, handle) = server.client_with_handle();
    handle.send("last words\n").unwrap();
    handle.close(Reason::CLOSED_BY_PROGRAM).unwrap();
    // It may be too late already, but it must not come after the last words.
    let _ = handle.send("more\n");
    assert_eq!(client.rest(), b"last words\n");
    drop(client);
    server.expect_close(Reason::CLOSED_BY_PROGRAM);
}

fn a_close_with_reset_is_one(config: EngineConfig) {
    let server = Server::new(config);
    let (mut client, handle) = server.client_with_handle();
    handle.close(Reason::FLOOD).unwrap();
    client.until_reset();
    server.expect_close(Reason::FLOOD);
}

fn a_stale_handle_is_gone(config: EngineConfig) {
    let mut server = Server::new(config);
    let (client, handle) = server.client_with_handle();
    drop(client);
    server.expect_close(Reason::PEER_CLOSED);
    assert!(!handle.is_open());
    assert_eq!(handle.send("hello"), Err(HandleError::Gone));
    assert_eq!(handle.post(Note::Resume), Err(HandleError::Gone));
    assert_eq!(handle.close(Reason::FLOOD), Err(HandleError::Gone));
    let (_client, other) = server.client_with_handle();
    assert_eq!((handle.id().slot(), handle.is_open()), (other.id().slot(), false));
    assert_ne!(handle.id().generation(), other.id().generation());
    server.stop();
    assert_eq!(other.send("hello"), Err(HandleError::Gone));
}

fn a_stale_handle_never_reaches_the_next_user_of_its_slot(config: EngineConfig) {
    let config = EngineConfig { max_connections: 4, ..config };
    let server = Server::start(Setup::new(config));
    let stop = AtomicBool::new(false);
    let (delivered, gone) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let pokers: Vec<_> = (0..2)
            .map(|_| {
                let (sender, handles) = std::sync::mpsc::channel::<tidegate_engine::ConnHandle<Note>>();
                let (stop, delivered, gone) = (&stop, &delivered, &gone);
                scope.spawn(move || {
                    let mut known = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        known.extend(handles.try_iter());
                        for handle in &known {
                            // Each handle says its own name, so a stranger's is noticed.
                            match handle.send(format!("{}\n", handle.id())) {
                                Ok(()) => delivered.fetch_add(1, Ordering::Relaxed),
                                Err(_) => gone.fetch_add(1, Ordering::Relaxed),
                            };
                        }
                        let old = known.len().saturating_sub(50);
                        known.drain(..old);
                    }
                });
                sender
            })
            .collect();
        for round in 0..300 {
            let (mut client, handle) = server.client_with_handle();
            let name = handle.id().to_string();
            pokers.iter().for_each(|poker| poker.send(handle.clone()).unwrap());
            for _ in 0..5 {
                client.expect(&name);
            }
            if round % 2 == 0 {
                client.reset();
            }
        }
        until(|| gone.load(Ordering::Relaxed) > 0);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(delivered.load(Ordering::Relaxed) >= 1500);
}

fn letters_that_come_too_late_are_counted_and_dropped(config: EngineConfig) {
    let server = Server::new(config);
    let (client, handle) = server.client_with_handle();
    let mut other = server.client();
    other.send("block\n");
    server.see(|seen| matches!(seen, Seen::Blocked).then_some(()));
    // While the loop stands still: the connection ends, and letters are on their way to it. The destructor of one
    // panics, which the loop outlives.
    handle.close(Reason::FLOOD).unwrap();
    handle.send("too late").unwrap();
    handle.post(Note::Bomb(Bomb)).unwrap();
    server.unblock.send(()).unwrap();
    server.expect_close(Reason::FLOOD);
    other.round_trip();
    assert_eq!(server.metrics.get(ProcessWord::StaleHandles), 2);
    drop(client);
}

fn a_full_mailbox_says_so(config: EngineConfig) {
    let server = Server::new(config);
    let (mut client, handle) = server.client_with_handle();
    let other = server.client();
    other.send("block\n");
    server.see(|seen| matches!(seen, Seen::Blocked).then_some(()));
    let mut sent = 0;
    while handle.send("x\n").is_ok() {
        sent += 1;
    }
    assert_eq!(sent, tidegate_engine::MAX_LETTERS);
    assert_eq!(handle.send("x\n"), Err(HandleError::Full));
    server.unblock.send(()).unwrap();
    assert_eq!(client.bytes(2 * sent), b"x\n".repeat(sent));
    handle.send("room again\n").unwrap();
    client.expect("room again");
}

fn a_handle_of_the_wrong_type_is_a_panic_of_its_connection(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("wrong\n");
    client.until_reset();
    server.expect_close(Reason::PANIC);
    assert_eq!(server.count(ListenerWord::Open), 0);
}
