//! Who sends valid frames is served; who does not is closed, and nothing else counts as a sign of life.
//!
//! The intervals are short so that the tests are. Lower bounds are exact, since a timer never fires early; the upper bound
//! is the promise of one second.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use tidegate_engine::{Closed, Flow, HandleError, Reason};
use tidegate_gateway::{Gateway, GatewayBuilder, Note};

use crate::served::{Served, WAIT};

const INTERVAL: Duration = Duration::from_millis(100);
const GRACE: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_millis(250);
const KEEP: u16 = 1000;

fn short() -> GatewayBuilder {
    Gateway::builder().heartbeat_interval(INTERVAL).heartbeat_grace(GRACE)
}

/// Ended for its silence, within a second of the limit.
fn assert_in_time(closed: &Closed, silent_since: Duration) {
    assert_eq!(closed.reason, Reason::HEARTBEAT_TIMEOUT);
    let silent = closed.age.checked_sub(silent_since).unwrap();
    assert!(silent >= LIMIT && silent < LIMIT + Duration::from_secs(1), "closed after {silent:?}");
}

#[test]
fn a_client_that_pings_is_served_after_ten_intervals() {
    let interval = Duration::from_millis(200);
    let served = Served::start(
        Gateway::builder().heartbeat_interval(interval).heartbeat_grace(Duration::from_millis(1_000)),
    );
    let (mut pinging, mut posting) = (served.client(), served.client());
    // Twice ten intervals are well over the limit of 1.4 s. The sleep is the client's pace, not a wait for the server.
    for _ in 0..20 {
        std::thread::sleep(interval / 2);
        pinging.ping().unwrap();
        posting.send(4_711, b"any valid frame will do").unwrap();
    }
    pinging.ping().unwrap();
    posting.ping().unwrap();
    assert_eq!(served.closed_for(Reason::HEARTBEAT_TIMEOUT), 0);
    served.stop();
}

#[test]
fn a_silent_client_is_closed_and_its_worker_lives_on() {
    let served = Served::start(short());
    let mut client = served.client();
    client.recv().unwrap_err();
    assert_in_time(&served.closed(), Duration::ZERO);
    assert_eq!(served.count("heartbeat_timeouts"), 1);
    served.stop();
}

#[test]
fn the_limit_counts_from_the_last_frame() {
    let served = Served::start(short());
    let mut client = served.client();
    client.ping().unwrap();
    std::thread::sleep(INTERVAL);
    client.ping().unwrap();
    client.recv().unwrap_err();
    let closed = served.closed();
    assert_eq!(closed.reason, Reason::HEARTBEAT_TIMEOUT);
    assert!(closed.age >= LIMIT + INTERVAL, "{:?}", closed.age);
    served.stop();
}

#[test]
fn parts_of_a_frame_are_no_sign_of_life() {
    let served = Served::start(short());
    let mut client = served.client();
    let mut frame = Vec::new();
    tidegate_frame::encode(KEEP, &[7; 20_000], &mut frame).unwrap();
    for byte in &frame {
        if client.send_raw(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(INTERVAL / 10);
    }
    assert_in_time(&served.closed(), Duration::ZERO);
    served.stop();
}

#[test]
fn what_the_server_sends_is_no_sign_of_life() {
    let (opened, opening) = channel();
    let opened = Mutex::new(opened);
    let served = Served::start(short().on(KEEP, move |ctx, _| {
        opened.lock().unwrap().send(ctx.handle()).unwrap();
        Ok(Flow::Continue)
    }));
    let mut client = served.client();
    client.send(KEEP, b"").unwrap();
    let handle = opening.recv_timeout(WAIT).unwrap();
    let pushing = std::thread::spawn(move || {
        loop {
            match handle.post(Note::push(KEEP, b"news").unwrap()) {
                Ok(()) => std::thread::sleep(INTERVAL / 10),
                Err(error) => return error,
            }
        }
    });
    assert_eq!(client.recv().unwrap().body, b"news");
    let closed = served.closed();
    assert_eq!(closed.reason, Reason::HEARTBEAT_TIMEOUT);
    assert!(closed.age >= LIMIT);
    assert_eq!(pushing.join().unwrap(), HandleError::Gone);
    served.stop();
}

#[test]
fn the_clock_stands_still_while_a_request_is_in_flight() {
    let (asked, asking) = channel();
    let asked = Mutex::new(asked);
    let served = Served::start(short().on(KEEP, move |ctx, _| {
        asked.lock().unwrap().send(ctx.handle()).unwrap();
        Ok(Flow::Suspend)
    }));
    let mut waiting = served.client();
    waiting.send(KEEP, b"").unwrap();
    let handle = asking.recv_timeout(WAIT).unwrap();
    // A silent client that came later has been closed when its limit is over, and so is the other one's.
    let silent = served.client();
    let closed = served.closed();
    assert_eq!(closed.id.slot(), 1, "the one that came later");
    drop(silent);
    handle.post(Note::reply(KEEP, b"done").unwrap()).unwrap();
    assert_eq!(waiting.recv().unwrap().body, b"done");
    waiting.ping().unwrap();
    // From the answer on it counts again.
    waiting.recv().unwrap_err();
    assert_eq!(served.closed().reason, Reason::HEARTBEAT_TIMEOUT);
    served.stop();
}

#[test]
fn an_interval_of_zero_turns_it_off() {
    let off = Served::start(short().heartbeat_interval(Duration::ZERO));
    let mut silent = off.client();
    // The other server's clock shows when the limit is over.
    let on = Served::start(short());
    let other = on.client();
    assert_in_time(&on.closed(), Duration::ZERO);
    drop(other);
    silent.ping().unwrap();
    assert_eq!(off.count("heartbeat_timeouts"), 0);
    off.stop();
    on.stop();
}

#[test]
fn an_operator_is_told_when_a_silent_client_would_be_closed() {
    let (asked, asking) = channel();
    let asked = Mutex::new(asked);
    let served = Served::start(Gateway::builder().heartbeat_interval(WAIT).on(KEEP, move |ctx, _| {
        asked.lock().unwrap().send(ctx.handle()).unwrap();
        Ok(Flow::Suspend)
    }));
    let next_close = || {
        let page = served.running.handle().connections_page(None, 10, WAIT).unwrap();
        assert_eq!(page.len(), 1);
        page[0].next_close
    };
    let mut client = served.client();
    client.ping().unwrap();
    let (reason, left) = next_close().unwrap();
    assert_eq!(reason, Reason::HEARTBEAT_TIMEOUT);
    assert!(left > WAIT && left <= 2 * WAIT + Duration::from_secs(10), "{left:?}");
    client.send(KEEP, b"").unwrap();
    let handle = asking.recv_timeout(WAIT).unwrap();
    assert_eq!(next_close(), None, "a request is in flight");
    handle.post(Note::reply(KEEP, b"done").unwrap()).unwrap();
    client.recv().unwrap();
    drop(client);
    served.closed();
    served.stop();
}
