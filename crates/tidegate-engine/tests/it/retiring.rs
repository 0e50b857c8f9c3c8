//! The end of a loop: in order, and at once.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use tidegate_engine::{EngineConfig, ListenerWord, Reason};

use crate::client::UNGREETED;
use crate::lab::{Note, Seen};
use crate::support::{Client, Server, closes, until};

const LONG: Duration = Duration::from_secs(60);

under_each_model!(
    what_is_in_flight_is_answered_and_what_is_idle_is_ended,
    what_had_arrived_before_is_still_served,
    what_is_left_is_closed_when_the_grace_is_over,
    a_loop_without_connections_ends_at_once,
    a_stop_closes_everything_once,
    a_stop_ends_a_retirement,
    a_loop_that_is_told_again_goes_by_what_it_is_told_last,
    a_loop_that_drains_has_no_limit_until_it_is_told_one,
    services_are_told_once_that_their_loop_drains_and_once_that_it_ends,
    many_connections_are_told_one_after_the_other,
    a_message_that_outlives_the_grace_is_the_last_thing_that_is_waited_for,
);

fn a_message_that_outlives_the_grace_is_the_last_thing_that_is_waited_for(config: EngineConfig) {
    let mut server = Server::new(config);
    let client = server.served_client();
    client.send("hold\n");
    server.see(|seen| matches!(seen, Seen::Blocked).then_some(()));
    let running = server.running.take().unwrap();
    running.quit(Duration::ZERO);
    // Turns in which the grace passes, in a loop that another thread handles the message for; an inline one answers none.
    for _ in 0..3 {
        let _ = running.handle().connections_page(None, 1, Duration::from_millis(20));
    }
    server.unblock.send(()).unwrap();
    until(|| running.is_finished());
    running.join().unwrap();
}

fn what_is_in_flight_is_answered_and_what_is_idle_is_ended(config: EngineConfig) {
    let mut server = Server::new(config);
    let mut idle = server.client();
    idle.round_trip();
    let mut busy = server.client();
    busy.send("stay\nsuspend\necho also answered\ndone\n");
    let handle = server.suspended();
    let running = server.running.take().unwrap();
    running.quit(LONG);
    assert_eq!(idle.rest(), b"");
    drop(idle);
    server.expect_close(Reason::SHUTDOWN);
    assert!(!running.is_finished());
    handle.post(Note::Say("answered".into())).unwrap();
    assert_eq!(busy.rest(), b"answered\nalso answered\n");
    drop(busy);
    server.expect_close(Reason::DONE);
    running.join().unwrap();
    assert_eq!(closes(&server), 2);
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");
}

fn what_had_arrived_before_is_still_served(config: EngineConfig) {
    let mut server = Server::new(config);
    let mut known: Vec<Client> = Vec::new();
    for n in 1..=1200 {
        known.push(server.client());
        // Not more at a time than the listener's backlog has room for.
        server.wait_for(ListenerWord::Accepted, n);
    }
    let holder = server.client();
    holder.send("block\n");
    server.see(|seen| matches!(seen, Seen::Blocked).then_some(()));
    let running = server.running.take().unwrap();
    running.quit(LONG);
    // The loop stands still: requests wait in connections it has, and connections wait in its queue.
    known.iter().for_each(|client| client.send("echo in time\n"));
    let mut queued: Vec<Client> = (0..UNGREETED).map(|_| server.client()).collect();
    queued.iter().for_each(|client| client.send("echo in time\n"));
    server.unblock.send(()).unwrap();
    for client in known.iter_mut().chain(&mut queued) {
        assert_eq!(client.rest(), b"in time\n");
    }
    drop((known, queued, holder));
    running.join().unwrap();
    assert_eq!(closes(&server), 1201 + UNGREETED);
    assert_eq!(server.listener().closed(Reason::SHUTDOWN), 1201 + UNGREETED);
}

fn what_is_left_is_closed_when_the_grace_is_over(config: EngineConfig) {
    let mut server = Server::new(config);
    let mut client = server.client();
    client.send("stay\necho staying\n");
    client.expect("staying");
    let running = server.running.take().unwrap();
    running.quit(Duration::from_millis(50));
    server.see(|seen| matches!(seen, Seen::Retire(_)).then_some(()));
    client.until_reset();
    server.expect_close(Reason::SHUTDOWN_TIMEOUT);
    running.join().unwrap();
    assert_eq!(closes(&server), 1);
}

