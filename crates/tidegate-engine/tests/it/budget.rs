//! Memory that comes near its limit and reaches it: who waits, and who is closed.

use std::io::Read;
use std::sync::Mutex;

use tidegate_engine::{
    Budget, Dispatch, EngineConfig, HandleError, ListenerWord, MAX_LETTER_BYTES, ProcessWord, Reason,
};

use crate::lab::{Note, Seen};
use crate::support::{Server, Setup, closes, until};

under_each_model!(
    at_the_limit_the_slowest_reader_is_closed,
    among_equally_slow_readers_the_largest_goes_first,
    who_asks_for_too_much_is_closed_when_nobody_is_slower,
    input_counts_and_is_paid_for_by_the_slowest_reader,
    near_the_limit_peers_that_do_not_read_wait_with_their_requests,
    near_the_limit_large_messages_wait_for_their_rest,
    near_the_limit_new_connections_wait,
    loops_of_one_budget_are_closed_to_new_connections_together,
    the_loop_that_holds_the_most_makes_room_for_another,
    all_is_given_back_in_the_end,
);

const LIMIT: usize = 8 << 20;

fn setup(config: EngineConfig) -> Setup {
    let config = EngineConfig { max_buffer_bytes: LIMIT, pool_threads: 3, ..config };
    let mut setup = Setup::new(config);
    // What is tested is not the water marks.
    setup.limits.high_water_bytes = LIMIT;
    setup
}

fn held(server: &Server) -> usize {
    usize::try_from(server.metrics.get(ProcessWord::BufferBytes)).unwrap()
}

fn wait_until_held(server: &Server, at_least: usize) {
    until(|| held(server) >= at_least);
}

fn at_the_limit_the_slowest_reader_is_closed(config: EngineConfig) {
    let server = Server::start(setup(config));
    let (mut slow, mut fresh) = (server.client(), server.client());
    slow.send("big 5000000\n");
    wait_until_held(&server, 4_000_000);
    fresh.send("big 5000000\n");
    server.expect_close(Reason::MEMORY_PRESSURE);
    assert_eq!(fresh.line().len(), 5_000_000);
    assert!(slow.until_reset().len() < 1_000_000);
    fresh.round_trip();
}

fn among_equally_slow_readers_the_largest_goes_first(config: EngineConfig) {
    let server = Server::start(setup(config));
    // It also is the one that has waited longest, so it does not matter when a second has passed.
    let mut clients = [3_000_000, 1_000_000, 1_500_000].map(|bytes| {
        let before = held(&server);
        let client = server.client();
        client.send(format!("big {bytes}\n"));
        wait_until_held(&server, before + bytes - 600_000);
        client
    });
    let mut fresh = server.client();
    fresh.send("big 4000000\n");
    server.expect_close(Reason::MEMORY_PRESSURE);
    assert_eq!(fresh.line().len(), 4_000_000);
    clients[0].until_reset();
    assert_eq!(clients[1].line().len(), 1_000_000);
    assert_eq!(clients[2].line().len(), 1_500_000);
    assert_eq!(server.listener().closed(Reason::MEMORY_PRESSURE), 1);
}

fn who_asks_for_too_much_is_closed_when_nobody_is_slower(config: EngineConfig) {
    let server = Server::start(setup(config));
    let (mut client, handle) = server.client_with_handle();
    let mut bystander = server.client();
    client.send("big 5000000\n");
    wait_until_held(&server, 4_000_000);
    handle.send(vec![b'x'; 5_000_000]).unwrap();
    server.expect_close(Reason::MEMORY_PRESSURE);
    client.until_reset();
    bystander.round_trip();
}

fn input_counts_and_is_paid_for_by_the_slowest_reader(config: EngineConfig) {
    let mut setup = setup(config);
    setup.config.max_buffer_bytes = 512 << 10;
    let server = Server::start(setup);
    let mut slow = server.client();
    let mut writers: Vec<_> = (0..80).map(|_| server.client()).collect();
    slow.round_trip();
    writers[79].round_trip();
    slow.send("big 500000\n");
    wait_until_held(&server, 250_000);
    // None is large enough to be made to wait, but there are many.
    let text = "z".repeat(3_990);
    writers.iter().for_each(|writer| writer.send(format!("echo {text}")));
    server.expect_close(Reason::MEMORY_PRESSURE);
    slow.until_reset();
    for writer in &mut writers {
        writer.send("\n");
        writer.expect(&text);
    }
}

/// Has a client hold so much of the limit, in sixteenths and a little.
fn fill(server: &Server, client: &crate::support::Client, sixteenths: usize) -> usize {
    let bytes = LIMIT / 16 * sixteenths + 300_000;
    client.send(format!("big {bytes}\n"));
    wait_until_held(server, LIMIT / 16 * sixteenths);
    bytes
}

