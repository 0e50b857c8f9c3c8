//! Frames reach their handlers, however they are cut, and answers come back in order.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use tidegate_engine::{EngineConfig, Flow, LoopBuilder, Reason};
use tidegate_gateway::{Client, ClientError, Frame, Gateway, GatewayBuilder, MAX_BODY, Note};

use crate::served::{Served, WAIT};

const SHOUT: u16 = 1000;
const SLOW: u16 = 1001;

fn shouting() -> GatewayBuilder {
    Gateway::builder().on(SHOUT, |ctx, body| ctx.reply(SHOUT, &body.to_ascii_uppercase()))
}

fn wire(frames: &[(u16, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (code, body) in frames {
        tidegate_frame::encode(*code, body, &mut out).unwrap();
    }
    out
}

#[test]
fn pipelined_frames_are_answered_in_order() {
    let served = Served::start(shouting());
    let mut client = served.client();
    let bodies: Vec<Vec<u8>> = (0..1_000_u32).map(|n| format!("hello {n}").into_bytes()).collect();
    let mut frames = Vec::new();
    for body in &bodies {
        frames.push((SHOUT, &body[..]));
        frames.push((0, &[]));
    }
    client.send_raw(&wire(&frames)).unwrap();
    for body in &bodies {
        assert_eq!(client.recv().unwrap(), Frame { code: SHOUT, body: body.to_ascii_uppercase() });
        assert_eq!(client.recv().unwrap(), Frame { code: 0, body: vec![] });
    }
    assert_eq!((served.count("pings"), served.count("other_frames")), (1_000, 1_000));
    served.stop();
}

#[test]
fn a_frame_may_come_byte_by_byte_or_be_cut_anywhere() {
    let served = Served::start(shouting());
    let bytes = wire(&[(SHOUT, b"one"), (0, b""), (SHOUT, b"two")]);
    let answers = |client: &mut tidegate_gateway::Client| {
        assert_eq!(client.recv().unwrap().body, b"ONE");
        assert_eq!(client.recv().unwrap().code, 0);
        assert_eq!(client.recv().unwrap().body, b"TWO");
    };
    let mut client = served.client();
    for byte in &bytes {
        client.send_raw(&[*byte]).unwrap();
    }
    answers(&mut client);
    for at in 1..bytes.len() {
        client.send_raw(&bytes[..at]).unwrap();
        client.send_raw(&bytes[at..]).unwrap();
        answers(&mut client);
    }
    served.stop();
}

#[test]
fn the_longest_frame_goes_both_ways() {
    let served = Served::start(shouting());
    let mut client = served.client();
    client.send(SHOUT, &vec![b'a'; MAX_BODY]).unwrap();
    assert_eq!(client.recv().unwrap().body, vec![b'A'; MAX_BODY]);
    assert!(matches!(client.send(SHOUT, &vec![b'a'; MAX_BODY + 1]), Err(ClientError::BodyTooLong(_))));
    client.ping().unwrap();
    served.stop();
}

#[test]
fn a_reply_that_is_too_long_closes_its_connection() {
    let served = Served::start(shouting().on(SLOW, |ctx, _| ctx.reply(SLOW, &vec![0; MAX_BODY + 1])));
    let mut client = served.client();
    client.send(SLOW, b"").unwrap();
    client.recv().unwrap_err();
    assert_eq!(served.closed().reason, Reason::OUTPUT_OVERFLOW);
    served.stop();
}

#[test]
fn a_suspended_connection_waits_for_its_note_and_the_others_do_not() {
    let (asked, asking) = channel();
    let asked = Mutex::new(asked);
    let served = Served::start(shouting().on(SLOW, move |ctx, _| {
        asked.lock().unwrap().send(ctx.handle()).unwrap();
        Ok(Flow::Suspend)
    }));
    let mut client = served.client();
    client.send_raw(&wire(&[(SLOW, b""), (SHOUT, b"later")])).unwrap();
    let handle = asking.recv_timeout(WAIT).unwrap();
    served.client().ping().unwrap();

    handle.post(Note::push(1002, b"news").unwrap()).unwrap();
    assert_eq!(client.recv().unwrap(), Frame { code: 1002, body: b"news".to_vec() });
    served.client().ping().unwrap();
    assert_eq!(served.count("other_frames"), 1, "the second frame waits");

    handle.post(Note::reply(SLOW, b"done").unwrap()).unwrap();
    assert_eq!(client.recv().unwrap(), Frame { code: SLOW, body: b"done".to_vec() });
    assert_eq!(client.recv().unwrap(), Frame { code: SHOUT, body: b"LATER".to_vec() });

    client.send_raw(&wire(&[(SLOW, b""), (0, b"")])).unwrap();
    asking.recv_timeout(WAIT).unwrap().post(Note::resume()).unwrap();
    assert_eq!(client.recv().unwrap(), Frame { code: 0, body: vec![] });
    served.stop();
}

#[test]
fn a_client_keeps_frames_that_it_did_not_wait_for() {
    let served = Served::start(shouting());
    let mut client = served.client();
    client.send(SHOUT, b"first").unwrap();
    client.ping().unwrap();
    assert_eq!(client.recv().unwrap().body, b"FIRST");
    served.stop();
}

#[test]
fn a_retiring_gateway_answers_what_is_in_flight_and_ends_the_rest() {
    let (asked, asking) = channel();
    let asked = Mutex::new(asked);
    let served = Served::start(Gateway::builder().on(SLOW, move |ctx, _| {
        asked.lock().unwrap().send(ctx.handle()).unwrap();
        Ok(Flow::Suspend)
    }));
    let (mut busy, mut idle) = (served.client(), served.client());
    idle.ping().unwrap();
    busy.send(SLOW, b"").unwrap();
    let handle = asking.recv_timeout(WAIT).unwrap();

    served.running.quit(Duration::from_secs(60));
    assert!(matches!(idle.recv(), Err(ClientError::Closed)));
    drop(idle);
    assert_eq!(served.closed().reason, Reason::SHUTDOWN);

    handle.post(Note::reply(SLOW, b"done").unwrap()).unwrap();
    assert_eq!(busy.recv().unwrap().body, b"done");
    assert!(matches!(busy.recv(), Err(ClientError::Closed)));
    drop(busy);
    assert_eq!(served.closed().reason, Reason::SHUTDOWN);
    served.running.join().unwrap();
}

#[test]
fn a_gateway_that_drains_keeps_its_clients_until_it_is_to_end() {
    let served = Served::start(shouting());
    let (mut idle, mut leaver) = (served.client(), served.client());
    idle.ping().unwrap();
    leaver.ping().unwrap();
    served.running.quit(Duration::MAX);
    // When the other one has gone, the loop has been retiring for a while.
    leaver.send(SHOUT, b"still here").unwrap();
    assert_eq!(leaver.recv().unwrap().body, b"STILL HERE");
    drop(leaver);
    assert_eq!(served.closed().reason, Reason::PEER_CLOSED);
    for _ in 0..3 {
        idle.ping().unwrap();
    }
    assert!(!served.running.is_finished());
    served.running.quit(Duration::from_secs(60));
    assert!(matches!(idle.recv(), Err(ClientError::Closed)));
    drop(idle);
    assert_eq!(served.closed().reason, Reason::SHUTDOWN);
    served.running.join().unwrap();
}

#[test]
fn a_client_connects_by_a_path_and_does_not_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.sock");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let running = LoopBuilder::new(EngineConfig::default())
        .listen("gateway", socket, || Ok(shouting().build()))
        .spawn()
        .unwrap();
    let mut client = Client::connect_unix(&path, WAIT).unwrap();
    client.ping().unwrap();
    client.send(SHOUT, b"hello").unwrap();
    assert_eq!(client.recv().unwrap().body, b"HELLO");
    running.stop();
    running.join().unwrap();
    assert!(matches!(client.ping(), Err(ClientError::Closed | ClientError::Io(_))));

    // Nobody accepts, and the queue takes one only.
    let full = std::os::unix::net::UnixListener::bind(dir.path().join("full.sock")).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let connect = || Client::connect_unix(dir.path().join("full.sock"), Duration::from_millis(20));
    let _queued = connect().unwrap();
    assert!(matches!(connect(), Err(ClientError::Connect { .. })));
}