fn a_loop_without_connections_ends_at_once(config: EngineConfig) {
    let mut server = Server::new(config);
    let running = server.running.take().unwrap();
    running.quit(LONG);
    running.join().unwrap();
}

fn a_stop_closes_everything_once(config: EngineConfig) {
    let mut server = Server::new(config);
    let mut clients: Vec<Client> = (0..50).map(|_| server.client()).collect();
    clients.iter_mut().for_each(Client::round_trip);
    clients[0].send("big 4000000\n");
    clients[1].send("timer 1 3600000\necho set\n");
    clients[1].expect("set");
    clients[2].send("suspend\n");
    let handle = server.suspended();
    let mut lingering = server.client();
    lingering.send("done\n");
    assert_eq!(lingering.rest(), b"");
    server.stop();
    assert!(!handle.is_open());
    assert_eq!(closes(&server), 51);
    assert_eq!(server.listener().closed(Reason::STOPPED), 50);
    // It was done already.
    assert_eq!(server.listener().closed(Reason::DONE), 1);
}

fn a_stop_ends_a_retirement(config: EngineConfig) {
    let mut server = Server::new(config);
    let mut client = server.client();
    client.send("stay\necho staying\n");
    client.expect("staying");
    let running = server.running.take().unwrap();
    running.quit(LONG);
    server.see(|seen| matches!(seen, Seen::Retire(_)).then_some(()));
    running.stop();
    // A stop is not taken back.
    running.quit(LONG);
    running.join().unwrap();
    server.expect_close(Reason::STOPPED);
}

fn a_loop_that_is_told_again_goes_by_what_it_is_told_last(config: EngineConfig) {
    let mut server = Server::new(config);
    let mut client = server.client();
    client.send("stay\necho staying\n");
    client.expect("staying");
    let running = server.running.take().unwrap();
    running.quit(Duration::from_millis(200));
    running.quit(LONG);
    server.see(|seen| matches!(seen, Seen::Retire(_)).then_some(()));
    running.quit(2 * LONG);
    client.stream().set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let silence = client.stream().read(&mut [0; 1]).unwrap_err();
    assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock);
    client.stream().set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    client.round_trip();
    running.quit(Duration::from_millis(1));
    client.until_reset();
    server.expect_close(Reason::SHUTDOWN_TIMEOUT);
    running.join().unwrap();
}

fn a_loop_that_drains_has_no_limit_until_it_is_told_one(config: EngineConfig) {
    for ends_at_once in [false, true] {
        let mut server = Server::new(config);
        let mut client = server.client();
        client.send("stay\necho staying\n");
        client.expect("staying");
        let running = server.running.take().unwrap();
        running.quit(Duration::MAX);
        assert!(server.see(|seen| if let Seen::Retire(draining) = seen { Some(draining) } else { None }));
        client.round_trip();
        if ends_at_once {
            running.stop();
            server.expect_close(Reason::STOPPED);
        } else {
            running.quit(Duration::from_millis(1));
            client.until_reset();
            server.expect_close(Reason::SHUTDOWN_TIMEOUT);
        }
        running.join().unwrap();
    }
}

fn services_are_told_once_that_their_loop_drains_and_once_that_it_ends(config: EngineConfig) {
    let mut server = Server::new(config);
    let mut client = server.client();
    client.send("stay\necho staying\n");
    client.expect("staying");
    let running = server.running.take().unwrap();
    let mut told = Vec::new();
    for grace in [Duration::MAX, Duration::MAX, LONG, LONG, Duration::MAX] {
        running.quit(grace);
        // One turn to read the order, and one for each that a retirement waits for.
        (0..5).for_each(|_| client.round_trip());
    }
    client.send("done\n");
    assert_eq!(client.rest(), b"");
    drop(client);
    loop {
        match server.see(Some) {
            Seen::Retire(draining) => told.push(draining),
            Seen::Closed(closed) => break assert_eq!(closed.reason, Reason::DONE),
            _ => {}
        }
    }
    running.join().unwrap();
    assert_eq!(told, [true, false]);
}

fn many_connections_are_told_one_after_the_other(config: EngineConfig) {
    let mut server = Server::new(config);
    let mut clients: Vec<Client> = (0..300).map(|_| server.served_client()).collect();
    let running = server.running.take().unwrap();
    running.quit(LONG);
    for client in &mut clients {
        assert_eq!(client.rest(), b"");
    }
    drop(clients);
    running.join().unwrap();
    assert_eq!(server.listener().closed(Reason::SHUTDOWN), 300);
}
