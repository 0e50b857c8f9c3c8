//! Timers and deadlines.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use tidegate_engine::{EngineConfig, ListenerWord, Reason};

use crate::lab::Note;
use crate::support::{PATIENCE, Server};

const SHORT: Option<Duration> = Some(Duration::from_millis(60));

under_each_model!(
    timers_fire_in_order_and_never_early,
    a_timer_is_replaced_and_cancelled_by_its_token,
    a_timer_that_sets_itself_for_now_does_not_hold_the_loop,
    timers_end_with_their_connection,
    a_silent_peer_is_reset,
    a_head_has_one_deadline_that_bytes_do_not_extend,
    a_service_may_answer_a_deadline_and_gets_the_next_one,
    a_deadline_of_zero_ends_the_connection_and_not_the_loop,
);

with_each_other_timer_queue!(
    timers_fire_in_order_and_never_early,
    a_timer_is_replaced_and_cancelled_by_its_token,
    a_timer_that_sets_itself_for_now_does_not_hold_the_loop,
    timers_end_with_their_connection,
    a_silent_peer_is_reset,
    a_head_has_one_deadline_that_bytes_do_not_extend,
    a_service_may_answer_a_deadline_and_gets_the_next_one,
    a_deadline_of_zero_ends_the_connection_and_not_the_loop,
);

under_all_models_at_once!(
    more_timers_than_a_turn_serves_fire_all_the_same,
    nothing_is_due_from_a_peer_that_waits_for_its_answer,
    a_body_without_progress_is_reset_and_one_with_progress_is_not
);

fn timers_fire_in_order_and_never_early(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    let start = Instant::now();
    client.send("timer 1 60\ntimer 2 20\ntimer 3 40\n");
    for (timer, after) in [(2, 20), (3, 40), (1, 60)] {
        client.expect(&format!("timer {timer}"));
        assert!(start.elapsed() >= Duration::from_millis(after), "timer {timer}");
    }
}

fn more_timers_than_a_turn_serves_fire_all_the_same(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    let timers = 0..600;
    // All at once, from one batch; then one that only fires if the loop waits again.
    client.send(timers.clone().map(|timer| format!("timer {timer} 30\n")).collect::<String>());
    let mut fired: Vec<u32> = timers.clone().map(|_| number(&client.line())).collect();
    fired.sort_unstable();
    assert!(fired.into_iter().eq(timers));
    client.send("timer 7 10\n");
    client.expect("timer 7");
}

fn number(line: &str) -> u32 {
    line.strip_prefix("timer ").and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line:?}"))
}

fn a_timer_is_replaced_and_cancelled_by_its_token(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("timer 1 500\ntimer 2 500\ncancel 2\ncancel 9\ntimer 1 10\ntimer 3 700\n");
    client.expect("timer 1");
    client.expect("timer 3");
}

fn a_timer_that_sets_itself_for_now_does_not_hold_the_loop(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    let mut other = server.client();
    client.send("timer 1 0 200\n");
    for _ in 0..201 {
        client.expect("timer 1");
    }
    other.round_trip();
}

fn timers_end_with_their_connection(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("timer 1 20\ntimer 2 3600000\ndone\n");
    assert_eq!(client.rest(), b"");
    drop(client);
    server.expect_close(Reason::DONE);
    // The next user of the slot hears nothing of them.
    let mut client = server.client();
    client.send("timer 3 60\n");
    client.expect("timer 3");
}

fn a_silent_peer_is_reset(config: EngineConfig) {
    let server = Server::with(config, |limits| limits.idle_timeout = SHORT);
    let mut client = server.client();
    client.round_trip();
    assert_eq!(client.until_reset(), b"");
    server.expect_close(Reason::IDLE_TIMEOUT);
}

fn a_head_has_one_deadline_that_bytes_do_not_extend(config: EngineConfig) {
    let server = Server::with(config, |limits| limits.head_timeout = Some(Duration::from_millis(150)));
    let mut client = server.client();
    client.round_trip();
    let dribble = client.dribble();
    server.expect_close(Reason::HEAD_TIMEOUT);
    dribble.join().unwrap();
}

fn a_body_without_progress_is_reset_and_one_with_progress_is_not(config: EngineConfig) {
    let server = Server::with(config, |limits| {
        limits.body_timeout = Some(Duration::from_millis(300));
        limits.idle_timeout = None;
    });
    let mut slow = server.client();
    slow.send("body 12\n");
    for _ in 0..12 {
        std::thread::park_timeout(Duration::from_millis(50));
        slow.send("x");
    }
    slow.expect("body done");
    let mut client = server.client();
    client.send("body 100\nabc");
    client.until_reset();
    server.expect_close(Reason::BODY_TIMEOUT);
    // Between two bodies no deadline holds here.
    slow.round_trip();
}

fn a_service_may_answer_a_deadline_and_gets_the_next_one(config: EngineConfig) {
    let server = Server::with(config, |limits| limits.idle_timeout = SHORT);
    let mut client = server.client();
    client.send("patient\n");
    client.expect("late: Idle");
    client.until_reset();
    server.expect_close(Reason::IDLE_TIMEOUT);
}

fn nothing_is_due_from_a_peer_that_waits_for_its_answer(config: EngineConfig) {
    let server = Server::with(config, |limits| limits.idle_timeout = Some(Duration::from_millis(600)));
    let mut client = server.client();
    client.send("suspend\n");
    let handle = server.suspended();
    // Longer than the time-out: the answer takes its time.
    std::thread::park_timeout(Duration::from_millis(700));
    handle.post(Note::Say("at last".into())).unwrap();
    client.expect("at last");
    // The peer's time begins with the answer: nothing happens for a while.
    client.stream().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let silence = client.stream().read(&mut [0; 1]).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::WouldBlock);
    client.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    client.round_trip();
    client.until_reset();
    server.expect_close(Reason::IDLE_TIMEOUT);
    assert_eq!(server.count(ListenerWord::Messages), 2);
}

fn a_deadline_of_zero_ends_the_connection_and_not_the_loop(config: EngineConfig) {
    let server = Server::with(config, |limits| limits.idle_timeout = Some(Duration::ZERO));
    let mut client = server.client();
    client.until_reset();
    server.expect_close(Reason::IDLE_TIMEOUT);
}
