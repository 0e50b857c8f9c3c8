//! The frame decoder on whatever comes: no panic, no frame that was not sent, and the same frames however the bytes are cut.
//!
//! The first byte of the input says how the rest is cut; the rest is the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_frame::{
    Decoder, FrameError, HEADER, LOGIN, LoginReply, LoginRequest, MAX_FRAME, REGISTER, RegisterReply,
    RegisterRequest, Step, encode,
};

fuzz_target!(|data: &[u8]| {
    let Some((&cut, stream)) = data.split_first() else { return };
    let whole = drive(stream, stream.len().max(1));
    assert_eq!(drive(stream, usize::from(cut) + 1), whole);
    assert_eq!(drive(stream, 1), whole);
    for (code, body) in &whole.0 {
        check_body(*code, body);
    }
});

type Found = (Vec<(u16, Vec<u8>)>, Option<FrameError>);

/// What the decoder finds in `stream` when `cut` bytes arrive at a time.
fn drive(stream: &[u8], cut: usize) -> Found {
    let (mut buf, mut at_least, mut frames) = (Vec::new(), 0, Vec::new());
    for chunk in stream.chunks(cut) {
        buf.extend_from_slice(chunk);
        while !buf.is_empty() && buf.len() >= at_least {
            match Decoder::new().decode(&buf) {
                Ok(Step::Need(n)) => {
                    assert!(n > buf.len() && n <= MAX_FRAME);
                    at_least = n;
                }
                Ok(Step::Frame { len, header }) => {
                    assert!((HEADER..=MAX_FRAME).contains(&len) && len == usize::from(header.length));
                    let body = buf[HEADER..len].to_vec();
                    let mut again = Vec::new();
                    encode(header.code, &body, &mut again).expect("what was decoded fits");
                    assert_eq!(again, buf[..len], "a frame has one form");
                    frames.push((header.code, body));
                    buf.drain(..len);
                    at_least = 0;
                }
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Bodies are parsed or refused, and texts come out as they went in.
fn check_body(code: u16, body: &[u8]) {
    if code == REGISTER {
        if let Ok(request) = RegisterRequest::parse(body) {
            let again = request.encode().expect("what was parsed fits");
            assert_eq!(RegisterRequest::parse(&again), Ok(request));
        }
        if let Ok(reply) = RegisterReply::parse(body) {
            let again = reply.encode().expect("what was parsed fits");
            assert_eq!(RegisterReply::parse(&again), Ok(reply));
        }
    }
    if code == LOGIN {
        if let Ok(request) = LoginRequest::parse(body) {
            let again = request.encode().expect("what was parsed fits");
            assert_eq!(LoginRequest::parse(&again), Ok(request));
        }
        if let Ok(reply) = LoginReply::parse(body) {
            let again = reply.encode().expect("what was parsed fits");
            assert_eq!(LoginReply::parse(&again), Ok(reply));
        }
    }
}