/// What the client that does a round trip sends.
const ROUND_TRIP: usize = "echo there and back\n".len();

/// So much has been received, and no more.
fn expect_heard(server: &Server, bytes: usize) {
    // Another thread may have answered before the loop has counted.
    server.wait_for(ListenerWord::BytesIn, bytes as u64);
    assert_eq!(server.count(ListenerWord::BytesIn), bytes as u64, "somebody was heard who is to wait");
}

fn near_the_limit_peers_that_do_not_read_wait_with_their_requests(config: EngineConfig) {
    let server = Server::start(setup(config));
    let (mut slow, mut other) = (server.client(), server.client());
    let bytes = fill(&server, &slow, 12);
    // The loop has taken the step once it has served somebody else.
    other.round_trip();
    slow.send("echo heard\n");
    (0..10).for_each(|_| other.round_trip());
    expect_heard(&server, format!("big {bytes}\n").len() + 11 * ROUND_TRIP);
    assert_eq!(slow.line().len(), bytes);
    slow.expect("heard");
}

fn near_the_limit_large_messages_wait_for_their_rest(config: EngineConfig) {
    let server = Server::start(setup(config));
    let (mut slow, mut writer, mut other) = (server.client(), server.client(), server.client());
    let text = "w".repeat(10_000);
    writer.send(format!("echo {text}"));
    server.wait_for(ListenerWord::BytesIn, 10_005);
    let bytes = fill(&server, &slow, 12);
    other.round_trip();
    writer.send(" and the rest\n");
    (0..10).for_each(|_| other.round_trip());
    expect_heard(&server, 10_005 + format!("big {bytes}\n").len() + 11 * ROUND_TRIP);
    assert_eq!(slow.line().len(), bytes);
    writer.expect(&format!("{text} and the rest"));
}

fn near_the_limit_new_connections_wait(config: EngineConfig) {
    let server = Server::start(setup(config));
    let (mut slow, mut other) = (server.client(), server.client());
    let bytes = fill(&server, &slow, 14);
    until(|| server.metrics.get(ProcessWord::AcceptsHeld) == 1);
    let mut late = server.client();
    late.send("echo at last\n");
    for _ in 0..10 {
        other.round_trip();
    }
    assert_eq!(server.count(ListenerWord::Accepted), 2);
    assert_eq!(slow.line().len(), bytes);
    late.expect("at last");
    assert_eq!(server.metrics.get(ProcessWord::AcceptsHeld), 1);
}

fn loops_of_one_budget_are_closed_to_new_connections_together(config: EngineConfig) {
    let budget = Budget::new(LIMIT);
    let mut setup = setup(config);
    setup.config.max_buffer_bytes = 2 * LIMIT;
    let (full, quiet) = (Server::sharing(&budget, setup), Server::sharing(&budget, setup));
    let mut slow = full.client();
    let bytes = fill(&full, &slow, 14);
    // It has had nothing to do meanwhile.
    until(|| quiet.metrics.get(ProcessWord::AcceptsHeld) == 1);
    let mut late = quiet.client();
    late.send("echo at last\n");
    assert_eq!(slow.line().len(), bytes);
    late.expect("at last");
}

fn the_loop_that_holds_the_most_makes_room_for_another(config: EngineConfig) {
    const BUDGET: usize = 32 << 20;
    const LEFT: usize = 1_500_000;
    // More than is left, whatever the kernel takes of it, and not more than may be taken in advance.
    const ASKED: usize = 2_500_000;
    let budget = Budget::new(BUDGET);
    let mut setup = setup(config);
    setup.config.max_buffer_bytes = 2 * BUDGET;
    setup.limits.max_output_bytes = BUDGET;
    let (full, poor) = (Server::sharing(&budget, setup), Server::sharing(&budget, setup));
    let ((mut slow, to_slow), (mut asking, to_asking)) =
        (full.client_with_handle(), poor.client_with_handle());
    to_slow.send(vec![b's'; BUDGET - LEFT]).unwrap();
    wait_until_held(&full, BUDGET - LEFT - 600_000);
    to_asking.send(vec![b'a'; ASKED]).unwrap();
    full.expect_close(Reason::MEMORY_PRESSURE);
    assert!(asking.bytes(ASKED).iter().all(|byte| *byte == b'a'));
    slow.until_reset();
    asking.round_trip();
    assert!(budget.used_bytes() <= BUDGET);
}

