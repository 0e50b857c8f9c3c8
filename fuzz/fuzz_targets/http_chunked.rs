//! The chunked decoder on whatever comes: it always gets on, takes the same bytes however they are cut, and agrees with a
//! decoder that works on whole bodies.
//!
//! The first byte of the input says how the rest is cut; the rest is the body and what follows it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_http::{ChunkedDecoder, HttpError};

/// Small, so that it is met.
const MAX_OVERHEAD: u32 = 64;

/// The data and how many bytes the body took, or `None` while it is not complete.
type Outcome = Result<Option<(Vec<u8>, usize)>, HttpError>;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let whole = run(input, input.len());
    assert_eq!(run(input, 1), whole);
    assert_eq!(run(input, usize::from(cut) + 1), whole);
    if let Ok(Some((data, taken))) = whole {
        assert_eq!(naive(&input[..taken]), Some(data));
    }
});

fn run(input: &[u8], cut: usize) -> Outcome {
    let (mut decoder, mut taken, mut data) = (ChunkedDecoder::with_max_overhead(MAX_OVERHEAD), 0, Vec::new());
    for piece in input.chunks(cut.max(1)) {
        let mut rest = piece;
        while !rest.is_empty() {
            let step = decoder.step(rest)?;
            assert!(step.consumed > 0 || step.done);
            assert!(step.data.end <= step.consumed);
            data.extend_from_slice(&rest[step.data.clone()]);
            taken += step.consumed;
            if step.done {
                return Ok(Some((data, taken)));
            }
            rest = &rest[step.consumed..];
        }
    }
    Ok(None)
}

/// Knows sizes, data and line ends; what stands in a line behind the size it does not look at.
fn naive(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let line;
        (line, body) = split_line(body)?;
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        data.extend_from_slice(body.get(..size)?);
        body = body.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let line;
        (line, body) = split_line(body)?;
        if line.is_empty() {
            return body.is_empty().then_some(data);
        }
        assert!(line.contains(&b':') && !line.starts_with(b" ") && !line.contains(&b'\n'));
    }
}

fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.windows(2).position(|w| w == b"\r\n")?;
    Some((&text[..end], &text[end + 2..]))
}
