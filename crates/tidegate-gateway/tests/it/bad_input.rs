//! Every kind of bad input has its reason, its counter and its reset, and harms nobody else.

use tidegate_engine::{End, Reason};
use tidegate_gateway::{ClientError, Gateway, GatewayBuilder, OnUnknown};

use crate::served::{Served, is_reset};

/// Sends `bytes`, and expects the end of the connection for `reason`, counted by `counter`, and a server that lives on.
fn check(builder: GatewayBuilder, bytes: &[u8], reason: Reason, counter: &str) {
    let served = Served::start(builder);
    let mut client = served.client();
    client.send_raw(bytes).unwrap();
    let error = client.recv().unwrap_err();
    assert!(is_reset(&error), "{reason}: {error:?}");
    let closed = served.closed();
    assert_eq!(closed.reason, reason);
    assert_eq!(closed.reason.end(), End::Reset);
    assert_eq!(closed.bytes_out, 0, "nothing is said to a peer that breaks the protocol");
    assert_eq!((served.count(counter), served.closed_for(reason)), (1, 1), "{counter}");
    served.stop();
}

fn frame(code: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    tidegate_frame::encode(code, body, &mut out).unwrap();
    out
}

#[test]
fn a_bad_length_is_seen_at_its_second_byte() {
    for length in [0_u16, 1, 7, 30_001, u16::MAX] {
        check(Gateway::builder(), &length.to_be_bytes(), Reason::BAD_LENGTH, "bad_length");
    }
}

#[test]
fn a_bad_checksum() {
    let mut bytes = frame(1000, b"body");
    bytes[8] ^= 1;
    check(Gateway::builder(), &bytes, Reason::BAD_CHECKSUM, "bad_checksum");
    check(Gateway::builder(), &[0, 8, 0, 0, 0, 0, 0, 1], Reason::BAD_CHECKSUM, "bad_checksum");
}

#[test]
fn a_ping_with_a_body() {
    check(Gateway::builder(), &frame(0, b"x"), Reason::BAD_BODY_SIZE, "bad_body_size");
}

#[test]
fn a_code_without_a_handler_closes_when_the_gateway_says_so() {
    let builder = Gateway::builder().on_unknown(OnUnknown::Close);
    check(builder, &frame(4_711, b"x"), Reason::UNKNOWN_CODE, "unknown_code");
}

#[test]
fn a_code_without_a_handler_is_dropped_and_counted() {
    let served = Served::start(Gateway::builder());
    let mut client = served.client();
    for code in [1, 5, 6, 65_535] {
        client.send(code, b"body").unwrap();
    }
    client.ping().unwrap();
    assert_eq!(
        served.count("unknown_code"),
        4,
        "without accounts, register and login are codes like any other"
    );
    assert_eq!(served.closed_for(Reason::UNKNOWN_CODE), 0);
    served.stop();
}

#[test]
fn what_was_answered_before_a_bad_frame_reaches_nobody_else() {
    let served = Served::start(Gateway::builder());
    let (mut bad, mut good) = (served.client(), served.client());
    good.ping().unwrap();
    for _ in 0..3 {
        let mut bytes = frame(0, b"").repeat(5);
        bytes.extend([0, 1]);
        bad.send_raw(&bytes).unwrap();
        assert!(is_reset(&bad.recv().unwrap_err()));
        assert_eq!(served.closed().reason, Reason::BAD_LENGTH);
        bad = served.client();
        // One answer to each, and then silence: an answer too many would stand before the next one.
        good.ping().unwrap();
        good.send(2, b"").unwrap();
    }
    drop(bad);
    assert_eq!(served.closed().reason, Reason::PEER_CLOSED);
    served.running.quit(std::time::Duration::from_secs(60));
    assert!(matches!(good.recv(), Err(ClientError::Closed)));
}