fn all_is_given_back_in_the_end(config: EngineConfig) {
    let budget = Budget::new(LIMIT);
    let mut server = Server::sharing(&budget, setup(config));
    let clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    for client in &clients {
        client.send("echo abc\nbig 1000000\nbig 500000\necho not the end of");
    }
    wait_until_held(&server, 4 * 1_200_000);
    assert!(budget.used_bytes() >= held(&server));
    drop(clients);
    // Unfinished messages go with their connections.
    for round in 1..=10 {
        let clients: Vec<_> = (0..8).map(|_| server.client()).collect();
        let unfinished = format!("echo {}", "u".repeat(50_000));
        clients.iter().for_each(|client| client.send(&unfinished));
        drop(clients);
        until(|| closes(&server) == 4 + 8 * round);
    }
    // Only what is kept for the next ones is left.
    until(|| held(&server) <= LIMIT / 16 * 3);
    server.stop();
    assert_eq!(budget.used_bytes(), 0);
}

/// A slow reader whose session is away when it has to go.
fn a_victim_is_closed_when_its_session_is_back(dispatch: Dispatch) {
    let server = Server::start(setup(EngineConfig { dispatch, ..EngineConfig::default() }));
    let (mut slow, mut fresh) = (server.client(), server.client());
    slow.send("big 5000000\n");
    wait_until_held(&server, 4_000_000);
    slow.send("hold\n");
    server.see(|seen| matches!(seen, Seen::Blocked).then_some(()));
    fresh.send("big 7000000\n");
    // Its memory is free at once, though its handler still has it.
    wait_until_held(&server, 6_000_000);
    assert_eq!(closes(&server), 0);
    assert_eq!(fresh.line().len(), 7_000_000);
    server.unblock.send(()).unwrap();
    server.expect_close(Reason::MEMORY_PRESSURE);
    slow.until_reset();
    fresh.round_trip();
}

#[test]
fn a_victim_is_closed_when_its_session_is_back_from_the_pool() {
    a_victim_is_closed_when_its_session_is_back(Dispatch::Pool);
}

#[test]
fn a_victim_is_closed_when_its_session_is_back_from_a_visit() {
    a_victim_is_closed_when_its_session_is_back(Dispatch::Reactor);
    a_victim_is_closed_when_its_session_is_back(Dispatch::LeaderFollower);
}

#[test]
fn what_other_threads_send_to_a_loop_that_is_stuck_is_limited_in_bytes() {
    let mut setup = Setup::new(EngineConfig::default());
    setup.limits.max_output_bytes = 2 * MAX_LETTER_BYTES;
    let server = Server::start(setup);
    let (mut client, handle) = server.client_with_handle();
    client.send("block\n");
    server.see(|seen| matches!(seen, Seen::Blocked).then_some(()));
    let letter = vec![b'x'; 1 << 20];
    let sent = (0..1000).take_while(|_| handle.send(letter.clone()).is_ok()).count();
    assert_eq!(sent, MAX_LETTER_BYTES >> 20);
    assert_eq!(handle.send("x"), Err(HandleError::Full));
    handle.post(Note::Say("notes have no bytes".into())).unwrap();
    server.unblock.send(()).unwrap();
    assert_eq!(client.bytes(MAX_LETTER_BYTES), vec![b'x'; MAX_LETTER_BYTES]);
    client.expect("notes have no bytes");
    // One that is larger than all of them may be, while no other waits.
    handle.send(vec![b'y'; MAX_LETTER_BYTES + 1]).unwrap();
    assert_eq!(client.bytes(MAX_LETTER_BYTES + 1), vec![b'y'; MAX_LETTER_BYTES + 1]);
}

/// Many that ask for more than there is, of whom half read: those get every byte, or are closed for a reason.
#[test]
fn a_crowd_over_the_limit_is_served_or_closed_for_a_reason() {
    let served = Mutex::new(0);
    crate::support::under_all_models_at_once_with(|config| {
        let server = Server::start(setup(config));
        let readers: Vec<_> = (0..8).map(|_| server.client()).collect();
        let idlers: Vec<_> = (0..8).map(|_| server.client()).collect();
        for client in idlers.iter().chain(&readers) {
            client.send("big 2000000\nbig 2000000\n");
        }
        std::thread::scope(|scope| {
            for client in readers {
                let served = &served;
                scope.spawn(move || {
                    let mut got = Vec::new();
                    client.end_input();
                    let end = client.stream().read_to_end(&mut got);
                    if got.len() == 4_000_002 {
                        *served.lock().unwrap() += 1;
                    } else {
                        end.expect_err("less than all ends with a reset");
                    }
                });
            }
        });
        drop(idlers);
        // A loop that answers in its own thread may still be making what the others have asked for, which takes time where
        // there is little of a processor; but one after the other is done.
        let mut ended = 0;
        while ended < 16 {
            until(|| closes(&server) > ended);
            ended = closes(&server);
        }
        assert_eq!(ended, 16);
        assert!(held(&server) <= LIMIT);
    });
    assert!(*served.lock().unwrap() > 0);
}
