//! Peers that send too much, or do not read.

use tidegate_engine::Reason;
use tidegate_gateway::Gateway;

use crate::served::{Served, is_reset};

const ECHO: u16 = 1000;

#[test]
fn a_peer_that_does_not_read_is_closed_when_too_many_frames_wait() {
    let builder = Gateway::builder().max_queued_frames(5).on(ECHO, |ctx, body| ctx.reply(ECHO, body));
    let served = Served::start(builder);
    let mut client = served.client();
    while client.send(ECHO, &[7; 1_000]).is_ok() {}
    let closed = served.closed();
    assert_eq!(closed.reason, Reason::OUTPUT_OVERFLOW);
    assert_eq!(served.count("output_overflows"), 1);
    served.stop();
}

#[test]
fn many_answers_in_one_batch_are_no_overflow() {
    let served = Served::start(Gateway::builder().max_queued_frames(1));
    let mut client = served.client();
    client.send_raw(&[0, 8, 0, 0, 0, 0, 0, 0].repeat(5_000)).unwrap();
    for _ in 0..5_000 {
        assert_eq!(client.recv().unwrap().code, 0);
    }
    assert_eq!(served.count("output_overflows"), 0);
    served.stop();
}

#[test]
fn a_peer_that_sends_too_many_frames_is_closed() {
    let served = Served::start(Gateway::builder().max_frames_per_second(10));
    let mut client = served.client();
    for _ in 0..10 {
        client.ping().unwrap();
    }
    client.send_raw(&[0, 8, 0, 0, 0, 0, 0, 0].repeat(100)).unwrap();
    let closed = served.closed();
    assert_eq!(closed.reason, Reason::FLOOD);
    assert_eq!(served.count("floods"), 1);
    // Whatever was answered before the end, the end is a reset.
    let error = loop {
        if let Err(error) = client.recv() {
            break error;
        }
    };
    assert!(is_reset(&error), "{error:?}");
    served.stop();
}
