//! The HTTP head parser on whatever comes: no panic, one answer however the bytes are cut, offsets that hold, and nothing
//! that gets past it which the grammar forbids. What a server does next with a head (path, conditions, chunks) is done too.
//!
//! The first byte of the input says how the rest is cut; the rest is what a client sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_http::{
    BodyFraming, ChunkedDecoder, EntityTag, Head, HeadLimits, HeadParser, HttpError, Parsed, Validators,
    evaluate_preconditions, is_field_value, is_token, normalize_path, parse_head,
};

/// Small, so that the limits are met too.
const LIMITS: HeadLimits =
    HeadLimits { max_head_bytes: 512, max_target_bytes: 128, max_fields: 8, max_empty_lines: 2 };

fuzz_target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let whole = parse_head(input, &LIMITS);
    assert_eq!(in_pieces(input, usize::from(cut) + 1), whole);
    assert_eq!(in_pieces(input, 1), whole);
    match whole {
        Ok(Parsed::Head(head)) => check_head(&head, input),
        Ok(Parsed::Need) => assert!(input.len() < LIMITS.max_head_bytes),
        Err(error) => assert!(error.status().code() >= 400),
    }
});

fn in_pieces(input: &[u8], cut: usize) -> Result<Parsed, HttpError> {
    let mut parser = HeadParser::new();
    for end in (cut..input.len()).step_by(cut).chain([input.len()]) {
        match parser.parse(&input[..end], &LIMITS) {
            Ok(Parsed::Need) => {}
            decided => return decided,
        }
    }
    Ok(Parsed::Need)
}

fn check_head(head: &Head, input: &[u8]) {
    assert!(head.end() <= input.len().min(LIMITS.max_head_bytes));
    assert!(input[..head.end()].ends_with(b"\r\n\r\n"));
    let text = &input[..head.end()];
    assert_eq!(
        text.iter().filter(|&&b| b == b'\n').count(),
        text.windows(2).filter(|w| w == b"\r\n").count()
    );
    assert_eq!(
        text.iter().filter(|&&b| b == b'\r').count(),
        text.windows(2).filter(|w| w == b"\r\n").count()
    );

    let fields: Vec<_> = head.fields(input).collect();
    assert!(fields.len() <= LIMITS.max_fields);
    assert!(fields.iter().all(|field| is_token(field.name) && is_field_value(field.value)));
    let count = |name: &str| head.fields(input).named(name).count();
    assert!(count("host") <= 1 && count("content-length") <= 1);
    match head.body() {
        BodyFraming::None => assert_eq!(count("transfer-encoding"), 0),
        BodyFraming::Length(length) => assert!(length > 0 && count("transfer-encoding") == 0),
        BodyFraming::Chunked => {
            assert_eq!(count("content-length"), 0);
            check_chunks(&input[head.end()..]);
        }
    }

    assert!(head.path(input).len() + head.query(input).map_or(0, <[u8]>::len) <= LIMITS.max_target_bytes);
    if let Ok(path) = normalize_path(head.path(input)) {
        assert!(path.is_empty() || !path.starts_with(b"/"));
        assert!(!path.contains(&0));
        assert!(path.split(|&b| b == b'/').all(|segment| segment != b"." && segment != b".."));
    }
    let state = Validators { etag: EntityTag::parse(b"\"1\""), last_modified: Some(784_111_777) };
    let _ = evaluate_preconditions(head.method(), &head.fields(input), &state);
}

/// The decoder always gets on, and takes the same bytes whole as byte by byte.
fn check_chunks(body: &[u8]) {
    let run = |cut: usize| {
        let (mut decoder, mut taken, mut data) = (ChunkedDecoder::new(), 0, Vec::new());
        for piece in body.chunks(cut.max(1)) {
            let mut rest = piece;
            while !rest.is_empty() {
                let step = decoder.step(rest)?;
                assert!(step.consumed > 0 || step.done);
                data.extend_from_slice(&rest[step.data.clone()]);
                taken += step.consumed;
                if step.done {
                    return Ok((taken, data, true));
                }
                rest = &rest[step.consumed..];
            }
        }
        Ok::<_, HttpError>((taken, data, false))
    };
    assert_eq!(run(1), run(body.len()));
}
